"""What a row of the paper's first table costs on this machine.

    uv run python -m benchmarks.headline [--device cuda --batch 256]

The row's runs, their epochs, bands and mask are those that `channelmae tables 1
--preset paper` plans; steps of each kind are measured with as many patches as --batch
says, and multiplied by the patches that the trainings read. Counted are pretraining,
fine-tunings (all learning rates and seeds), the validation after each of their epochs
and the tests. Reading data is not: see the part `data` of `python -m benchmarks`.
"""

import argparse
import json
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchgeo_channelmae.experiments.tables.plan import Data, Run, make_plan
from torchgeo_channelmae.experiments.tables.spec import read_preset, read_table

from . import arguments, memory, peak, report
from .cases import Case
from .steps import OURS, finetuning, make_batch, make_task, pretraining
from .timing import alternate, autocast

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
    trainings: int
    trained: int
    evaluated: int


def count_work(
    runs: Iterable[Run], shared: Case, patches: Mapping[str, int]
) -> list[Work]:
    """Add up what the runs of a row do.

    Args:
        runs: Of a plan.
        shared: Batch, precision and device.
        patches: Patches of each split; ``pretrain`` those of an epoch of pretraining.

    Returns:
        :class:`Work` of each kind.
    """
    trainings: Counter[Case] = Counter()
    trained: Counter[Case] = Counter()
    evaluated: Counter[Case] = Counter()
    for run in runs:
        settings = run.settings()
        case, epochs = case_of(run.kind, settings, shared), settings[EPOCHS]
        trainings[case] += 1
        if run.kind == 'pretrain':
            trained[case] += epochs * patches['pretrain']
            continue
        share = settings.get('data.init_args.train_fraction', 1.0)
        trained[case] += epochs * round(share * patches['train'])
        evaluated[case] += epochs * patches['val'] + patches['test']
    return [
        Work(case, number, trained[case], evaluated[case])
        for case, number in trainings.items()
    ]


def case_of(kind: str, settings: Mapping[str, Any], shared: Case) -> Case:
    """Turn the settings of a run into a row of the benchmarks.

    Raises:
        ValueError: If the model is not one of ours.
    """
    name = settings['model.init_args.model']
    found = re.fullmatch(r'channelmae_(\w+)_patch(\d+)', name)
    if found is None:
        raise ValueError(
            f'{name} is no ChannelMAE model: give a row of those with --row.'
        )
    case = replace(
        shared,
        part='pretraining' if kind == 'pretrain' else 'finetuning',
        model=found[1],
        patch=int(found[2]),
        bands=settings['model.init_args.in_channels'],
        size=settings['model.init_args.size'],
    )
    if kind != 'pretrain':
        return case
    share = settings.get('model.init_args.decode_share', 1.0)
    return replace(
        case,
        mask=settings['model.init_args.mask_ratio'],
        decoder_dim=settings['model.init_args.decoder_dim'],
        decoder_depth=settings['model.init_args.decoder_depth'],
        decoder_heads=settings['model.init_args.decoder_num_heads'],
        options=(('decode_share', share),) if share < 1 else (),
    )


def measure(work: Work, rounds: int) -> dict[str, Any]:
    """Time a step and a forward pass, and add up hours and operations."""
    case = work.case
    task, optimizer = make_task(case)
    batch = make_batch(case)
    make = pretraining if case.part == 'pretraining' else finetuning
    steps = make(case, task, optimizer, batch)
    times = {'step': steps.run[OURS]}
    if work.evaluated:
        times['forward'] = evaluation(task, batch['image'], case)
    taken = alternate(times, rounds, case.device)
    median = {name: statistics.median(values) for name, values in taken.items()}
    per_patch = (steps.flops or 0) / case.batch  # two thirds of it are backward
    operations = per_patch * (work.trained + work.evaluated / 3)
    del task, optimizer, steps, times
    held = memory.of_process(case, OURS)
    rate = {name: case.batch / seconds for name, seconds in median.items()}
    seconds = work.trained / rate['step']
    if work.evaluated:
        seconds += work.evaluated / rate['forward']
    return {
        'name': case.name,
        'trainings': work.trainings,
        'trained': work.trained,
        'evaluated': work.evaluated,
        'patches_per_second': rate,
        'memory': held,
        'hours': seconds / 3600,
        'flops': operations,
    }


