"""The guess of hidden tokens by linear regression from other bands at the same cell.

A pretraining that is no better has not yet learned more than which bands go together.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .losses import trivial_reconstruction
from .token_numbers import membership

KEY = 'channelmae_band_guess'
"""Where a checkpoint keeps what the guess is fitted to."""


@dataclass
class BandGuess:
    """A linear regression that is fitted batch by batch in one epoch, and then kept.

    Attributes:
        moments: (1 + C, 1 + C), those of the pixels so far; None before the first.
        epoch: The epoch whose batches count; None before the first, -1 for no more.
    """

    moments: Tensor | None = None
    epoch: int | None = None

    def update(
        self, image: Tensor, epoch: int, gather: Callable[[Tensor], Tensor]
    ) -> None:
        """Fit to a batch as well, if it is of the right epoch and has several bands.

        Args:
            image: (B, C, H, W).
            epoch: Epoch of the batch.
            gather: Stacks a tensor of each process, so that all have the same moments.
        """
        if self.epoch not in (None, epoch) or image.shape[1] == 1:
            return
        moments = pixel_moments(image)
        moments = gather(moments).view(-1, *moments.shape).sum(0)
        known = 0 if self.moments is None else self.moments.to(moments.device)
        self.moments, self.epoch = moments + known, epoch

    def freeze(self) -> None:
        """Fit to no further batch, if there was one."""
        self.epoch = None if self.moments is None else -1

    def __call__(self, tokens: Tensor, visible: Tensor) -> Tensor | None:
        """Return :func:`band_reconstruction`; None if there was no batch to fit to."""
        if self.moments is None:
            return None
        fitted = mean_and_covariance(self.moments)
        return band_reconstruction(tokens, visible, *fitted)


def exact(values: Tensor) -> Tensor:
    """Return values in float64, on the CPU if their device has no such type (MPS)."""
    return (values.cpu() if values.is_mps else values).double()


def pixel_moments(image: Tensor) -> Tensor:
    """Sum the products of bands over the pixels of a batch.

    Args:
        image: (B, C, H, W).

    Returns:
        (1 + C, 1 + C) float64, the sum of x x^T over all pixels, where x is 1 followed
        by the C bands. The moments of two batches together are their sum.
    """
    pixels = exact(image).transpose(0, 1).flatten(1)
    pixels = torch.cat([torch.ones_like(pixels[:1]), pixels])
    return pixels @ pixels.T


def mean_and_covariance(moments: Tensor, ridge: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Return the mean (C,) and the covariance (C, C) of the bands.

    Args:
        moments: (1 + C, 1 + C), see :func:`pixel_moments`.
        ridge: Share of each band's mean square that is added to its variance, so that
            bands may be constant or copies of each other.
    """
    moments = moments / moments[0, 0]
    mean, products = moments[0, 1:], moments[1:, 1:]
    added = ridge * products.diagonal() + 1e-30  # a band may be zero everywhere
    return mean, products - mean.outer(mean) + added.diag()


def band_reconstruction(
    tokens: Tensor, visible: Tensor, mean: Tensor, covariance: Tensor
) -> Tensor:
    r"""Predict each pixel by linear regression from the bands that are visible there.

    It is the conditional mean of a Gaussian, with the visible bands S of the cell:

    .. math::
        \hat x = \mu + \Sigma_{\cdot S} \Sigma_{SS}^{-1} (x_S - \mu_S)

    That is a visible band itself. Where no band is visible at a cell, it is
    :func:`~torchgeo_channelmae.losses.trivial_reconstruction`.

    Args:
        tokens: (B, N, P^2) pixels, band-major.
        visible: (B, V) int64, the tokens that may be used.
        mean: (C,) float64.
        covariance: (C, C) float64, positive definite.

    Returns:
        (B, N, P^2), in the type of the tokens.
    """
    bands = len(mean)
    pixels = exact(tokens).unflatten(1, (bands, -1)).transpose(1, 2)  # (B, L, C, P^2)
    mean, covariance = mean.to(pixels.device)[:, None], covariance.to(pixels.device)
    seen = membership(visible, tokens.shape[1]).to(pixels.device)
    seen = seen.unflatten(1, (bands, -1)).transpose(1, 2).unsqueeze(-1)  # (B, L, C, 1)
    # One system of all C bands per cell, in which hidden ones have a solution of 0.
    system = torch.where(seen & seen.mT, covariance, torch.eye(bands).to(covariance))
    solution = torch.linalg.solve(system, (pixels - mean) * seen)
    found = (mean + covariance @ solution).transpose(1, 2).flatten(1, 2).to(tokens)
    anything = seen.any(2).repeat(1, bands, 1).to(tokens.device)  # at the token's cell
    return torch.where(anything, found, trivial_reconstruction(tokens, visible, bands))
