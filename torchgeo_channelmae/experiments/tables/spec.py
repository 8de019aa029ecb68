"""What tables consist of: their cells, their sensors and their presets.

Tables are data in ``specs/*.yaml`` beside this file, presets in ``conf/tables/*.yaml``.
The paper is "Overlap-Free Modality Generalization in Remote Sensing Foundation Models"
(Zhambulova et al., EurIPS 2025 workshop REO). Rows that are not in it are controls.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import batched, chain
from os.path import normpath
from pathlib import Path
from typing import Any

import yaml

NAMES = ('1', '2', '3', 'labels', 'matrix')
PRINTED = ('mAP_micro', 'F1_micro')
"""Scores that the paper prints."""
SENSORS = ('s2', 'rgb', 's1')
"""Default sensors of the matrix."""

_SPECS = Path(__file__).with_name('specs')
_TITLES = yaml.safe_load((_SPECS / 'sensors.yaml').read_text())


@dataclass(frozen=True)
class Cell:
    """A model that is fine-tuned on a sensor and tested there.

    Attributes:
        row: Name of its row.
        title: Title of its row.
        target: Sensor of fine-tuning and test: an overlay of ``conf/paper/bands``, in
            upper case.
        pretrain: Overlay of ``conf/paper/bands`` that its pretraining reads, or None.
        overlays: Overlays of ``conf/paper`` over the pretraining, e.g. ``masking/s3``.
        model: Name of a timm model; None for a channel-token encoder.
        patch: Patch side of a channel-token encoder, in pixels.
        weights: Published weights to start from, which have to be downloaded.
        trainable: Parts that are trained.
        reinit: Parts that are reinitialized.
        fraction: Share of the training labels; None for that of the command.
        own: Whether the pretraining reads the target's own training images.
        scratch: Name of the cell without pretraining to compare with.
        ceiling: Name of the cell pretrained on the target's sensor, in the same images.
        paper: For each score of :data:`PRINTED` its value and standard deviation in
            percent, as printed; empty for a control.
    """

    row: str
    title: str
    target: str
    pretrain: str | None = None
    overlays: Sequence[str] = ()
    model: str | None = None
    patch: int = 16
    weights: str | None = None
    trainable: str = 'all'
    reinit: Sequence[str] = ()
    fraction: float | None = None
    own: bool = False
    scratch: str | None = None
    ceiling: str | None = None
    paper: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the cell, such as ``s2-p16:S1``."""
        return f'{self.row}:{self.target}'


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: Its name.
        title: Its title.
        targets: Its target sensors.
        cells: Its cells by name.
        primary: Names of two cells, of which one is claimed to be better.
        contrasts: Other pairs of cells to compare, besides each with its scratch.
    """

    name: str
    title: str
    targets: tuple[str, ...]
    cells: Mapping[str, Cell]
    primary: tuple[str, str]
    contrasts: Sequence[tuple[str, str]] = ()

    @property
    def rows(self) -> dict[str, str]:
        """Titles of the rows by name, in order."""
        return {cell.row: cell.title for cell in self.cells.values()}

    @property
    def printed(self) -> list[str]:
        """Names of the rows in the paper; the others are controls."""
        return list(dict.fromkeys(c.row for c in self.cells.values() if c.paper))


def read_table(
    name: str,
    fractions: Sequence[float] = (0.01, 0.1, 1.0),
    sensors: Sequence[str] = SENSORS,
) -> Table:
    """Read a table.

    Args:
        name: One of :data:`NAMES`.
        fractions: Shares of the training labels in the table of label efficiency.
        sensors: Sensors of the matrix.

    Raises:
        ValueError: If there is no such table.
    """
    if name not in NAMES:
        raise ValueError(f'There is no table {name!r}. Choose {", ".join(NAMES)}.')
    spec = yaml.safe_load((_SPECS / f'{name}.yaml').read_text())
    rows, targets = spec['rows'], tuple(spec['targets'])
    if name == 'labels':
        rows = dict(_per_fraction(rows, fractions))
    if name == 'matrix':
        targets = tuple(sensor.upper() for sensor in sensors)
        compared = {'scratch': 'scratch-p16', 'ceiling': '{target}-p16'}
        for sensor in sensors:
            source = {'title': title_of(sensor), 'pretrain': sensor}
            rows[f'{sensor}-p16'] = source | compared
    read = (_read_cells(row, values, targets) for row, values in rows.items())
    cells = {cell.name: cell for cell in chain.from_iterable(read)}
    for key, cell in cells.items():
        if cell.ceiling == key or cell.ceiling not in cells:
            cells[key] = replace(cell, ceiling=None)
    first = {'share': f'{100 * min(fractions):g}', 'first': sensors[0]}
    one, other, target = (
        part.format(**first, last=sensors[-1].upper()) for part in spec['primary']
    )
    contrasts = [
        (f'{row}:{target}', f'{compared}:{target}')
        for row, compared in spec.get('contrasts', ())
        for target in targets
    ]
    primary = (f'{one}:{target}', f'{other}:{target}')
    return Table(name, spec['title'], targets, cells, primary, contrasts)


def _per_fraction(
    rows: Mapping[str, dict[str, Any]], fractions: Sequence[float]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for fraction in fractions:
        percent = f'{100 * fraction:g}'
        for row, values in rows.items():
            title = f'{values["title"]}, {percent} % of the labels'
            changed = values | {'title': title, 'fraction': fraction}
            if 'scratch' in values:
                changed['scratch'] = f'{values["scratch"]}-{percent}'
            yield f'{row}-{percent}', changed


def _read_cells(
    row: str, values: dict[str, Any], targets: Sequence[str]
) -> Iterator[Cell]:
    paper = values.get('paper', {})
    for target in values.pop('targets', targets):
        compared: dict[str, Any] = {
            key: f'{values[key].format(target=target.lower())}:{target}'
            for key in ('scratch', 'ceiling')
            if key in values
        }
        printed = dict(zip(PRINTED, batched(paper.get(target, ()), 2), strict=False))
        own = {'row': row, 'target': target, 'paper': printed}
        yield Cell(**(values | compared | own))


def title_of(sensor: str) -> str:
    """Return the title of a sensor, in any case."""
    return _TITLES.get(sensor.lower(), sensor.lower())


def bands_of(sensor: str, overlays: Path) -> tuple[str, ...]:
    """Return the names of a sensor's bands, from ``overlays/bands/SENSOR.yaml``."""
    path = overlays / 'bands' / f'{sensor}.yaml'
    known = sorted(each.stem for each in path.parent.glob('*.yaml'))
    if sensor not in known or sensor != sensor.lower():  # targets are in upper case
        raise ValueError(
            f'There is no sensor {sensor!r}. Choose from the overlays in {path.parent} '
            f'({", ".join(known)}), or add one, named in lower case.'
        )
    bands = flat(yaml.safe_load(path.read_text())).get('data.init_args.bands')
    if bands is None:
        raise ValueError(f'{path} names no bands. Give data.init_args.bands.')
    return tuple(bands)


