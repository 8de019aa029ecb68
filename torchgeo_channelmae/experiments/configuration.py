"""The datamodule and the task of a configuration, as ``torchgeo fit`` builds them."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
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

_SECTIONS = ('data', 'model', 'seed_everything')
_LAYERS = ('init_args', 'dict_kwargs', 'class_path')


def read_datamodule(
    configs: Sequence[str | Path], changes: Mapping[str, Any] | None = None
) -> tuple[BaseDataModule, int]:
    """Build the datamodule that configurations describe.

    Args:
        configs: Configurations of ``torchgeo fit``, each laid over those before it.
            Only ``data`` and ``seed_everything`` are looked at.
        changes: Arguments of the datamodule to replace, nested ones with dots:
            ``{'dataset.init_args.root': FOLDER}``.

    Returns:
        The datamodule, not set up, and the seed.

    Raises:
        FileNotFoundError: If a configuration is missing.
        ValueError: If it can't be read, or does not describe a datamodule.
    """
    return _build(configs, changes, 'data', BaseDataModule, 'datamodule')


def read_task(
    configs: Sequence[str | Path], changes: Mapping[str, Any] | None = None
) -> tuple[LightningModule, int]:
    """Build the task that configurations describe, untrained, from their seed.

    Args:
        configs: As for :func:`read_datamodule`; only ``model`` and ``seed_everything``
            are looked at.
        changes: Arguments of the task to replace. Its ``weights``, which some tasks
            read at once, are null unless they are given here.

    Returns:
        The task and the seed. Draws made elsewhere are not disturbed.

    Raises:
        FileNotFoundError: If a configuration is missing.
        ValueError: If it can't be read, or does not describe a task.
    """
    return _build(configs, changes or {}, 'model', LightningModule, 'task')


def configured(configs: Sequence[str | Path], section: str, argument: str) -> Any:
    """Return an argument as configurations give it, None where none does.

    Args:
        configs: Configurations of ``torchgeo fit``, each laid over those before it.
        section: ``data`` or ``model``.
        argument: Name of the argument.

    Raises:
        FileNotFoundError: If a configuration is missing.
        ValueError: If it can't be read.
    """
    value = None
    for content in (_read(Path(config)) for config in configs):
        part = content.get(section)
        arguments = part.get('init_args') if isinstance(part, Mapping) else None
        if isinstance(arguments, Mapping) and argument in arguments:
            value = arguments[argument]
    return value


def _build(
    configs: Sequence[str | Path],
    changes: Mapping[str, Any] | None,
    section: str,
    kind: type,
    what: str,
) -> tuple[Any, int]:
    """Build what a section describes; return it with the seed."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(kind, section, required=True, fail_untyped=False)
    parser.add_argument('--seed_everything', type=bool | int, default=0)
    values = None
    kept = (section, 'seed_everything')
    sections = [
        {name: value for name, value in _read(Path(config)).items() if name in kept}
        for config in configs
    ]
    where = ', '.join(map(str, configs))
    if not any(section in content for content in sections):
        raise ValueError(
            f'{where or "No configuration"} has no {section} section: give a '
            f'configuration of torchgeo fit, such as conf/pretrain.yaml.'
        )
    try:
        for content in sections:
            if content:
                values = parser.parse_object(content, cfg_base=values)
        assert values is not None
        if changes is not None and section == 'model':
            changes = _without_weights(values.as_dict()[section]) | dict(changes)
        if changes:
            changed = _changed(values.as_dict(), changes, section)
            values = parser.parse_object(changed)
        seed = values.seed_everything
        seed = 0 if isinstance(seed, bool) else int(seed)
        with isolate_rng():
            if section == 'model':  # as seed_everything does before torchgeo fit
                random.seed(seed)
                np.random.seed(seed)  # noqa: NPY002
                torch.manual_seed(seed)
            built = parser.instantiate(values)
    except (jsonargparse.ArgumentError, TypeError, ValueError, OSError) as error:
        raise ValueError(
            f'The {section} section of {where} makes no {what}: {_reason(error)}'
        ) from None
    return built[section], seed


def _without_weights(section: Mapping[str, Any]) -> dict[str, Any]:
    return {'weights': None} if 'weights' in (section.get('init_args') or {}) else {}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f'Configuration {path} is not a file: give that of torchgeo fit, such as '
            f'conf/pretrain.yaml.'
        )
    try:
        content = jsonargparse.get_loader('yaml')(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} is not YAML: {_reason(error)}') from None
    if not isinstance(content, dict):
        raise ValueError(f'{path} has no sections: give a configuration in YAML.')
    return {name: content[name] for name in _SECTIONS if name in content}


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
    """What an error says, in one line and without jsonargparse's other guesses."""
    text = str(error).split('Errors:')[-1].split("- Expected a <class 'NoneType'>")[0]
    reason = ' '.join(text.split()).removeprefix('- ').rstrip('.')
    return f'{reason or type(error).__name__}.'
