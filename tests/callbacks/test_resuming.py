"""A run that is stopped and resumed ends as one that was never stopped."""

from functools import partial

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger

from tests.same import assert_same
from tests.steps import SaveEachBatch
from torchgeo_channelmae.band_guess import KEY
from torchgeo_channelmae.callbacks.checkpoint import RunCheckpoint
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.tasks import ChannelMAE, CrossModalClassification
from torchgeo_channelmae.transforms import AugmentBatches

EPOCHS, BATCHES = 2, 5
BANDS = {'in_channels': 2, 'bands': ['VV', 'VH'], 'size': 32}
RATE = {'base_lr': 0.01, 'warmup_epochs': 1}

pytestmark = pytest.mark.filterwarnings('ignore')


class Seen(Callback):
    """Remembers what was trained on, and asks training to stop after some batches."""

    def __init__(self, stop):
        self.batches, self.stop = {}, stop

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        where = trainer.current_epoch, batch_idx
        self.batches[where] = list(batch['visit']), batch['image'].clone()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if len(self.batches) == self.stop:  # as the Timer of max_time does
            trainer.should_stop = True


def make(task, **options):
    torch.manual_seed(0)
    task = task('channelmae_tiny_patch16', **BANDS, **RATE, **options)
    task.model.blocks = task.model.blocks[-1:]  # of twelve, the one with most drop path
    return task


def pretraining(**options):
    sizes = {'decoder_dim': 32, 'decoder_depth': 1, 'decoder_num_heads': 2}
    return make(ChannelMAE, **sizes, plot_every_n_epochs=0, **options)


def finetuning(**options):
    return make(CrossModalClassification, drop_path=0.3, **options)


pretraining_with_muon = partial(pretraining, optimizer='muon')
finetuning_with_muon = partial(finetuning, optimizer='muon')


def fit(folder, task, checkpoint=None, stop=None, workers=0, batch=4, **options):
    seen = Seen(stop)
    best = RunCheckpoint('best', dirpath=folder, monitor='val_loss')
    trainer = Trainer(
        **{'max_epochs': EPOCHS, **options},
        default_root_dir=folder,
        accelerator='cpu',
        logger=CSVLogger(folder, name='', version=0),
        callbacks=[
            AugmentBatches(),
            seen,
            SaveEachBatch(),
            best,
            RunCheckpoint(dirpath=folder),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
    )
    data = BigEarthNetS1S2DataModule(
        bands=['VV', 'VH'],
        size=32,
        size_by='crop',
        batch_size=batch,
        samples_per_epoch=4 * BATCHES,
        num_workers=workers,
    )
    trainer.fit(task, data, ckpt_path=checkpoint)
    return seen.batches, torch.load(folder / 'last.ckpt', weights_only=True)


def assert_same_end(ended, expected):
    for key in ('state_dict', 'optimizer_states', 'lr_schedulers', 'global_step', KEY):
        assert_same(ended.get(key), expected.get(key))


def assert_rest_of(rest, seen, first):
    """Check that the rest of a run has the samples and pixels of the whole one."""
    assert list(rest) == list(seen)[first:]
    for where, (visits, images) in rest.items():
        assert seen[where][0] == visits
        assert torch.equal(seen[where][1], images)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Train without a stop, once for each way of training."""
    done = {}

    def run(make, **options):
        key = make, tuple(options.items())
        if key not in done:
            folder = tmp_path_factory.mktemp('whole')
            done[key] = (folder, *fit(folder, make(), **options))
        return done[key]

    return run


@pytest.mark.parametrize(
    ('make', 'stop'),
    [
        (pretraining, BATCHES),
        (finetuning, 2),
        (finetuning, 8),
        (pretraining_with_muon, 3),
        (finetuning_with_muon, 2),
    ],
)
def test_a_run_killed_after_any_batch_ends_as_if_it_had_not_been(
    whole, tmp_path, make, stop
):
    """Also after the last batch of an epoch, before its validation."""
    folder, seen, expected = whole(make)
    rest, ended = fit(tmp_path, make(), folder / f'{stop}.ckpt')
    assert_rest_of(rest, seen, stop)
    assert_same_end(ended, expected)


@pytest.mark.parametrize(
    ('make', 'stop', 'workers'), [(pretraining, 3, 2), (finetuning, BATCHES, 0)]
)
def test_a_run_that_is_stopped_and_resumed_ends_as_if_it_had_not_been(
    whole, tmp_path, make, stop, workers
):
    _, seen, expected = whole(make)
    first, _ = fit(tmp_path, make(), stop=stop, workers=workers)
    rest, ended = fit(tmp_path, make(), tmp_path / 'last.ckpt', workers=workers)
    assert list(first) == list(seen)[:stop]
    assert_rest_of(rest, seen, stop)
    assert_same_end(ended, expected)


def test_a_stop_waits_for_the_optimizer_step(whole, tmp_path):
    options = {'accumulate_grad_batches': 2}
    _, seen, expected = whole(finetuning, **options)
    first, stopped = fit(tmp_path, finetuning(), stop=7, **options)
    assert (len(first), stopped['global_step']) == (7, 4)  # 2 + 2 + 1, then 2
    rest, ended = fit(tmp_path, finetuning(), tmp_path / 'last.ckpt', **options)
    assert_rest_of(rest, seen, 7)
    assert_same_end(ended, expected)
    first, _ = fit(tmp_path / 'odd', finetuning(), stop=8, **options)
    assert len(first) == 9


def test_a_run_stopped_by_max_steps_goes_on_with_the_next_batch(whole, tmp_path):
    folder, _, _ = whole(pretraining, max_steps=8)
    _, all_seen, _ = whole(pretraining)
    rest, ended = fit(tmp_path, pretraining(), folder / 'last.ckpt')
    assert_rest_of(rest, all_seen, 8)
    assert ended['global_step'] == 10


def test_a_resumed_epoch_is_validated_and_logged(whole, tmp_path):
    folder, _, _ = whole(pretraining)
    fit(tmp_path, pretraining(), folder / '8.ckpt')
    both = [pd.read_csv(f / 'version_0/metrics.csv') for f in (tmp_path, folder)]
    ended, expected = (table['val_loss'].dropna().iloc[-1] for table in both)
    assert ended == expected
    assert both[0]['train_loss'].notna().sum() == 1


def test_another_order_of_the_rest_of_an_epoch_is_refused(whole, tmp_path, monkeypatch):
    folder, _, _ = whole(pretraining)
    with pytest.raises(ValueError, match='batch_size'):
        fit(tmp_path, pretraining(), folder / '2.ckpt', batch=2)
    monkeypatch.setenv('PL_GLOBAL_SEED', '1')
    with pytest.raises(ValueError, match='seed'):
        fit(tmp_path, pretraining(), folder / '2.ckpt')
    fit(tmp_path, pretraining(), folder / f'{BATCHES}.ckpt')
