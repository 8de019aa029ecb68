"""The ``torchgeo`` runs that make a table, and their settings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from .spec import Cell, Preset, Table, flat, has_radar

_SHARES = 'data.init_args.sampler.init_args.shares'


@dataclass(frozen=True)
class Data:
    """The data that runs read; None for those of the configuration.

    Attributes:
        root: Folder of the data to fine-tune and test on.
        pretrain_root: Folder of the data to pretrain on.
        shares: File of their land cover, which balances them.
    """

    root: Path | None = None
    pretrain_root: Path | None = None
    shares: Path | None = None


@dataclass(frozen=True)
class Run:
    """A pretraining, a fine-tuning with its test, or a zero-shot test of a head.

    Attributes:
        kind: Which of the three.
        label: Model, weights and data; part of the name.
        seed: Training seed.
        configs: Configurations, each laid over those before it.
        options: Values of further options by name.
        base_lr: Learning rate; None for that of a configuration or of a candidate.
        is_tried: Whether the rate is one of several that are compared.
        start: Name of the run with the weights to start from.
        embeddings: Name of the run with the embeddings of bands missing in `start`.
        candidates: Learning rates by the name of the run that tries them. A
            fine-tuning trains at the best one, a zero-shot test reads its weights.
    """

    kind: Literal['pretrain', 'finetune', 'unchanged']
    label: str
    seed: int
    configs: tuple[Path, ...]
    options: Mapping[str, str]
    base_lr: float | None = None
    is_tried: bool = False
    start: str | None = None
    embeddings: str | None = None
    candidates: Mapping[str, float | None] | None = None

    @property
    def name(self) -> str:
        """Name of its folder."""
        rate = f'-lr{self.base_lr:g}' if self.is_tried else ''
        return f'{self.kind}-{self.label}{rate}-seed{self.seed}'

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the runs that must be done before it."""
        return (*self._sources().values(), *(self.candidates or ()))

    def commands(self, runs: Path) -> list[list[str]]:
        """Return the arguments of each ``torchgeo`` command, for a folder of runs."""
        folder = runs / self.name
        options = self._options()
        for key, source in self._sources().items():
            options[f'model.init_args.{key}'] = str(runs / source / 'last.ckpt')
        options['trainer.default_root_dir'] = str(folder)
        shared = [f'--config={path}' for path in self.configs]
        shared += [f'--{key}={value}' for key, value in options.items()]
        fit, test = ['fit', *shared], ['test', *shared]
        if self.kind == 'finetune':
            return [fit, [*test, f'--ckpt_path={folder / "last.ckpt"}']]
        return [fit if self.kind == 'pretrain' else test]

    def settings(self) -> dict[str, Any]:
        """Return everything that determines the result, by dotted names."""
        merged: dict[str, Any] = {}
        for path in self.configs:
            merged |= flat(yaml.safe_load(path.read_text()))
        merged |= {k: yaml.safe_load(value) for k, value in self._options().items()}
        return merged | {f'{key} of': run for key, run in self._sources().items()}

    def _sources(self) -> dict[str, str]:
        sources = {'weights': self.start, 'embeddings': self.embeddings}
        return {key: run for key, run in sources.items() if run}

    def _options(self) -> dict[str, str]:
        options = {'seed_everything': str(self.seed), **self.options}
        if self.base_lr is not None:
            options['model.init_args.base_lr'] = f'{self.base_lr:g}'
        return options


@dataclass(frozen=True)
class Plan:
    """The runs of a table.

    Attributes:
        runs: All runs by name, each after the runs it needs.
        by_cell: Names of the runs of each cell and zero-shot test, one per seed. With
            several learning rates the fine-tunings of the first seed are in `tried`.
        tried: For each cell the learning rates by the name of the run of the first
            seed; empty if there is only one rate.
        left_out: Reasons why other cells and tests are not run.
    """

    runs: Mapping[str, Run]
    by_cell: Mapping[str, Sequence[str]]
    tried: Mapping[str, Mapping[str, Any]]
    left_out: Mapping[str, str]


