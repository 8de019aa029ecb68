"""Arithmetic on numbers of tokens: token ``c * L + l`` is band ``c`` at cell ``l``."""

import torch
from torch import Tensor

from .randomness import random_keys


def choose(keys: Tensor, of: int, count: int) -> tuple[Tensor, Tensor]:
    """Choose `count` of the numbers below `of` at random, once per key.

    Args:
        keys: (B,) int64.
        of: Upper bound, excluded.
        count: How many to choose.

    Returns:
        The chosen (B, count) and the others (B, of - count), each ascending.
    """
    order = torch.argsort(random_keys(keys, of), dim=1, stable=True)
    return order[:, :count].sort(dim=1).values, order[:, count:].sort(dim=1).values


def tokens_of(bands: Tensor, num_cells: int, cells: Tensor | None = None) -> Tensor:
    """Return the numbers of the tokens of some bands at some cells.

    Args:
        bands: (B, K) int64.
        num_cells: L.
        cells: (B, S) int64. Defaults to all L.

    Returns:
        (B, K * S) int64, band-major, in the order of bands and cells.
    """
    if cells is None:
        cells = torch.arange(num_cells, device=bands.device).expand(len(bands), -1)
    return (bands[:, :, None] * num_cells + cells[:, None, :]).flatten(1)


def membership(tokens: Tensor, num_tokens: int) -> Tensor:
    """Return whether each token number is in a list.

    Args:
        tokens: (B, T) int64.
        num_tokens: N, more than the largest.

    Returns:
        (B, N) bool.
    """
    found = torch.zeros(len(tokens), num_tokens, dtype=torch.bool, device=tokens.device)
    return found.scatter_(1, tokens, True)


def locate(tokens: Tensor, among: Tensor, num_tokens: int) -> Tensor:
    """Find the positions of tokens in a list of tokens.

    Args:
        tokens: (B, T) int64, each of them in `among`.
        among: (B, S) int64, unique, in any order.
        num_tokens: N, more than the largest.

    Returns:
        (B, T) int64 positions: ``among.gather(1, positions) == tokens``.
    """
    places = torch.arange(among.shape[1], device=among.device).expand_as(among)
    table = among.new_zeros(among.shape[0], num_tokens).scatter_(1, among, places)
    return table.gather(1, tokens)
