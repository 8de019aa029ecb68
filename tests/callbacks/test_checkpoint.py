"""A checkpoint is written whole or not at all: kills, full disks, bad contents."""

import errno
import itertools
import multiprocessing
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
import torch

from torchgeo_channelmae.callbacks.checkpoint_io import AtomicCheckpointIO


def test_a_save_that_fails_keeps_the_old_checkpoint(tmp_path):
    path = tmp_path / 'last.ckpt'
    files = AtomicCheckpointIO()
    files.save_checkpoint({'step': 1}, path)
    with pytest.raises((AttributeError, TypeError, RuntimeError, ValueError)):
        files.save_checkpoint({'step': 2, 'bad': (i for i in ())}, path)
    assert torch.load(path) == {'step': 1}
    assert [file.name for file in tmp_path.iterdir()] == ['last.ckpt']


def save_forever(path: Path, saved: int, states: list[dict]) -> None:
    """Save one state after another, and say so, until killed."""
    for state in itertools.cycle(states):
        AtomicCheckpointIO().save_checkpoint(state, path)
        os.write(saved, b'.')


def test_a_kill_during_saving_leaves_a_whole_checkpoint(tmp_path):
    path = tmp_path / 'last.ckpt'
    states = [{'step': i, 'weights': torch.full((500_000,), i)} for i in (1, 2)]
    parts = 0
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
        parts += (tmp_path / 'last.ckpt.part').exists()
    assert parts  # at least one kill came while the file was being written
    AtomicCheckpointIO().save_checkpoint({'step': 0}, path)
    assert [file.name for file in tmp_path.iterdir()] == ['last.ckpt']


def state(step: int, numbers: int) -> dict:
    return {'global_step': step, 'weights': torch.full((numbers,), step)}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f'mounting is not possible here: {error}')
    if done.returncode:
        pytest.skip(f'mounting is not possible here: {done.stderr.strip()}')
    yield folder
    subprocess.run(['umount', str(folder)], check=True)


def test_a_disk_that_fills_up_loses_no_earlier_checkpoint(small_disk, monkeypatch):
    monkeypatch.chdir(small_disk.parent)
    files = AtomicCheckpointIO()
    files.save_checkpoint(state(1, 10_000), small_disk / 'best.ckpt')
    files.save_checkpoint(state(2, 40_000), small_disk / 'last.ckpt')
    with pytest.raises(OSError, match='No space left') as error:
        files.save_checkpoint(state(3, 200_000), small_disk / 'last.ckpt')
    assert re.fullmatch(
        r'Cannot write the checkpoint disk/last.ckpt: No space left on device after '
        r'0\.\d MB; 0\.6 MB are free\. '
        r'The earlier disk/last\.ckpt \(step 2\) is still whole: make room and go on '
        r'from it with --ckpt_path\.',
        str(error.value),
    )
    kept = torch.load(small_disk / 'last.ckpt')
    assert torch.equal(kept['weights'], state(2, 40_000)['weights'])
    assert sorted(path.name for path in small_disk.iterdir()) == [
        'best.ckpt',
        'last.ckpt',
    ]
    files.save_checkpoint(state(4, 40_000), small_disk / 'last.ckpt')  # and goes on
    assert torch.load(small_disk / 'last.ckpt')['global_step'] == 4


def full_disk(checkpoint, file):
    file.write(b'some of it')
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ('there', 'said'),
    [
        ([], r'There is no earlier checkpoint in its folder: make room and start'),
        (['best'], r'The earlier best\.ckpt \(step 5\) is still whole'),
    ],
)
def test_a_new_checkpoint_that_does_not_fit_names_another_one(
    tmp_path, monkeypatch, there, said
):
    monkeypatch.chdir(tmp_path)
    for name in there:
        torch.save(state(5, 1), tmp_path / f'{name}.ckpt')
    (tmp_path / 'broken.ckpt').write_text('no checkpoint')
    monkeypatch.setattr(torch, 'save', full_disk)
    with pytest.raises(OSError, match=rf'^Cannot write the checkpoint last.*{said}'):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / 'last.ckpt')
    assert not list(tmp_path.glob('last*'))
