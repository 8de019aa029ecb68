"""Configurations of tables whose trainings end after a few steps."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml


@pytest.fixture
def short_conf(conf, tmp_path) -> Callable[..., Path]:
    """Copy the shipped configurations, with small images and two steps an epoch."""

    def copy(pretrain: int, finetune: int) -> Path:
        folder = tmp_path / 'conf'
        shutil.copytree(conf, folder)
        for name, epochs in (('pretrain', pretrain), ('finetune', finetune)):
            path = folder / 'tables' / 'sample' / f'{name}.yaml'
            values = yaml.safe_load(path.read_text())
            values['data']['init_args'] |= {'samples_per_epoch': 32, 'size': 32}
            values.setdefault('model', {}).setdefault('init_args', {})['size'] = 32
            values['trainer']['max_epochs'] = epochs
            path.write_text(yaml.safe_dump(values))
        return folder

    return copy
