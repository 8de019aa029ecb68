"""Several processes train as one does with their batches together."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch

from torchgeo_channelmae.models import read_checkpoint

CONF = Path(__file__).parents[1] / 'conf'
STEPS = 20
SMALL = """
model:
  init_args:
    warmup_epochs: 0.5
data:
  init_args:
    samples_per_epoch: 80
    augment: false # flips are drawn batch by batch
trainer:
  max_epochs: 2
  callbacks+:
    - class_path: tests.steps.WriteLosses
    - class_path: tests.steps.WriteMasks
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args:
        filename: '{epoch}'
        monitor: train_loss # no other callback has this one
        save_top_k: -1
        save_on_train_epoch_end: true
"""
TASKS = {
    'pretrain': ('--model.init_args.plot_every_n_epochs=0',),
    'finetune': (
        '--model.init_args.weights=null',
        '--model.init_args.drop_path=0',
        '--trainer.limit_val_batches=1',
    ),
}


@dataclass
class Run:
    """What a training left behind: losses over all processes, bands in each."""

    losses: torch.Tensor
    bands: list[list]
    decay: dict[str, float | None]
    checkpoint: dict
    folder: Path


@pytest.fixture(scope='session')
def small(shallow, tmp_path_factory):
    file = tmp_path_factory.mktemp('small') / 'small.yaml'
    file.write_text(SMALL)
    return (*shallow, '--config', file)


@pytest.fixture(scope='session')
def trained(start, together, conf, small, tmp_path_factory):
    """Train for 20 steps: a function of the task, the batch and the strategy."""
    done: dict[tuple, Run] = {}

    def train(task, batch, *options, strategy=None, kind='lightning'):
        key = (task, batch, options, strategy, kind)
        if key in done:
            return done[key]
        folder = tmp_path_factory.mktemp('run')
        args = ('fit', '--config', conf / f'{task}.yaml', *small)
        args += (f'--data.init_args.batch_size={batch}', *TASKS[task], *options)
        if strategy is None:
            command = start(*args, folder=folder, env={'OMP_NUM_THREADS': '1'}).wait()
            assert command.code == 0, command.output[-3000:]
        else:
            together(*args, folder=folder, strategy=strategy, kind=kind)
        home = folder / 'runs' / task
        told = [
            json.loads(file.read_text()) for file in sorted(home.glob('losses-*.json'))
        ]
        losses = torch.tensor([part['losses'] for part in told]).mean(0)
        checkpoint = torch.load(home / 'last.ckpt', weights_only=True)
        done[key] = Run(
            losses,
            [part['bands'] for part in told],
            told[0]['decay'],
            checkpoint,
            home,
        )
        return done[key]

    return train


def assert_alike(losses, others, tolerance=1e-5):
    assert len(losses) == len(others) == STEPS
    assert (losses - others).abs().max() < tolerance
    assert len(set(losses.tolist())) == STEPS


@pytest.mark.parametrize('strategy', ['ddp', 'fsdp'])
@pytest.mark.parametrize('task', TASKS)
def test_two_processes_have_the_losses_of_one_with_the_doubled_batch(
    trained, task, strategy
):
    one, two = trained(task, 8), trained(task, 4, strategy=strategy)
    assert_alike(two.losses, one.losses)


def test_accumulated_batches_have_the_losses_of_one_that_is_as_large(trained):
    accumulate = '--trainer.accumulate_grad_batches=2'
    one = trained('pretrain', 8).losses
    for run in (
        trained('pretrain', 4, accumulate),
        trained('pretrain', 2, accumulate, strategy='ddp'),
        trained('pretrain', 2, accumulate, strategy='fsdp'),
    ):
        # Lightning has divided each by their number.
        assert_alike(run.losses.view(STEPS, 2).sum(1), one)


def test_sharded_gradients_are_clipped_by_the_norm_of_all(trained):
    clip = '--trainer.gradient_clip_val=0.01'
    one, two = (
        trained('pretrain', batch, clip, strategy=strategy).losses
        for batch, strategy in ((8, None), (4, 'fsdp'))
    )
    assert_alike(two, one)
    assert (one - trained('pretrain', 8).losses).abs().max() > 1e-4


def test_mixed_precision_is_the_same_sharded_or_not(trained):
    bf16 = '--trainer.precision=bf16-mixed'
    copied, sharded = (
        trained('pretrain', 4, bf16, strategy=strategy).losses
        for strategy in ('ddp', 'fsdp')
    )
    assert_alike(sharded, copied, 1e-3)
    assert (copied - trained('pretrain', 8).losses).abs().max() > 1e-5


@pytest.mark.parametrize('kind', ['torchrun', 'slurm'])
def test_processes_that_others_start_do_the_same(trained, kind):
    one, two = trained('finetune', 8), trained('finetune', 4, strategy='ddp', kind=kind)
    assert_alike(two.losses, one.losses)


@pytest.mark.parametrize('strategy', ['ddp', 'fsdp'])
def test_all_processes_train_on_the_same_bands(trained, conf, strategy):
    sample = f'--config={conf / "sample_bands.yaml"}'
    s2 = f'--config={conf / "paper/bands/s2.yaml"}'
    one = trained('finetune', 8, s2, sample)
    two = trained('finetune', 4, s2, sample, strategy=strategy)
    assert two.bands[0] == two.bands[1] == one.bands[0]
    assert len({tuple(bands) for bands in one.bands[0]}) > STEPS / 2
    assert_alike(two.losses, one.losses)


def masks(run):
    """Visible tokens of every epoch and sample, and the bands shown at every step."""
    samples, steps = {}, {}
    for file in run.folder.glob('masks-*.json'):
        for batch in json.loads(file.read_text()):
            for index, row in zip(batch['index'], batch['visible'], strict=True):
                samples[batch['epoch'], index] = row
                bands = tuple(sorted({token // 4 for token in row}))  # of 4 cells
                steps.setdefault(batch['step'], set()).add(bands)
    return samples, steps


def test_a_sample_has_its_mask_in_one_process_and_in_two(trained):
    alone, _ = masks(trained('pretrain', 8))
    shared, _ = masks(trained('pretrain', 4, strategy='ddp'))
    assert alone == shared
    assert len(alone) == 8 * STEPS
    assert len({tuple(row) for row in alone.values()}) > 0.9 * len(alone)


def test_two_processes_show_the_same_bands_at_a_step(trained):
    options = '--model.init_args.masking_options={bands: 1, shared: true}'
    options = ('--model.init_args.masking=cross_band', options)
    _, alone = masks(trained('pretrain', 8, *options))
    _, shared = masks(trained('pretrain', 4, *options, strategy='ddp'))
    assert alone == shared
    assert all(len(bands) == 1 for bands in shared.values())
    assert len(shared) == STEPS
    assert len({tuple(bands) for bands in shared.values()}) > 5


def overlays(folder):
    return sorted(path.stem for path in (CONF / 'paper' / folder).glob('*.yaml'))


QUICK = ('--data.init_args.samples_per_epoch=16', '--trainer.max_epochs=1')


@pytest.mark.parametrize('masking', overlays('masking'))
def test_every_masking_gives_every_parameter_a_gradient_to_share(trained, masking):
    overlay = f'--config={CONF / "paper/masking" / masking}.yaml'
    assert len(trained('pretrain', 4, overlay, *QUICK, strategy='ddp').losses) == 2


@pytest.mark.parametrize(
    ('parts', 'strategy'),
    [*((parts, 'ddp') for parts in overlays('trainable')), ('head', 'fsdp')],
)
def test_parts_of_a_model_can_learn_in_several_processes(trained, parts, strategy):
    overlay = f'--config={CONF / "paper/trainable" / parts}.yaml'
    one = trained('finetune', 8, overlay, *QUICK)
    two = trained('finetune', 4, overlay, *QUICK, strategy=strategy)
    assert (two.losses - one.losses).abs().max() < 1e-5
    assert two.decay == one.decay  # None for what does not learn


@pytest.mark.parametrize('strategy', ['ddp', 'fsdp'])
def test_scores_are_those_of_one_process_with_an_uneven_last_batch(
    start, together, trained, conf, small, tmp_path, strategy
):
    checkpoint = trained('finetune', 4, strategy=strategy).folder / 'last.ckpt'
    args = ('test', '--config', conf / 'finetune.yaml', *small)
    args += ('--data.init_args.batch_size=4', f'--ckpt_path={checkpoint}')
    assert start(*args, folder=tmp_path).wait().code == 0
    together(*args, folder=tmp_path, strategy=strategy)
    both, one = (
        pd.read_csv(tmp_path / 'runs/finetune' / name / 'metrics.csv').iloc[-1]
        for name in ('test', 'test.1')
    )
    assert one['test_num_samples'] == both['test_num_samples'] == 21
    for name, value in one.items():
        assert both[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name


@pytest.mark.parametrize(
    ('task', 'before', 'after'),
    [
        ('finetune', 'fsdp', 'fsdp'),  # it has a group of parameters for each layer
        ('finetune', 'fsdp', None),
        ('finetune', None, 'fsdp'),
        ('pretrain', None, 'fsdp'),
    ],
)
def test_training_goes_on_from_a_checkpoint_of_another_strategy(
    trained, task, before, after
):
    first = trained(task, 4 if before else 8, strategy=before)
    resume = f'--ckpt_path={first.folder / "epoch=0.ckpt"}'
    rest = trained(task, 4 if after else 8, resume, strategy=after)
    assert len(rest.losses) == STEPS // 2
    whole = trained(task, 8).losses[STEPS // 2 :]
    assert (rest.losses - whole).abs().max() < 1e-5


@pytest.mark.parametrize('task', TASKS)
def test_a_sharded_checkpoint_is_that_of_one_process(trained, task):
    one, sharded = trained(task, 8), trained(task, 4, strategy='fsdp')
    assert sharded.checkpoint.keys() == one.checkpoint.keys()
    theirs, ours = sharded.checkpoint['state_dict'], one.checkpoint['state_dict']
    assert list(theirs) == list(ours)
    for name, tensor in ours.items():
        torch.testing.assert_close(
            theirs[name], tensor, rtol=0, atol=1e-4, equal_nan=True, msg=name
        )
    found = read_checkpoint(sharded.folder / 'last.ckpt').tensors
    assert found.keys() == read_checkpoint(one.folder / 'last.ckpt').tensors.keys()


@pytest.mark.parametrize('task', TASKS)
def test_sharded_matrices_have_weight_decay_and_biases_have_none(trained, task):
    decay = trained(task, 4, strategy='fsdp').decay
    assert decay == trained(task, 8).decay
    assert decay['model.blocks.1.mlp.fc1.weight'] == 0.05
    assert decay['model.blocks.1.mlp.fc1.bias'] == 0
