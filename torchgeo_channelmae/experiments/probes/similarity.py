"""How alike two sets of features of the same samples are.

``n`` samples; row i of both sets is of the same sample. Widths may differ.
"""

import math

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import kneighbors_graph

from .features import Floats

LEAST = 4
"""Number of samples that the debiased estimator needs."""

_ROWS = 1024  # rows of a block of similarities, so that memory grows with n only


def debiased_hsic(x: Floats, y: Floats) -> float:
    """Estimate the Hilbert-Schmidt independence criterion with linear kernels.

    The unbiased estimator (Song et al., 2012,
    https://jmlr.org/papers/v13/song12a.html, equation 4) is 0 on average for
    independent features of any width. With K = X X^T and L = Y Y^T without their
    diagonals, it is

        [tr(K L) + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 1'K L 1 / (n - 2)] / (n (n - 3)),

    computed here from X and Y in O(n Dx Dy), without n x n matrices.

    Args:
        x: (n, Dx) features, n at least 4.
        y: (n, Dy) features.
    """
    n = len(x)
    x, y = _centred(x), _centred(y)
    own_x, own_y = (x * x).sum(1), (y * y).sum(1)  # the diagonals
    trace = float(((x.T @ y) ** 2).sum() - (own_x * own_y).sum())
    rows_x, rows_y = x @ x.sum(0) - own_x, y @ y.sum(0) - own_y  # K 1 and L 1
    sums = float(rows_x.sum() * rows_y.sum()) / ((n - 1) * (n - 2))
    mixed = 2 * float(rows_x @ rows_y) / (n - 2)
    return (trace + sums - mixed) / (n * (n - 3))


def debiased_cka(x: Floats, y: Floats) -> float:
    """Estimate linear centerd kernel alignment without its small-sample bias.

    The ratio of :func:`debiased_hsic` (Nguyen et al., 2021,
    https://arxiv.org/abs/2010.15327, equation 3, for one batch). Invariant to
    rotation, translation and isotropic scaling.

    Args:
        x: (n, Dx) features, n at least 4.
        y: (n, Dy) features.

    Returns:
        1 for the same features, about 0 for independent ones (slightly negative is
        possible); NaN if all rows of one are equal.
    """
    scale = debiased_hsic(x, x) * debiased_hsic(y, y)
    return debiased_hsic(x, y) / math.sqrt(scale) if scale > 0 else math.nan


def standardize(x: Floats) -> npt.NDArray[np.float32]:
    """Give each feature mean 0 and variance 1, then each row length 1.

    So that two sensors can be compared by cosine: what all samples of one sensor have
    in common is removed. A constant feature becomes 0.

    Takes (n, D) features and returns float32.
    """
    x = _centred(x)
    spread = x.std(0)
    x = x / np.where(spread > 1e-12, spread, np.inf)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return (x / np.maximum(length, 1e-12)).astype(np.float32)


def neighbor_overlap(x: Floats, y: Floats, neighbors: int) -> float:
    """Return the mean share of nearest neighbors that two sets have in common.

    Mutual k-NN alignment (Huh et al., 2024, https://arxiv.org/abs/2405.07987) by
    cosine; a sample is not its own neighbor. Independent features share k / (n - 1)
    on average.

    Args:
        x: (n, Dx), from :func:`standardize`.
        y: (n, Dy), likewise.
        neighbors: k, less than n.
    """
    graphs = [kneighbors_graph(part, neighbors) for part in (x, y)]  # unit vectors
    return float(graphs[0].multiply(graphs[1]).sum()) / (len(x) * neighbors)


def pair_ranks(x: Floats, y: Floats) -> npt.NDArray[np.int64]:
    """Rank each sample's counterpart among all samples of the other set, by cosine.

    Args:
        x: (n, D) queries, from :func:`standardize`.
        y: (n, D) search set, likewise; row i is the counterpart of query i.

    Returns:
        (n,) ranks from 1. Samples that are as similar as the counterpart rank before
        it, so that equal features find nothing.
    """
    ranks = np.empty(len(x), np.int64)
    for start in range(0, len(x), _ROWS):
        similarity = x[start : start + _ROWS] @ y.T
        rows = np.arange(len(similarity))
        own = similarity[rows, start + rows]
        ranks[start : start + _ROWS] = (similarity >= own[:, None]).sum(1)
    return ranks


def _centred(x: Floats) -> npt.NDArray[np.float64]:
    values = np.asarray(x, np.float64)
    centerd: npt.NDArray[np.float64] = values - values.mean(0)
    return centerd
