"""Resampling of bands of several resolutions to one grid, per batch and resolution."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 4
"""Samples at a time on a CPU, where intermediate results that stay in the caches make a
call twice as fast as for 32 or more. A GPU takes the whole batch."""


def resample(
    groups: Mapping[tuple[str, ...], Tensor],
    bands: Sequence[str],
    size: tuple[int, int],
    mean: Tensor | None = None,
    std: Tensor | None = None,
) -> Tensor:
    """Resample bands as stored to one size, and normalize them.

    Bilinear with pixel edges aligned, antialiased when shrinking. Pixels are normalized
    before they are resampled, when there are fewer; the result is the same.

    Args:
        groups: Pixels (B, bands, h, w) by the names of bands of one size and type.
        bands: C names, the order of the output's channels.
        size: Height and width of the output.
        mean: (C,) to subtract, in the order of ``bands``; None leaves pixels unchanged.
        std: (C,) to divide by.

    Returns:
        (B, C, height, width) float32, on the device of the groups.
    """
    rows = {band: row for row, band in enumerate(bands)}
    first = next(iter(groups.values()))
    image = torch.empty(
        len(first), len(bands), *size, dtype=torch.float32, device=first.device
    )
    on_cpu = first.device.type == 'cpu'
    step = _CHUNK if on_cpu else max(1, len(first))
    for names, pixels in groups.items():
        chosen = [rows[name] for name in names]
        shrinks = pixels.shape[-2] > size[0] or pixels.shape[-1] > size[1]
        if mean is not None and std is not None:
            where = torch.tensor(chosen, device=mean.device)
            scale = (1 / std[where])[:, None, None].to(first.device)
            shift = -mean[where][:, None, None].to(first.device) * scale
        for start in range(0, len(first), step):
            values = pixels[start : start + step].float()
            if mean is not None:
                values = torch.addcmul(shift, values, scale)
            if values.shape[-2:] != size:
                values = F.interpolate(values, size, mode='bilinear', antialias=shrinks)
            part = image[start : start + step]
            if not on_cpu:
                part[:, chosen] = values
                continue
            for row, band in zip(chosen, values.unbind(1), strict=True):
                part[:, row] = band  # three times as fast as by index
    return image
