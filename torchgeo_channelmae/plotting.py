"""Pictures of patches and of reconstructions."""

import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Patch
from matplotlib.textpath import TextToPath
from numpy.typing import NDArray
from torch import Tensor

_RGB = ('B04', 'B03', 'B02')
MISSING = '#d8d3c8'
"""Colour of hidden tokens and of pixels without data."""

_TRUE_COLOUR = (_RGB, ('red', 'green', 'blue'))
_FALSE_COLOUR = ('B08', 'B04', 'B03')
_RADAR = ('VV', 'VH')
_BARE = {'frameon': False, 'handlelength': 1.0, 'handleheight': 1.0}


def composites(
    image: Tensor, bands: Sequence[str]
) -> list[tuple[str, NDArray[np.float32]]]:
    """Make each picture that the bands allow.

    True colour (B04, B03, B02, or bands named red, green and blue), its three bands
    stretched alike, so that colours stay natural; false colour (B08, B04, B03), in
    which plants are red; radar (VV, VH and VV - VH in decibels, the ratio of the two),
    in which open water is dark and towns are bright. If the bands allow none of them,
    the first band in gray.

    A stretch is linear between the 2nd and 98th percentile of the pixels with data,
    whatever their unit, so that normalised images are drawn as well. A band that is
    constant is drawn half as bright as can be.

    Args:
        image: (C, H, W) in any unit, decibels for the radar.
        bands: C names; B4 is B04.

    Returns:
        For each picture what it shows and its pixels in [0, 1]: (H, W, 3), or (H, W)
        for one band, NaN where one of its bands has no data (NaN or infinite).

    Raises:
        ValueError: If there are not C names.
    """
    pixels = image.detach().cpu().float().numpy()
    if pixels.ndim != 3 or len(bands) != len(pixels):
        raise ValueError(
            f'An image of shape {tuple(pixels.shape)} does not go with the bands '
            f'{", ".join(bands)}: give (C, H, W) with a name a band.'
        )
    pixels = np.where(np.isfinite(pixels), pixels, np.float32(np.nan))
    by_name = {
        re.sub(r'^B(\d)$', r'B0\1', name): band
        for name, band in zip(bands, pixels, strict=True)
    }
    made = []
    for names in _TRUE_COLOUR:
        if set(names) <= set(by_name):
            made.append(('true colour', stretch(_stack(by_name, names)[None])[0]))
    if set(_FALSE_COLOUR) <= set(by_name):
        made.append(('false colour', stretch(_stack(by_name, _FALSE_COLOUR))))
    if set(_RADAR) <= set(by_name):
        both = _stack(by_name, _RADAR)
        radar = stretch(np.concatenate([both, both[:1] - both[1:]]))
        made.append(('VV, VH, VV - VH', radar))
    if not made:
        return [(bands[0], stretch(pixels[:1])[0])]
    return [(title, _together(picture)) for title, picture in made]


