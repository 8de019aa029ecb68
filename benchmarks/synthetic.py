"""What the synthetic Earth costs, and how near its labels and scores are to real ones.

    uv run python -m benchmarks.synthetic speed [--n 200]
    uv run python -m benchmarks.synthetic labels [--n 5000]
    uv run python -m benchmarks.synthetic scores [--n 5000] [--null]
    uv run python -m benchmarks.synthetic fit ROOT

`speed` draws pairs with their labels in one process and packs them as records; nothing
is written, and the processor's time is counted, so that other programs matter less.
`scores` trains logistic regressions, one a class, on the mean and standard deviation
of each band. `fit` prints the tables of ``landscape.py`` from the real
``ROOT/metadata.parquet`` of BigEarthNet v2.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

from torchgeo_channelmae.datasets.metadata import CLASSES, read_table
from torchgeo_channelmae.experiments.landscape import (
    FREQUENCIES,
    LABELS_A_PATCH,
)
from torchgeo_channelmae.experiments.synthesize import RecordMaker, compute_all
from torchgeo_channelmae.experiments.synthetic import World

Floats = npt.NDArray[np.float64]


def speed(n: int) -> None:
    """Print how long parts of a pair take, and pairs a second and core."""
    world = World()
    make = RecordMaker(world, n)
    parts: dict[str, Callable[[int], object]] = {
        'labels and names': world.sample,
        'Sentinel-2 record': make,
        'Sentinel-1 record': lambda index: make(n + index),
    }
    total = 0.0
    for name, part in parts.items():
        part(0)  # warm
        start = time.process_time()
        for index in range(n):
            part(index)
        took = (time.process_time() - start) / n
        total += took
        print(f'{name}: {1e3 * took:.1f} ms')
    print(f'{1 / total:.0f} pairs/s a core (processor time, {n} pairs)')


def labels(n: int, workers: int) -> None:
    """Print label frequencies, those of the real table beside."""
    world = World()
    drawn = compute_all(world.sample, n, workers, 'patches')
    found = np.array([sample.labels for sample in drawn])
    print('| class | real, % | synthetic, % |\n| -- | --: | --: |')
    for name, real, share in zip(CLASSES, FREQUENCIES, found.mean(0), strict=True):
        print(f'| {name} | {100 * real:.1f} | {100 * share:.1f} |')
    print(f'| labels a patch | {LABELS_A_PATCH:.2f} | {found.sum(1).mean():.2f} |')
    worst = np.abs(found.mean(0) - FREQUENCIES).max()
    print(f'largest difference: {100 * worst:.1f} points, over {n:,} patches')


class Features:
    """Mean and standard deviation of each band, and the labels."""

    def __init__(self, world: World) -> None:
        """Look at a world."""
        self.world = world

    def __call__(self, index: int) -> tuple[str, Floats, Floats, npt.NDArray[np.int64]]:
        """Return split, optical (24,) and radar (4,) features and (19,) labels."""
        sample = self.world.sample(index)
        optical, radar = (
            np.array([[band.mean(), band.std()] for band in bands.values()]).ravel()
            for bands in (self.world.optical(index), self.world.radar(index))
        )
        return sample.scene.split, optical, radar, sample.labels


def precision(
    train: Floats, test: Floats, known: Floats, truth: Floats
) -> tuple[float, float]:
    """Return macro mAP of linear classifiers and that of chance, class frequency.

    Args:
        train: (rows, features).
        test: (others, features).
        known: (rows, 19) labels of the first.
        truth: (others, 19) labels of the second.
    """
    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    scores = []
    for column in range(known.shape[1]):
        if not truth[:, column].any() or not known[:, column].any():
            continue
        model = LogisticRegression(max_iter=2000).fit(train, known[:, column])
        probability = model.predict_proba(test)[:, 1]
        scores.append(
            (
                average_precision_score(truth[:, column], probability),
                truth[:, column].mean(),
            )
        )
    found, chance = np.mean(scores, axis=0)
    return float(found), float(chance)


def scores(n: int, workers: int, null: bool) -> None:
    """Print macro mAP of linear classifiers on both sensors."""
    rows = compute_all(Features(World(null=null)), n, workers, 'pairs')
    split = np.array([row[0] for row in rows])
    truth = np.array([row[3] for row in rows])
    for sensor, column in (('S1', 2), ('S2', 1)):
        seen = np.array([row[column] for row in rows])
        found, chance = precision(
            seen[split == 'train'],
            seen[split == 'test'],
            truth[split == 'train'],
            truth[split == 'test'],
        )
        print(f'{sensor}: macro mAP {found:.3f}, chance {chance:.3f}')
    print(f'{n:,} pairs, {"null world" if null else "the usual world"}')


def fit(root: Path, landscapes: int = 12, steps: int = 300, restarts: int = 6) -> None:
    """Print what ``landscape.py`` holds, from the real table.

    Expectation maximisation of a mixture of independent labels, the best of some
    starts.
    """
    table = read_table(root)
    countries = table.countries
    if countries is None:
        raise SystemExit(f'{root}/metadata.parquet has no column country')
    codes = table.labels @ (1 << torch.arange(19))
    sets, place = np.unique(codes.numpy(), return_inverse=True)
    counts = np.bincount(place).astype(float)
    hot = (sets[:, None] >> np.arange(19) & 1).astype(float)
    best = max(
        (_mixture(hot, counts, landscapes, steps, seed) for seed in range(restarts)),
        key=lambda result: result[0],
    )
    _, weights, chances, belongs = best
    order = np.argsort(-weights)
    for landscape in order:
        print(tuple(np.round(100 * chances[landscape]).astype(int).tolist()))
    for country in sorted(set(countries)):
        often = belongs[place[countries == country]].mean(0)[order]
        print(country, tuple(np.round(100 * often).astype(int).tolist()))
    frequencies = counts @ hot / counts.sum()
    print(np.round(frequencies, 4).tolist(), round(frequencies.sum(), 3))


def _mixture(
    hot: Floats, counts: Floats, components: int, steps: int, seed: int
) -> tuple[float, Floats, Floats, Floats]:
    """Return log likelihood, weights, chances and membership after some steps."""
    rng = np.random.default_rng(seed)
    belongs = rng.dirichlet(np.full(components, 0.3), len(hot))
    for _ in range(steps):
        mass = belongs * counts[:, None]
        chances = (mass.T @ hot / mass.sum(0)[:, None]).clip(1e-5, 1 - 1e-5)
        weights = mass.sum(0) / mass.sum()
        log = hot @ np.log(chances).T + (1 - hot) @ np.log(1 - chances).T
        log += np.log(weights)
        highest = log.max(1, keepdims=True)
        total = np.exp(log - highest).sum(1, keepdims=True)
        belongs = np.exp(log - highest) / total
        likelihood = float(counts @ (highest + np.log(total))[:, 0])
    return likelihood, weights, chances, belongs


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('what', choices=('speed', 'labels', 'scores', 'fit'))
    parser.add_argument('root', nargs='?', type=Path, help='for fit')
    parser.add_argument('--n', type=int, help='number of pairs')
    parser.add_argument('--workers', type=int, default=0)
    parser.add_argument('--null', action='store_true', help='the null world')
    options = parser.parse_args(arguments)
    if options.what == 'speed':
        speed(options.n or 200)
    elif options.what == 'labels':
        labels(options.n or 5000, options.workers)
    elif options.what == 'scores':
        scores(options.n or 5000, options.workers, options.null)
    elif options.root is None:
        parser.error('fit needs the folder with the metadata.parquet of v2')
    else:
        fit(options.root)


if __name__ == '__main__':
    main()
