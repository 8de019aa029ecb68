"""How even, how varied and how fast land-cover-balanced sampling is.

    uv run python -m benchmarks.sampler --metadata metadata.parquet

A patch's class shares are its labels divided by their number. The entropy of what an
epoch draws is compared with the best that any weighting of the patches reaches, with no
limit on repeats. That best is bounded from above, apart from the sampler's own
mathematics: for any distribution q over classes, the entropy of shares p is at most
-p log q, and p is a mixture of the patches' shares, so it is at most the largest
-s log q of a patch. Multiplicative updates look for the q with the lowest bound.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from torchgeo_channelmae.datasets.metadata import read_table
from torchgeo_channelmae.samplers import LandCoverBalancedSampler
from torchgeo_channelmae.samplers.balancing import entropy
from torchgeo_channelmae.samplers.shares import label_shares


def entropy_bound(shares: npt.NDArray[np.float64], steps: int = 3000) -> float:
    """Bound the entropy that any weighting of samples reaches, from above.

    Args:
        shares: (N, K) class shares.
        steps: Updates of the weights.
    """
    kinds, counts = np.unique(shares, axis=0, return_counts=True)
    weights = counts / counts.sum()
    bound = np.inf
    for _ in range(steps):
        surprise = kinds @ -np.log(weights @ kinds)
        bound = min(bound, float(surprise.max()))
        weights *= np.exp(surprise - surprise.max())
        weights /= weights.sum()
    return bound


def measure(
    shares: npt.NDArray[np.float32], draws: int, temperature: float, bound: float
) -> str:
    """Set a sampler up, draw an epoch and return a row of the table."""
    start = time.perf_counter()
    sampler = LandCoverBalancedSampler(
        range(len(shares)), shares, draws, temperature=temperature
    )
    ready = time.perf_counter()
    drawn = np.array(sampler.order()) % len(shares)
    done = time.perf_counter()
    repeats = np.bincount(drawn)
    p = shares.astype(np.float64)[drawn].mean(axis=0)
    return (
        f'| {len(shares):,} | {draws:,} | {temperature:g} | {ready - start:.2f} | '
        f'{done - ready:.2f} | {entropy(p):.4f} | {entropy(p) / bound:.4f} | '
        f'{p.min():.4f} | {p.max():.4f} | {(repeats > 0).sum() / draws:.4f} | '
        f'{repeats.max()} |'
    )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--metadata', type=Path, required=True, help='its path')
    path = parser.parse_args().metadata.absolute()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, 'metadata.parquet').symlink_to(path)
        start = time.perf_counter()
        table = read_table(Path(folder))
    everything = label_shares(table.labels.numpy())
    print(f'Reading {path.name}: {time.perf_counter() - start:.2f} s\n')
    parts = {'all': everything, 'train': everything[table.split == 'train']}
    bounds = {}
    for name, shares in parts.items():
        natural = shares.mean(axis=0, dtype=np.float64)
        bounds[name] = entropy_bound(shares.astype(np.float64))
        print(
            f'{name}: entropy {entropy(natural):.4f} nats as it is, at most '
            f'{bounds[name]:.4f} for any weights (log {len(natural)} = '
            f'{np.log(len(natural)):.4f}); shares {natural.min():.4f} to '
            f'{natural.max():.4f}'
        )
    print(
        '\n| patches | draws | temperature | set up, s | an epoch, s | entropy | of '
        'the best | least class | largest | distinct / draws | most repeats |'
    )
    print('| --: ' * 11 + '|')
    for name, shares in parts.items():
        for draws in (len(shares), len(shares) // 4, 2 * len(shares)):
            print(measure(shares, draws, 1.0, bounds[name]), flush=True)
        for temperature in (0.9, 0.5, 0.0):
            print(measure(shares, len(shares), temperature, bounds[name]), flush=True)


if __name__ == '__main__':
    main()