def stretch(groups: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stretch each of G groups of pixels to [0, 1] between its 2 and 98 percentile.

    Args:
        groups: (G, ...), NaN where there are no data.

    Returns:
        The same shape, in [0, 1], NaN where it was, 0.5 for a constant group.
    """
    result = np.full_like(groups, np.nan)
    for row, group in zip(result, groups, strict=True):
        known = np.isfinite(group)
        if known.any():
            low, high = np.percentile(group[known], [2, 98])
            if high > low:
                row[known] = ((group[known] - low) / (high - low)).clip(0, 1)
            else:  # constant, but for outliers
                row[known] = 0.5 + 0.5 * np.sign(group[known] - low)
    return result


def plot_patch(
    image: Tensor,
    bands: Sequence[str],
    labels: Sequence[str] | None = None,
    predictions: Sequence[str] | None = None,
    mask: Tensor | None = None,
    mask_names: Sequence[str] | None = None,
    title: str | None = None,
    show_titles: bool = True,
) -> Figure:
    """Draw a patch: a panel for each of its :func:`composites`.

    Args:
        image: (C, H, W) in physical units or normalised.
        bands: C names.
        labels: Names of the classes that the patch has.
        predictions: Names of the classes that it was said to have.
        mask: (H, W) class numbers, a land-cover map, for one more panel.
        mask_names: Name of each class of the mask.
        title: A title above the figure.
        show_titles: Whether to write what the panels are, the labels and the
            predictions.

    Returns:
        The figure.
    """
    pictures = composites(image, bands)
    columns = len(pictures) + (mask is not None)
    width = 2.2 * columns
    texts = [
        line
        for what, names in (('Labels', labels), ('Predictions', predictions))
        if names is not None and show_titles
        for line in wrap(f'{what}: {"; ".join(names) or "none"}', width - 0.2, 8)
    ]
    above = [] if title is None else wrap(title, width - 0.2, 10)
    keys = _legend(mask, mask_names) if mask is not None and show_titles else []
    height = 2.3 + 0.3 * show_titles + 0.17 * len(texts) + 0.2 * len(above)
    side = max([0.45 + _extent(str(key.get_label()), 7) for key in keys], default=0.0)
    size = width + side, max(height, 0.3 + 0.16 * len(keys))
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(1, columns, squeeze=False)[0]
    if mask is not None:
        pictures.append(('land cover', colour_classes(mask)))
    for panel, (what, picture) in zip(axes, pictures, strict=True):
        _show(panel, picture)
        if show_titles:
            panel.set_title(what, fontsize=9)
    if keys:
        figure.legend(handles=keys, loc='outside right upper', fontsize=7, **_BARE)
    if texts:
        figure.supxlabel('\n'.join(texts), x=0.1 / size[0], ha='left', fontsize=8)
    if above:
        figure.suptitle('\n'.join(above), x=0.1 / size[0], ha='left', fontsize=10)
    return figure


def wrap(text: str, width: float, size: float) -> list[str]:
    """Break a text into lines by its width as printed.

    Args:
        text: The text; it breaks after spaces, and after underscores in long names.
        width: Of a line, in inches.
        size: Of the font, in points.
    """
    lines, used = [''], 0.0
    for word in re.findall(r'[^ _]*[ _]*', text)[:-1]:
        wide = _extent(word, size)
        if used and used + _extent(word.rstrip(), size) > width:
            lines.append('')
            used = 0.0
        lines[-1] += word
        used += wide
    return [line.rstrip() for line in lines]


@functools.cache
def _extent(text: str, size: float) -> float:
    """Width of a text in inches."""
    parser = TextToPath()  # type: ignore[no-untyped-call]
    width, _, _ = parser.get_text_width_height_descent(
        text, FontProperties(size=size), ismath=False
    )
    return 1.03 * float(width) / 72  # a screen's pixels round letters up


def colour_classes(mask: Tensor) -> NDArray[np.float32]:
    """Return a colour for each class number, (..., 3) in [0, 1] for any shape."""
    palette = np.array(colormaps['tab20'].colors, dtype=np.float32)  # type: ignore[attr-defined]
    order = np.r_[0:20:2, 1:20:2]  # the strong colours first
    picture: NDArray[np.float32] = palette[order][mask.long().cpu().numpy() % 20]
    return picture


def _legend(mask: Tensor, names: Sequence[str] | None) -> list[Patch]:
    """Return a key for each class of a map."""
    numbers = mask.unique()
    known = dict(enumerate(names or ()))
    return [
        Patch(color=colour, label=known.get(number, f'class {number}'))
        for number, colour in zip(
            numbers.tolist(), colour_classes(numbers), strict=True
        )
    ]


def _stack(
    by_name: dict[str, NDArray[np.float32]], names: Sequence[str]
) -> NDArray[np.float32]:
    return np.stack([by_name[name] for name in names])


def _together(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """(3, H, W) to (H, W, 3), without colour where a band has no data."""
    hidden = np.isnan(picture).any(axis=0)
    return np.where(hidden[..., None], np.float32(np.nan), picture.transpose(1, 2, 0))


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
    panel.set_facecolor(MISSING)
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
