"""What tables consist of: their cells, their sensors, and how large they are run.

Tables are data in ``specs/*.yaml`` beside this file, presets in ``conf/tables/*.yaml``.
The paper is "Overlap-Free Modality Generalization in Remote Sensing Foundation Models"
(Zhambulova et al., EurIPS 2025 workshop REO). Rows that it lacks are controls.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from ...sensors import find

NAMES = ('1', '2', '3', 'labels', 'matrix')
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
            capitals.
        pretrain: Overlay of ``conf/paper/bands`` that its pretraining reads, or None.
        overlays: Overlays of ``conf/paper`` over the pretraining, e.g. ``masking/s3``.
        model: Name of a timm model; None for a channel-token encoder.
        patch: Patch side of a channel-token encoder, in pixels.
        weights: Published weights to start from, which have to be downloaded.
        trainable: Parts that are trained.
        reinit: Parts that are reinitialized.
        fraction: Share of the training labels; None for that of the command.
        scratch: Name of the cell without pretraining that it is compared with.
        ceiling: Name of the cell pretrained on the target itself.
        paper: mAP, its standard deviation, F1 and its standard deviation in percent, as
            printed; None for a control.
    """

    row: str
    title: str
    target: str
    pretrain: str | None = None
    overlays: tuple[str, ...] = ()
    model: str | None = None
    patch: int = 16
    weights: str | None = None
    trainable: str = 'all'
    reinit: tuple[str, ...] = ()
    fraction: float | None = None
    scratch: str | None = None
    ceiling: str | None = None
    paper: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        """Name of the cell, such as ``s2-p16:S1``."""
        return f'{self.row}:{self.target}'


@dataclass(frozen=True)
class Table:
    """A table: its name, its title, its target sensors and its cells by name."""

    name: str
    title: str
    targets: tuple[str, ...]
    cells: Mapping[str, Cell]

    @property
    def rows(self) -> dict[str, str]:
        """Titles of the rows by name, in order."""
        return {cell.row: cell.title for cell in self.cells.values()}

    @property
    def printed(self) -> list[str]:
        """Names of the rows that the paper has; the others are controls."""
        return list({cell.row: 0 for cell in self.cells.values() if cell.paper})


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
    cells = {
        cell.name: cell
        for row, values in rows.items()
        for cell in _read_cells(row, values, targets)
    }
    for key, cell in cells.items():
        if cell.ceiling == key or cell.ceiling not in cells:
            cells[key] = replace(cell, ceiling=None)
    return Table(name, spec['title'], targets, cells)


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
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    paper, targets = values.pop('paper', {}), values.pop('targets', targets)
    for target in targets:
        others: dict[str, Any] = {
            key: f'{values[key].format(target=target.lower())}:{target}'
            for key in ('scratch', 'ceiling')
            if key in values
        }
        printed = tuple(paper[target]) if target in paper else None
        yield Cell(row=row, target=target, paper=printed, **(values | others))


def title_of(sensor: str) -> str:
    """Return the title of a sensor, in any case."""
    return _TITLES.get(sensor.lower(), sensor.lower())


def bands_of(sensor: str, overlays: Path) -> tuple[str, ...]:
    """Return the names of a sensor's bands.

    Args:
        sensor: Name of an overlay in the folder ``bands``.
        overlays: The folder that contains it.

    Raises:
        ValueError: If there is no such overlay, or it names no bands.
    """
    path = overlays / 'bands' / f'{sensor}.yaml'
    known = sorted(each.stem for each in path.parent.glob('*.yaml'))
    if sensor not in known or sensor != sensor.lower():  # targets are in capitals
        raise ValueError(
            f'There is no sensor {sensor!r}. The overlays in {path.parent} are '
            f'{", ".join(known)}; add one, named in small letters, for other bands.'
        )
    try:
        bands = yaml.safe_load(path.read_text())['data']['init_args']['bands']
    except (KeyError, TypeError):
        raise ValueError(f'{path} names no bands. Give data.init_args.bands.') from None
    return tuple(bands)


def has_radar(sensor: str, overlays: Path) -> bool:
    """Return whether a sensor has a band without a wavelength, unlike optical data."""
    found = [find(band) for band in bands_of(sensor, overlays)]
    return any(band is not None and band.wavelength is None for band in found)


@dataclass(frozen=True)
class Preset:
    """What the runs of a table have in common.

    Attributes:
        name: Its name.
        about: What the scores are worth, shown above every table; may be empty.
        pretrain: Configurations of a pretraining, each laid over those before it.
        ceiling: The same for a pretraining on the target's own sensor.
        finetune: Configurations of a fine-tuning.
        model: Name of the encoder, with ``{patch}`` for the patch side.
        seeds: Training seeds.
        pretrainings: Whether each training seed has its own pretraining, or all start
            from that of the first.
        base_lrs: Learning rates tried for every cell at the first seed.
        fractions: Shares of the labels in the table of label efficiency.
        downloads: Whether cells with published weights are run.
        needs: Descriptions of the data that ``--root``, ``--pretrain-root`` and
            ``--shares`` have to name.
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
    needs: Mapping[str, str]
    overlays: Path


def read_preset(name: str, conf: Path) -> Preset:
    """Read ``tables/NAME.yaml``.

    Args:
        name: Name of the preset.
        conf: Folder of the configurations.

    Raises:
        ValueError: If there is no such preset, or its keys are not the expected ones.
    """
    path = conf / 'tables' / f'{name}.yaml'
    if not path.is_file():
        known = ', '.join(sorted(each.stem for each in path.parent.glob('*.yaml')))
        hint = f'Choose {known}.' if known else 'Give the folder conf with --conf.'
        raise ValueError(f'There is no preset {name!r} in {path.parent}. {hint}')
    values = yaml.safe_load(path.read_text())
    expected = {field.name for field in fields(Preset)} - {'name', 'overlays'}
    if unlike := sorted(expected ^ set(values)):
        raise ValueError(f'{path} lacks or has too much: {", ".join(unlike)}.')
    for key, value in values.items():
        if key in ('pretrain', 'ceiling', 'finetune'):
            value = [Path(os.path.normpath(path.parent / each)) for each in value]
        values[key] = tuple(value) if isinstance(value, list) else value
    values['about'] = ' '.join(values['about'].split())
    return Preset(name=name, overlays=conf / 'paper', **values)
