"""Configurations that are laid over others change what they say, and nothing else."""

import functools
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.cli import LightningCLI
from torchgeo.datamodules import BaseDataModule
from torchgeo.tasks import BaseTask

from torchgeo_channelmae.experiments.tables.plan import flat

CONF = Path(__file__).parents[1] / 'conf'
PAPER = CONF / 'paper'
TINY = '--model.init_args.model=channelmae_tiny_patch16'  # quick to build


@functools.cache
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


def overlays(folder):
    return sorted(
        str(path.relative_to(CONF)) for path in (PAPER / folder).glob('*.yaml')
    )


@pytest.mark.parametrize('base', ['pretrain.yaml', 'paper/pretrain.yaml'])
@pytest.mark.parametrize('overlay', overlays('masking'))
def test_maskings_can_be_laid_over_every_pretraining(base, overlay):
    before, after = build(base).model.hparams, build(base, overlay).model.hparams
    told = flat(yaml.safe_load((CONF / overlay).read_text()))
    changed = {key for key in after if after[key] != before[key]}
    assert changed <= {'masking', 'masking_options'}
    assert after['masking'] == told['model.init_args.masking']
    # No option of a masking laid under it is left.
    crossed = build(base, 'paper/masking/s4.yaml', overlay).model.hparams
    assert crossed['masking_options'] == after['masking_options']


@pytest.mark.parametrize('task', ['pretrain', 'finetune'])
@pytest.mark.parametrize('overlay', overlays('bands'))
def test_bands_change_in_model_and_data_alike(task, overlay):
    cli = build(f'{task}.yaml', overlay)
    bands = {'s1': 2, 's2': 12, 'rgb': 3}[Path(overlay).stem]
    assert len(cli.model.model.bands) == bands
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
        (
            ('paper/pretrain.yaml', 'paper/patch8.yaml'),
            'model',
            'channelmae_base_patch8',
        ),
        (('pretrain.yaml', 'copernicus/pretrain.yaml'), 'size', 128),
        (('finetune.yaml', 'copernicus/finetune.yaml'), 'size', 128),
        (('pretrain.yaml', 'tables/sample/pretrain.yaml'), 'plot_every_n_epochs', 0),
        (('pretrain.yaml', 'tables/synthetic/pretrain.yaml'), 'plot_every_n_epochs', 0),
        (('finetune.yaml', 'tables/synthetic/finetune.yaml'), 'trainable', 'all'),
    ],
)
def test_variants_say_what_they_are_named_after(names, key, value):
    assert build(*names).model.hparams[key] == value


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
