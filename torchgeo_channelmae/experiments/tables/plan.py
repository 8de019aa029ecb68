"""The ``torchgeo`` runs that make a table, and their settings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml

from .spec import Cell, Preset, Table, flat

_SHARES = 'data.init_args.sampler.init_args.shares'
_BATCH = 'data.init_args.batch_size'
_DRAWN = 'data.init_args.samples_per_epoch'
_SHORT = {'base_lr': 'lr', 'layer_decay': 'decay'}

Tuned = Mapping[str, float]
"""Arguments of the task that are chosen on validation."""


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
        tuned: Learning rate and layer decay, where not those of the configurations or
            of a candidate.
        is_tried: Whether they are one choice of several that are compared.
        start: Name of the run with the weights to start from.
        embeddings: Name of the run with the embeddings of bands missing in `start`.
        candidates: What is tuned, by the name of the run that tries it. A fine-tuning
            trains with the best choice, a zero-shot test reads its weights.
    """

    kind: Literal['pretrain', 'finetune', 'unchanged']
    label: str
    seed: int
    configs: tuple[Path, ...]
    options: Mapping[str, str]
    tuned: Tuned = field(default_factory=dict)
    is_tried: bool = False
    start: str | None = None
    embeddings: str | None = None
    candidates: Mapping[str, Tuned] | None = None

    @property
    def name(self) -> str:
        """Name of its folder."""
        tried = self.tuned if self.is_tried else {}
        choice = ''.join(f'-{_SHORT[key]}{value:g}' for key, value in tried.items())
        return f'{self.kind}-{self.label}{choice}-seed{self.seed}'

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
        tuned = {f'model.init_args.{k}': f'{v:g}' for k, v in self.tuned.items()}
        return options | tuned


@dataclass(frozen=True)
class Plan:
    """The runs of a table.

    Attributes:
        runs: All runs by name, each after the runs it needs.
        by_cell: Names of the runs of each cell and zero-shot test, one per seed. Of
            cells with a choice, the fine-tunings of the first seed are in `tried`.
        tried: For each cell what is tuned, by the name of the run of the first seed;
            empty if there is no choice.
        left_out: Reasons why other cells and tests are not run.
    """

    runs: Mapping[str, Run]
    by_cell: Mapping[str, Sequence[str]]
    tried: Mapping[str, Mapping[str, Tuned]]
    left_out: Mapping[str, str]


def make_plan(
    table: Table,
    preset: Preset,
    seeds: Sequence[int],
    data: Data,
    train_fraction: float | None = None,
    only: Sequence[str] = (),
    devices: int = 1,
) -> Plan:
    """Plan the runs of a table.

    Args:
        table: The table.
        preset: Its preset.
        seeds: Training seeds.
        data: The data.
        train_fraction: Share of the training labels of cells without their own.
        only: Names of cells or rows; all if empty.
        devices: Devices per run, which share the batch of the configuration.

    Raises:
        ValueError: If there is no such cell or row, the number of pretrainings does not
            fit the seeds, or the batch not the devices.
    """
    if not (preset.pretrainings == 1 or preset.pretrainings >= len(seeds)):
        raise ValueError(
            f'pretrainings is {preset.pretrainings} for {len(seeds)} seeds. Use 1, or '
            f'one per seed, so that each training run counts once.'
        )
    if unknown := [name for name in only if name not in {*table.cells, *table.rows}]:
        raise ValueError(
            f'Table {table.name} has no cell or row {unknown[0]!r}. Choose from the '
            f'rows {", ".join(table.rows)}, or cells such as {next(iter(table.cells))}.'
        )
    runs: dict[str, Run] = {}
    by_cell: dict[str, list[str]] = {}
    tried: dict[str, dict[str, Tuned]] = {}
    left_out: dict[str, str] = {}
    every = table.cells.values()
    compared = {cell.scratch for cell in every if cell.weights}
    compared -= {cell.scratch for cell in every if not cell.weights}
    for cell in table.cells.values():
        if only and not {cell.name, cell.row} & {*only}:
            continue
        if cell.weights and not preset.downloads:
            left_out[cell.name] = f'needs a download ({cell.weights})'
            continue
        if cell.name in compared and not preset.downloads:
            left_out[cell.name] = 'is compared with rows that need a download'
            continue
        if cell.own and not preset.ceiling:
            left_out[cell.name] = 'is another row, as pretraining reads these images'
            continue
        cell = replace(cell, fraction=cell.fraction or train_fraction)
        made = _trainings(cell, preset, seeds, data)
        found = [_on_devices(run, devices) for run in made]
        runs |= {run.name: run for run in found}
        tuned = [run for run in found if run.kind == 'finetune']
        by_cell[cell.name] = [run.name for run in tuned if not run.is_tried]
        tried[cell.name] = {r.name: r.tuned for r in tuned if r.is_tried}
    return Plan(runs, by_cell, tried, left_out)


