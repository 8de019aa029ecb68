"""Every model of conf/compare learns and is scored by the protocol of the others."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningCLI
from torchgeo.datamodules import BaseDataModule
from torchgeo.main import main
from torchgeo.tasks import BaseTask

CONF = Path(__file__).parents[1] / 'conf'
OVERLAYS = sorted(path.stem for path in (CONF / 'compare').glob('*.yaml'))
SIDE = {'panopticon': 28}  # px; 32 for others
BIG = 'scalemae'  # 300 million parameters: its head learns alone here


def arguments(name, folder):
    size = SIDE.get(name, 32)
    return [
        *('--config', str(CONF / 'finetune.yaml')),
        *('--config', str(CONF / 'compare' / f'{name}.yaml')),
        f'--model.init_args.size={size}',
        f'--data.init_args.size={size}',
        '--data.init_args.batch_size=2',
        *(('--model.init_args.trainable=head',) if name == BIG else ()),
        '--trainer.max_epochs=1',
        '--trainer.limit_train_batches=2',
        '--trainer.limit_val_batches=1',
        '--trainer.limit_test_batches=2',
        '--trainer.num_sanity_val_steps=0',
        '--trainer.accelerator=cpu',
        '--trainer.enable_progress_bar=false',
        '--trainer.enable_model_summary=false',
        f'--trainer.default_root_dir={folder}',
    ]


@pytest.mark.parametrize('name', OVERLAYS)
def test_a_peer_trains_two_steps_and_is_tested_on_the_sample(name, tmp_path):
    run = arguments(name, tmp_path / 'run')
    main(['fit', *run])
    main(['test', *run, '--ckpt_path', str(tmp_path / 'run' / 'last.ckpt')])
    report = (tmp_path / 'run' / 'test' / 'scores.md').read_text()
    assert 'Nothing was pretrained' in report
    content = torch.load(tmp_path / 'run' / 'last.ckpt', weights_only=True)
    assert content['global_step'] == 2
    shutil.rmtree(tmp_path)  # up to a gigabyte
