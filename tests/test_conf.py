"""Configurations that are laid over others change what they say, and nothing else."""

import functools
from pathlib import Path

import numpy as np
import pytest
import yaml
from lightning.pytorch.cli import LightningCLI
from torchgeo.datamodules import BaseDataModule
from torchgeo.tasks import BaseTask

from tests import fabricate
from torchgeo_channelmae.callbacks.stream import StreamMonitor
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.experiments.configuration import read_datamodule
from torchgeo_channelmae.experiments.tables.plan import flat
from torchgeo_channelmae.samplers.shares import ClassShares, write_shares

CONF = Path(__file__).parents[1] / 'conf'
PAPER = CONF / 'paper'
TINY = '--model.init_args.model=channelmae_tiny_patch16'  # quick to build


@functools.lru_cache(maxsize=3)  # they are large
def build(*names):
    """The task and datamodule that configurations describe, built but not set up."""
    cli = LightningCLI(
        model_class=BaseTask,
        datamodule_class=BaseDataModule,
        seed_everything_default=0,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=None,
        run=False,
        args=[
            *(part for name in names for part in ('--config', str(CONF / name))),
            '--trainer.logger=false',
            '--trainer.accelerator=cpu',
            '--trainer.devices=1',
            '--trainer.precision=32-true',
            *(() if 'patch8' in names[-1] else (TINY,)),
        ],
    )
    assert cli.model.argument_error is None, cli.model.argument_error
    return cli


@pytest.fixture(scope='module', autouse=True)
def release():
    yield
    build.cache_clear()


def overlays(folder):
    return sorted(
        str(path.relative_to(CONF)) for path in (PAPER / folder).glob('*.yaml')
    )


@pytest.mark.parametrize('base', ['pretrain.yaml', 'paper/pretrain.yaml'])
@pytest.mark.parametrize('overlay', overlays('masking'))
def test_maskings_can_be_laid_over_every_pretraining(base, overlay):
    before, after = build(base).model.hparams, build(base, overlay).model.hparams
    said = flat(yaml.safe_load((CONF / overlay).read_text()))
    changed = {key for key in after if after[key] != before[key]}
    assert changed <= {'masking', 'masking_options'}
    assert after['masking'] == said['model.init_args.masking']
    # No option of a masking laid under it is left.
    crossed = build(base, 'paper/masking/s4.yaml', overlay).model.hparams
    assert crossed['masking_options'] == after['masking_options']


@pytest.mark.parametrize('task', ['pretrain', 'finetune'])
@pytest.mark.parametrize('overlay', overlays('bands'))
def test_bands_change_in_model_and_data_alike(task, overlay):
    cli = build(f'{task}.yaml', overlay)
    bands = {'s1': 2, 's2': 12, 'rgb': 3, 'vnir': 8, 'swir': 2, 's1s2': 14}
    assert len(cli.model.model.bands) == bands[Path(overlay).stem]
    assert tuple(cli.datamodule.bands) == cli.model.model.bands


@pytest.mark.parametrize('base', ['finetune.yaml', 'paper/finetune.yaml'])
@pytest.mark.parametrize('overlay', overlays('trainable'))
def test_parts_can_be_laid_over_every_fine_tuning(base, overlay):
    before, after = build(base).model.hparams, build(base, overlay).model.hparams
    assert {k for k in after if after[k] != before[k]} <= {'trainable', 'reinit'}
    assert 'head' in after['trainable']


@pytest.mark.parametrize(
    ('names', 'key', 'value'),
    [
        (('paper/pretrain.yaml', 'paper/ratio90.yaml'), 'mask_ratio', 0.9),
        (('paper/pretrain.yaml', 'paper/sum.yaml'), 'spectral_loss', 'sum'),
        (('paper/pretrain.yaml', 'paper/decode25.yaml'), 'decode_share', 0.25),
        (
            ('paper/pretrain.yaml', 'paper/patch8.yaml'),
            'model',
            'channelmae_base_patch8',
        ),
        (('pretrain.yaml', 'copernicus/pretrain.yaml'), 'size', 128),
        (('finetune.yaml', 'copernicus/finetune.yaml'), 'size', 128),
        (('pretrain.yaml', 'tables/sample/pretrain.yaml'), 'plot_every_n_epochs', 0),
    ],
)
def test_variants_say_what_they_are_named_after(names, key, value):
    assert build(*names).model.hparams[key] == value


