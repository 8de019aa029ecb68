"""A training whose loss is not finite or explodes stops, a good checkpoint is left."""

import math
import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, DistributedSampler

from torchgeo_channelmae.callbacks.loss_guard import LossGuard

BATCHES = 50

pytestmark = pytest.mark.filterwarnings('ignore')


class Slope(LightningModule):
    """Its loss at batch n of the training is ``losses[n]``, 1 where there is none."""

    def __init__(self, losses, rank=0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.losses, self.rank, self.read = losses, rank, 0

    def training_step(self, batch, batch_idx):
        number = self.current_epoch * BATCHES + batch_idx
        here = self.global_rank == self.rank
        return self.weight.sum() * 0 + (self.losses.get(number, 1.0) if here else 1.0)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def names(batch):
    return {'patch_id': [f'patch {number}' for number in batch]}


def fit(folder, losses, guard=None, every=1, rank=0, others=(), **kwargs):
    last = ModelCheckpoint(
        folder, filename='last', every_n_train_steps=every, enable_version_counter=False
    )
    trainer = Trainer(
        default_root_dir=folder,
        accelerator='cpu',
        max_epochs=3,
        logger=CSVLogger(folder, name='', version=0),
        callbacks=[guard or LossGuard(window=10), *others, last],
        enable_progress_bar=False,
        enable_model_summary=False,
        **kwargs,
    )
    size = 2 * BATCHES * trainer.num_devices
    trainer.fit(
        Slope(losses, rank), DataLoader(range(size), batch_size=2, collate_fn=names)
    )
    return trainer


def last(folder):
    return torch.load(folder / 'last.ckpt', weights_only=True)


@pytest.mark.parametrize(
    ('value', 'every', 'saved'), [(math.nan, 1, 61), (-math.inf, 7, 56)]
)
def test_a_loss_that_is_not_finite_stops_before_the_next_checkpoint(
    tmp_path, value, every, saved
):
    with pytest.raises(RuntimeError, match='not finite') as error:
        fit(tmp_path, {BATCHES + 11: value}, every=every)
    for named in (
        f'loss {value} of step {BATCHES + 12} (batch 11 of epoch 1)',
        'patch 22, patch 23 (',
        'bad_batch.txt',
        'checkpoint: ',
        'last.ckpt.',
    ):
        assert named in str(error.value)
    listed = (tmp_path / 'version_0/bad_batch.txt').read_text()
    assert listed == 'patch 22\npatch 23\n'
    assert last(tmp_path)['global_step'] == saved


def test_without_a_checkpoint_from_before_it_is_said_so(tmp_path):
    with pytest.raises(RuntimeError, match=r'step 1 .* checkpoint: none'):
        fit(tmp_path, {0: math.nan})
    assert not (tmp_path / 'last.ckpt').exists()


def test_a_loss_that_stays_far_above_its_median_stops(tmp_path):
    losses = dict.fromkeys(range(70, 150), 10.5)
    with pytest.raises(RuntimeError, match=r'loss 10.5 of step 71 .* 10 x'):
        fit(tmp_path, losses, every=BATCHES)
    assert last(tmp_path)['global_step'] == BATCHES


@pytest.mark.parametrize(
    ('losses', 'factor'),
    [
        (dict.fromkeys([30, 31, 60, 61, 63, 64], 1e3), 10),  # never three in a row
        (dict.fromkeys(range(3), 1e3), 10),  # before there is a median
        ({n: 2.0 ** (n / 10) for n in range(150)}, 10),  # slowly
        (dict.fromkeys(range(70, 150), 1e3), None),  # off
    ],
)
def test_other_losses_do_not_stop(tmp_path, losses, factor):
    trainer = fit(tmp_path, losses, LossGuard(factor, window=10), every=BATCHES)
    assert trainer.global_step == 3 * BATCHES


class Poison(Callback):
    """Makes a weight infinite, which the loss of the batch can't show."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 20:
            pl_module.weight.data.fill_(math.inf)


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    named = ModelCheckpoint(
        tmp_path, filename='{step}', every_n_train_steps=5, save_top_k=-1
    )
    with pytest.raises(RuntimeError, match=r'step 20.*/step=15\.ckpt'):
        fit(tmp_path, {}, every=BATCHES, others=[Poison(), named])
    assert not (tmp_path / 'step=20.ckpt').exists()


def train_in_two(folder):
    fit(Path(folder), {5: math.nan}, rank=1, devices=2, strategy='ddp_fork')


def test_two_processes_stop_together_on_the_loss_of_one(tmp_path, start):
    names = [f'patch {n}' for n in list(DistributedSampler(range(200), 2, 1))[10:12]]
    call = ('tests.callbacks.test_loss_guard:train_in_two', tmp_path)
    command = start(*call, folder=tmp_path, program='call').wait()
    assert command.code == 1
    assert re.search(f'not finite. .*{", ".join(names)} ', command.output)
    assert last(tmp_path)['global_step'] == 5


@pytest.mark.parametrize(
    ('name', 'value'),
    [('factor', 1.0), ('patience', 0), ('window', 0), ('every_n_batches', 0)],
)
def test_arguments_that_make_no_sense_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        LossGuard(**{name: value})
