"""Noise fields, each a function of one seed per sample."""

from collections.abc import Sequence
from functools import cache

import torch
from scipy.stats import gamma
from torch import Tensor


def draw_seeds(samples: int) -> Tensor:
    """Draw one int64 seed per sample, on the CPU."""
    return torch.randint(2**62, (samples,))


def normal_field(images: Tensor, seeds: Tensor) -> Tensor:
    """Return standard normal noise like images (B, C, H, W).

    A sample's noise is a function of its seed, (B,) int64 (and kind of device).
    """
    return _field(images, seeds, [_standard()] * len(images))


def speckle_field(images: Tensor, seeds: Tensor, looks: Sequence[float]) -> Tensor:
    """Return speckle in decibels: 10 log10 of gamma noise of mean 1.

    It is like the images (B, C, H, W). A sample's speckle is a function of its seed,
    (B,) int64, and its looks: the variance of the noise is 1 / looks.
    """
    return _field(images, seeds, [_decibels(number) for number in looks])


def _field(images: Tensor, seeds: Tensor, tables: Sequence[Tensor]) -> Tensor:
    """Fill a field with random choices among a sample's 65,536 quantiles.

    Drawing 16 bits per pixel and looking up the quantile in the middle of a slice of
    equal probability is faster than drawing from the distribution.
    """
    field = torch.empty_like(images, memory_format=torch.contiguous_format)
    there = {id(table): table.to(images.device, images.dtype) for table in tables}
    generator = torch.Generator(device=images.device)
    pixels = field[0].numel()
    words = torch.empty(-(-pixels // 4), dtype=torch.int64, device=images.device)
    low, high = torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max
    for row, seed, table in zip(field, seeds.tolist(), tables, strict=True):
        generator.manual_seed(seed)
        words.random_(low, high, generator=generator)
        rank = words.view(torch.uint16)[:pixels].to(torch.int32)
        torch.index_select(there[id(table)], 0, rank, out=row.view(-1))
    return field


_MIDDLES = (torch.arange(65536, dtype=torch.float64) + 0.5) / 65536


@cache
def _standard() -> Tensor:
    """Quantiles of the normal distribution, (65536,) float32 of variance 1."""
    quantiles = torch.special.ndtri(_MIDDLES)
    return (quantiles / quantiles.std(correction=0)).float()  # a little below 1


@cache
def _decibels(looks: float) -> Tensor:
    """Quantiles of gamma noise, (65536,) float32 in dB; their mean power is 1."""
    power = torch.from_numpy(gamma.ppf(_MIDDLES.numpy(), looks, scale=1 / looks))
    power /= power.mean()  # at the slices' centers it is a little less
    return (10 * power.log10()).float()
