r"""The two reconstruction losses and the target they share.

Predictions and targets are pixels of tokens, (B, T, P^2). The masking decides which
tokens each loss reads (:class:`~torchgeo_channelmae.masking.TokenMask`): the first its
targets, the second its bands at all cells. Both follow SpectralGPT
(https://arxiv.org/abs/2311.07113), whose masking shows and produces all bands.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .token_numbers import membership


class NormalizedTokens(NamedTuple):
    """Tokens standardized by their own pixels, with mean and std to undo it.

    Attributes:
        tokens: (B, T, P^2), zero mean and unit variance per token.
        mean: (B, T, 1).
        std: (B, T, 1), never zero.
    """

    tokens: Tensor
    mean: Tensor
    std: Tensor


def normalize_tokens(tokens: Tensor, eps: float = 1e-6) -> NormalizedTokens:
    """Standardize every token by its own pixels (MAE, https://arxiv.org/abs/2111.06377).

    Args:
        tokens: (B, T, P^2) pixels.
        eps: Added to the variance, so that a constant token becomes zeros.
    """
    variance, mean = torch.var_mean(tokens, dim=-1, keepdim=True)
    std = (variance + eps).sqrt()
    return NormalizedTokens((tokens - mean) / std, mean, std)


def token_to_token(
    prediction: Tensor, target: Tensor, weight: Tensor | None = None
) -> Tensor:
    r"""Return the error of the target tokens, per sample (B,).

    .. math::
        \frac{1}{T} \sum_{i \in \text{target}} \frac{1}{P^2} \|\hat Y_i - Y_i\|^2

    Args:
        prediction: (B, S, P^2), the T target tokens, possibly among others.
        target: (B, S, P^2).
        weight: (B, S), weight of each token: 1 / T, or 0 if it is not a target. None
            if all S tokens are targets.
    """
    error = (prediction - target).square().mean(-1)
    return error.mean(1) if weight is None else (error * weight).sum(1)


def check_reduction(reduction: str) -> None:
    """Raise a ValueError if a reduction over bands is neither ``mean`` nor ``sum``."""
    if reduction not in ('mean', 'sum'):
        raise ValueError(f"Unknown spectral_loss {reduction!r}. Use 'mean' or 'sum'.")


def spectral_to_spectral(
    prediction: Tensor,
    target: Tensor,
    num_bands: int,
    reduction: Literal['mean', 'sum'] = 'mean',
) -> Tensor:
    r"""Return the error of the bands reduced at each grid cell, per sample (B,).

    With :math:`Y_l = \sum_c Y_{c,l}` (``sum``, as SpectralGPT) or
    :math:`\frac{1}{K} \sum_c Y_{c,l}` (``mean``) over the K bands that the masking
    names:

    .. math::
        \frac{1}{L} \sum_l \frac{1}{P^2} \|\hat Y_l - Y_l\|^2

    over all cells, those with visible tokens included. Where all bands are produced
    (S1, columns, channels and patches) K is C, as in SpectralGPT. Where some are shown
    and the others are produced (S3, S4) it is the others. Where a band reconstructs
    itself (S2) it is only that band: the error of all its tokens, those shown
    included. With tokens of one band the sum is K to K^2 times the token-to-token loss
    and drowns it; the mean is K^2 smaller.

    Args:
        prediction: (B, K * L, P^2), all cells of the bands, band-major.
        target: (B, K * L, P^2).
        num_bands: K.
        reduction: Reduction over the bands.
    """
    check_reduction(reduction)
    difference = (prediction - target).unflatten(1, (num_bands, -1))  # (B, C, L, P^2)
    together = difference.sum(1) if reduction == 'sum' else difference.mean(1)
    return together.square().mean(dim=(1, 2))


def trivial_reconstruction(tokens: Tensor, visible: Tensor, num_bands: int) -> Tensor:
    """Predict each token as the mean of the visible pixels, the baseline to beat.

    Args:
        tokens: (B, N, P^2) pixels, band-major.
        visible: (B, V) int64, the tokens that may be used.
        num_bands: C.

    Returns:
        (B, N, 1): for every token the mean of the visible pixels of its band, or of all
        visible pixels where its band has none.
    """
    means = tokens.mean(-1)
    seen = membership(visible, means.shape[1]).to(means.dtype)
    overall = (means * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True)
    by_band = (means * seen).unflatten(1, (num_bands, -1)).sum(2)
    counts = seen.unflatten(1, (num_bands, -1)).sum(2)
    fill = torch.where(counts > 0, by_band / counts.clamp(min=1), overall)
    cells = tokens.shape[1] // num_bands
    return fill.repeat_interleave(cells, dim=1).unsqueeze(-1)
