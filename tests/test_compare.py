"""Every model of conf/compare learns and is scored by the protocol of the others."""

from pathlib import Path

import pytest
import yaml
from lightning.pytorch.cli import LightningCLI
from torchgeo.datamodules import BaseDataModule
from torchgeo.models import get_weight
from torchgeo.tasks import BaseTask

from tests import peers
from torchgeo_channelmae.models.peers import PEERS, check_published

CONF = Path(__file__).parents[1] / 'conf'
OVERLAYS = sorted(path.stem for path in (CONF / 'compare').glob('*.yaml'))
SMALL = {'resnet': 'resnet18', 'vit': 'vit_tiny_patch16_224'}
SIDE = {'panopticon': 28}  # px; 32 for others


def build(base, name, *changes, size=None):
    """What `torchgeo --config BASE --config OVERLAY` makes, before it runs."""
    size = size or SIDE.get(name, 32)
    small = SMALL.get(name)
    return LightningCLI(
        model_class=BaseTask,
        datamodule_class=BaseDataModule,
        seed_everything_default=0,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=None,
        run=False,
        args=[
            *('--config', str(CONF / base)),
            *('--config', str(CONF / 'compare' / f'{name}.yaml')),
            f'--model.init_args.size={size}',
            f'--data.init_args.size={size}',
            *((f'--model.init_args.model={small}',) if small else ()),
            '--trainer.accelerator=cpu',
            '--trainer.devices=1',
            *changes,
        ],
    )


def read(name):
    return yaml.safe_load((CONF / 'compare' / f'{name}.yaml').read_text())


@pytest.mark.parametrize('name', OVERLAYS)
def test_a_peer_trains_two_steps_and_is_tested_on_the_sample(
    name, tmp_path, monkeypatch
):
    peers.shrink(monkeypatch)
    cli = build(
        'finetune.yaml',
        name,
        '--data.init_args.batch_size=2',
        '--data.init_args.test_groups=1',
        '--trainer.max_epochs=1',
        '--trainer.limit_train_batches=2',
        '--trainer.limit_val_batches=1',
        '--trainer.limit_test_batches=2',
        '--trainer.num_sanity_val_steps=0',
        '--trainer.enable_progress_bar=false',
        '--trainer.enable_model_summary=false',
        f'--trainer.default_root_dir={tmp_path / "run"}',
    )
    cli.trainer.fit(cli.model, cli.datamodule)
    assert cli.trainer.global_step == 2
    last = tmp_path / 'run' / 'last.ckpt'
    scores = cli.trainer.test(cli.model, cli.datamodule, ckpt_path=last, verbose=False)
    assert scores[0]['test_num_samples'] == 4
    assert scores[0]['test_overlap_free'] == 1  # from scratch


@pytest.mark.parametrize('name', OVERLAYS)
def test_an_overlay_changes_the_model_and_its_input_of_both_bases(name, monkeypatch):
    peers.shrink(monkeypatch)
    told = read(name)['model']['init_args']
    for base in ('finetune.yaml', 'paper/finetune.yaml'):
        changes = ('--trainer.precision=32-true', '--trainer.logger=false')
        cli = build(base, name, *changes, size=told['size'])
        task, data = cli.model, cli.datamodule
        assert task.argument_error is None
        assert task.weights is None
        assert task.model.bands == tuple(data.bands)
        assert task.hparams['size'] == data.size == told['size']


@pytest.mark.parametrize('name', OVERLAYS)
def test_an_overlay_names_weights_that_are_published_for_its_model(name):
    text = (CONF / 'compare' / f'{name}.yaml').read_text()
    _, _, told = text.partition('with a network: ')
    weights = told.splitlines()[0].partition(',')[0].strip()
    model = read(name)['model']['init_args']['model']
    assert check_published(model, weights) is get_weight(weights)


def test_every_family_of_peers_has_an_overlay():
    families = {name.partition('_')[0] for name in PEERS}
    assert families <= set(OVERLAYS)
