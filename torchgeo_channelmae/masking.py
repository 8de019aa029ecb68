"""Which tokens the encoder sees and which the decoder must produce.

Tokens are numbered band-major: token ``c * L + l`` is band ``c`` at grid cell ``l``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .randomness import random_keys


class TokenMask(NamedTuple):
    """A batch's split of the N = C * L tokens.

    Attributes:
        visible: (B, V) int64, tokens that the encoder sees, ascending.
        masked: (B, M) int64, tokens that are hidden from it, ascending.
    """

    visible: Tensor
    masked: Tensor


def count_visible(num_tokens: int, mask_ratio: float) -> int:
    """Count the tokens that a mask ratio leaves visible.

    Args:
        num_tokens: N, tokens a sample.
        mask_ratio: Share of the tokens to hide, in (0, 1).

    Returns:
        ``N - round(N * mask_ratio)``.

    Raises:
        ValueError: If the ratio is outside (0, 1), or so near to a bound that it
            would hide none or all of the tokens.
    """
    if not 0 < mask_ratio < 1:
        raise ValueError(
            f'mask_ratio {mask_ratio} is outside (0, 1): it is the share of tokens '
            f'hidden from the encoder, 0.75 for example.'
        )
    num_visible = num_tokens - round(num_tokens * mask_ratio)
    if not 0 < num_visible < num_tokens:
        raise ValueError(
            f'mask_ratio {mask_ratio} leaves {num_visible} of {num_tokens} tokens '
            f'visible: choose one that leaves some visible and hides some.'
        )
    return num_visible


def random_masking(keys: Tensor, num_tokens: int, mask_ratio: float) -> TokenMask:
    """Mask tokens at random over bands and cells alike (the paper's strategy S1).

    Every sample hides ``round(N * mask_ratio)`` tokens, so that a batch stays a tensor.

    Args:
        keys: (B,) int64, the address of each sample's draw: equal keys, equal masks.
        num_tokens: N, tokens a sample.
        mask_ratio: Share of the tokens to hide, in (0, 1).

    Returns:
        The visible and the masked tokens of each sample.

    Raises:
        ValueError: If the ratio is outside (0, 1), or so near to a bound that it
            would hide none or all of the tokens.
    """
    num_visible = count_visible(num_tokens, mask_ratio)
    order = torch.argsort(random_keys(keys, num_tokens), dim=1, stable=True)
    visible = order[:, :num_visible].sort(dim=1).values
    masked = order[:, num_visible:].sort(dim=1).values
    return TokenMask(visible, masked)