def make_plan(
    table: Table,
    preset: Preset,
    seeds: Sequence[int],
    data: Data,
    train_fraction: float | None = None,
    only: Sequence[str] = (),
) -> Plan:
    """Plan the runs of a table.

    A fraction is of the training labels, for cells without their own. ``only`` has
    names of cells or rows, all if empty; another name is a ValueError.
    """
    if unknown := [name for name in only if name not in {*table.cells, *table.rows}]:
        raise ValueError(
            f'Table {table.name} has no cell or row {unknown[0]!r}. Choose from the '
            f'rows {", ".join(table.rows)}, or cells such as {next(iter(table.cells))}.'
        )
    runs: dict[str, Run] = {}
    by_cell: dict[str, list[str]] = {}
    tried: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    for cell in table.cells.values():
        if only and not {cell.name, cell.row} & {*only}:
            continue
        if cell.weights and not preset.downloads:
            left_out[cell.name] = f'needs a download ({cell.weights})'
            continue
        cell = replace(cell, fraction=cell.fraction or train_fraction)
        found = list(_trainings(cell, preset, seeds, data))
        runs |= {run.name: run for run in found}
        tuned = [run for run in found if run.kind == 'finetune']
        by_cell[cell.name] = [run.name for run in tuned if not run.is_tried]
        tried[cell.name] = {r.name: r.base_lr for r in tuned if r.is_tried}
    return Plan(runs, by_cell, tried, left_out)


def _trainings(
    cell: Cell, preset: Preset, seeds: Sequence[int], data: Data
) -> Iterator[Run]:
    """Yield the trainings of a cell: every rate at the first seed, then other seeds."""
    tried: list[Run] = []
    for seed in seeds:
        start = None
        if cell.pretrain:
            own = seed if preset.pretrainings == 'each' else seeds[0]
            pretraining = _pretraining(cell, cell.pretrain, preset, own, data)
            start = pretraining.name
            yield pretraining
        run = _finetuning(cell, preset, seed, start, data)
        if len(preset.base_lrs) == 1:
            yield replace(run, base_lr=preset.base_lrs[0])
        elif tried:
            yield replace(run, candidates={r.name: r.base_lr for r in tried})
        else:
            rates = preset.base_lrs
            tried = [replace(run, base_lr=rate, is_tried=True) for rate in rates]
            yield from tried


def _finetuning(
    cell: Cell, preset: Preset, seed: int, start: str | None, data: Data
) -> Run:
    model = cell.model or preset.model.format(patch=cell.patch)
    options = {
        'model.init_args.model': model,
        'model.init_args.weights': cell.weights or 'null',
        'model.init_args.trainable': cell.trainable,
        'model.init_args.reinit': f'[{", ".join(cell.reinit)}]',
    }
    label = model.replace('_patch', '-p')
    if cell.pretrain or cell.weights:
        weights = (cell.weights or '').replace('_Weights.', '-')
        label = f'from-{weights or _source(cell)}'
    label += f'-{cell.target.lower()}'
    if cell.trainable != 'all':
        label += f'-{cell.trainable}'
    if cell.reinit:
        label += f'-reinit-{"-".join(cell.reinit)}'
    if cell.fraction is not None:
        options['data.init_args.train_fraction'] = f'{cell.fraction:g}'
        label += f'-labels{100 * cell.fraction:g}'
    if data.root is not None:
        options['data.init_args.root'] = str(data.root)
    bands = preset.overlays / 'bands' / f'{cell.target.lower()}.yaml'
    configs = (*preset.finetune, bands)
    return Run('finetune', label, seed, configs, options, start=start)


def _pretraining(cell: Cell, bands: str, preset: Preset, seed: int, data: Data) -> Run:
    on_target = has_radar(bands, preset.overlays)
    root = data.root if on_target else data.pretrain_root or data.root
    options = {'model.init_args.model': preset.model.format(patch=cell.patch)}
    if root is not None:
        options['data.init_args.root'] = str(root)
    if data.shares is not None and not on_target:
        options[_SHARES] = str(data.shares)
    base = preset.ceiling if on_target else preset.pretrain
    overlays = (f'bands/{bands}', *cell.overlays)
    configs = (*base, *(preset.overlays / f'{each}.yaml' for each in overlays))
    return Run('pretrain', _source(cell), seed, configs, options)


def _source(cell: Cell) -> str:
    """Label of a cell's pretraining, such as ``s2-p16-masking-s3``."""
    overlays = [overlay.replace('/', '-') for overlay in cell.overlays]
    return '-'.join([str(cell.pretrain), f'p{cell.patch}', *overlays])
