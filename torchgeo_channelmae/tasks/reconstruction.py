"""The output of a masked autoencoder for a batch, and images of it."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..losses import NormalizedTokens, normalize_tokens, token_to_token
from ..masking import TokenMask
from ..models.tokens import gather_tokens, unpatchify
from ..token_numbers import membership


class Reconstruction(NamedTuple):
    """Predictions beside their targets.

    Attributes:
        prediction: (B, S, P^2), pixels of the produced tokens.
        produced: (B, S) int64, their numbers: the bands of the spectral loss at all or
            sampled cells, band-major; or only the targets if no loss needs more.
        weight: (B, S), weights in the token loss; None if all are equal targets.
        target: (B, N, P^2), true pixels of all tokens.
        scale: Mean and standard deviation per token that undo the normalization of the
            target; None if it is not normalized.
        mask: Which tokens are visible, hidden and targets.
        grid_size: (h, w), cells down and across.
    """

    prediction: Tensor
    produced: Tensor
    weight: Tensor | None
    target: Tensor
    scale: NormalizedTokens | None
    mask: TokenMask
    grid_size: tuple[int, int]


def guess_error(guess: Tensor, result: Reconstruction) -> Tensor:
    """Return the error of a guess at the targets, per sample (B,).

    Where targets are standardized by their own pixels, so is the guess: a constant one
    becomes zeros.

    Args:
        guess: (B, N, P^2) or (B, N, 1), all tokens in the units of the input.
        result: What the model made of the same batch.
    """
    guess = guess.expand_as(result.target)
    guessed, wanted = (
        gather_tokens(x, result.mask.target) for x in (guess, result.target)
    )
    if result.scale is not None:
        guessed = normalize_tokens(guessed).tokens
    return token_to_token(guessed, wanted)


def to_images(result: Reconstruction, num_bands: int) -> tuple[Tensor, Tensor]:
    """Return a reconstruction of all targets as images, in the units of the input.

    Returns:
        The visible tokens, and these with the targets filled in, each (B, C, H, W),
        NaN elsewhere.
    """
    tokens, mask = result.target, result.mask
    numbers = result.produced.unsqueeze(-1).expand_as(result.prediction)
    prediction = torch.full_like(tokens, torch.nan)
    prediction.scatter_(1, numbers, result.prediction)
    if result.scale is not None:
        prediction = prediction * result.scale.std + result.scale.mean
        tokens = tokens * result.scale.std + result.scale.mean
    count = tokens.shape[1]
    visible = membership(mask.visible, count).unsqueeze(-1)
    target = membership(mask.target, count).unsqueeze(-1)
    seen = tokens.masked_fill(~visible, torch.nan)
    filled = torch.where(target, prediction, seen)
    masked, made = (unpatchify(x, num_bands, result.grid_size) for x in (seen, filled))
    return masked.float().cpu(), made.float().cpu()