def _trainings(
    cell: Cell, preset: Preset, seeds: Sequence[int], data: Data
) -> Iterator[Run]:
    """Yield the trainings of a cell: all choices at one seed, then other seeds."""
    tried: list[Run] = []
    learn_all = cell.trainable == 'all'
    grid: dict[str, Sequence[float]] = {
        'base_lr': preset.base_lrs if learn_all else preset.partial_base_lrs
    }
    if learn_all and not (cell.pretrain or cell.weights):
        grid['layer_decay'] = preset.layer_decays
    choices = [dict(zip(grid, each, strict=True)) for each in product(*grid.values())]
    for seed in seeds:
        start = None
        if cell.pretrain:
            own = seed if preset.pretrainings > 1 else seeds[0]
            pretraining = _pretraining(cell, cell.pretrain, preset, own, data)
            start = pretraining.name
            yield pretraining
        run = _finetuning(cell, preset, seed, start, data)
        if tried:
            yield replace(run, candidates={r.name: r.tuned for r in tried})
            continue
        several = len(choices) > 1
        made = [replace(run, tuned=each, is_tried=several) for each in choices]
        if cell.trainable == 'head' and seed == seeds[0]:  # the encoder is the same
            check = preset.overlays.parent / 'logistic.yaml'
            made[0] = replace(made[0], configs=(*made[0].configs, check))
        yield from made
        tried = made if several else []


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
        part = {'train_fraction': f'{cell.fraction:g}', 'fraction_seed': str(seed)}
        if preset.cut_validation:
            part['val_label_fraction'] = part['train_fraction']
        options |= {f'data.init_args.{key}': value for key, value in part.items()}
        label += f'-labels{100 * cell.fraction:g}'
    if data.root is not None:
        options['data.init_args.root'] = str(data.root)
    bands = preset.overlays / 'bands' / f'{cell.target.lower()}.yaml'
    configs = (*preset.finetune, bands)
    run = Run('finetune', label, seed, configs, options, start=start)
    if cell.fraction is not None and run.settings().get(_DRAWN) is None:
        options['data.init_args.full_epochs'] = 'true'  # as many steps as with all
    return run


def _pretraining(cell: Cell, bands: str, preset: Preset, seed: int, data: Data) -> Run:
    root = data.root if cell.own else data.pretrain_root or data.root
    options = {'model.init_args.model': preset.model.format(patch=cell.patch)}
    if root is not None:
        options['data.init_args.root'] = str(root)
    if data.shares is not None and not cell.own:
        options[_SHARES] = str(data.shares)
    base = preset.ceiling if cell.own else preset.pretrain
    overlays = (f'bands/{bands}', *cell.overlays)
    configs = (*base, *(preset.overlays / f'{each}.yaml' for each in overlays))
    return Run('pretrain', _source(cell), seed, configs, options)


def _source(cell: Cell) -> str:
    """Label of a cell's pretraining, such as ``s2-p16-masking-s3``."""
    overlays = [overlay.replace('/', '-') for overlay in cell.overlays]
    own = ['own'] if cell.own else []
    return '-'.join([str(cell.pretrain), f'p{cell.patch}', *own, *overlays])


def _on_devices(run: Run, devices: int) -> Run:
    """Share the batch of the configuration between devices, so that it stays."""
    batch = int(run.settings()[_BATCH])
    if batch % devices:
        raise ValueError(
            f'devices is {devices}, but {run.name} has batches of {batch}, which that '
            f'does not divide. Use another number of devices.'
        )
    options = {'trainer.devices': str(devices), _BATCH: str(batch // devices)}
    return replace(run, options={**run.options, **options})
