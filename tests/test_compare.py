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


def build(base, name, size, *changes):
    """What `torchgeo --config BASE --config OVERLAY` makes, before it runs."""
    model = f'--model.init_args.model={SMALL[name]}' if name in SMALL else None
    return LightningCLI(
        BaseTask,
        BaseDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=None,
        run=False,
        args=[
            *('--config', str(CONF / base)),
            *('--config', str(CONF / 'compare' / f'{name}.yaml')),
            f'--model.init_args.size={size}',
            f'--data.init_args.size={size}',
            *filter(None, [model]),
            '--trainer.accelerator=cpu',
            '--trainer.devices=1',
            *changes,
        ],
    )


@pytest.mark.parametrize('name', OVERLAYS)
def test_a_peer_trains_a_step_and_is_tested_on_the_sample(name, tmp_path, monkeypatch):
    peers.shrink(monkeypatch)
    cli = build(
        'finetune.yaml',
        name,
        28 if name == 'panopticon' else 32,
        '--data.init_args.batch_size=2',
        '--data.init_args.test_groups=1',
        '--trainer.max_epochs=1',
        '--trainer.limit_train_batches=1',
        '--trainer.limit_val_batches=1',
        '--trainer.limit_test_batches=2',
        '--trainer.num_sanity_val_steps=0',
        '--trainer.enable_progress_bar=false',
        '--trainer.enable_model_summary=false',
        f'--trainer.default_root_dir={tmp_path / "run"}',
    )
    cli.trainer.fit(cli.model, cli.datamodule)
    last = tmp_path / 'run' / 'last.ckpt'
    scores = cli.trainer.test(cli.model, cli.datamodule, ckpt_path=last, verbose=False)
    assert scores[0]['test_num_samples'] == 4
    assert scores[0]['test_overlap_free'] == 1  # from scratch


@pytest.mark.parametrize('name', OVERLAYS)
def test_an_overlay_fits_the_paper_and_names_published_weights(name, monkeypatch):
    peers.shrink(monkeypatch)
    path = CONF / 'compare' / f'{name}.yaml'
    given = yaml.safe_load(path.read_text())['model']['init_args']
    changes = ('--trainer.precision=32-true', '--trainer.logger=false')
    cli = build('paper/finetune.yaml', name, given['size'], *changes)
    assert cli.model.weights is None
    assert cli.model.model.bands == tuple(cli.datamodule.bands)
    assert cli.model.hparams['size'] == cli.datamodule.size == given['size']
    _, _, comment = path.read_text().partition('with a network: ')
    weights = comment.splitlines()[0].partition(',')[0].strip()
    assert check_published(given['model'], weights) is get_weight(weights)


def test_every_family_of_peers_has_an_overlay():
    assert {name.partition('_')[0] for name in PEERS} <= set(OVERLAYS)
