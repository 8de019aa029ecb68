"""Fields of noise that come again from one seed a sample."""

from collections.abc import Sequence
from functools import cache

import torch
from scipy.stats import gamma
from torch import Tensor


def draw_seeds(samples: int) -> Tensor:
    """Draw a seed a sample with torch's global generator.

    Returns:
        (B,) int64, on the CPU.
    """
    return torch.randint(2**62, (samples,))


def normal_field(images: Tensor, seeds: Tensor) -> Tensor:
    """Make standard normal noise.

    Args:
        images: (B, C, H, W), whose shape, device and type the field gets.
        seeds: (B,) int64, one a sample.

    Returns:
        (B, C, H, W); a sample's noise depends on its seed alone, on one kind of device.
    """
    field = torch.empty_like(images, memory_format=torch.contiguous_format)
    generator = torch.Generator(device=images.device)
    for row, seed in zip(field, seeds.tolist(), strict=True):
        generator.manual_seed(seed)
        row.normal_(generator=generator)
    return field


def speckle_field(images: Tensor, seeds: Tensor, looks: Sequence[float]) -> Tensor:
    """Make speckle in decibels: 10 log10 of gamma noise of mean 1.

    Each pixel looks up one of 65,536 quantiles in the middle of slices of equal
    probability.

    Args:
        images: (B, C, H, W), whose shape, device and type the field gets.
        seeds: (B,) int64, one a sample.
        looks: Shape of the gamma distribution of each sample; its variance is
            1 / looks.

    Returns:
        (B, C, H, W); a sample's speckle depends on its seed and looks alone, on one
        kind of device.
    """
    field = torch.empty_like(images, memory_format=torch.contiguous_format)
    tables = {n: _decibels(n).to(images.device, images.dtype) for n in {*looks}}
    generator = torch.Generator(device=images.device)
    pixels = field[0].numel()
    words = torch.empty(-(-pixels // 4), dtype=torch.int64, device=images.device)
    low, high = torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max
    for row, seed, number in zip(field, seeds.tolist(), looks, strict=True):
        generator.manual_seed(seed)
        words.random_(low, high, generator=generator)
        rank = words.view(torch.uint16)[:pixels].to(torch.int32)
        torch.index_select(tables[number], 0, rank, out=row.view(-1))
    return field


@cache
def _decibels(looks: float) -> Tensor:
    """Quantiles of gamma noise, (65536,) float32 in dB; their mean power is 1."""
    middles = (torch.arange(65536, dtype=torch.float64) + 0.5) / 65536
    power = torch.from_numpy(gamma.ppf(middles.numpy(), looks, scale=1 / looks))
    power /= power.mean()  # of the slices' middles it is a little less
    return (10 * power.log10()).float()
