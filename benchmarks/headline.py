"""What a row of the paper's first table costs on this machine.

    uv run python -m benchmarks.headline [--device cuda --batch 256]

The row's runs, their epochs, bands and mask are those that `channelmae tables 1
--preset paper` plans; steps of each kind are measured with as many patches as --batch
says, and multiplied by the patches that the trainings read. Counted are pretraining,
fine-tunings (all learning rates and seeds), the validation after each of their epochs
and the tests. Reading data is not: see the part `data` of `python -m benchmarks`.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from torchgeo_channelmae.experiments.tables.plan import Data, Run, make_plan
from torchgeo_channelmae.experiments.tables.spec import read_preset, read_table

from . import memory, report, timing
from .cases import Case, device, positive
from .steps import OURS, make_batch, make_steps, make_task

PATCHES = {'train': 237_871, 'val': 122_342, 'test': 119_825}
"""Patches of the splits of BigEarthNet v2."""

EPOCHS = 'trainer.max_epochs'


@dataclass(frozen=True)
class Work:
    """What trainings of one kind do together.

    Attributes:
        case: A step of theirs.
        trainings: How many there are.
        trained: Patches that go forward and backward, in all of them.
        evaluated: Patches that only go forward.
    """

    case: Case
    trainings: int = 0
    trained: int = 0
    evaluated: int = 0


def count_work(runs: Iterable[Run], shared: Case) -> list[Work]:
    """Add up what the runs of a row do.

    Args:
        runs: Of a plan.
        shared: Batch, precision and device.

    Returns:
        :class:`Work` of each kind.
    """
    works: dict[Case, Work] = {}
    for run in runs:
        settings = run.settings()
        case, epochs = case_of(run.kind, settings, shared), settings[EPOCHS]
        share = settings.get('data.init_args.train_fraction', 1.0)
        trained, evaluated = epochs * round(share * PATCHES['train']), 0
        if run.kind != 'pretrain':
            evaluated = epochs * PATCHES['val'] + PATCHES['test']
        work = works.get(case, Work(case))
        works[case] = replace(
            work,
            trainings=work.trainings + 1,
            trained=work.trained + trained,
            evaluated=work.evaluated + evaluated,
        )
    return list(works.values())


def case_of(kind: str, settings: Mapping[str, Any], shared: Case) -> Case:
    """Turn the settings of a run into a row of the benchmarks.

    Raises:
        ValueError: If the model is not one of ours.
    """
    own = {
        key.removeprefix('model.init_args.'): value
        for key, value in settings.items()
        if key.startswith('model.init_args.')
    }
    found = re.fullmatch(r'channelmae_(\w+)_patch(\d+)', own['model'])
    if found is None:
        raise ValueError(
            f'{own["model"]} is no ChannelMAE model: give a row of those with --row.'
        )
    case = replace(
        shared,
        part='pretraining' if kind == 'pretrain' else 'finetuning',
        model=found[1],
        patch=int(found[2]),
        bands=own['in_channels'],
        size=own['size'],
    )
    if kind != 'pretrain':
        return case
    return replace(
        case,
        mask=own['mask_ratio'],
        decoder_dim=own['decoder_dim'],
        decoder_depth=own['decoder_depth'],
        decoder_heads=own['decoder_num_heads'],
    )


def measure(work: Work, rounds: int) -> dict[str, Any]:
    """Time a step and a forward pass, and add up hours and operations."""
    case = work.case
    rate, flops = rates(case, rounds)
    seconds = work.trained / rate['step'] + work.evaluated / rate['forward']
    return {
        'work': work,
        'rate': rate,
        'memory': memory.of_process(case, OURS),
        'hours': seconds / 3600,  # two thirds of the operations are backward
        'flops': flops / case.batch * (work.trained + work.evaluated / 3),
    }


def rates(case: Case, rounds: int) -> tuple[dict[str, float], int]:
    """Measure patches per second of a step and a forward pass, and FLOP of a step."""
    task, optimizer = make_task(case)
    steps, image = make_steps(case, (task, optimizer)), make_batch(case)['image']

    def forward() -> None:  # as validation and test do it
        with torch.inference_mode(), timing.autocast(case):
            task.model(image)

    times = {'step': steps.run[OURS], 'forward': forward}
    found = timing.alternate(times, rounds, case.device)
    rate = {name: case.batch / statistics.median(one) for name, one in found.items()}
    return rate, steps.flops or 0


def markdown(rows: list[dict[str, Any]], peak: float) -> str:
    """Write the costs for people, beside the peak of the machine in FLOP/s."""
    lines = [
        '| step | trainings | patches trained on | evaluated | trained on, patches/s | '
        'evaluated, patches/s | peak memory, MiB | EFLOP | hours |',
        '| -- | --: | --: | --: | --: | --: | --: | --: | --: |',
    ]
    for row in rows:
        work, rate = row['work'], row['rate']
        lines.append(
            f'| {work.case.name} | {work.trainings} | {work.trained:,} | '
            f'{work.evaluated:,} | {rate["step"]:.4g} | '
            f'{rate["forward"]:.4g} | '
            f'{row["memory"] / 2**20:,.0f} | {row["flops"] / 1e18:.3g} | '
            f'{row["hours"]:,.4g} |'
        )
    hours, flops = (sum(row[key] for row in rows) for key in ('hours', 'flops'))
    share = flops / (3600 * hours * peak)
    return '\n'.join(lines) + (
        f'\n\nIn all {hours:,.4g} hours and {flops / 1e18:.3g} EFLOP: {share:.0%} of '
        f'the {peak / 1e12:.4g} TFLOP/s of the best square product.\n'
    )


def main() -> None:
    """Plan, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('--row', default='s2-p16', help='of table 1')
    add('--conf', type=Path, default=Path('conf'), help='folder of the configurations')
    add('--batch', type=positive, default=8, help='patches per step')
    add('--precision', default='fp32', choices=['fp32', 'bf16'])
    add('--device', default='cpu', type=device, help='cpu or cuda')
    add('--compile', action='store_true', help='as conf/compile.yaml does')
    add('--rounds', type=positive, default=5, help='timed runs of each step')
    options = parser.parse_args()
    try:
        works = plan(options)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    machine = report.machine(options.device)
    peak = timing.best_product(options.precision, options.device)
    rows = []
    for work in works:
        print(work.case.name, file=sys.stderr, flush=True)
        rows.append(measure(work, options.rounds))
    name = machine['gpu'] or machine['processor']
    print(f'Row {options.row} of table 1, on {name}\n')
    print(markdown(rows, peak))


def plan(options: argparse.Namespace) -> list[Work]:
    """Plan a row.

    Raises:
        ValueError: If there is no such row, or its encoder is not ours.
        FileNotFoundError: If a configuration is missing.
    """
    preset = read_preset('paper', options.conf)
    made = make_plan(read_table('1'), preset, preset.seeds, Data(), only=[options.row])
    shared = Case(
        batch=options.batch,
        precision=options.precision,
        device=options.device,
        compile=options.compile,
    )
    return count_work(made.runs.values(), shared)


if __name__ == '__main__':
    main()
