"""How fast the steps of training are, beside the same model as the peers write it.

    uv run python -m benchmarks [--only pretraining finetuning] [--out FOLDER]

Times alternate between ours, two references with the same weights and loss, and the
peers' own code where `--peer` names a checkout of it; the report has medians. Without
--model, --patch, --bands, --mask, --batch and --precision, a set of rows that differ in
one thing at a time; with some of them, all combinations.
"""

import argparse
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from torchgeo_channelmae.files import move_aside

from . import cases as rows
from . import data, memory, report, timing
from .cases import PARTS, STEPS, Case
from .peers import PEERS, make_peer, recognise
from .steps import Steps, make_steps

CHOICES = ('model', 'patch', 'bands', 'mask', 'batch', 'precision')
TOLERANCE = {'fp32': 1e-4, 'bf16': 2e-2}
"""Relative difference of losses that counts as equal."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser('python -m benchmarks', description=__doc__)
    add = parser.add_argument
    add('--only', nargs='+', choices=PARTS, help='parts to measure')
    add('--model', nargs='+', choices=['tiny', 'small', 'base', 'large'])
    add('--patch', nargs='+', type=int, choices=[8, 16])
    add('--bands', nargs='+', type=rows.positive)
    add('--mask', nargs='+', type=float)
    add('--batch', nargs='+', type=rows.positive)
    add('--precision', nargs='+', choices=['fp32', 'bf16'])
    add('--size', type=rows.positive, default=128, help='side of the image in pixels')
    add('--decoder-depth', type=rows.positive, default=4)
    add('--decoder-heads', type=rows.positive, default=8, help='SpectralGPT has 16')
    add('--option', nargs='+', default=[], metavar='KEY=VALUE', help='of the task')
    add('--compile', action='store_true', help='compile all variants')
    add('--device', default='cpu', type=rows.device, help='cpu or cuda')
    add('--peer', nargs='+', type=Path, default=[], metavar='PATH')
    add('--rounds', type=rows.positive, default=5, help='timed runs of each variant')
    add('--no-memory', action='store_true', help='leave out the peak memory of rows')
    add('--memory-by-tokens', action='store_true', help='192 to 12,288 tokens, a line')
    out = 'folder of the report; an older one is moved aside'
    add('--out', type=Path, default=Path('benchmark'), help=out)
    add('--compare', type=Path, metavar='OLD.json', help='flag what got 10 %% slower')
    add('--quick', action='store_true', help='tiny models, one round: does it run?')
    add('--memory-of', help=argparse.SUPPRESS)
    return parser.parse_args()


def choose_cases(options: argparse.Namespace) -> list[Case]:
    """Turn options into rows.

    Raises:
        ValueError: If none is left.
    """
    pairs = (text.partition('=')[::2] for text in options.option)
    shared = Case(
        size=options.size,
        device=options.device,
        compile=options.compile,
        decoder_depth=options.decoder_depth,
        decoder_heads=options.decoder_heads,
        options=tuple((key, yaml.safe_load(value)) for key, value in pairs),
    )
    given = {name: values for name in CHOICES if (values := getattr(options, name))}
    if options.quick:
        cases = rows.quick_cases(shared)
    elif given:
        cases = rows.product_cases(shared, {'part': options.only or STEPS, **given})
    else:
        cases = rows.default_cases(shared)
    cases = [case for case in cases if case.part in (options.only or PARTS)]
    if not cases:
        raise ValueError('No row is left to measure: give another part after --only.')
    return cases


def check_losses(case: Case, steps: Steps) -> dict[str, float]:
    """Check that all variants compute one loss.

    Raises:
        ValueError: If two differ.
    """
    with torch.no_grad(), timing.autocast(case):
        found = {name: float(loss()) for name, loss in steps.loss.items()}
    values = list(found.values())
    if values and max(values) - min(values) > TOLERANCE[case.precision] * max(values):
        raise ValueError(
            f'{case.name}: the losses differ, so times say nothing: {found}'
        )
    return found


def measure(case: Case, options: argparse.Namespace, peak: float) -> dict[str, Any]:
    """Measure one row."""
    is_data = case.part == 'data'
    steps = data.make_steps(case.batch, case.bands) if is_data else make_steps(case)
    losses = check_losses(case, steps)
    owners: dict[str, Path | None] = dict.fromkeys(steps.run)
    for path in options.peer:
        if PEERS[recognise(path)[0]].part == case.part:
            theirs = make_peer(path, case)
            steps.run |= theirs.run
            steps.facts += theirs.facts
            owners |= dict.fromkeys(theirs.run, path)
    rounds = 1 if options.quick else options.rounds
    seconds = timing.alternate(steps.run, rounds, case.device)
    names = [name for name, peer in PEERS.items() if peer.part == case.part]
    row: dict[str, Any] = {
        'name': case.name,
        'case': asdict(case),
        'batch': case.batch,
        'tokens': case.tokens,
        'losses': losses,
        'flops': steps.flops,
        'facts': steps.facts,
        'seconds': seconds,
        'median': {name: statistics.median(found) for name, found in seconds.items()},
        'memory': {},
        'peer_missing': next((name for name in names if name not in owners), None),
    }
    del steps  # so that its memory is free for the processes
    if not options.no_memory and case.part in STEPS:
        for name, owner in owners.items():
            try:
                row['memory'][name] = memory.of_process(case, name, owner)
            except RuntimeError as error:
                row['facts'].append(str(error))
    return row | {'columns': report.derive(row, peak)}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all rows; the report is written after each, so none is lost."""
    for path in options.peer:
        recognise(path)
    cases = choose_cases(options)
    if older := move_aside(options.out):
        print(f'The report of before is {older} now.', file=sys.stderr)
    sides = (256,) if options.quick else timing.SIDES
    peaks = {
        precision: timing.best_product(precision, options.device, sides)
        for precision in dict.fromkeys(case.precision for case in cases)
    }
    made: dict[str, Any] = {'machine': report.machine(options.device), 'peaks': peaks}
    made['rows'] = []
    for number, case in enumerate(cases, start=1):
        print(f'{number} of {len(cases)}: {case.name}', file=sys.stderr, flush=True)
        made['rows'].append(measure(case, options, peaks[case.precision]))
        report.write(made, options.out)
    if options.memory_by_tokens:
        sides = (32, 64) if options.quick else memory.SIDES
        made['memory_by_tokens'] = memory.by_tokens(cases[0], sides)
        report.write(made, options.out)
    return made


def main() -> int:
    """Measure, write the report, compare; 1 where something got slower."""
    options = parse()
    if options.memory_of:
        memory.answer(options.memory_of)
        return 0
    try:
        old = report.read(options.compare) if options.compare else None
        new = run(options)
        print(report.markdown(new))
        text, slower = report.compare(old, new) if old else ('', False)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(text)
    return int(slower)


if __name__ == '__main__':
    sys.exit(main())
