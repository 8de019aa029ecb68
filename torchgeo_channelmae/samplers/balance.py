"""How often to draw each sample so that the classes are drawn evenly.

The expected draws w of an epoch of M draws aim at the largest

    t H(p) + (1 - t) H(w / M),    p = S^T w / M,

where row i of S holds the class shares of sample i, H is entropy, p are the class
shares of what is drawn, and t is the temperature: 0 draws all samples alike, 1 makes
the classes as even as weights can. Where each sample has one class, a class is then
drawn in proportion to its share to the power 1 - t. No sample is expected more often
than a cap, and enough distinct samples are: sum_i min(w_i, 1) is at least some number.

Without these two limits the solution is w_i ~ exp(t / (1 - t) * surprise_i), where the
surprise of a sample is the mean of -log p over its classes. Damped steps toward that
fixed point, each cut at the cap, find it. If it has too few distinct samples, draws are
given out in two rounds: at most one each for the distinct samples, then the rest.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_STEPS = 60


def entropy(shares: npt.ArrayLike) -> float:
    """Return the entropy of a distribution in nats."""
    p = np.asarray(shares, dtype=np.float64)
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def expected_draws(
    shares: npt.NDArray[np.floating],
    draws: int,
    temperature: float = 1.0,
    cap: int = 20,
    min_distinct: float = 0.0,
) -> Array:
    """Return how often to draw each sample of a dataset.

    Args:
        shares: (N, K) class shares. Rows sum to 1; a row of NaN is drawn as often as
            the average one, a row of zeros never. Each class occurs.
        draws: Draws per epoch M, at most ``cap`` times the samples that are drawn.
        temperature: From 0, all samples alike, to 1, classes as even as can be.
        cap: Most draws of a sample.
        min_distinct: Least share of the draws that are distinct samples. If there are
            too few samples for that, each is drawn at least once.

    Returns:
        (N,) expected draws, with sum M.
    """
    unknown = np.isnan(shares[:, 0])
    known = ~unknown & (shares.sum(axis=1) > 0)
    used = int(known.sum() + unknown.sum())
    average = draws / used
    table = pd.DataFrame(shares[known])  # samples with the same shares are drawn alike
    kind = table.groupby(list(table), sort=False).ngroup().to_numpy()
    _, first, sizes = np.unique(kind, return_index=True, return_counts=True)
    kinds = table.to_numpy(dtype=np.float64)[first]
    rest = draws - unknown.sum() * average
    # One more than asked for, as draws are expected draws rounded up or down.
    distinct = min(math.ceil(min_distinct * draws) + 1, used) if min_distinct else 0
    distinct = min(distinct - unknown.sum() * min(average, 1.0), known.sum(), rest)
    expected = np.where(unknown, average, 0.0)
    w = _solve(kinds, sizes, temperature, [(rest, cap)])
    if sizes @ np.minimum(w, 1) < distinct:
        rounds = [(distinct, 1), (rest - distinct, cap - 1)]
        w = _solve(kinds, sizes, temperature, rounds)
    expected[known] = w[kind]
    return expected


def _solve(
    shares: Array,
    sizes: Counts,
    temperature: float,
    rounds: Sequence[tuple[float, float]],
) -> Array:
    """Return (G,) expected draws per sample of each kind, for (draws, cap) rounds."""
    logs = np.zeros(len(shares))
    cooling = 1 - temperature
    for step in range(_STEPS + 1):
        x = np.exp(logs - logs.max())
        w = sum((_filled(x, sizes, *each) for each in rounds), np.zeros(len(x)))
        p = (sizes * w) @ shares
        size = 0.5 if cooling else 1 / (1 + step / 20)
        surprise = shares @ -np.log(p / p.sum() + 1e-300)
        logs = (1 - size * cooling) * logs + size * temperature * surprise
    return w


def _filled(x: Array, sizes: Counts, draws: float, cap: float) -> Array:
    """Return min(c x, cap), with the c for which all samples sum to ``draws``."""
    free = np.full(len(x), True)
    while True:
        rest = draws - cap * sizes[~free].sum()
        mass = sizes[free] @ x[free]
        w = np.where(free, x * (rest / mass if mass > 0 else 0.0), cap)
        over = free & (w > cap)
        if not over.any():
            return w
        free &= ~over
