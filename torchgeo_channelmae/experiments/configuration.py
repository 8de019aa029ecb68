"""Datamodules and tasks from configurations, built and run as ``torchgeo fit`` does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonargparse
import torch
import torchgeo.datamodules
import torchgeo.tasks  # noqa: F401 (likewise)
import yaml
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities.seed import isolate_rng
from torchgeo.datamodules import BaseDataModule

STAGES = {'train': 'fit', 'val': 'validate', 'test': 'test'}
"""Stage of the trainer by split."""

_LAYERS = ('init_args', 'dict_kwargs', 'class_path')


def read_datamodule(
    configs: Sequence[str | Path], changes: Mapping[str, Any] | None = None
) -> tuple[BaseDataModule, int]:
    """Build the datamodule of one or several configurations; return it and the seed.

    Args:
        configs: Configurations of ``torchgeo fit``; later ones override earlier ones.
            Only ``data`` and ``seed_everything`` are read.
        changes: Arguments of the datamodule to override, nested ones with dots:
            ``{'dataset.init_args.root': FOLDER}``.
    """
    return _build(configs, changes or {}, 'data', BaseDataModule)


def read_task(
    configs: Sequence[str | Path], changes: Mapping[str, Any] | None = None
) -> tuple[LightningModule, int]:
    """Build the untrained task of configurations from their seed; return task and seed.

    The global random states stay as they are.

    Args:
        configs: As for :func:`read_datamodule`; only ``model`` and ``seed_everything``
            are read.
        changes: Arguments of the task to override. Its ``weights`` are null unless
            they are given here.
    """
    if configured(configs, 'model', 'weights') is not None:
        changes = {'weights': None, **(changes or {})}
    return _build(configs, changes or {}, 'model', LightningModule)


def configured(configs: Sequence[str | Path], section: str, argument: str) -> Any:
    """Return an argument of the ``data`` or ``model`` section, None if not set."""
    value = None
    for config in configs:
        arguments = (_read(config).get(section) or {}).get('init_args') or {}
        value = arguments.get(argument, value)
    return value


def process_batch(
    datamodule: BaseDataModule,
    batch: dict[str, Any],
    split: str,
    device: torch.device | str = 'cpu',
) -> dict[str, Any]:
    """Move a batch to a device and process it as a trainer does for this split.

    Only 'train' augments. A trainer of the datamodule is left as it is.
    """
    stage = {'train': 'training', 'val': 'validating', 'test': 'testing'}[split]
    flags = ('training', 'validating', 'testing', 'sanity_checking', 'predicting')
    trainer: Any = SimpleNamespace(**{flag: flag == stage for flag in flags})
    trainer.current_epoch, trainer.precision_plugin = 0, Precision()
    kept, datamodule.trainer = datamodule.trainer, trainer
    try:
        batch = datamodule.transfer_batch_to_device(batch, torch.device(device), 0)
        processed: dict[str, Any] = datamodule.on_after_batch_transfer(batch, 0)
    finally:
        datamodule.trainer = kept
    return processed


def _build(
    configs: Sequence[str | Path], changes: Mapping[str, Any], section: str, kind: type
) -> tuple[Any, int]:
    """Build what a section describes; return it with the seed."""
    where = ', '.join(map(str, configs))
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(kind, section, required=True, fail_untyped=False)
    parser.add_argument('--seed_everything', type=bool | int, default=0)
    values: Any = None
    try:
        for content in map(_read, configs):
            kept = {k: content[k] for k in (section, 'seed_everything') if k in content}
            values = parser.parse_object(kept, cfg_base=values) if kept else values
        if changes and values:
            values = values.as_dict()
            for name, value in changes.items():
                _override(values[section], name, value)
            values = parser.parse_object(values)
    except jsonargparse.ArgumentError as error:  # of which only the first guess counts
        reason = str(error).split('Errors:')[-1].split("- Expected a <class 'NoneType'")
        text = ' '.join(reason[0].split()).removeprefix('- ')
        raise ValueError(f'The {section} section of {where}: {text}') from None
    if not values:
        raise ValueError(f'{where} has no {section} section. Add a class_path in one.')
    seed = 0 if isinstance(values.seed_everything, bool) else values.seed_everything
    with isolate_rng():
        torch.manual_seed(seed)  # initial weights as those of torchgeo fit
        return parser.instantiate(values)[section], seed


def _read(path: str | Path) -> dict[str, Any]:
    try:
        content = jsonargparse.get_loader('yaml')(Path(path).read_text())
    except yaml.YAMLError as error:
        reason = ' '.join(str(error).split())
        raise ValueError(f'{path} is not YAML: {reason}') from None
    if not isinstance(content, dict):
        raise ValueError(f'{path} has no sections. Compare it to conf/pretrain.yaml.')
    return content


def _override(layer: dict[str, Any], name: str, value: Any) -> None:
    """Set an argument by its dotted name, in place."""
    path = name.split('.')
    if path[0] not in _LAYERS:
        path.insert(0, 'init_args')
    for part in path[:-1]:
        layer[part] = dict(layer.get(part) or {})
        layer = layer[part]
    layer[path[-1]] = value
