"""Which ``torchgeo`` runs make a table, and with which settings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from .cells import Cell, Pretraining, Table
from .presets import Preset
from .sensors import has_radar

_SHARES = 'data.init_args.sampler.init_args.shares'


@dataclass(frozen=True)
class Data:
    """The data that runs read, None for the configuration's own.

    Attributes:
        root: Of the data to fine-tune and test on.
        pretrain_root: Of the data to pretrain on.
        shares: File of their land cover, which balances them.
    """

    root: Path | None = None
    pretrain_root: Path | None = None
    shares: Path | None = None


@dataclass(frozen=True)
class Run:
    """A training, with a test where it is a fine-tuning.

    Attributes:
        name: Name of its folder.
        kind: What it is.
        configs: Configurations, each laid over those before it.
        options: Values of further options, by their names.
        start: Name of the run whose weights it starts from, None for none.
        candidates: Names of the runs of which it takes the best's learning rate, with
            these rates; empty where its own options have one.
    """

    name: str
    kind: Literal['pretrain', 'finetune']
    configs: tuple[Path, ...]
    options: Mapping[str, str]
    start: str | None = None
    candidates: Mapping[str, float] | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the runs that have to be done before it."""
        return (*((self.start,) if self.start else ()), *(self.candidates or ()))

    def commands(self, runs: Path) -> list[list[str]]:
        """The arguments of ``torchgeo``, command by command.

        Args:
            runs: Folder of all runs.
        """
        folder = runs / self.name
        options = dict(self.options)
        if self.start:
            options['model.init_args.weights'] = str(runs / self.start / 'last.ckpt')
        shared = [
            *(part for path in self.configs for part in ('--config', str(path))),
            *(p for key, value in options.items() for p in (f'--{key}', value)),
            '--trainer.default_root_dir',
            str(folder),
        ]
        fit = ['fit', *shared]
        if self.kind == 'pretrain':
            return [fit]
        return [fit, ['test', *shared, '--ckpt_path', str(folder / 'last.ckpt')]]

    def settings(self) -> dict[str, Any]:
        """All that decides what the run gives, as flat names and values."""
        merged: dict[str, Any] = {}
        for path in self.configs:
            merged |= flat(yaml.safe_load(path.read_text()))
        values = {key: yaml.safe_load(value) for key, value in self.options.items()}
        start = {'weights of': self.start} if self.start else {}
        return merged | values | start


@dataclass(frozen=True)
class Plan:
    """The runs of a table.

    Attributes:
        runs: All runs by name, those before that others need.
        by_cell: For each cell its runs, one a seed. With several learning rates those
            of the first seed are in `tried`, and the list has the others.
        tried: For each cell the runs of the first seed by learning rate; empty where
            there is but one rate.
        left_out: Cells that are not run, and why.
    """

    runs: Mapping[str, Run]
    by_cell: Mapping[str, Sequence[str]]
    tried: Mapping[str, Mapping[str, float]]
    left_out: Mapping[str, str]


def make_plan(
    table: Table,
    preset: Preset,
    seeds: Sequence[int],
    data: Data,
    train_fraction: float | None = None,
    only: Iterable[str] = (),
) -> Plan:
    """Plan the runs of a table.

    Args:
        table: The table.
        preset: How large it is run.
        seeds: Training seeds.
        data: Folders of the data.
        train_fraction: Share of the training labels, where a cell has none of its own.
        only: Names of cells or rows to run; all if empty.

    Raises:
        ValueError: If a name is no cell and no row, a seed is given twice, or a
            configuration is missing.
    """
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError(
            f'seeds are {list(seeds)}: give one or more from 0 up, each once, as equal '
            f'seeds make equal runs.'
        )
    if train_fraction is not None and not 0 < train_fraction <= 1:
        raise ValueError(
            f'train_fraction is {train_fraction}: give a share above 0, up to 1.'
        )
    chosen = _chosen(table, only)
    left_out: dict[str, str] = {}
    runs: dict[str, Run] = {}
    by_cell: dict[str, list[str]] = {}
    tried: dict[str, dict[str, float]] = {}
    for cell in chosen:
        if cell.weights and not preset.downloads:
            left_out[cell.name] = f'needs a download ({cell.weights})'
            continue
        cell = replace(cell, fraction=cell.fraction or train_fraction)
        found = _trainings(cell, preset, seeds, data)
        if len(preset.base_lrs) > 1:
            tried[cell.name] = {
                run.name: rate
                for run, rate in zip(found, preset.base_lrs, strict=False)
                if run.kind == 'finetune'
            }
            by_cell[cell.name] = [run.name for run in found[len(preset.base_lrs) :]]
        else:
            by_cell[cell.name] = [run.name for run in found]
        for run in found:
            if run.start:
                seed = int(run.start.rpartition('seed')[2])
                assert cell.pretraining is not None
                first = _pretraining(cell.pretraining, preset, seed, data)
                runs.setdefault(first.name, first)
            runs.setdefault(run.name, run)
    for run in runs.values():
        _check_configs(run)
    return Plan(runs, by_cell, tried, left_out)


