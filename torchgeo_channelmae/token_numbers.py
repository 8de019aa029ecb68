"""Arithmetic on numbers of tokens: token ``c * L + l`` is band ``c`` at cell ``l``."""

import torch
from torch import Tensor

from .randomness import random_keys


def choose(keys: Tensor, of: int, count: int) -> tuple[Tensor, Tensor]:
    """Choose `count` of the numbers below `of` at random, once a key.

    Args:
        keys: (B,) int64.
        of: How many numbers there are.
        count: How many to choose.

    Returns:
        The chosen (B, count) and the others (B, of - count), each ascending.
    """
    order = torch.argsort(random_keys(keys, of), dim=1, stable=True)
    return order[:, :count].sort(dim=1).values, order[:, count:].sort(dim=1).values


def tokens_of(bands: Tensor, num_cells: int) -> Tensor:
    """All tokens of some bands, (B, K) to (B, K * L), band-major."""
    cells = torch.arange(num_cells, device=bands.device)
    return (bands[:, :, None] * num_cells + cells).flatten(1)


def locate(tokens: Tensor, among: Tensor, num_tokens: int) -> Tensor:
    """Find where tokens stand in a list of tokens.

    Args:
        tokens: (B, T) int64, each of them in `among`.
        among: (B, S) int64 in any order, none twice.
        num_tokens: N, more than the largest.

    Returns:
        (B, T) int64 positions: ``among.gather(1, positions) == tokens``.
    """
    places = torch.arange(among.shape[1], device=among.device).expand_as(among)
    table = among.new_zeros(among.shape[0], num_tokens).scatter_(1, among, places)
    return table.gather(1, tokens)
