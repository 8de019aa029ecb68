"""Pictures of patches and of reconstructions."""

import re
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

MISSING = '#d8d3c8'
"""Color of hidden tokens and of pixels without data."""

_RGB = ('B04', 'B03', 'B02')
_COMPOSITES = {
    'true color': _RGB,
    'false color': ('B08', 'B04', 'B03'),
    'VV, VH, VV - VH': ('VV', 'VH', 'VV - VH'),
}
_SYNONYMS = {'red': 'B04', 'green': 'B03', 'blue': 'B02'}


def composites(
    image: Tensor, bands: Sequence[str]
) -> list[tuple[str, NDArray[np.float32]]]:
    """Make every composite that the bands allow.

    True color (B04, B03, B02, or bands named red, green and blue) shares one stretch
    between its bands, so that colors stay natural. False color (B08, B04, B03) shows
    plants in red. Radar (VV, VH and their ratio VV - VH, in decibels) shows open water
    dark and towns bright. Without the bands of any of them, the first band is shown in
    gray.

    A stretch is linear between the 2nd and 98th percentile of the pixels with data, so
    it does not depend on the unit. A constant band is drawn half as bright as possible.

    Args:
        image: (C, H, W) in any unit, radar in decibels.
        bands: C names; B4 counts as B04.

    Returns:
        The title of each composite and its pixels in [0, 1]: (H, W, 3), or (H, W) for
        one band, NaN where one of its bands has no data (NaN or infinite).
    """
    pixels = image.detach().cpu().float().numpy()
    pixels = np.where(np.isfinite(pixels), pixels, np.float32(np.nan))
    names = [_SYNONYMS.get(name, re.sub(r'^B(\d)$', r'B0\1', name)) for name in bands]
    layers = dict(zip(names, pixels, strict=True))
    if {'VV', 'VH'} <= layers.keys():
        layers['VV - VH'] = layers['VV'] - layers['VH']
    made = []
    for title, wanted in _COMPOSITES.items():
        if layers.keys() >= set(wanted):
            stack = np.stack([layers[name] for name in wanted])
            groups = stack[None] if wanted == _RGB else stack
            picture = stretch(groups).reshape(stack.shape)
            picture[:, np.isnan(picture).any(axis=0)] = np.nan
            made.append((title, picture.transpose(1, 2, 0)))
    return made or [(bands[0], stretch(pixels[:1])[0])]


