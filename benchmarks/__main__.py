"""How fast the steps of training are, beside the same model as the peers write it.

    uv run python -m benchmarks [--only pretraining finetuning] [--out FOLDER]

Times alternate between ours, two references with the same weights and loss, and the
peers' own code where `--peer` names a checkout of it; medians are told. Without
--model, --patch, --bands, --mask, --batch and --precision, a set of rows that differ in
one thing at a time; with some of them, all combinations.
"""

import argparse
import statistics
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from torchgeo_channelmae.files import move_aside

from . import arguments, memory, peak, report
from .cases import PARTS, Case, default_cases, product_cases, quick_cases
from .peers import MARKS, make_peer, name_of, recognise
from .peers import PARTS as PEER_PARTS
from .steps import Steps, make_steps
from .timing import alternate, autocast

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
    add('--bands', nargs='+', type=arguments.positive)
    add('--mask', nargs='+', type=float)
    add('--batch', nargs='+', type=arguments.positive)
    add('--precision', nargs='+', choices=['fp32', 'bf16'])
    add(
        '--size',
        type=arguments.positive,
        default=128,
        help='side of the image in pixels',
    )
    add('--decoder-depth', type=arguments.positive, default=4)
    add(
        '--decoder-heads', type=arguments.positive, default=8, help='SpectralGPT has 16'
    )
    add('--option', nargs='+', default=[], metavar='KEY=VALUE', help='of the task')
    add('--compile', action='store_true', help='compile all variants')
    add('--device', default='cpu', type=arguments.device, help='cpu or cuda')
    add('--peer', nargs='+', type=Path, default=[], metavar='PATH')
    add(
        '--rounds',
        type=arguments.positive,
        default=5,
        help='timed runs of each variant',
    )
    add('--no-memory', action='store_true', help='leave out the peak memory of rows')
    add('--memory-by-tokens', action='store_true', help='192 to 12,288 tokens, a line')
    add(
        '--out',
        type=Path,
        default=Path('benchmark'),
        help='folder of the report; an older one is moved aside',
    )
    add('--compare', type=Path, metavar='OLD.json', help='flag what got 10 %% slower')
    add('--report', type=Path, metavar='NEW.json', help='compare it, measure nothing')
    add('--quick', action='store_true', help='tiny models, one round: does it run?')
    add('--memory-of', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.report and not options.compare:
        parser.error('--report needs --compare OLD.json: it says what to compare with.')
    for path in options.peer:
        try:
            recognise(path)
        except ValueError as error:
            parser.error(str(error))
    return options


def choose_cases(options: argparse.Namespace) -> list[Case]:
    """Turn options into rows."""
    pairs = (text.partition('=')[::2] for text in options.option)
    shared = Case(
        size=options.size,
        device=options.device,
        compile=options.compile,
        decoder_depth=options.decoder_depth,
        decoder_heads=options.decoder_heads,
        options=tuple((key, yaml.safe_load(value)) for key, value in pairs),
    )
    given = {name: getattr(options, name) for name in CHOICES}
    given = {name: values for name, values in given.items() if values}
    if options.quick:
        cases = quick_cases(shared)
    elif given:
        cases = product_cases(shared, {'part': options.only or PARTS[:2], **given})
    else:
        cases = default_cases(shared)
    return [case for case in cases if case.part in (options.only or PARTS)]


def check_losses(case: Case, steps: Steps) -> dict[str, float]:
    """Check that all variants compute one loss.

    Raises:
        ValueError: If two differ.
    """
    with torch.no_grad(), autocast(case):
        found = {name: float(loss()) for name, loss in steps.loss.items()}
    values = list(found.values())
    if values and max(values) - min(values) > TOLERANCE[case.precision] * max(values):
        raise ValueError(
            f'{case.name}: the losses differ, so times say nothing: {found}'
        )
    return found


def time_variants(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Time the variants of a row; what they hold is free again at the end."""
    if case.part == 'data':
        from .data import make_steps as data_steps

        steps = data_steps(case.batch, case.bands)
    else:
        steps = make_steps(case)
    losses = check_losses(case, steps)
    owners: dict[str, Path | None] = dict.fromkeys(steps.run)
    for path in options.peer:
        if name_of(path, case):
            theirs = make_peer(path, case)
            steps.run |= theirs.run
            steps.facts += theirs.facts
            owners |= dict.fromkeys(theirs.run, path)
    rounds = 1 if options.quick else options.rounds
    taken = alternate(steps.run, rounds, case.device)
    return {
        'owners': owners,
        'losses': losses,
        'flops': steps.flops,
        'facts': steps.facts,
        'seconds': taken,
        'median': {name: statistics.median(values) for name, values in taken.items()},
    }


def measure(case: Case, options: argparse.Namespace, peaks: dict[str, Any]) -> Any:
    """Measure one row."""
    row = time_variants(case, options)
    owners, held = row.pop('owners'), {}
    if not options.no_memory and case.part in ('pretraining', 'finetuning'):
        for name, path in owners.items():
            try:
                held[name] = memory.of_process(case, name, path)
            except RuntimeError as error:
                row['facts'].append(str(error))
    row |= {
        'name': case.name,
        'case': asdict(case),
        'batch': case.batch,
        'tokens': case.tokens,
        'memory': held,
        'peer_missing': missing_peer(case, owners),
    }
    row['columns'] = report.derive(row, peaks[case.precision]['measured'])
    return row


def missing_peer(case: Case, measured: Any) -> str | None:
    """Name the peer that has such a step, where no checkout of it was given."""
    names = [name for name in MARKS if PEER_PARTS[name] == case.part]
    return next((name for name in names if name not in measured), None)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all rows; the report is written anew after each, so none is lost."""
    cases = choose_cases(options)
    if not cases:
        raise ValueError('No row is left to measure: give another part after --only.')
    older = move_aside(options.out)
    if older is not None:
        print(f'The report of before is {older} now.', file=sys.stderr)
    sides = (256,) if options.quick else peak.SIDES
    peaks = {
        precision: {
            'measured': peak.measure(precision, options.device, sides=sides),
            'vendor': peak.vendor(precision, options.device),
        }
        for precision in dict.fromkeys(case.precision for case in cases)
    }
    made: dict[str, Any] = {'machine': report.machine(options.device), 'peaks': peaks}
    made['rows'] = []
    for number, case in enumerate(cases, start=1):
        print(f'{number} of {len(cases)}: {case.name}', file=sys.stderr, flush=True)
        made['rows'].append(measure(case, options, peaks))
        report.write(made, options.out)
    if options.memory_by_tokens:
        sides = (32, 64) if options.quick else memory.SIDES
        found = memory.by_tokens(cases[0], sides)
        name = replace(cases[0], batch=1).name
        made['memory_by_tokens'] = {'name': name, **found}
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
        new = report.read(options.report) if options.report else run(options)
        told, slower = report.compare(old, new) if old else ('', False)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if not options.report:
        print(report.markdown(new))
    if told:
        print(told)
    return int(slower)


if __name__ == '__main__':
    sys.exit(main())
