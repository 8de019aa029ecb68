"""Zero-shot tests: fine-tuned heads on bands of sensors not seen in fine-tuning."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .plan import Plan, Run
from .spec import Cell, Preset, Table, bands_of


@dataclass(frozen=True)
class ZeroShotTest:
    """A test of a cell, fine-tuned on its target A, on bands of another sensor B.

    Attributes:
        cell: The cell.
        other: Name of B, which has bands that A lacks.
        joined: Whether the test reads A and B, or only B.
        bands: Bands that the test reads.
        added: Number of bands of B that A lacks.
        known: How many of these were pretrained on; ``fresh_bands`` of the
            configuration initializes the others.
    """

    cell: Cell
    other: str
    joined: bool
    bands: tuple[str, ...]
    added: int
    known: int

    @property
    def name(self) -> str:
        """Name, such as ``s2-p16:S1 on s1+s2``."""
        return f'{self.cell.name} on {self.tested}'

    @property
    def tested(self) -> str:
        """Sensors it reads, such as ``s1+s2``."""
        own = self.cell.target.lower()
        return f'{own}+{self.other}' if self.joined else self.other


def zero_shot_tests(
    table: Table, sensors: Sequence[str], overlays: Path
) -> Iterator[ZeroShotTest]:
    """Yield the tests of all pretrained cells on sensors with additional bands.

    For each cell and sensor this is the test on both, preceded by the test on the
    sensor alone if the two have no band in common. ``overlays`` contains ``bands``.
    """
    bands = {sensor: bands_of(sensor, overlays) for sensor in sensors}
    for cell in table.cells.values():
        if cell.pretrain is None:
            continue
        own, read = bands[cell.target.lower()], bands[cell.pretrain]
        for other in sensors:
            added = tuple(band for band in bands[other] if band not in own)
            counts = len(added), sum(band in read for band in added)
            if added == bands[other]:
                yield ZeroShotTest(cell, other, False, added, *counts)
            if added:
                yield ZeroShotTest(cell, other, True, (*own, *added), *counts)


def with_zero_shot(plan: Plan, tests: Sequence[ZeroShotTest], preset: Preset) -> Plan:
    """Add the zero-shot tests of the cells in a plan to the plan."""
    runs, by_cell, left_out = dict(plan.runs), dict(plan.by_cell), dict(plan.left_out)
    for test in tests:
        cell = test.cell
        if cell.name not in plan.by_cell:
            continue
        if not test.known and not test.joined:
            left_out[test.name] = (
                f'tests nothing, as neither the pretraining on {cell.pretrain} nor the '
                f'fine-tuning on {cell.target.lower()} read a band of {test.other}'
            )
            continue
        tried = plan.tried[cell.name]
        tuned = [*list(tried)[:1], *plan.by_cell[cell.name]]
        added = [_run(test, runs[name], preset) for name in tuned]
        if tried:
            added[0] = replace(added[0], start=None, candidates=tried)
        runs |= {run.name: run for run in added}
        by_cell[test.name] = [run.name for run in added]
    return replace(plan, runs=runs, by_cell=by_cell, left_out=left_out)


def _run(test: ZeroShotTest, tuned: Run, preset: Preset) -> Run:
    bands = f'[{", ".join(test.bands)}]'
    kept = ('data.', 'trainer.')
    options = {k: v for k, v in tuned.options.items() if k.startswith(kept)}
    options |= {
        'model.init_args.in_channels': str(len(test.bands)),
        'model.init_args.bands': bands,
        'data.init_args.bands': bands,
    }
    label = f'{tuned.label}-on-{test.tested}'
    configs = (*preset.finetune, preset.overlays.parent / 'unchanged.yaml')
    run = Run('unchanged', label, tuned.seed, configs, options)
    return replace(run, start=tuned.name, embeddings=tuned.start)
