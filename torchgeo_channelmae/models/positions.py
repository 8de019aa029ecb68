"""Positions of weights for another grid."""

import math
from collections.abc import Sequence

from timm.layers import resample_abs_pos_embed
from torch import Tensor


def square_side(stored: Tensor, dim: int, prefix: int = 0) -> int | None:
    """Tell the side of the square grid that learned positions are of.

    Args:
        stored: (1, prefix + L, D).
        dim: D.
        prefix: Number of tokens with a position that are no cells.

    Returns:
        Cells down and across, None where `stored` is none of such a grid.
    """
    if stored.ndim != 3 or stored.shape[2] != dim or stored.shape[1] <= prefix:
        return None
    side = math.isqrt(stored.shape[1] - prefix)
    return side if side**2 == stored.shape[1] - prefix else None


def resample_positions(
    stored: Tensor, dim: int, grid: Sequence[int], prefix: int = 0
) -> Tensor | None:
    """Resample learned positions of a square grid, which their number tells.

    Args:
        stored: (1, prefix + L, D).
        dim: D.
        grid: Cells down and across that are wanted.
        prefix: Number of tokens with a position that are no cells.

    Returns:
        (1, prefix + cells, D), None where `stored` is none of such a grid.
    """
    if square_side(stored, dim, prefix) is None:
        return None
    return resample_abs_pos_embed(stored, list(grid), num_prefix_tokens=prefix)