def flat(values: Any, prefix: str = '') -> dict[str, Any]:
    """Flatten nested mappings to dotted names; lists are values."""
    if not isinstance(values, Mapping):
        return {prefix: values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f'{prefix}.{key}' if prefix else str(key))
    return found


@dataclass(frozen=True)
class Preset:
    """The configurations, seeds and learning rates that all runs of a table share.

    Attributes:
        name: Its name.
        about: What the scores are worth, shown above every table; may be empty.
        pretrain: Configurations of a pretraining, each laid over those before it.
        ceiling: The same for a pretraining on the target's own training images; empty
            if all pretrainings read these.
        finetune: Configurations of a fine-tuning.
        model: Name of the encoder, with ``{patch}`` for the patch side.
        seeds: Training seeds.
        pretrainings: Number of pretrainings per row: 1, or one per training seed.
        base_lrs: Learning rates tried for every cell at the first seed.
        partial_base_lrs: The same for cells that train only some parts.
        layer_decays: Layer decays tried for cells that train all parts without
            pretrained weights; others have that of the configuration.
        fractions: Shares of the labels in the table of label efficiency.
        cut_validation: Whether a share of the training labels is one of the validation
            labels, too.
        assumed: What the power statement assumes, see :func:`.smallest_gain`.
        downloads: Whether cells with published weights are run.
        needs: Descriptions of the data to pass as ``root``, ``pretrain_root`` and
            ``shares``.
        overlays: Folder of the overlays that cells name.
    """

    name: str
    about: str
    pretrain: Sequence[Path]
    ceiling: Sequence[Path]
    finetune: Sequence[Path]
    model: str
    seeds: Sequence[int]
    pretrainings: int
    base_lrs: Sequence[float]
    partial_base_lrs: Sequence[float]
    layer_decays: Sequence[float]
    fractions: Sequence[float]
    cut_validation: bool
    assumed: Mapping[str, float]
    downloads: bool
    needs: Mapping[str, str]
    overlays: Path


def read_preset(name: str, conf: Path) -> Preset:
    """Read ``tables/NAME.yaml`` in the folder of the configurations."""
    path = conf / 'tables' / f'{name}.yaml'
    if not path.is_file():
        known = ', '.join(sorted(each.stem for each in path.parent.glob('*.yaml')))
        raise ValueError(
            f'There is no preset {name!r} in {path.parent}. Choose one of those there '
            f'({known or "none"}), or another folder by --conf.'
        )
    values = yaml.safe_load(path.read_text())
    expected = {field.name for field in fields(Preset)} - {'name', 'overlays'}
    if unlike := sorted(expected ^ set(values)):
        raise ValueError(
            f'{path} has missing or unknown keys: {", ".join(unlike)}. Compare it with '
            f'conf/tables/sample.yaml.'
        )
    for key in ('pretrain', 'ceiling', 'finetune'):
        values[key] = [Path(normpath(path.parent / each)) for each in values[key]]
    values['about'] = ' '.join(values['about'].split())
    return Preset(name=name, overlays=conf / 'paper', **values)