def _chosen(table: Table, only: Iterable[str]) -> list[Cell]:
    cells = table.cells
    names = list(only)
    known = {*cells, *(row.name for row in table.rows)}
    for name in names:
        if name not in known:
            raise ValueError(
                f'Table {table.name} has no cell or row {name!r}: its rows are '
                f'{", ".join(row.name for row in table.rows)}; a cell is a row and a '
                f'target, such as {next(iter(cells))}.'
            )
    return [
        cell for cell in cells.values() if not names or {cell.name, cell.row} & {*names}
    ]


def _trainings(
    cell: Cell, preset: Preset, seeds: Sequence[int], data: Data
) -> list[Run]:
    """All fine-tunings of a cell: each rate at the first seed, then the other seeds."""
    rates = preset.base_lrs
    first = [
        _finetuning(cell, preset, seeds[0], seeds, data, rate, named=len(rates) > 1)
        for rate in rates
    ]
    if len(rates) == 1:
        others = [
            _finetuning(cell, preset, seed, seeds, data, rates[0]) for seed in seeds[1:]
        ]
        return first + others
    candidates = {run.name: rate for run, rate in zip(first, rates, strict=True)}
    return first + [
        replace(
            _finetuning(cell, preset, seed, seeds, data, None), candidates=candidates
        )
        for seed in seeds[1:]
    ]


def _finetuning(
    cell: Cell,
    preset: Preset,
    seed: int,
    seeds: Sequence[int],
    data: Data,
    rate: float | None,
    named: bool = False,
) -> Run:
    options = {
        'seed_everything': str(seed),
        'model.init_args.model': cell.model or preset.model.format(patch=cell.patch),
        'model.init_args.weights': cell.weights or 'null',
        'model.init_args.trainable': cell.trainable,
        'model.init_args.reinit': f'[{", ".join(cell.reinit)}]',
    }
    parts = [cell.model or f'{preset.model.partition("_patch")[0]}-p{cell.patch}']
    start = None
    if cell.pretraining is not None:
        from_seed = seed if preset.pretrainings == 'each' else seeds[0]
        start = _pretraining(cell.pretraining, preset, from_seed, data).name
        parts = ['from', cell.pretraining.name.removeprefix('pretrain-')]
    elif cell.weights:
        parts = ['from', cell.weights.replace('_Weights.', '-')]
    parts.append(cell.target.lower())
    if cell.trainable != 'all':
        parts.append(cell.trainable)
    if cell.reinit:
        parts += ['reinit', *cell.reinit]
    if cell.fraction is not None:
        options['data.init_args.train_fraction'] = f'{cell.fraction:g}'
        parts.append(f'labels{100 * cell.fraction:g}')
    if rate is not None:
        options['model.init_args.base_lr'] = f'{rate:g}'
    if named:
        parts.append(f'lr{rate:g}')
    if data.root is not None:
        options['data.init_args.root'] = str(data.root)
    bands = preset.overlays / 'bands' / f'{cell.target.lower()}.yaml'
    return Run(
        name='-'.join(['finetune', *parts, f'seed{seed}']),
        kind='finetune',
        configs=(*preset.finetune, bands),
        options=options,
        start=start,
    )


def _pretraining(
    pretraining: Pretraining, preset: Preset, seed: int, data: Data
) -> Run:
    on_target = has_radar(pretraining.bands, preset.overlays)
    root = data.root if on_target else data.pretrain_root or data.root
    overlays = (f'bands/{pretraining.bands}', *pretraining.overlays)
    shares = None if on_target else data.shares
    return Run(
        name=f'{pretraining.name}-seed{seed}',
        kind='pretrain',
        configs=(
            *(preset.ceiling if on_target else preset.pretrain),
            *(preset.overlays / f'{overlay}.yaml' for overlay in overlays),
        ),
        options={
            'seed_everything': str(seed),
            'model.init_args.model': preset.model.format(patch=pretraining.patch),
            **({} if root is None else {'data.init_args.root': str(root)}),
            **({} if shares is None else {_SHARES: str(shares)}),
        },
    )


def _check_configs(run: Run) -> None:
    for path in run.configs:
        if not path.is_file():
            raise ValueError(
                f'{path} does not exist: run the command in a clone of the project, or '
                f'give its conf folder with --conf.'
            )


def flat(values: Any, prefix: str = '') -> dict[str, Any]:
    """Flatten nested mappings to names with dots; lists are values."""
    if not isinstance(values, Mapping):
        return {prefix: values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f'{prefix}.{key}' if prefix else str(key))
    return found
