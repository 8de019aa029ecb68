"""Arithmetic on numbers of tokens: token ``c * L + l`` is band ``c`` at cell ``l``."""

import torch
from torch import Tensor

from .randomness import random_keys


def choose(keys: Tensor, of: int, count: int) -> tuple[Tensor, Tensor]:
    """Choose `count` of the numbers below `of` at random, once per key, (B,) int64.

    Returns the chosen (B, count) and the others (B, of - count), each ascending.
    """
    order = torch.argsort(random_keys(keys, of), dim=1, stable=True)
    return order[:, :count].sort(dim=1).values, order[:, count:].sort(dim=1).values


def tokens_of(bands: Tensor, num_cells: int, cells: Tensor | None = None) -> Tensor:
    """Return the numbers of the tokens of bands (B, K) at cells (B, S); None is all L.

    They are (B, K * S) int64, band-major, in the order of bands and cells.
    """
    if cells is None:
        cells = torch.arange(num_cells, device=bands.device).expand(len(bands), -1)
    return (bands[:, :, None] * num_cells + cells[:, None, :]).flatten(1)


def membership(tokens: Tensor, num_tokens: int) -> Tensor:
    """Return whether each of N token numbers is in a list (B, T), as (B, N) bool."""
    found = torch.zeros(len(tokens), num_tokens, dtype=torch.bool, device=tokens.device)
    return found.scatter_(1, tokens, True)


def locate(tokens: Tensor, among: Tensor, num_tokens: int) -> Tensor:
    """Find the positions of tokens (B, T) in a list of unique tokens, `among` (B, S).

    Returns (B, T) int64: ``among.gather(1, positions) == tokens``.
    """
    places = torch.arange(among.shape[1], device=among.device).expand_as(among)
    table = among.new_zeros(among.shape[0], num_tokens).scatter_(1, among, places)
    return table.gather(1, tokens)
