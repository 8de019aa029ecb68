"""How alike two sets of features of the same samples are.

``n`` samples; row i of both sets is of the same sample. Widths may differ.
"""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
_ROWS = 1024  # of a block of similarities, so that memory grows with n alone
LEAST = 4  # samples that the debiased estimator needs


def debiased_hsic(x: Floats, y: Floats) -> float:
    """Estimate the Hilbert-Schmidt independence criterion with linear kernels.

    The unbiased estimator (Song et al., 2012,
    https://jmlr.org/papers/v13/song12a.html, equation 4), which is 0 on average for
    independent features however wide they are. With K = X X^T and L = Y Y^T without
    their diagonals,

        [tr(K L) + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 1'K L 1 / (n - 2)] / (n (n - 3)).

    All three terms are computed from X and Y, without an n x n matrix, in
    O(n Dx Dy).

    Args:
        x: (n, Dx) features.
        y: (n, Dy) features.

    Returns:
        The estimate; it may be below 0.

    Raises:
        ValueError: If the numbers of samples differ, or are below 4.
    """
    n = _count(x, y)
    x, y = _centred(x), _centred(y)
    own_x, own_y = (x * x).sum(1), (y * y).sum(1)  # the diagonals
    trace = float(((x.T @ y) ** 2).sum() - (own_x * own_y).sum())
    rows_x, rows_y = x @ x.sum(0) - own_x, y @ y.sum(0) - own_y  # K 1 and L 1
    sums = float(rows_x.sum() * rows_y.sum()) / ((n - 1) * (n - 2))
    mixed = 2 * float(rows_x @ rows_y) / (n - 2)
    return (trace + sums - mixed) / (n * (n - 3))


def debiased_cka(x: Floats, y: Floats) -> float:
    """Estimate linear centred kernel alignment without its bias for few samples.

    The ratio of :func:`debiased_hsic` (Nguyen et al., 2021,
    https://arxiv.org/abs/2010.15327, equation 3, for one batch). It does not change
    when features are rotated, moved, or scaled as a whole.

    Args:
        x: (n, Dx) features.
        y: (n, Dy) features.

    Returns:
        1 for the same features, about 0 for independent ones (a little below is
        possible); NaN if all rows of one are alike.

    Raises:
        ValueError: If the numbers of samples differ, or are below 4.
    """
    scale = debiased_hsic(x, x) * debiased_hsic(y, y)
    return debiased_hsic(x, y) / math.sqrt(scale) if scale > 0 else math.nan


def standardise(x: Floats) -> npt.NDArray[np.float32]:
    """Give each feature mean 0 and variance 1, then each row length 1.

    So that two sensors' features can be compared by cosine: what is the same in all
    samples of one sensor is taken away. A feature that never varies becomes 0.

    Args:
        x: (n, D) features.

    Returns:
        (n, D) float32.
    """
    x = _centred(x)
    spread = x.std(0)
    x = x / np.where(spread > 1e-12, spread, np.inf)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return (x / np.maximum(length, 1e-12)).astype(np.float32)


def neighbour_overlap(x: Floats, y: Floats, neighbors: int) -> float:
    """Return the mean share of nearest neighbours that two sets have in common.

    Mutual k-NN alignment (Huh et al., 2024, https://arxiv.org/abs/2405.07987):
    neighbours by cosine within each set, a sample not being its own. Independent
    features share k / (n - 1) of them on average.

    Args:
        x: (n, Dx), from :func:`standardise`.
        y: (n, Dy), likewise.
        neighbors: k, neighbours of each sample.

    Returns:
        A share from 0 to 1.

    Raises:
        ValueError: If the numbers of samples differ, or there are not k others.
    """
    n = _count(x, y)
    if not 1 <= neighbors < n:
        raise ValueError(
            f'neighbors is {neighbors}, but each of {n} samples has {n - 1} others: '
            f'give 1 to {n - 1}.'
        )
    shared = 0
    for start in range(0, n, _ROWS):
        found = [_nearest(one, start, neighbors) for one in (x, y)]
        both = np.concatenate(found, axis=1)
        both.sort(axis=1)
        shared += int((both[:, 1:] == both[:, :-1]).sum())
    return shared / (n * neighbors)


def _nearest(x: Floats, start: int, neighbors: int) -> npt.NDArray[np.intp]:
    """Numbers of the nearest others of some rows, (rows, k), in no order."""
    similarity = x[start : start + _ROWS] @ x.T
    rows = np.arange(len(similarity))
    similarity[rows, start + rows] = -np.inf
    return np.argpartition(-similarity, neighbors - 1, axis=1)[:, :neighbors]


def pair_ranks(x: Floats, y: Floats) -> npt.NDArray[np.int64]:
    """Rank each sample's partner among all samples of the other set, by cosine.

    Args:
        x: (n, D), the queries, from :func:`standardise`.
        y: (n, D), what is searched, likewise; row i is the partner of query i.

    Returns:
        (n,) ranks from 1. Others that are as similar as the partner rank before it,
        so that features that are all alike find nothing.

    Raises:
        ValueError: If the two sets differ in shape.
    """
    n = _count(x, y)
    if x.shape != y.shape:
        raise ValueError(
            f'Features of {x.shape[1]} and {y.shape[1]} numbers can not be compared '
            f'one by one: take both from the same encoder.'
        )
    ranks = np.empty(n, np.int64)
    for start in range(0, n, _ROWS):
        similarity = x[start : start + _ROWS] @ y.T
        rows = np.arange(len(similarity))
        own = similarity[rows, start + rows]
        ranks[start : start + _ROWS] = (similarity >= own[:, None]).sum(1)
    return ranks


def recall(ranks: npt.NDArray[np.int64], k: int) -> float:
    """Return the share of partners among the k nearest; by chance k / n."""
    return float((ranks <= k).mean())


def _centred(x: Floats) -> npt.NDArray[np.float64]:
    values = np.asarray(x, np.float64)
    centred: npt.NDArray[np.float64] = values - values.mean(0)
    return centred


def _count(x: Floats, y: Floats) -> int:
    if len(x) != len(y):
        raise ValueError(
            f'{len(x)} and {len(y)} samples are no pairs: give features of the same '
            f'samples, in the same order.'
        )
    if len(x) < LEAST:
        raise ValueError(f'{len(x)} samples are too few to compare: give at least 4.')
    return len(x)
