"""Two processes train as one does with their batches together."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from torchgeo.main import main

from tests.same import assert_same
from torchgeo_channelmae.band_guess import KEY

CONF = Path(__file__).parents[1] / 'conf'
STEPS = 10
SMALL = """
data:
  init_args:
    samples_per_epoch: 40
    augment: false # flips are drawn batch by batch
trainer:
  max_epochs: 2
  callbacks+:
    - class_path: tests.steps.WriteSteps
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args:
        filename: '{step}'
        save_top_k: -1
        every_n_train_steps: 1
"""
PRETRAIN = ('--model.init_args.plot_every_n_epochs=0',)
FINETUNE = ('--model.init_args.weights=null', '--model.init_args.drop_path=0')

pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def small(shallow, tmp_path_factory):
    file = tmp_path_factory.mktemp('small') / 'small.yaml'
    file.write_text(SMALL)
    return (*shallow, '--config', file)


@pytest.fixture(scope='module')
def fit(small):
    """Train in this process, in a folder; return the folder of the run."""

    def run(folder, task, *options):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            args = ('fit', '--config', CONF / f'{task}.yaml', *small, *options)
            main([str(arg) for arg in args])
        return folder / 'runs' / task

    return run


@pytest.fixture(scope='module')
def one(fit, tmp_path_factory):
    folder = tmp_path_factory.mktemp('one')
    return fit(folder, 'pretrain', *PRETRAIN, '--data.init_args.batch_size=8')


@pytest.fixture(scope='module')
def two(together, small, tmp_path_factory):
    folder = tmp_path_factory.mktemp('two')
    args = ('fit', '--config', CONF / 'pretrain.yaml', *small, *PRETRAIN)
    together(*args, '--data.init_args.batch_size=4', folder=folder, kind='slurm')
    return folder / 'runs/pretrain'


def steps(run):
    """Read what each process wrote of its steps, one list per process."""
    return [json.loads(file.read_text()) for file in sorted(run.glob('steps-*.json'))]


def losses(run):
    return torch.tensor([[each['loss'] for each in part] for part in steps(run)])


def masks(run):
    """Return the visible tokens of each epoch and sample."""
    return {
        (each['epoch'], index): row
        for part in steps(run)
        for each in part
        for index, row in zip(each['index'], each['visible'], strict=True)
    }


def test_two_processes_have_the_losses_of_one_with_the_doubled_batch(one, two):
    both, whole = losses(two), losses(one)
    assert (len(both), len(whole)) == (2, 1)
    assert len(set(whole[0].tolist())) == STEPS
    torch.testing.assert_close(both.mean(0), whole[0], rtol=1e-5, atol=0)
    first, second = (part[-1]['weights'] for part in steps(two))
    assert first == second


def test_two_processes_train_with_adamw_as_one_does(fit, together, small, tmp_path):
    adamw = ('--model.init_args.optimizer=adamw', '--model.init_args.base_lr=0.016')
    adamw += ('--model.init_args.optimizer_options=null', *PRETRAIN)
    adamw += ('--trainer.limit_val_batches=0',)
    run = fit(tmp_path, 'pretrain', *adamw, '--data.init_args.batch_size=8')
    whole = losses(run)
    args = ('fit', '--config', CONF / 'pretrain.yaml', *small, *adamw)
    together(*args, '--data.init_args.batch_size=4', folder=tmp_path)
    torch.testing.assert_close(losses(run).mean(0), whole[0], rtol=1e-5, atol=0)


def test_a_sample_has_its_mask_in_one_process_and_in_two(one, two):
    expected = masks(one)
    assert masks(two) == expected
    assert len(expected) == 8 * STEPS
    assert len({tuple(row) for row in expected.values()}) > 0.9 * len(expected)


def test_two_processes_fit_the_guess_from_other_bands_to_the_pixels_of_both(one, two):
    both, whole = (
        torch.load(run / 'last.ckpt', weights_only=True) for run in (two, one)
    )
    torch.testing.assert_close(both[KEY], whole[KEY])
    assert whole[KEY]['moments'][0, 0] == 40 * 32 * 32  # one epoch


def test_two_processes_write_into_one_folder(two):
    assert [path.name for path in two.parent.iterdir()] == ['pretrain']
    folders = {path.name for path in two.iterdir() if path.is_dir()}
    assert folders == {'fit'}
    assert pd.read_csv(two / 'fit/metrics.csv')['val_loss'].notna().sum() == 2


def test_two_processes_stopped_inside_an_epoch_end_as_if_they_had_not_been(
    two, together, small, tmp_path
):
    args = ('fit', '--config', CONF / 'pretrain.yaml', *small, *PRETRAIN)
    args += ('--data.init_args.batch_size=4', f'--ckpt_path={two / "step=3.ckpt"}')
    together(*args, folder=tmp_path, kind='torchrun')
    rest = tmp_path / 'runs/pretrain'
    assert losses(rest).shape == (2, STEPS - 3)
    ended, expected = (
        torch.load(run / 'last.ckpt', weights_only=True) for run in (rest, two)
    )
    for key in ('state_dict', 'optimizer_states', 'lr_schedulers', 'global_step', KEY):
        assert_same(ended[key], expected[key])


def test_another_number_of_processes_is_refused_inside_an_epoch(two, fit, tmp_path):
    with pytest.raises(ValueError, match='number of processes 2, not 1'):
        fit(
            tmp_path,
            'pretrain',
            *PRETRAIN,
            '--data.init_args.batch_size=4',
            f'--ckpt_path={two / "step=3.ckpt"}',
        )
    assert not (tmp_path / 'runs').exists()


def test_scores_are_those_of_one_process_with_an_uneven_last_batch(
    fit, together, small, tmp_path, monkeypatch
):
    size = '--data.init_args.batch_size=4'
    run = fit(tmp_path, 'finetune', *FINETUNE, size, '--trainer.max_epochs=1')
    args = ('test', '--config', CONF / 'finetune.yaml', *small, size)
    args += (f'--ckpt_path={run / "last.ckpt"}',)
    monkeypatch.chdir(tmp_path)
    main([str(arg) for arg in args])
    together(*args, folder=tmp_path)
    both, whole = (
        pd.read_csv(run / name / 'metrics.csv').iloc[-1] for name in ('test', 'test.1')
    )
    assert whole['test_num_samples'] == both['test_num_samples'] == 21
    for name, value in whole.items():
        assert both[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name


@pytest.mark.parametrize(
    'overlay',
    ['masking/s2', 'masking/s4']
    + [f'trainable/{path.stem}' for path in (CONF / 'paper/trainable').glob('*.yaml')],
)
def test_every_trained_parameter_has_a_gradient_to_share(fit, tmp_path, overlay):
    """DDP waits for all of them with ``find_unused_parameters: false``."""
    pretrains = overlay.startswith('masking')
    run = fit(
        tmp_path,
        'pretrain' if pretrains else 'finetune',
        *(PRETRAIN if pretrains else FINETUNE),
        f'--config={CONF / "paper" / overlay}.yaml',
        '--data.init_args.batch_size=4',
        '--trainer.max_steps=1',
        '--trainer.limit_val_batches=0',
    )
    ((step,),) = steps(run)
    assert step['without_gradient'] == []
