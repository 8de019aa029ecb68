"""Fine-tuned heads tested, unchanged, on sensors that they were not trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .cells import Cell, Table, Target
from .plan import Plan, Run, check_configs
from .presets import Preset
from .sensors import bands_of


@dataclass(frozen=True)
class Unchanged:
    """A test of a fine-tuned cell on other bands.

    Attributes:
        cell: Name of the cell, which was fine-tuned on its target, A.
        target: A, in capitals as the cell has it.
        other: Name of the other sensor, B, which has bands that A lacks.
        joined: Whether the test reads A and B; else B alone.
        bands: What it reads.
        added: How many bands of B A lacks.
        known: How many of those the pretraining read; the others start as
            ``fresh_bands`` of the configuration says.
    """

    cell: str
    target: Target
    other: str
    joined: bool
    bands: tuple[str, ...]
    added: int
    known: int

    @property
    def name(self) -> str:
        """A name, such as ``s2-p16:S1 on s1+s2``."""
        return f'{self.cell} on {self.tested}'

    @property
    def tested(self) -> str:
        """What it reads, such as ``s1+s2``."""
        return f'{self.target.lower()}+{self.other}' if self.joined else self.other


def unchanged_tests(
    table: Table, sensors: Sequence[str], overlays: Path
) -> tuple[Unchanged, ...]:
    """List the tests of all pretrained cells on sensors with bands that theirs lack.

    Args:
        table: The table of the sensors.
        sensors: Names of overlays.
        overlays: The folder that has the folder ``bands``.

    Returns:
        For each such cell and sensor the test on both and, before it, that on the
        sensor alone, where the two have no band in common.
    """
    bands = {sensor: bands_of(sensor, overlays) for sensor in sensors}
    found = []
    for cell in table.cells.values():
        if cell.pretraining is None:
            continue
        read = bands_of(cell.pretraining.bands, overlays)
        own = bands[cell.target.lower()]
        for other in sensors:
            added = tuple(band for band in bands[other] if band not in own)
            known = sum(band in read for band in added)
            name, counts = (cell.name, cell.target, other), (len(added), known)
            if added == bands[other]:
                found.append(Unchanged(*name, False, added, *counts))
            if added:
                found.append(Unchanged(*name, True, (*own, *added), *counts))
    return tuple(found)


def with_unchanged(
    plan: Plan, tests: Sequence[Unchanged], cells: Mapping[str, Cell], preset: Preset
) -> Plan:
    """Add tests of fine-tuned cells to a plan.

    Args:
        plan: The plan, whose fine-tunings are tested.
        tests: The tests; those of cells that are not in the plan are not added.
        cells: The table's cells by name.
        preset: How large it is run.

    Raises:
        ValueError: If a configuration is missing.
    """
    runs, left_out = dict(plan.runs), dict(plan.left_out)
    unchanged: dict[str, tuple[str, ...]] = {}
    for test in tests:
        if test.cell not in plan.by_cell:
            continue
        if not test.known and not test.joined:
            source = cells[test.cell].pretraining
            assert source is not None
            left_out[test.name] = (
                f'tests nothing, as neither the pretraining on {source.bands} nor the '
                f'fine-tuning on {test.target.lower()} read a band of {test.other}'
            )
            continue
        added = []
        tried = plan.tried.get(test.cell, {})
        if tried:
            added.append(_of_best(test, tried, runs, preset))
        added += [_run(test, runs[name], preset) for name in plan.by_cell[test.cell]]
        for run in added:
            check_configs(run)
            runs[run.name] = run
        unchanged[test.name] = tuple(run.name for run in added)
    return replace(plan, runs=runs, left_out=left_out, unchanged=unchanged)


def _of_best(
    test: Unchanged, tried: Mapping[str, float], runs: Mapping[str, Run], preset: Preset
) -> Run:
    """Test the best of the runs that tried learning rates, known once they are done."""
    name, rate = next(iter(tried.items()))
    run = _run(test, runs[name], preset)
    plain = run.name.replace(f'-lr{rate:g}-', '-')
    return replace(run, name=plain, start=None, candidates=tried)


def _run(test: Unchanged, tuned: Run, preset: Preset) -> Run:
    name, _, seed = tuned.name.removeprefix('finetune-').rpartition('-seed')
    listed = f'[{", ".join(test.bands)}]'
    return Run(
        name=f'unchanged-{name}-on-{test.tested}-seed{seed}',
        kind='unchanged',
        configs=(*preset.finetune, preset.overlays.parent / 'unchanged.yaml'),
        options={
            **{
                key: value
                for key, value in tuned.options.items()
                if key == 'seed_everything' or key.startswith('data.')
            },
            'model.init_args.in_channels': str(len(test.bands)),
            'model.init_args.bands': listed,
            'data.init_args.bands': listed,
        },
        start=tuned.name,
        embeddings=tuned.start,
    )
