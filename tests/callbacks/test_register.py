"""TorchGeo's own tasks with our encoder, as a configuration makes them."""

import logging
from pathlib import Path

import pytest
import timm
import torch
from lightning.pytorch import LightningModule, Trainer
from segmentation_models_pytorch import Unet
from torch import nn
from torchgeo.main import main

from tests.stock import StockDataModule, Witness
from torchgeo_channelmae.callbacks.register import LoadWeights, RegisterModels
from torchgeo_channelmae.models import register_variant
from torchgeo_channelmae.tasks import ChannelMAE

pytestmark = pytest.mark.filterwarnings('ignore')

CONF = Path(__file__).parents[1] / 'conf' / 'stock'
QUIET = {'accelerator': 'cpu', 'logger': False, 'limit_val_batches': 0} | dict.fromkeys(
    ('enable_checkpointing', 'enable_progress_bar', 'enable_model_summary'), False
)
READ = ('pyramid.1', 'pyramid.4')  # maps that DeepLabV3+ reads
TASKS = sorted(path.stem for path in CONF.glob('*.yaml') if path.stem != 'base')


def pretrain(bands, path):
    """Pretrain for a step, at 32 px, so on another grid than any task here has."""
    task = ChannelMAE(
        'channelmae_stock',
        in_channels=len(bands),
        bands=bands,
        size=32,
        decoder_dim=32,
        decoder_depth=1,
        decoder_num_heads=2,
        plot_every_n_epochs=0,
    )
    trainer = Trainer(max_steps=1, default_root_dir=path.parent, **QUIET)
    trainer.fit(task, StockDataModule(bands=bands, size=32, batch_size=4))
    trainer.save_checkpoint(path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('stock')
    register_variant('channelmae_stock', 'channelmae_tiny_patch16', depth=4)
    pretrain(['VV', 'VH'], folder / 'radar.ckpt')
    (folder / 'runs').mkdir()
    (folder / 'runs' / 'pretrain').symlink_to(folder)
    (folder / 'last.ckpt').symlink_to(folder / 'radar.ckpt')
    pretrain(['B04', 'B03', 'B02'], folder / 'rgb.ckpt')
    return folder


@pytest.fixture
def fit(folder, monkeypatch):
    """Run ``torchgeo fit`` on a configuration of the tests."""
    monkeypatch.chdir(folder)

    def run(name, *options):
        configs = [f'--config={CONF / f"{each}.yaml"}' for each in ('base', name)]
        main(['fit', *configs, *options])

    return run


def encoder_of(checkpoint):
    bands = {'radar': ['VV', 'VH'], 'rgb': ['B04', 'B03', 'B02']}[checkpoint.stem]
    tensors = torch.load(checkpoint, weights_only=True)['state_dict']
    encoder = {
        k.removeprefix('model.'): v for k, v in tensors.items() if k[:3] == 'mod'
    }
    assert len(encoder) == 4 * 12 + 6 + len(bands)  # blocks; cls, pos, proj, norm
    return encoder


def assert_holds(found, expected):
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize('name', TASKS)
def test_a_task_of_torchgeo_trains_from_our_checkpoint(fit, folder, name):
    fit(name)
    expected = encoder_of(folder / 'radar.ckpt')
    assert Witness.steps == 2
    assert_holds(Witness.before[0], expected)
    after = Witness.after[0]
    same = {name for name in expected if torch.equal(after[name], expected[name])}
    # smp takes the maps of its DPT before the last norm, of any model of timm.
    assert same == ({'norm.weight', 'norm.bias'} if name == 'dpt' else set())


def test_a_frozen_encoder_stays_and_its_fresh_pyramid_learns(fit, folder):
    fit('segmentation', '--model.init_args.freeze_backbone=true')
    (after,) = Witness.after
    assert_holds(after, encoder_of(folder / 'radar.ckpt'))
    read = [name for name in after if name.startswith(READ)]
    assert len(read) == 2 * 4
    assert not any(torch.equal(after[n], Witness.before[0][n]) for n in read)


def test_the_momentum_encoder_of_moco_starts_as_a_copy(fit, folder):
    fit('moco', '--model.init_args.version=1')
    query, key = Witness.before
    assert_holds(key, encoder_of(folder / 'radar.ckpt'))
    assert_holds(query, key)
    after, behind = Witness.after
    assert not torch.equal(after['cls_token'], behind['cls_token'])


def test_a_stock_task_warns_of_bands_that_the_weights_do_not_know(fit, folder):
    with pytest.warns(UserWarning, match='no band VV, VH, .*LoadWeights'):
        fit('classification', '--model.init_args.weights=rgb.ckpt')
    rgb = encoder_of(folder / 'rgb.ckpt')
    shared = {name: rgb[name] for name in rgb if 'spectral' not in name}
    assert_holds(Witness.before[0], shared)


def test_a_variant_has_to_name_its_model():
    with pytest.raises(ValueError, match="'x'"):
        RegisterModels({'x': {'bands': ['VV']}})


# Weights by a callback


class Task(LightningModule):
    """Something to train, with or without an encoder."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def training_step(self, batch):
        return sum(p.sum() for p in self.parameters())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def train(task, *callbacks, checkpoint=None, epochs=1):
    trainer = Trainer(max_epochs=epochs, callbacks=[*callbacks], **QUIET)
    trainer.fit(task, [0], ckpt_path=checkpoint)
    return trainer


def test_weights_of_other_bands_arrive_by_name_and_start_the_others(folder, caplog):
    task = Task(Unet('channelmae_stock', encoder_weights=None, in_channels=2))
    rgb = encoder_of(folder / 'rgb.ckpt')
    with caplog.at_level(logging.INFO, 'lightning.pytorch.utilities.rank_zero'):
        train(task, LoadWeights(str(folder / 'rgb.ckpt'), 'index'))
    found = task.model.encoder.state_dict()
    shared = {name: rgb[name] for name in rgb if 'spectral' not in name}
    assert_holds(found, shared)
    assert torch.equal(found['spectral_embed.VV'], rgb['spectral_embed.B04'])
    assert torch.equal(found['spectral_embed.VH'], rgb['spectral_embed.B03'])
    line = next(r.getMessage() for r in caplog.records if 'Weights' in r.getMessage())
    assert 'fresh bands: VV (index: as B04), VH (index: as B03)' in line
    assert 'pyramid (20 tensors, not in the weights)' in line


def test_a_resumed_fit_does_not_read_the_weights(folder, tmp_path):
    encoder = timm.create_model('channelmae_stock', in_chans=2)
    train(Task(encoder)).save_checkpoint(tmp_path / 'last.ckpt')
    gone = LoadWeights('gone.ckpt')
    train(Task(encoder), gone, checkpoint=tmp_path / 'last.ckpt', epochs=2)
    with pytest.raises(FileNotFoundError, match=r'gone\.ckpt'):
        train(Task(encoder), gone)


def test_weights_for_a_task_without_an_encoder_are_refused(folder):
    with pytest.raises(ValueError, match='Task has no'):
        train(Task(nn.Linear(1, 1)), LoadWeights(str(folder / 'rgb.ckpt')))
