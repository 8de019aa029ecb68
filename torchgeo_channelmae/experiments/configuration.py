"""Datamodules and tasks from configurations, built and run as ``torchgeo fit`` does."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonargparse
import numpy as np
import torch
import torchgeo.datamodules
import torchgeo.tasks  # noqa: F401 (likewise)
import yaml
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.seed import isolate_rng
from torchgeo.datamodules import BaseDataModule

STAGES = {'train': 'fit', 'val': 'validate', 'test': 'test'}
"""Stage of the trainer by split."""

_LAYERS = ('init_args', 'dict_kwargs', 'class_path')


def read_datamodule(
    configs: Sequence[str | Path], changes: Mapping[str, Any] | None = None
) -> tuple[BaseDataModule, int]:
    """Build the datamodule of one or several configurations.

    Args:
        configs: Configurations of ``torchgeo fit``; later ones override earlier ones.
            Only ``data`` and ``seed_everything`` are read.
        changes: Arguments of the datamodule to override, nested ones with dots:
            ``{'dataset.init_args.root': FOLDER}``.

    Returns:
        The datamodule, not set up, and the seed.

    Raises:
        FileNotFoundError: If a configuration is missing.
        ValueError: If it is not YAML or does not describe a datamodule.
    """
    return _build(configs, changes or {}, 'data', BaseDataModule)


def read_task(
    configs: Sequence[str | Path], changes: Mapping[str, Any] | None = None
) -> tuple[LightningModule, int]:
    """Build the task of one or several configurations, untrained, from their seed.

    Args:
        configs: As for :func:`read_datamodule`; only ``model`` and ``seed_everything``
            are read.
        changes: Arguments of the task to override. Its ``weights`` are null unless
            they are given here.

    Returns:
        The task and the seed. The global random states stay as they are.

    Raises:
        FileNotFoundError: If a configuration is missing.
        ValueError: If it is not YAML or does not describe a task.
    """
    if configured(configs, 'model', 'weights') is not None:
        changes = {'weights': None, **(changes or {})}
    return _build(configs, changes or {}, 'model', LightningModule)


def configured(configs: Sequence[str | Path], section: str, argument: str) -> Any:
    """Return an argument of the ``data`` or ``model`` section, None if not set."""
    value = None
    for content in map(_read, configs):
        arguments = content.get(section, {}).get('init_args') or {}
        value = arguments.get(argument, value)
    return value


def process_batch(
    datamodule: BaseDataModule,
    batch: dict[str, Any],
    split: str,
    device: torch.device | str = 'cpu',
) -> dict[str, Any]:
    """Move a batch to a device and process it as a trainer does for this split.

    Args:
        datamodule: Its own trainer, if any, is left as it is.
        batch: A collated batch.
        split: 'train', 'val' or 'test'; only 'train' augments.
        device: The device.
    """
    trainer = SimpleNamespace(
        training=split == 'train',
        validating=split == 'val',
        testing=split == 'test',
        sanity_checking=False,
        predicting=False,
        current_epoch=0,
    )
    kept, datamodule.trainer = datamodule.trainer, trainer  # type: ignore[assignment]
    try:
        batch = datamodule.transfer_batch_to_device(batch, torch.device(device), 0)
        processed: dict[str, Any] = datamodule.on_after_batch_transfer(batch, 0)
    finally:
        datamodule.trainer = kept
    return processed


def _build(
    configs: Sequence[str | Path],
    changes: Mapping[str, Any],
    section: str,
    kind: type,
) -> tuple[Any, int]:
    """Build what a section describes; return it with the seed."""
    where = ', '.join(map(str, configs))
    contents = [_read(config) for config in configs]
    if not any(section in content for content in contents):
        raise ValueError(
            f'{where} has no {section} section. Give a configuration of torchgeo fit, '
            f'such as conf/pretrain.yaml.'
        )
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(kind, section, required=True, fail_untyped=False)
    parser.add_argument('--seed_everything', type=bool | int, default=0)
    values: Any = None
    try:
        for content in contents:
            kept = {
                k: v for k, v in content.items() if k in (section, 'seed_everything')
            }
            if kept:
                values = parser.parse_object(kept, cfg_base=values)
        if changes:
            values = parser.parse_object(_changed(values.as_dict(), changes, section))
    except jsonargparse.ArgumentError as error:
        raise ValueError(
            f'The {section} section of {where} is not valid: {_reason(error)}'
        ) from None
    seed = 0 if isinstance(values.seed_everything, bool) else values.seed_everything
    with isolate_rng():
        if section == 'model':  # as torchgeo fit seeds before it builds
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
        return parser.instantiate(values)[section], seed


def _read(path: str | Path) -> dict[str, Any]:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'Configuration {path} does not exist. Give one of torchgeo fit, such as '
            f'conf/pretrain.yaml.'
        )
    try:
        content = jsonargparse.get_loader('yaml')(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} is not YAML: {_reason(error)}') from None
    sections = content if isinstance(content, dict) else {'data': None}
    if not all(isinstance(sections.get(s, {}), dict) for s in ('data', 'model')):
        raise ValueError(
            f'{path} is not a configuration of torchgeo fit. Give one with data and '
            f'model sections, such as conf/pretrain.yaml.'
        )
    return sections


def _changed(
    values: dict[str, Any], changes: Mapping[str, Any], section: str
) -> dict[str, Any]:
    """Set arguments by their dotted names, in place."""
    for name, value in changes.items():
        path = name.split('.')
        if path[0] not in _LAYERS:
            path.insert(0, 'init_args')
        layer = values[section]
        for part in path[:-1]:
            inner = layer.get(part)
            layer[part] = dict(inner) if isinstance(inner, Mapping) else {}
            layer = layer[part]
        layer[path[-1]] = value
    return values


def _reason(error: Exception) -> str:
    """Return an error in one line, without jsonargparse's other guesses."""
    text = str(error).split('Errors:')[-1].split("- Expected a <class 'NoneType'>")[0]
    return ' '.join(text.split()).removeprefix('- ').rstrip('.') + '.'
