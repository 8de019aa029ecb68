"""The report of a measurement: JSON, Markdown, and what got slower than before."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch

SLOWER = 1.1
"""A row is flagged where its time grew by this factor."""


def machine(device: str) -> dict[str, Any]:
    """Describe what the figures are of: processor, cores, versions, commit."""
    git = ['git', '-C', str(Path(__file__).parent), 'describe', '--always', '--dirty']
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    return {
        'processor': _processor(),
        'gpu': torch.cuda.get_device_name() if device == 'cuda' else None,
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'python': platform.python_version(),
        'torch': torch.__version__,
        'timm': timm.__version__,
        'matmul_precision': torch.get_float32_matmul_precision(),
        'commit': commit or 'unknown',
    }


def _processor() -> str:
    """Name the processor as the system does."""
    info = Path('/proc/cpuinfo')
    for line in info.read_text().splitlines() if info.is_file() else ():
        if line.startswith('model name'):
            return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()


def derive(row: Mapping[str, Any], peak: float | None) -> dict[str, dict[str, Any]]:
    """Compute the columns of each variant from its times.

    Args:
        row: ``seconds`` by variant, ``batch``, ``tokens`` a sample, ``flops`` a step.
        peak: Operations a second that the machine reaches.

    Returns:
        By variant: ``samples_per_second``, ``tokens_per_second``,
        ``flops_per_second``, ``share_of_peak``, ``times_ours``: how many times the
        time of the first variant it takes.
    """
    medians: dict[str, float] = row['median']
    first = next(iter(medians.values()))
    columns = {}
    for name, taken in medians.items():
        rate = row['flops'] / taken if row['flops'] else None
        columns[name] = {
            'samples_per_second': row['batch'] / taken,
            'tokens_per_second': row['batch'] * row['tokens'] / taken,
            'flops_per_second': rate,
            'share_of_peak': rate / peak if rate and peak else None,
            'times_ours': taken / first,
        }
    return columns


def write(report: Mapping[str, Any], folder: Path) -> None:
    """Write ``report.json`` and ``report.md``.

    Raises:
        OSError: If the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'report.json').write_text(json.dumps(report, indent=1))
    (folder / 'report.md').write_text(markdown(report))


def markdown(report: Mapping[str, Any]) -> str:
    """Write a report for people."""
    about = report['machine']
    told = (f'{key} {value}' for key, value in about.items() if value is not None)
    lines = ['# Speed', '', '; '.join(told) + '.', '']
    for precision, peak in report['peaks'].items():
        vendor = peak['vendor']
        beside = f'vendor {vendor / 1e12:.4g}' if vendor else 'vendor not known'
        lines.append(
            f'Best square product in {precision}: '
            f'{peak["measured"] / 1e12:.4g} TFLOP/s ({beside}).'
        )
    lines += ['', 'FLOP count for tokens that a loss needs alone.', '']
    lines += [
        '| row | variant | s | samples/s | tokens/s | GFLOP/s | of peak | '
        'peak memory, MiB | time / ours |',
        '| -- | -- | --: | --: | --: | --: | --: | --: | --: |',
    ]
    for row in report['rows']:
        for name, columns in row['columns'].items():
            memory = row['memory'].get(name)
            values = [
                row['name'],
                name,
                f'{row["median"][name]:.4g}',
                f'{columns["samples_per_second"]:.4g}',
                f'{columns["tokens_per_second"]:,.0f}',
                scaled(columns['flops_per_second'], 1e-9, '.4g'),
                scaled(columns['share_of_peak'], 100, '.0f', ' %'),
                scaled(memory, 2**-20, '.0f'),
                f'{columns["times_ours"]:.2f}',
            ]
            lines.append(f'| {" | ".join(values)} |')
        if row.get('peer_missing'):
            empty = ' | '.join(['not measured', *['--'] * 6])
            lines.append(f'| {row["name"]} | {row["peer_missing"]} | {empty} |')
    facts = [
        f'{row["name"]}: {fact}' for row in report['rows'] for fact in row['facts']
    ]
    lines += ['', *(f'* {fact}.' for fact in facts)]
    if held := report.get('memory_by_tokens'):
        lines += ['', _memory(held)]
    return '\n'.join(lines) + '\n'


def scaled(value: float | None, factor: float, form: str, unit: str = '') -> str:
    """Write a number times a factor, or a dash where there is none."""
    return '--' if value is None else f'{value * factor:{form}}{unit}'


def _memory(held: Mapping[str, Any]) -> str:
    """Write activations and peak memory by tokens."""
    sentences = [f'{held["name"]}, and images of other sizes, by tokens.']
    for what in ('activations', 'peak'):
        found = held[what]
        pairs = zip(held['tokens'], found['bytes'], strict=True)
        measured = ', '.join(f'{n:,}: {size / 2**20:,.0f} MiB' for n, size in pairs)
        sentences.append(
            f'{what.capitalize()}: {measured}; a line through them is '
            f'{found["bytes_per_token"] / 2**10:.1f} KiB a token and '
            f'{found["fixed_bytes"] / 2**20:.0f} MiB, and the largest deviation from '
            f'it {100 * found["largest_deviation"]:.0f} %.'
        )
    return ' '.join(sentences)


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, bool]:
    """Compare the times of our variants with those of an earlier report.

    Returns:
        What is to be told, and whether a row got :data:`SLOWER`.

    Raises:
        ValueError: If the reports have no row in common.
    """
    before = {row['name']: row['median'] for row in old['rows']}
    rows = [row for row in new['rows'] if row['name'] in before]
    if not rows:
        raise ValueError(
            'The two reports have no row in common: measure with the same options.'
        )
    lines, slower = [], False
    for field in ('processor', 'gpu', 'cores', 'threads', 'torch'):
        was, now = old['machine'].get(field), new['machine'].get(field)
        if was != now:
            lines.append(f'Note: {field} was {was}, is {now}.')
    for row in rows:
        name = next(iter(row['median']))
        ratio = row['median'][name] / before[row['name']][name]
        flag = ratio >= SLOWER
        slower = slower or flag
        word = 'SLOWER' if flag else 'faster' if ratio <= 1 / SLOWER else 'alike'
        lines.append(f'{word}: {row["name"]}: {ratio:.2f} times the time of before')
    return '\n'.join(lines), slower


def read(path: Path) -> dict[str, Any]:
    """Read a report.

    Raises:
        ValueError: If the file is no report.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text())
        report['rows'], report['machine']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{path} is no report of python -m benchmarks ({error}): give a '
            f'report.json.'
        ) from None
    return report