@pytest.mark.parametrize('base', ['paper/pretrain.yaml', 'finetune.yaml'])
def test_the_monitor_can_be_laid_over_every_training(base):
    before, after = build(base).trainer.callbacks, build(base, 'monitor.yaml').trainer
    added = {type(each) for each in after.callbacks} - {type(each) for each in before}
    assert added == {StreamMonitor}


def test_data_of_the_paper_can_be_others():
    kinds = {
        None: 'PretrainingDataModule',
        'ssl4eo': 'PretrainingDataModule',
        'bigearthnet': 'BigEarthNetS1S2DataModule',
    }
    for name, kind in kinds.items():
        over = () if name is None else (f'paper/{name}.yaml',)
        cli = build('paper/pretrain.yaml', *over)
        assert type(cli.datamodule).__name__ == kind
    assert build('paper/finetune.yaml').datamodule.version == 'v2'
    assert build('paper/finetune.yaml', 'paper/v1.yaml').datamodule.version == 'v1'


DATA = {  # configuration: arguments that make it read something small
    'pretrain': {'dataset.init_args.subset': 'MMEarth100k', 'val_fraction': 0.5},
    'ssl4eo': {'val_fraction': 0.5},
    'bigearthnet': {},
    'finetune': {'version': None},  # the sample has patches of both versions
    'v1': {'version': None},
}


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """Folders of small datasets, and shares of one."""
    root = tmp_path_factory.mktemp('small')
    fabricate.mmearth(root / 'mmearth', ('l2a',) * 4)
    fabricate.ssl4eo(root / 'ssl4eo', (1, 2), ('43RCP', '10TEK'), seasons=4)
    for path in (root / 'ssl4eo' / 's2a' / '0000002').rglob('*.tif'):
        pixels = fabricate.constant(['B02'], 264 // 6)
        fabricate.write_tif(path, pixels, lon=-122.5, lat=46.0)  # far from the other
    values = np.full((4, 2), 0.5, dtype=np.float32)
    names = np.array(['10', '11', '12', '13'])
    shares = ClassShares(values, ('a', 'b'), 'made up', 'MMEarth', False, names)
    write_shares(root / 'shares.parquet', shares)
    return root


def one_sample(small, base, overlays):
    [name, *_] = [
        *(Path(overlay).stem for overlay in overlays if Path(overlay).stem in DATA),
        base,
    ]
    folder = {'pretrain': small / 'mmearth', 'ssl4eo': small / 'ssl4eo'}
    root = str(folder.get(name, SAMPLE_ROOT))
    changes = {'batch_size': 1, 'num_workers': 0, 'root': root} | DATA[name]
    if name == 'pretrain':
        changes['sampler.init_args.shares'] = str(small / 'shares.parquet')
    configs = [CONF / f'paper/{base}.yaml', *(CONF / overlay for overlay in overlays)]
    datamodule, _ = read_datamodule(configs, changes)
    datamodule.prepare_data()
    datamodule.setup('fit')
    return datamodule, datamodule.train_dataset[0]


PAPER_OVERLAYS = sorted(str(path.relative_to(CONF)) for path in PAPER.rglob('*.yaml'))
FOR_TRANSFER = ('trainable', 'finetune', 'v1')


@pytest.mark.parametrize('overlay', PAPER_OVERLAYS)
def test_each_configuration_of_the_paper_yields_a_sample(overlay, small):
    stem = Path(overlay).stem
    transfer = any(part in overlay for part in FOR_TRANSFER)
    base = 'finetune' if transfer else 'pretrain'
    over = [] if stem == base else [overlay]
    datamodule, sample = one_sample(small, base, over)
    groups = sample.get('native') or {datamodule.bands: sample['image']}
    assert {band for names in groups for band in names} == set(datamodule.bands)
    said = yaml.safe_load((CONF / overlay).read_text()).get('data', {})
    wanted = said.get('init_args', {}).get('bands')
    assert wanted is None or datamodule.bands == tuple(wanted)
