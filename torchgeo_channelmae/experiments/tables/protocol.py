"""What is fixed before the first run of a table: its protocol and its power."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from scipy import stats

from ...datasets.bigearthnet import SAMPLE_ROOT
from ...files import whole
from .plan import Data, Plan
from .spec import Preset, Table, flat

_SPLIT = ('version', 'split_by', 'split_seed', 'countries', 'test_countries',
          'val_countries', 'exclude_snow', 'exclude_cloud')  # fmt: skip


def smallest_gain(
    seeds: int, clusters: float, between_clusters: float, between_seeds: float
) -> float:
    """Return the smallest difference that a 95 % interval is expected to tell from 0.

    Args:
        seeds: Number of training seeds.
        clusters: Number of clusters of the test set.
        between_clusters: Assumed standard deviation of the paired difference of two
            models between clusters.
        between_seeds: The same between training seeds; with one seed it cannot be
            measured, and is left out as in the interval.
    """
    parts = [(between_clusters**2 / clusters, clusters - 1)]
    if seeds > 1:
        parts.append((between_seeds**2 / seeds, seeds - 1))
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / count for part, count in parts)
    return float(stats.t.ppf(0.975, freedom) * variance**0.5)


def power(preset: Preset, seeds: int) -> str:
    """Describe the power of a comparison under the assumptions of a preset."""
    assumed = preset.assumed
    return (
        f'With {seeds} training seed(s) and {assumed["clusters"]} tiles, an interval '
        f'is expected to tell a gain of {smallest_gain(seeds, **assumed):.2f} points '
        f'from 0, if the difference of two models varies by '
        f'{assumed["between_clusters"]} points from tile to tile and by '
        f'{assumed["between_seeds"]} from seed to seed '
        f'(standard deviations, assumed).'
    )


def describe(
    table: Table, preset: Preset, plan: Plan, seeds: Sequence[int], data: Data
) -> dict[str, Any]:
    """Return the protocol of a table.

    It has a hash of the data's table, the split, the cells, seeds and grids, the unit
    that is resampled, the primary comparison, and a hash of the settings of each run.
    """
    path = Path(data.root or SAMPLE_ROOT) / 'metadata.parquet'
    settings = {name: run.settings() for name, run in plan.runs.items()}
    tested = next((s for s in settings.values() if 'data.init_args.version' in s), {})
    tuned = ('base_lrs', 'partial_base_lrs', 'layer_decays', 'fractions')
    hashes = {k: _hash(yaml.safe_dump(v).encode())[:16] for k, v in settings.items()}
    return {
        'table': table.name,
        'preset': preset.name,
        'data table': _hash(path.read_bytes()) if path.exists() else None,
        'split': {key: tested.get(f'data.init_args.{key}') for key in _SPLIT},
        'cells': [*plan.by_cell],
        'seeds': [*seeds],
        'pretrainings': preset.pretrainings,
        'grids': {key: [*getattr(preset, key)] for key in tuned},
        'resampled': 'tiles',
        'primary comparison': f'{" - ".join(table.primary)}, mAP micro',
        'runs': hashes,
    }


def fix(path: Path, asked: Mapping[str, Any], done: int) -> str:
    """Write a protocol before the first run, or check that what is asked for is in it.

    Args:
        path: The file.
        asked: What is asked for, from :func:`describe`.
        done: Number of runs that are done.

    Returns:
        A sentence for the page.

    Raises:
        ValueError: If what is asked for differs from the file.
    """
    if not path.exists():
        with whole(path) as part:
            values = {'done before it was written': done, **asked}
            part.write_text(yaml.safe_dump(values, sort_keys=False))
    fixed = yaml.safe_load(path.read_text())
    if not isinstance(fixed, dict):
        raise ValueError(f'{path} is no protocol. Name another file.')
    done = fixed.pop('done before it was written', None)
    one, other = flat(fixed), flat(dict(asked))
    if unlike := [k for k in {**one, **other} if one.get(k) != other.get(k)]:
        key = unlike[0]
        raise ValueError(
            f'{path} has {key}: {one.get(key)}, but {other.get(key)} is asked for '
            f'({len(unlike)} entries differ). Ask for what it has, or name another '
            f'file.'
        )
    when = 'before the first run' if not done else f'when {done} runs were done already'
    return f'{path.name} (sha256 {_hash(path.read_bytes())[:16]}), written {when}'


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