def evaluation(task: Any, image: Tensor, case: Case) -> Any:
    """Make a forward pass as validation and test do it; nothing is dropped out."""

    @torch.inference_mode()
    def forward() -> Tensor:
        with autocast(case):
            logits: Tensor = task.model(image)
        return logits

    return forward


def markdown(made: Mapping[str, Any]) -> str:
    """Write the costs for people."""
    rows, peaks = made['work'], made['peak']
    device = made['machine']['gpu'] or made['machine']['processor']
    lines = [
        f'{made["about"]}, on {device}',
        '',
        '| step | trainings | patches trained on | evaluated | trained on, patches/s | '
        'evaluated, patches/s | peak memory, MiB | EFLOP | hours |',
        '| -- | --: | --: | --: | --: | --: | --: | --: | --: |',
    ]
    for row in rows:
        rate = row['patches_per_second']
        values = [
            row['name'],
            f'{row["trainings"]}',
            f'{row["trained"]:,}',
            f'{row["evaluated"]:,}',
            f'{rate["step"]:.4g}',
            report.scaled(rate.get('forward'), 1, '.4g'),
            f'{row["memory"] / 2**20:,.0f}',
            f'{row["flops"] / 1e18:.3g}',
            f'{row["hours"]:,.4g}',
        ]
        lines.append(f'| {" | ".join(values)} |')
    hours = sum(row['hours'] for row in rows)
    work = sum(row['flops'] for row in rows)
    share = work / (3600 * hours * peaks)
    lines += [
        '',
        f'In all {hours:,.4g} hours and {work / 1e18:.3g} EFLOP: {100 * share:.0f} % '
        f'of the {peaks / 1e12:.4g} TFLOP/s of the best square product.',
    ]
    return '\n'.join(lines) + '\n'


def main() -> None:
    """Plan, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('--row', default='s2-p16', help='of table 1')
    add('--overlay', nargs='+', default=[], help='of conf/paper, over pretraining')
    add('--conf', type=Path, default=Path('conf'), help='folder of the configurations')
    add('--batch', type=arguments.positive, default=8, help='patches of a step')
    add('--precision', default='fp32', choices=['fp32', 'bf16'])
    add('--device', default='cpu', type=arguments.device, help='cpu or cuda')
    add('--compile', action='store_true', help='as conf/compile.yaml does')
    add(
        '--pretrain-patches',
        type=arguments.positive,
        default=PATCHES['train'],
        help='of an epoch',
    )
    add('--rounds', type=arguments.positive, default=5, help='timed runs of each step')
    add('--json', type=Path, help='file for the figures')
    options = parser.parse_args()
    try:
        made = cost(options)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(markdown(made))
    if options.json:
        options.json.write_text(json.dumps(made, indent=1))


def cost(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what a row costs.

    Raises:
        ValueError: If there is no such row, or its encoder is not ours.
        FileNotFoundError: If a configuration is missing.
    """
    preset = read_preset('paper', options.conf)
    runs = make_plan(
        read_table('1'), preset, preset.seeds, Data(), only=[options.row]
    ).runs.values()
    overlays = tuple(preset.overlays / f'{name}.yaml' for name in options.overlay)
    planned = [
        replace(run, configs=run.configs + overlays) if run.kind == 'pretrain' else run
        for run in runs
    ]
    shared = Case(
        batch=options.batch,
        precision=options.precision,
        device=options.device,
        compile=options.compile,
    )
    patches = PATCHES | {'pretrain': options.pretrain_patches}
    works = count_work(planned, shared, patches)
    made: dict[str, Any] = {
        'about': ', '.join([f'Row {options.row} of table 1', *options.overlay]),
        'machine': report.machine(options.device),
        'peak': peak.measure(options.precision, options.device),
        'work': [],
    }
    for work in works:
        print(work.case.name, file=sys.stderr, flush=True)
        made['work'].append(measure(work, options.rounds))
    return made


if __name__ == '__main__':
    main()
