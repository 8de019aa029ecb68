"""The datamodule of a configuration, built as ``torchgeo fit`` builds it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import torchgeo.datamodules  # noqa: F401 (its classes may be named without it)
import yaml
from torchgeo.datamodules import BaseDataModule

_SECTIONS = ('data', 'seed_everything')
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
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(
        BaseDataModule, 'data', required=True, fail_untyped=False
    )
    parser.add_argument('--seed_everything', type=bool | int, default=0)
    values = None
    sections = [_read(Path(config)) for config in configs]
    where = ', '.join(map(str, configs))
    if not any('data' in section for section in sections):
        raise ValueError(
            f'{where or "No configuration"} has no data section: give a configuration '
            f'of torchgeo fit, such as conf/pretrain.yaml.'
        )
    try:
        for section in sections:
            if section:
                values = parser.parse_object(section, cfg_base=values)
        assert values is not None
        if changes:
            values = parser.parse_object(_changed(values.as_dict(), changes))
        built = parser.instantiate(values)
    except (jsonargparse.ArgumentError, TypeError, ValueError, OSError) as error:
        raise ValueError(
            f'The data section of {where} makes no datamodule: {_reason(error)}'
        ) from None
    seed = built.seed_everything
    return built.data, 0 if isinstance(seed, bool) else int(seed)


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


def _changed(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Set arguments by their dotted names, in place."""
    for name, value in changes.items():
        path = name.split('.')
        if path[0] not in _LAYERS:
            path.insert(0, 'init_args')
        layer = values['data']
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
