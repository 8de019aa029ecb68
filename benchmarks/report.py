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
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(':')[2].strip() for line in lines if 'model name' in line]
    return {
        'processor': (models or [platform.processor() or platform.machine()])[0],
        'gpu': torch.cuda.get_device_name() if device == 'cuda' else None,
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'python': platform.python_version(),
        'torch': torch.__version__,
        'timm': timm.__version__,
        'matmul_precision': torch.get_float32_matmul_precision(),
        'commit': commit or 'unknown',
    }


def about(machine: Mapping[str, Any]) -> str:
    """Write what :func:`machine` found in one line."""
    facts = (f'{key} {value}' for key, value in machine.items() if value is not None)
    return '; '.join(facts) + '.'


def derive(row: Mapping[str, Any], peak: float) -> dict[str, dict[str, Any]]:
    """Compute the columns of each variant from its times.

    Args:
        row: ``median`` seconds by variant, ``batch``, ``tokens`` per sample, ``flops``
            per step.
        peak: Operations per second that the machine reaches.
    """
    first = next(iter(row['median'].values()))
    return {
        name: {
            'samples_per_second': row['batch'] / median,
            'tokens_per_second': row['batch'] * row['tokens'] / median,
            'flops_per_second': row['flops'] and row['flops'] / median,
            'share_of_peak': row['flops'] and row['flops'] / median / peak,
            'times_ours': median / first,
        }
        for name, median in row['median'].items()
    }


def write(report: Mapping[str, Any], folder: Path) -> None:
    """Write ``report.json`` and ``report.md`` to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'report.json').write_text(json.dumps(report, indent=1))
    (folder / 'report.md').write_text(markdown(report))


def markdown(report: Mapping[str, Any]) -> str:
    """Write a report for people."""
    lines = ['# Speed', '', about(report['machine']), '']
    for precision, peak in report['peaks'].items():
        lines.append(f'Best square product in {precision}: {peak / 1e12:.4g} TFLOP/s.')
    lines += [
        '',
        'FLOP are counted only for tokens that a loss needs.',
        '',
        '| row | variant | s | samples/s | tokens/s | GFLOP/s | of peak | '
        'peak memory, MiB | time / ours |',
        '| -- | -- | --: | --: | --: | --: | --: | --: | --: |',
    ]
    for row in report['rows']:
        for name, columns in row['columns'].items():
            values = [
                f'{row["median"][name]:.4g}',
                f'{columns["samples_per_second"]:.4g}',
                f'{columns["tokens_per_second"]:,.0f}',
                scaled(columns['flops_per_second'], 1e-9, '.4g'),
                scaled(columns['share_of_peak'], 100, '.0f', ' %'),
                scaled(row['memory'].get(name), 2**-20, '.0f'),
                f'{columns["times_ours"]:.2f}',
            ]
            lines.append(f'| {row["name"]} | {name} | {" | ".join(values)} |')
        if row['peer_missing']:
            empty = ' | '.join(['not measured', *['--'] * 6])
            lines.append(f'| {row["name"]} | {row["peer_missing"]} | {empty} |')
    lines.append('')
    lines += [f'* {r["name"]}: {fact}.' for r in report['rows'] for fact in r['facts']]
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
            f'{found["bytes_per_token"] / 2**10:.1f} KiB per token and '
            f'{found["fixed_bytes"] / 2**20:.0f} MiB, and the largest deviation from '
            f'it {100 * found["largest_deviation"]:.0f} %.'
        )
    return ' '.join(sentences)


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, bool]:
    """Compare the times of our variants with those of an earlier report.

    Returns:
        Lines to print, and whether a row got :data:`SLOWER`.

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
        slower = slower or ratio >= SLOWER
        word = 'faster' if ratio <= 1 / SLOWER else 'alike'
        word = 'SLOWER' if ratio >= SLOWER else word
        lines.append(f'{word}: {row["name"]}: {ratio:.2f} times the time of before')
    return '\n'.join(lines), slower


def read(path: Path) -> dict[str, Any]:
    """Read a report.

    Raises:
        ValueError: If the file is no report.
    """
    report: dict[str, Any] = json.loads(path.read_text())
    if not isinstance(report, dict) or not {'rows', 'machine'} <= report.keys():
        raise ValueError(f'{path} is no report of benchmarks: give a report.json.')
    return report
