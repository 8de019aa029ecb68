"""Two processes stopped inside an epoch go on as if they had not been stopped."""

import json

import pandas as pd
import pytest
import torch

from tests.same import assert_same

SMALL = """
model:
  init_args:
    decoder_depth: 1
    warmup_epochs: 0.5
    plot_every_n_epochs: 0
    masking: cross_band
    masking_options: {bands: 2, shared: true} # drawn for each step
data:
  init_args:
    samples_per_epoch: 40 # 5 batches of 8, or of 4 in each of two processes
trainer:
  max_epochs: 2
  limit_val_batches: 1
  callbacks+:
    - class_path: tests.steps.WriteLosses
    - class_path: tests.steps.WriteMasks
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args:
        filename: '{step}'
        save_top_k: -1
        every_n_train_steps: 1
"""
EACH_BATCH = (
    '--trainer.accumulate_grad_batches=2',
    '--trainer.callbacks+=tests.steps.SaveEachBatch',
)
NO_FLIPS = '--data.init_args.augment=false'  # they are drawn batch by batch


@pytest.fixture(scope='session')
def arguments(conf, shallow, tmp_path_factory):
    file = tmp_path_factory.mktemp('small') / 'small.yaml'
    file.write_text(SMALL)
    return ('fit', '--config', conf / 'pretrain.yaml', *shallow, '--config', file)


@pytest.fixture(scope='session')
def trained(start, together, arguments, tmp_path_factory):
    """Return the folder of a training: of one process without a strategy, or two."""
    done = {}

    def train(strategy, *options, stopped=None):
        key = strategy, options, stopped
        if key not in done:
            folder = tmp_path_factory.mktemp('run')
            args = (*arguments, *options)
            args += (f'--data.init_args.batch_size={4 if strategy else 8}',)
            if stopped:
                args += (f'--ckpt_path={stopped}',)
            if strategy:
                together(*args, folder=folder, strategy=strategy)
            else:
                alone = start(*args, folder=folder, env={'OMP_NUM_THREADS': '1'})
                assert alone.wait().code == 0, alone.output[-3000:]
            done[key] = folder / 'runs/pretrain'
        return done[key]

    return train


def means(run):
    """The mean losses of each epoch."""
    table = pd.read_csv(run / 'fit/metrics.csv').set_index('epoch')
    names = [name for name in table if name.startswith('train_')]
    assert 'train_loss' in names
    return table[names].dropna()


def batches(run):
    """Loss of each batch over all processes, with the samples and masks behind it."""
    losses = [json.loads(file.read_text()) for file in run.glob('losses-*.json')]
    losses = torch.tensor([part['losses'] for part in losses]).mean(0)
    seen = [json.loads(file.read_text()) for file in run.glob('masks-*.json')]
    masks = [
        {
            index: row
            for part in batch
            for index, row in zip(part['index'], part['visible'], strict=True)
        }
        for batch in zip(*seen, strict=True)
    ]
    return losses, masks


def assert_no_trace(whole, rest):
    """Check that a run ended as one that was never stopped, bit for bit."""
    ended, expected = (
        torch.load(run / 'last.ckpt', weights_only=True) for run in (rest, whole)
    )
    for key in ('state_dict', 'optimizer_states', 'lr_schedulers', 'global_step'):
        assert_same(ended[key], expected[key])
    assert means(rest).equals(means(whole))
    assert len(means(rest)) == 2


@pytest.mark.parametrize('step', [3, 5])
def test_a_stop_inside_an_epoch_leaves_no_trace(trained, step):
    """Also one after its last batch, before its validation and its means."""
    whole = trained('ddp', NO_FLIPS)
    rest = trained('ddp', NO_FLIPS, stopped=whole / f'step={step}.ckpt')
    assert len(batches(rest)[0]) == 10 - step
    assert_no_trace(whole, rest)


@pytest.mark.parametrize('strategy', ['ddp', 'fsdp'])
def test_a_stop_between_the_batches_of_a_step_leaves_no_trace(trained, strategy):
    """The batch that was accumulated is trained on again."""
    whole = trained(strategy, *EACH_BATCH)
    rest = trained(strategy, *EACH_BATCH, stopped=whole / '3.ckpt')
    assert len(batches(rest)[0]) == 10 - 2
    assert_no_trace(whole, rest)


def test_the_number_of_processes_may_change_inside_an_epoch(trained):
    """From two to one and back: same samples and masks, losses and means to 1e-5."""
    whole = trained('ddp', NO_FLIPS)
    alone = trained(None, NO_FLIPS, stopped=whole / 'step=3.ckpt')
    again = trained('ddp', NO_FLIPS, stopped=alone / 'step=7.ckpt')
    losses, masks = batches(whole)
    for rest, done in ((alone, 3), (again, 7)):
        ours, seen = batches(rest)
        assert seen == masks[done:]
        assert len(ours) == 10 - done
        assert (ours - losses[done:]).abs().max() < 1e-5
        expected = means(whole).loc[means(rest).index]
        assert (means(rest) - expected).abs().max(axis=None) < 1e-5
    assert list(means(alone).index) == [0, 1]
    assert list(means(again).index) == [1]


def test_another_global_batch_size_is_refused_inside_an_epoch(
    trained, start, together, arguments, tmp_path
):
    """Before a step is trained, in all processes, and nothing is left on the disk."""
    whole = trained('ddp', NO_FLIPS)
    resume = (*arguments, f'--ckpt_path={whole / "step=3.ckpt"}')
    alone = start(*resume, '--data.init_args.batch_size=4', folder=tmp_path).wait()
    assert alone.code == 1
    both = together(*resume, '--data.init_args.batch_size=8', folder=tmp_path, code=1)
    # Two batches an epoch are fewer than are done.
    for command, size, left in ((alone, 4, 10), *((one, 16, 2) for one in both)):
        assert command.last_line.rpartition(']: ')[2] == (
            f'ValueError: Training was stopped after batch 3 of an epoch with seed 0, '
            f'global batch size 8, batches 5, but now has seed 0, global batch size '
            f'{size}, batches {left}: resume with what it was, or from a checkpoint of '
            f'the end of an epoch.'
        )
    assert not (tmp_path / 'runs').exists()
