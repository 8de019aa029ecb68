"""TorchGeo's own tasks with our encoder, as a configuration makes them."""

import logging
import re
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
from torchgeo_channelmae.sensors import default_names
from torchgeo_channelmae.tasks import ChannelMAE

CONF = Path(__file__).parents[1] / 'conf' / 'stock'
READ = ('pyramid.1', 'pyramid.4')  # maps that DeepLabV3+ reads
TASKS = sorted(path.stem for path in CONF.glob('*.yaml') if path.stem != 'base')


def pretrain(bands, path):
    """Pretrain for a step, at 32 px, so on another grid than any task here has."""
    task = ChannelMAE(
        'channelmae_tiny_patch16',
        in_channels=len(bands),
        bands=bands,
        size=32,
        decoder_dim=32,
        decoder_depth=1,
        decoder_num_heads=2,
        plot_every_n_epochs=0,
    )
    trainer = Trainer(
        accelerator='cpu',
        max_steps=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=path.parent,
    )
    trainer.fit(task, StockDataModule(bands=bands, size=32, batch_size=4))
    trainer.save_checkpoint(path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('stock')
    pretrain(['VV', 'VH'], folder / 'radar.ckpt')
    (folder / 'runs' / 'pretrain').mkdir(parents=True)
    (folder / 'runs' / 'pretrain' / 'last.ckpt').symlink_to(folder / 'radar.ckpt')
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
    assert len(encoder) == 12 * 12 + 6 + len(bands)  # blocks; cls, pos, proj, norm
    return encoder


def assert_holds(found, expected):
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_every_kind_of_task_has_a_configuration():
    classes = {
        re.search(r'torchgeo\.tasks\.\w+', (CONF / f'{name}.yaml').read_text())[0]
        for name in TASKS
    }
    assert {name.rpartition('.')[2] for name in classes} == {
        'BYOL',
        'ChangeDetection',
        'Classification',
        'MoCo',
        'PixelwiseRegression',
        'Regression',
        'SemanticSegmentation',
        'SimCLR',
    }


@pytest.mark.filterwarnings('ignore')
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


@pytest.mark.filterwarnings('ignore')
def test_a_frozen_encoder_stays_and_its_fresh_pyramid_learns(fit, folder):
    fit('segmentation', '--model.init_args.freeze_backbone=true')
    (after,) = Witness.after
    assert_holds(after, encoder_of(folder / 'radar.ckpt'))
    pyramid = {name for name in after if name.startswith('pyramid.')}
    same = {n for n in pyramid if torch.equal(after[n], Witness.before[0][n])}
    assert len(pyramid) == 5 * 4
    assert not {name for name in same if name[: len('pyramid.0')] in READ}


@pytest.mark.filterwarnings('ignore')
def test_the_momentum_encoder_of_moco_starts_as_a_copy(fit, folder):
    fit('moco', '--model.init_args.version=1')
    query, key = Witness.before
    assert_holds(key, encoder_of(folder / 'radar.ckpt'))
    assert_holds(query, key)
    after, behind = Witness.after
    assert not torch.equal(after['cls_token'], behind['cls_token'])


@pytest.mark.filterwarnings('ignore')
def test_a_stock_task_warns_of_bands_that_the_weights_do_not_know(fit, folder):
    with pytest.warns(UserWarning, match='know no band VV, VH, whose .* LoadWeights'):
        fit('classification', '--model.init_args.weights=rgb.ckpt')
    rgb = encoder_of(folder / 'rgb.ckpt')
    shared = {name: rgb[name] for name in rgb if 'spectral' not in name}
    assert_holds(Witness.before[0], shared)


# What docs/torchgeo.md says can be done as it says

PAGE = Path(__file__).parents[2] / 'docs' / 'torchgeo.md'


def blocks(language):
    return re.findall(rf'```{language}\n(.*?)```', PAGE.read_text(), flags=re.DOTALL)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('block', blocks('yaml'), ids=['task', 'variant', 'callback'])
def test_a_configuration_of_the_page_trains(fit, folder, tmp_path, block):
    (tmp_path / 'page.yaml').write_text(block)
    witness = '--trainer.callbacks+=tests.stock.Witness'
    fit(tmp_path / 'page', witness, '--data.init_args.size=48')
    assert Witness.steps == 2
    assert_holds(Witness.before[0], encoder_of(folder / 'radar.ckpt'))


def test_the_python_of_the_page_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {}
    for block in blocks('python'):
        exec(block, names)
    assert timm.create_model('rgb_nir').bands == ('B04', 'B03', 'B02', 'B08')
    assert names['logits'].shape == (4, 19)
    assert names['shapes'] == [(4, 192, 6, 6)] * 4
    assert names['report'].kept_bands == ('VV', 'VH')


def test_the_page_says_what_a_channel_count_stands_for():
    rows = dict(re.findall(r'^\| (\d+) \| (?:.*: )?(.*) \|$', PAGE.read_text(), re.M))
    for count in (12, 3, 2):
        assert tuple(rows.pop(str(count)).split()) == default_names(count)
    with_b10 = [*default_names(12)]
    with_b10.insert(with_b10.index('B11'), 'B10')
    assert rows == {'13': 'the same with B10 before B11'}
    assert tuple(with_b10) == default_names(13)


# A name for an encoder with its bands


@pytest.mark.filterwarnings('ignore')
def test_a_channel_count_without_default_names_is_trained_by_its_variant(fit):
    fit(
        'classification',
        '--model.init_args.model=stock_no_defaults',
        '--model.init_args.weights=null',
        '--model.init_args.in_channels=1',
        '--data.init_args.bands=[VV]',
    )
    assert Witness.steps == 2
    named = {name for name in Witness.after[0] if 'spectral' in name}
    assert named == {'spectral_embed.VV'}


@pytest.mark.parametrize('variant', [None, {}, {'bands': ['VV']}])
def test_a_variant_has_to_name_its_model(variant):
    with pytest.raises(ValueError, match=r"^Variant 'x' names no model: [^\n]*$"):
        RegisterModels({'x': variant})


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
    trainer = Trainer(
        accelerator='cpu',
        max_epochs=epochs,
        callbacks=[*callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, [0], ckpt_path=checkpoint)
    return trainer


@pytest.mark.filterwarnings('ignore')
def test_weights_of_other_bands_arrive_by_name_and_start_the_others(folder, caplog):
    task = Task(Unet('channelmae_tiny_patch16', encoder_weights=None, in_channels=2))
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


@pytest.mark.filterwarnings('ignore')
def test_a_resumed_fit_does_not_read_the_weights(folder, tmp_path):
    encoder = timm.create_model('channelmae_tiny_patch16', in_chans=2, depth=1)
    train(Task(encoder)).save_checkpoint(tmp_path / 'last.ckpt')
    gone = LoadWeights('gone.ckpt')
    train(Task(encoder), gone, checkpoint=tmp_path / 'last.ckpt', epochs=2)
    with pytest.raises(FileNotFoundError, match=r"^weights 'gone.ckpt' is neither"):
        train(Task(encoder), gone)


@pytest.mark.filterwarnings('ignore')
def test_weights_for_a_task_without_an_encoder_are_refused(folder):
    with pytest.raises(ValueError, match=r'^Task has no channel-token encoder [^\n]*$'):
        train(Task(nn.Linear(1, 1)), LoadWeights(str(folder / 'rgb.ckpt')))
