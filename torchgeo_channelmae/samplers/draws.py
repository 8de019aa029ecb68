"""Expected draws as visits of an epoch: rounded, numbered and dealt to ranks."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

ONE = 1 << 20
"""A draw, in the integers that expected draws are rounded to."""


def to_integers(expected: Array, draws: int, cap: int) -> Counts:
    """Round expected draws to multiples of 1 / ``ONE`` that add up exactly.

    Args:
        expected: (N,) expected draws, with a sum of ``draws`` but for small errors.
        draws: What they have to add up to.
        cap: Most draws of a sample.

    Returns:
        (N,) integers with sum ``draws * ONE``. 0 stays 0, and what is expected at least
        so many times stays so.
    """
    parts = np.rint(expected * ONE).astype(np.int64)
    least = np.floor(expected + 1e-9).astype(np.int64) * ONE
    parts = parts.clip(least, cap * ONE)
    while rest := draws * ONE - int(parts.sum()):
        room = cap * ONE - parts if rest > 0 else parts - least
        some = np.flatnonzero((expected > 0) & (room > 0))
        given = np.minimum(room[some], -(-abs(rest) // len(some)))
        given[np.cumsum(given) > abs(rest)] = 0
        parts[some] += given if rest > 0 else -given
    return parts


def systematic_counts(parts: Counts, order: Counts, start: int) -> Counts:
    """Draw how often each sample comes: its expected draws, rounded up or down.

    Systematic sampling: the samples lie in a row, each as long as it is expected, and
    one draw falls on every whole number behind a random start. So any run of samples in
    the row comes as often as it is expected, rounded up or down.

    Args:
        parts: (N,) expected draws in multiples of 1 / ``ONE``.
        order: (N,) the samples, in the order of the row.
        start: From 0 to ``ONE`` - 1, drawn evenly.

    Returns:
        (N,) integers.
    """
    ends = (np.cumsum(parts[order]) + start) // ONE
    counts = np.empty_like(parts)
    counts[order] = np.diff(ends, prepend=0)
    return counts


def number_visits(samples: Counts, size: int) -> Counts:
    """Give each visit of a sample its own number.

    Args:
        samples: (M,) samples in the order of their visits.
        size: Number of samples.

    Returns:
        (M,) where the k-th visit of sample i (from 0) is k x size + i.
    """
    order = np.argsort(samples, kind='stable')
    ordered = samples[order]
    first = np.searchsorted(ordered, ordered, side='left')
    visits = np.empty_like(samples)
    visits[order] = np.arange(len(samples)) - first
    return visits * size + samples


def deal(samples: Counts, ranks: int) -> Counts:
    """Deal visits to ranks, equally many to each and all of a sample to one.

    Samples that come more than once are laid in a row, and each rank takes those that
    begin in its part of it; samples that come once then make the ranks equal. Where
    these are too few (they are enough if they are as many as ranks times the most
    visits of a sample), the row is cut into equal parts, and the samples at the cuts,
    fewer than there are ranks, are shared.

    Args:
        samples: (M,) samples in the order of their visits; M is a multiple of ranks.
        ranks: Number of ranks.

    Returns:
        (M,) the rank of each visit.
    """
    each = len(samples) // ranks
    _, first, kind, counts = np.unique(
        samples, return_index=True, return_inverse=True, return_counts=True
    )
    once = counts[kind] == 1
    row = np.lexsort((first[kind], once))  # those that come once last
    many = len(samples) - int(once.sum())
    begin = np.searchsorted(first[kind][row[:many]], first[kind][row[:many]])
    part = begin * ranks // max(many, 1)
    room = each - np.bincount(part, minlength=ranks)
    dealt = np.empty(len(samples), dtype=np.int64)
    if (room < 0).any():
        dealt[row] = np.arange(len(samples)) // each
    else:
        dealt[row] = np.concatenate([part, np.repeat(np.arange(ranks), room)])
    return dealt
