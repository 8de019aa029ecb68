"""What a masked autoencoder makes of a batch, and pictures of it."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..losses import NormalizedTokens
from ..masking import TokenMask
from ..models.tokens import unpatchify
from ..token_numbers import membership


class Reconstruction(NamedTuple):
    """Predictions beside their targets.

    Attributes:
        prediction: (B, S, P^2), pixels of the produced tokens.
        produced: (B, S) int64, their numbers: the bands that the spectral loss takes
            together at all cells, or at those sampled, band-major; or the targets where
            no loss reads more.
        weight: (B, S), what each counts in the token-to-token loss; None where all are
            targets that count alike.
        target: (B, N, P^2), what all tokens are.
        scale: Mean and standard deviation a token that undo the target's normalisation,
            None where it is not normalised.
        mask: Which tokens were visible, hidden and asked for.
    """

    prediction: Tensor
    produced: Tensor
    weight: Tensor | None
    target: Tensor
    scale: NormalizedTokens | None
    mask: TokenMask


def to_images(
    result: Reconstruction, num_bands: int, grid_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Put tokens back together, in the units of the input.

    Args:
        result: A reconstruction that produced all targets.
        num_bands: C.
        grid_size: (h, w), cells down and across.

    Returns:
        What was visible and that with the targets filled in, each (B, C, H, W), NaN
        elsewhere. What was visible and no target is shown as it is; its loss is only
        spectral.
    """
    tokens, mask = result.target, result.mask
    numbers = result.produced.unsqueeze(-1).expand_as(result.prediction)
    prediction = torch.full_like(tokens, torch.nan)
    prediction.scatter_(1, numbers, result.prediction)
    if result.scale is not None:
        prediction, tokens = (
            part * result.scale.std + result.scale.mean for part in (prediction, tokens)
        )
    visible, target = (
        membership(numbers, tokens.shape[1]).unsqueeze(-1)
        for numbers in (mask.visible, mask.target)
    )
    seen = tokens.masked_fill(~visible, torch.nan)
    filled = torch.where(target, prediction, seen)
    masked, made = (
        unpatchify(part, num_bands, grid_size).float().cpu() for part in (seen, filled)
    )
    return masked, made
