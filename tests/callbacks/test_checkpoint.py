"""A checkpoint is written whole or not at all."""

import itertools
import multiprocessing
import os
import time

import pytest
import torch

from torchgeo_channelmae.callbacks.checkpoint import AtomicCheckpointIO


def test_a_save_that_fails_keeps_the_old_checkpoint(tmp_path):
    path = tmp_path / 'last.ckpt'
    files = AtomicCheckpointIO()
    files.save_checkpoint({'step': 1}, path)
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        files.save_checkpoint({'step': 2, 'bad': (i for i in ())}, path)
    assert torch.load(path) == {'step': 1}
    assert [file.name for file in tmp_path.iterdir()] == ['last.ckpt']


def save_forever(path, saved, states):
    """Save one state after another, and say so, until killed."""
    for state in itertools.cycle(states):
        AtomicCheckpointIO().save_checkpoint(state, path)
        os.write(saved, b'.')


def test_a_kill_during_saving_leaves_a_whole_checkpoint(tmp_path):
    path = tmp_path / 'last.ckpt'
    states = [{'step': i, 'weights': torch.full((500_000,), i)} for i in (1, 2)]
    partial = 0
    for attempt in range(12):
        done, saved = os.pipe()
        process = multiprocessing.get_context('fork').Process(
            target=save_forever, args=(path, saved, states)
        )
        process.start()
        os.read(done, 1)
        time.sleep(attempt * 0.003)
        process.kill()
        process.join()
        state = torch.load(path)
        assert torch.equal(state['weights'], states[state['step'] - 1]['weights'])
        partial += len(list(tmp_path.iterdir())) > 1
    assert partial  # at least one kill came while the file was being written
    AtomicCheckpointIO().save_checkpoint({'step': 0}, path)
    assert [file.name for file in tmp_path.iterdir()] == ['last.ckpt']
