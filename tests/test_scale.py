"""Several processes train as one does with their batches together."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.same import assert_same

CONF = Path(__file__).parents[1] / 'conf'
STEPS = 10
SMALL = """
model:
  init_args:
    warmup_epochs: 0.5
data:
  init_args:
    samples_per_epoch: 40
    augment: false # flips are drawn batch by batch
trainer:
  max_epochs: 2
  callbacks+:
    - class_path: tests.steps.WriteLosses
    - class_path: tests.steps.WriteMasks
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args:
        filename: '{step}'
        save_top_k: -1
        every_n_train_steps: 1
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
    folder: Path


@pytest.fixture(scope='session')
def small(shallow, tmp_path_factory):
    file = tmp_path_factory.mktemp('small') / 'small.yaml'
    file.write_text(SMALL)
    return (*shallow, '--config', file)


@pytest.fixture(scope='session')
def trained(start, together, conf, small, tmp_path_factory):
    """Train for 10 steps: a function of the task, the batch and the processes."""
    done: dict[tuple, Run] = {}

    def train(task, batch, *options, processes=1, kind='lightning'):
        key = (task, batch, options, processes, kind)
        if key in done:
            return done[key]
        folder = tmp_path_factory.mktemp('run')
        args = ('fit', '--config', conf / f'{task}.yaml', *small)
        args += (f'--data.init_args.batch_size={batch}', *TASKS[task], *options)
        if processes == 1:
            command = start(*args, folder=folder, env={'OMP_NUM_THREADS': '1'}).wait()
            assert command.code == 0, command.output[-3000:]
        else:
            together(*args, folder=folder, kind=kind)
        home = folder / 'runs' / task
        files = sorted(home.glob('losses-*.json'))
        parts = [json.loads(file.read_text()) for file in files]
        losses = torch.tensor([part['losses'] for part in parts]).mean(0)
        done[key] = Run(losses, [part['bands'] for part in parts], home)
        return done[key]

    return train


def assert_alike(losses, others):
    assert len(losses) == len(others) == len(set(losses.tolist())) == STEPS
    assert (losses - others).abs().max() < 1e-5


@pytest.mark.parametrize('task', TASKS)
def test_two_processes_have_the_losses_of_one_with_the_doubled_batch(trained, task):
    assert_alike(trained(task, 4, processes=2).losses, trained(task, 8).losses)


def test_accumulated_batches_have_the_losses_of_one_that_is_as_large(trained):
    two = trained('pretrain', 2, '--trainer.accumulate_grad_batches=2', processes=2)
    # Lightning has divided each by their number.
    assert_alike(two.losses.view(STEPS, 2).sum(1), trained('pretrain', 8).losses)


@pytest.mark.parametrize('kind', ['torchrun', 'slurm'])
def test_processes_that_others_start_do_the_same(trained, kind):
    two = trained('finetune', 4, processes=2, kind=kind)
    assert_alike(two.losses, trained('finetune', 8).losses)


def test_all_processes_train_on_the_same_bands(trained, conf):
    sample = f'--config={conf / "sample_bands.yaml"}'
    s2 = f'--config={conf / "paper/bands/s2.yaml"}'
    one = trained('finetune', 8, s2, sample)
    two = trained('finetune', 4, s2, sample, processes=2)
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
    shared, _ = masks(trained('pretrain', 4, processes=2))
    assert alone == shared
    assert len(alone) == 8 * STEPS
    assert len({tuple(row) for row in alone.values()}) > 0.9 * len(alone)


def test_two_processes_show_the_same_bands_at_a_step(trained):
    options = '--model.init_args.masking_options={bands: 1, shared: true}'
    options = ('--model.init_args.masking=cross_band', options)
    _, shared = masks(trained('pretrain', 4, *options, processes=2))
    assert all(len(bands) == 1 for bands in shared.values())
    assert len(shared) == STEPS
    assert len({tuple(bands) for bands in shared.values()}) > 3


def test_two_processes_stopped_inside_an_epoch_end_as_if_they_had_not_been(trained):
    whole = trained('pretrain', 4, processes=2)
    resume = f'--ckpt_path={whole.folder / "step=3.ckpt"}'
    rest = trained('pretrain', 4, resume, processes=2)
    assert len(rest.losses) == STEPS - 3
    ended, expected = (
        torch.load(run.folder / 'last.ckpt', weights_only=True) for run in (rest, whole)
    )
    for key in ('state_dict', 'optimizer_states', 'lr_schedulers', 'global_step'):
        assert_same(ended[key], expected[key])


def test_another_number_of_processes_is_refused_inside_an_epoch(
    trained, start, conf, small, tmp_path
):
    whole = trained('pretrain', 4, processes=2)
    args = ('fit', '--config', conf / 'pretrain.yaml', *small, *TASKS['pretrain'])
    args += (f'--ckpt_path={whole.folder / "step=3.ckpt"}',)
    alone = start(*args, '--data.init_args.batch_size=8', folder=tmp_path).wait()
    assert alone.code == 1
    assert 'number of processes 2, not 1' in alone.last_line
    assert not (tmp_path / 'runs').exists()


def overlays(folder):
    return sorted(path.stem for path in (CONF / 'paper' / folder).glob('*.yaml'))


QUICK = ('--data.init_args.samples_per_epoch=16', '--trainer.max_epochs=1')


@pytest.mark.parametrize(
    ('task', 'overlay'),
    [('pretrain', f'masking/{name}') for name in overlays('masking')]
    + [('finetune', f'trainable/{name}') for name in overlays('trainable')],
)
def test_every_trained_parameter_has_a_gradient_to_share(trained, task, overlay):
    options = (f'--config={CONF / "paper" / overlay}.yaml', *QUICK)
    assert len(trained(task, 4, *options, processes=2).losses) == 2


def test_scores_are_those_of_one_process_with_an_uneven_last_batch(
    start, together, trained, conf, small, tmp_path
):
    checkpoint = trained('finetune', 4, processes=2).folder / 'last.ckpt'
    args = ('test', '--config', conf / 'finetune.yaml', *small)
    args += ('--data.init_args.batch_size=4', f'--ckpt_path={checkpoint}')
    assert start(*args, folder=tmp_path).wait().code == 0
    together(*args, folder=tmp_path)
    both, one = (
        pd.read_csv(tmp_path / 'runs/finetune' / name / 'metrics.csv').iloc[-1]
        for name in ('test', 'test.1')
    )
    assert one['test_num_samples'] == both['test_num_samples'] == 21
    for name, value in one.items():
        assert both[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name
