"""A training stopped inside an epoch and resumed is the one that was never stopped."""

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from tests.same import assert_same
from tests.steps import SaveEachBatch
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.tasks import ChannelMAE, CrossModalClassification
from torchgeo_channelmae.transforms import AugmentBatches

EPOCHS, BATCHES = 2, 5


class Seen(Callback):
    """Remembers what was trained on."""

    def __init__(self):
        self.batches = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        where = trainer.current_epoch, batch_idx
        self.batches[where] = list(batch['visit']), batch['image'].clone()


def shallow(task):
    task.model.blocks = task.model.blocks[-1:]  # of twelve, the one with most drop path
    return task


def pretraining():
    task = ChannelMAE(
        'channelmae_tiny_patch16',
        in_channels=2,
        bands=['VV', 'VH'],
        size=32,
        decoder_dim=32,
        decoder_depth=1,
        decoder_num_heads=2,
        base_lr=0.01,
        warmup_epochs=1,
        plot_every_n_epochs=0,
    )
    return shallow(task)


def finetuning():
    task = CrossModalClassification(
        'channelmae_tiny_patch16',
        in_channels=2,
        bands=['VV', 'VH'],
        size=32,
        drop_path=0.3,
        base_lr=0.01,
        warmup_epochs=1,
    )
    return shallow(task)


def fit(folder, task, checkpoint=None, workers=0, batch=4, **kwargs):
    end = ModelCheckpoint(
        folder, filename='{epoch}', save_top_k=-1, save_on_train_epoch_end=True
    )
    seen = Seen()
    callbacks = [AugmentBatches(), seen, end, SaveEachBatch()]
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=EPOCHS,
        accelerator='cpu',
        logger=CSVLogger(folder, name='', version=0),
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        **kwargs,
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
    ended = torch.load(folder / f'epoch={EPOCHS - 1}.ckpt', weights_only=True)
    return seen.batches, pd.read_csv(folder / 'version_0/metrics.csv'), ended


def rows(table, name):
    if name not in table:
        return []
    return table[['epoch', 'step', name]].dropna().values.tolist()


def assert_resumes(folder, make, stops, again=None, **kwargs):
    """Check resumes after some batches, that go on with the batch `again`."""
    seen, table, expected = fit(folder / 'whole', make(), **kwargs)
    assert len(seen) == EPOCHS * BATCHES
    for stop in stops:
        rest, tail, ended = fit(
            folder / f'{stop}', make(), folder / f'whole/{stop}.ckpt', **kwargs
        )
        for key in ('state_dict', 'optimizer_states', 'lr_schedulers', 'global_step'):
            assert_same(expected[key], ended[key])
        first = stop if again is None else again[stop]
        assert list(rest) == list(seen)[first:]
        for where, (visits, images) in rest.items():
            assert seen[where][0] == visits
            assert torch.equal(seen[where][1], images)
        for name in ('train_loss', 'val_loss'):
            found = rows(tail, name)
            assert len(found) == EPOCHS - (stop - 1) // BATCHES
            assert found == rows(table, name)[-len(found) :]
        steps = rows(tail, 'lr')
        assert steps == rows(table, 'lr')[len(rows(table, 'lr')) - len(steps) :]


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('make', [pretraining, finetuning])
def test_any_stop_is_as_none(tmp_path, make):
    """Inside both epochs, and after the last batch of each, before its validation."""
    assert_resumes(tmp_path, make, (2, BATCHES, 8, 2 * BATCHES))


@pytest.mark.filterwarnings('ignore')
def test_a_stop_is_as_none_with_workers(tmp_path):
    assert_resumes(tmp_path, pretraining, (8,), workers=2)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('make', [pretraining, finetuning])
def test_workers_read_the_order_of_the_epoch_that_a_resumed_run_begins(tmp_path, make):
    """Also where a task asks for its loader before Lightning knows the epoch."""
    seen, _, expected = fit(tmp_path / 'whole', make(), workers=2)
    saved = tmp_path / 'whole/epoch=0.ckpt'
    rest, _, ended = fit(tmp_path / 'rest', make(), saved, workers=2)
    visits = {where: visited for where, (visited, _) in seen.items()}
    second = {where: visited for where, visited in visits.items() if where[0] == 1}
    assert {where: visited for where, (visited, _) in rest.items()} == second
    assert list(second.values()) != list(visits.values())[:BATCHES]
    assert_same(ended['state_dict'], expected['state_dict'])


@pytest.mark.filterwarnings('ignore')
def test_batches_of_an_incomplete_step_are_trained_on_again(tmp_path):
    again = {1: 0, 4: 4, 8: 7, BATCHES: BATCHES}  # an epoch ends with a step of one
    assert_resumes(tmp_path, finetuning, tuple(again), again, accumulate_grad_batches=2)


@pytest.mark.filterwarnings('ignore')
def test_an_epoch_without_validation_is_finished_too(tmp_path):
    _, table, _ = fit(tmp_path / 'whole', pretraining(), limit_val_batches=0)
    checkpoint = tmp_path / f'whole/{BATCHES}.ckpt'
    _, tail, _ = fit(tmp_path / 'rest', pretraining(), checkpoint, limit_val_batches=0)
    assert rows(tail, 'train_loss') == rows(table, 'train_loss')
    assert rows(tail, 'lr') == rows(table, 'lr')[BATCHES:]


@pytest.mark.filterwarnings('ignore')
def test_another_order_of_the_rest_of_the_epoch_is_refused(tmp_path):
    fit(tmp_path / 'whole', pretraining())
    with pytest.raises(ValueError, match=r'after batch 2 of an epoch with .* size 4'):
        fit(tmp_path / 'rest', pretraining(), tmp_path / 'whole/2.ckpt', batch=2)


@pytest.mark.filterwarnings('ignore')
def test_a_second_stop_in_the_same_epoch_is_as_none(tmp_path):
    options = {'accumulate_grad_batches': 3}
    _, table, expected = fit(tmp_path / 'whole', pretraining(), **options)
    stopped = tmp_path / 'whole/1.ckpt'
    for stop in (2, 4, 5):
        folder = tmp_path / f'to {stop}'
        _, tail, ended = fit(folder, pretraining(), stopped, **options)
        assert_same(ended['state_dict'], expected['state_dict'])
        assert rows(tail, 'train_loss') == rows(table, 'train_loss')
        stopped = folder / f'{stop}.ckpt'
