"""Flags of Lightning's Trainer and its stock callbacks work on our configurations."""

import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from lightning.pytorch import Callback
from torchgeo.main import main

PROJECT = Path(__file__).parents[1]
SMALL = (
    f'--config={PROJECT / "tests/conf/shallow.yaml"}',
    '--data.init_args.batch_size=4',
    '--data.init_args.samples_per_epoch=12',
    '--trainer.max_epochs=2',
    '--trainer.log_every_n_steps=1',
    '--trainer.default_root_dir=run',
)
TASKS = {
    'pretrain': ('--model.init_args.plot_every_n_epochs=0',),
    'finetune': ('--model.init_args.weights=null',),
}

pytestmark = pytest.mark.filterwarnings('ignore')


def fit(*options, task='finetune'):
    """Run ``torchgeo fit`` and return the steps of the last checkpoint."""
    main(
        [
            'fit',
            f'--config={PROJECT / f"conf/{task}.yaml"}',
            *SMALL,
            *TASKS[task],
            *options,
        ]
    )
    last = Path('run/last.ckpt')
    return torch.load(last, weights_only=True)['global_step'] if last.is_file() else 0


def flag(text):
    return [f'--trainer.{part}' for part in text.split()]


def callback(name, **arguments):
    spec = {'class_path': f'lightning.pytorch.callbacks.{name}', 'init_args': arguments}
    return [f'--trainer.callbacks+={json.dumps(spec)}']


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize('precision', ['bf16-true', '64-true', 'bf16-mixed'])
def test_muon_trains_in_any_precision(precision):
    model = '--model.init_args.'
    muon = (
        f'{model}optimizer=muon',
        f'{model}optimizer_options={{nesterov: true, fallback_lr_scale: 0.14}}',
    )
    flags = flag(f'precision={precision} gradient_clip_val=0.1')
    assert fit(*muon, *flags, task='pretrain') == 6


@pytest.mark.parametrize(
    ('task', 'flags', 'steps'),
    [
        ('pretrain', 'precision=bf16-true', 6),
        ('finetune', 'precision=bf16-true', 6),
        ('pretrain', 'precision=64-true', 6),
        ('finetune', 'precision=64-true', 6),
        ('pretrain', 'precision=bf16-mixed overfit_batches=1', 2),
        ('finetune', 'fast_dev_run=true', 0),
        ('finetune', 'logger=true', 6),
        ('finetune', 'limit_train_batches=2 limit_val_batches=0', 4),
        ('finetune', 'accumulate_grad_batches=2 gradient_clip_val=0.1', 4),
        ('finetune', 'max_epochs=-1 max_steps=4', 4),
        ('finetune', 'val_check_interval=0.5 reload_dataloaders_every_n_epochs=1', 6),
        ('finetune', 'val_check_interval=4 check_val_every_n_epoch=null', 6),
        ('finetune', 'deterministic=true detect_anomaly=true profiler=simple', 6),
        ('finetune', 'benchmark=true inference_mode=false num_sanity_val_steps=0', 6),
        ('finetune', 'enable_progress_bar=true enable_model_summary=true', 6),
    ],
)
def test_flags_work(task, flags, steps):
    assert fit(*flag(flags), task=task) == steps
    assert Path('run/fit/metrics.csv').is_file() == (steps > 0)


EARLY = {'monitor': 'val_loss', 'patience': 1, 'min_delta': 100.0}


@pytest.mark.parametrize(
    ('task', 'added', 'steps'),
    [
        ('finetune', callback('LearningRateMonitor'), 6),
        ('finetune', callback('DeviceStatsMonitor', cpu_stats=False), 6),
        ('finetune', callback('GradientAccumulationScheduler', scheduling={1: 3}), 4),
        ('finetune', callback('EarlyStopping', **EARLY), 6),
        ('finetune', callback('ModelCheckpoint', every_n_train_steps=2), 6),
        ('pretrain', callback('StochasticWeightAveraging', swa_lrs=0.01), 6),
    ],
    ids=lambda value: 'with' if isinstance(value, list) else str(value),
)
def test_a_callback_works(task, added, steps):
    assert fit(*added, task=task) == steps
    names = {'fit', 'best.ckpt', 'last.ckpt', 'epoch=1-step=6.ckpt'}
    assert {path.name for path in Path('run').iterdir()} <= names


def test_a_run_that_max_time_stopped_inside_an_epoch_is_resumed_to_its_end():
    assert fit(*flag('max_time=00:00:00:00 min_steps=4')) == 4
    assert fit('--ckpt_path=run/last.ckpt') == 6


class Tuned(Callback):
    """Keeps what was found and the learning rates, as training starts."""

    found: ClassVar[float | None] = None
    rates: ClassVar[list[float]] = []

    def on_train_start(self, trainer, pl_module):
        scheduler = trainer.lr_scheduler_configs[0].scheduler
        steps, factor = trainer.estimated_stepping_batches, scheduler.lr_lambdas[0]
        Tuned.rates = [max(scheduler.base_lrs) * factor(n) for n in range(int(steps))]
        finder = getattr(trainer.callbacks[0], 'optimal_lr', None)
        Tuned.found = finder and finder.suggestion()


TUNED = '--trainer.callbacks+=tests.test_trainer_flags.Tuned'


def test_a_batch_size_that_is_found_has_its_own_rate_and_schedule():
    found = callback('BatchSizeFinder', max_trials=1, init_val=2)
    assert fit(*found, TUNED) == len(Tuned.rates) == 12
    assert Tuned.rates[-1] == max(Tuned.rates) == pytest.approx(0.016 * 2 / 256)


@pytest.mark.parametrize('optimizer', ['adamw', 'muon'])
def test_a_learning_rate_that_is_found_is_that_of_training(optimizer):
    found = callback('LearningRateFinder', attr_name='base_lr', num_training_steps=30)
    options = f'--model.init_args.optimizer={optimizer}', '--trainer.max_epochs=10'
    fit(*found, TUNED, *options)
    assert Tuned.found is not None
    assert max(Tuned.rates) == pytest.approx(Tuned.found)