def stretch(groups: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stretch each of G groups of pixels to [0, 1] between its 2nd and 98th percentile.

    Groups are (G, ...); NaN stays NaN, and a constant group becomes 0.5.
    """
    result = np.full_like(groups, np.nan)
    for row, group in zip(result, groups, strict=True):
        known = np.isfinite(group)
        if known.any():
            low, high = np.percentile(group[known], [2, 98])
            if high > low:
                row[known] = ((group[known] - low) / (high - low)).clip(0, 1)
            else:  # constant, apart from outliers
                row[known] = 0.5 + 0.5 * np.sign(group[known] - low)
    return result


def plot_patch(
    image: Tensor,
    bands: Sequence[str],
    labels: Sequence[str] | None = None,
    predictions: Sequence[str] | None = None,
    title: str | None = None,
    show_titles: bool = True,
) -> Figure:
    """Draw a patch, one panel per composite.

    Args:
        image: (C, H, W) in physical units or normalized.
        bands: C names.
        labels: Names of the true classes.
        predictions: Names of the predicted classes.
        title: A title above the figure.
        show_titles: Whether to write panel titles, labels and predictions.
    """
    pictures = composites(image, bands)
    width = 2.2 * len(pictures)
    texts = [
        line
        for kind, names in (('Labels', labels), ('Predictions', predictions))
        if names is not None and show_titles
        for line in wrap(f'{kind}: {"; ".join(names) or "none"}', width - 0.2, 8)
    ]
    above = [] if title is None else wrap(title, width - 0.2, 10)
    height = 2.3 + 0.3 * show_titles + 0.17 * len(texts) + 0.2 * len(above)
    figure = Figure(figsize=(width, height), layout='constrained')
    panels = figure.subplots(1, len(pictures), squeeze=False)[0]
    for panel, (what, picture) in zip(panels, pictures, strict=True):
        show_pixels(panel, picture)
        if show_titles:
            panel.set_title(what, fontsize=9)
    style: dict[str, Any] = {'x': 0.1 / width, 'ha': 'left'}
    figure.supxlabel('\n'.join(texts), fontsize=8, **style)
    figure.suptitle('\n'.join(above), fontsize=10, **style)
    return figure


def wrap(text: str, width: float, size: float) -> list[str]:
    """Break a text into lines of at most about `width` inches at `size` points.

    Lines break at spaces, and after underscores of long names.
    """
    letter = 0.64 * size / 72  # mean advance of DejaVu Sans, inches
    mark = '\N{ZERO WIDTH SPACE}'
    lines = textwrap.wrap(text.replace('_', f'_{mark} '), max(1, int(width / letter)))
    return [line.replace(f'{mark} ', '').rstrip(mark) for line in lines]


def plot_reconstruction(
    image: Tensor,
    masked: Tensor,
    reconstruction: Tensor,
    bands: Sequence[str],
    title: str | None = None,
    guess: Tensor | None = None,
) -> Figure:
    """Draw input, masked input, reconstruction and a linear guess, one row each.

    The first column is RGB if the bands include it, followed by one panel per band. All
    rows of a band share the stretch of its input (2nd to 98th percentile).

    Args:
        image: (C, H, W).
        masked: (C, H, W), NaN where hidden.
        reconstruction: (C, H, W).
        bands: C names.
        title: Title of the figure.
        guess: (C, H, W), hidden pixels by linear regression from other bands, see
            :func:`~torchgeo_channelmae.band_guess.band_reconstruction`; None for no
            such row.
    """
    low, high = np.nanpercentile(image.flatten(1).numpy(), [2, 98], axis=1)
    span = np.maximum(high - low, 1e-6)
    rgb = [list(bands).index(name) for name in _RGB if set(_RGB) <= set(bands)]
    titles = ['RGB', *bands] if rgb else bands
    rows = {'input': image, 'masked input': masked, 'reconstruction': reconstruction}
    if guess is not None:
        rows['linear guess\nfrom other bands'] = guess
    size = 1.3 * len(titles) + 0.6, 1.4 * len(rows) + 0.4
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for (name, pixels), line in zip(rows.items(), axes, strict=True):
        stretched = (pixels.numpy() - low[:, None, None]) / span[:, None, None]
        pictures = [stretched[rgb].transpose(1, 2, 0)] if rgb else []
        for panel, picture in zip(line, [*pictures, *stretched], strict=True):
            show_pixels(panel, picture)
        line[0].set_ylabel(name, fontsize=9)
    for panel, band in zip(axes[0], titles, strict=True):
        panel.set_title(band, fontsize=9)
    figure.suptitle(title or '', fontsize=9)
    return figure


def show_pixels(panel: Axes, pixels: NDArray[np.float32]) -> None:
    """Draw (H, W) or (H, W, 3) pixels in [0, 1] without ticks, NaN in its own color.

    Where only some of three channels are NaN, those are drawn as 0.
    """
    panel.set_facecolor(MISSING)
    panel.set_xticks([])
    panel.set_yticks([])
    if pixels.ndim == 3:
        hidden = np.isnan(pixels).all(axis=-1, keepdims=True)
        pixels = np.nan_to_num(pixels).clip(0, 1)
        pixels = np.concatenate([pixels, 1.0 - hidden], axis=-1)
    panel.imshow(pixels, cmap='gray', vmin=0, vmax=1, interpolation='nearest')


def log_figure(task: LightningModule, name: str, figure: Figure) -> None:
    """Send a figure to every logger that accepts figures."""
    for logger in task.loggers:
        experiment: Any = getattr(logger, 'experiment', None)
        if hasattr(experiment, 'add_figure'):
            experiment.add_figure(name, figure, global_step=task.global_step)
