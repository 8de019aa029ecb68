"""How large a table is run: its configurations, encoder, seeds and learning rates."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml

NAMES = ('sample', 'synthetic', 'copernicus-bench', 'paper')


@dataclass(frozen=True)
class Preset:
    """What a table's runs have in common.

    Attributes:
        name: Its name.
        about: What the scores are worth, shown above every table; empty for full data.
        pretrain: Configurations of a pretraining, each laid over those before it.
        ceiling: The same for a pretraining on the target's own sensor.
        finetune: Configurations of a fine-tuning.
        model: Name of the encoder, with ``{patch}`` where the patch side goes.
        seeds: Training seeds.
        pretrainings: Whether each training seed has a pretraining of its own, or all
            start from that of the first.
        base_lrs: Learning rates that every cell is tried with, at the first seed; the
            best on validation is kept.
        fractions: Shares of the labels in the table of label efficiency.
        downloads: Whether cells with published weights are run.
        root: Whether data have to be named, and what they are.
        pretrain_root: The same for other data to pretrain on.
        shares: The same for the file of their land cover.
        overlays: Folder of the overlays that cells name.
    """

    name: str
    about: str
    pretrain: tuple[Path, ...]
    ceiling: tuple[Path, ...]
    finetune: tuple[Path, ...]
    model: str
    seeds: tuple[int, ...]
    pretrainings: Literal['each', 'first']
    base_lrs: tuple[float, ...]
    fractions: tuple[float, ...]
    downloads: bool
    root: str | None
    pretrain_root: str | None
    shares: str | None
    overlays: Path


def read_preset(name: str, conf: Path) -> Preset:
    """Read a preset.

    Args:
        name: One of :data:`NAMES`.
        conf: Folder of the configurations.

    Raises:
        ValueError: If there is no such preset, or the file is not as expected.
        FileNotFoundError: If the folder has no presets.
    """
    if name not in NAMES:
        raise ValueError(f'There is no preset {name!r}: choose {", ".join(NAMES)}.')
    path = conf / 'tables' / f'{name}.yaml'
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} does not exist: run the command in a clone of the project, or '
            f'give its conf folder with --conf.'
        )
    values = yaml.safe_load(path.read_text())
    expected = {field.name for field in fields(Preset)} - {'name', 'overlays'}
    if not isinstance(values, Mapping) or set(values) != expected:
        found = set(values) if isinstance(values, Mapping) else set()
        raise ValueError(
            f'{path} has to have the keys {", ".join(sorted(expected))}; it differs in '
            f'{", ".join(sorted(found ^ expected))}.'
        )
    return Preset(
        name=name,
        overlays=conf / 'paper',
        **{key: _value(key, values[key], path.parent) for key in expected},
    )


def _value(key: str, value: Any, folder: Path) -> Any:
    if key in ('pretrain', 'ceiling', 'finetune'):
        return tuple(_normal(folder / each) for each in value)
    if isinstance(value, list):
        return tuple(value)
    return ' '.join(value.split()) if isinstance(value, str) else value


def _normal(path: Path) -> Path:
    """Resolve ``..`` without making a path absolute."""
    parts: list[str] = []
    for part in path.parts:
        if part == '..' and parts and parts[-1] != '..':
            parts.pop()
        else:
            parts.append(part)
    return Path(*parts)
