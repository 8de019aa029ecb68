"""Pictures of reconstructions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

_RGB = ('B04', 'B03', 'B02')
_MISSING = '#d8d3c8'  # hidden tokens


def plot_reconstruction(
    image: Tensor,
    masked: Tensor,
    reconstruction: Tensor,
    bands: Sequence[str],
    title: str | None = None,
) -> Figure:
    """Draw input, masked input and reconstruction, a row each.

    The first column is RGB where the bands are there, then one panel a band. A band is
    stretched between the 2nd and 98th percentile of its input, the same in its three
    panels.

    Args:
        image: (C, H, W).
        masked: (C, H, W), NaN where hidden.
        reconstruction: (C, H, W).
        bands: C names.
        title: Title of the figure.

    Returns:
        The figure.
    """
    rows = {'input': image, 'masked input': masked, 'reconstruction': reconstruction}
    low, high = np.nanpercentile(image.flatten(1).numpy(), [2, 98], axis=1)
    span = np.maximum(high - low, 1e-6)
    rgb = [list(bands).index(name) for name in _RGB] if set(_RGB) <= set(bands) else []
    columns = len(bands) + bool(rgb)
    figure = Figure(figsize=(1.3 * columns + 0.6, 4.6), layout='constrained')
    axes = figure.subplots(3, columns, squeeze=False)
    for (name, pixels), line in zip(rows.items(), axes, strict=True):
        stretched = (pixels.numpy() - low[:, None, None]) / span[:, None, None]
        if rgb:
            _show(line[0], stretched[rgb].transpose(1, 2, 0))
        for panel, band in zip(line[bool(rgb) :], stretched, strict=True):
            _show(panel, band)
        line[0].set_ylabel(name, fontsize=9)
    for panel, band in zip(axes[0], [*(['RGB'] if rgb else []), *bands], strict=True):
        panel.set_title(band, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=9)
    return figure


def _show(panel: Axes, pixels: NDArray[np.float32]) -> None:
    """Draw one panel, NaN in a colour of its own."""
    panel.set_facecolor(_MISSING)
    panel.set_xticks([])
    panel.set_yticks([])
    if pixels.ndim == 3:  # RGB: hidden bands are black, a cell without any is empty
        hidden = np.isnan(pixels).all(axis=-1, keepdims=True)
        pixels = np.nan_to_num(pixels).clip(0, 1)
        pixels = np.concatenate([pixels, 1.0 - hidden], axis=-1)
    panel.imshow(pixels, cmap='gray', vmin=0, vmax=1, interpolation='nearest')


def log_figure(task: LightningModule, name: str, figure: Figure) -> None:
    """Hand a figure to every logger that takes figures."""
    for logger in task.loggers:
        experiment: Any = getattr(logger, 'experiment', None)
        if hasattr(experiment, 'add_figure'):
            experiment.add_figure(name, figure, global_step=task.global_step)
