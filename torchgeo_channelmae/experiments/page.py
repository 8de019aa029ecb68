"""A page of patches, each before and after what training does to it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ..plotting import MISSING, composites, wrap

_WIDTH = 14.2  # of a page, inches
_PANEL = 1.3
_LINE = 0.135  # of small text
_MARGIN = 0.35
_LEFT = 0.44  # for the names of a card's rows
_GAP = 0.06
_RADAR = ('VV', 'VH', 'HH', 'HV')
_INK, _GREY = '#1a1a1a', '#6b6b6b'


@dataclass(frozen=True)
class Card:
    """A patch of the page.

    Attributes:
        name: What the patch is called.
        labels: Names of its classes, None where it has no labels.
        before: (C, H, W) as stored.
        after: (C, H', W') as the model gets it.
    """

    name: str
    labels: Sequence[str] | None
    before: Tensor
    after: Tensor


@dataclass
class _Laid:
    """A card with its texts broken into lines and its pictures made."""

    rows: list[tuple[str, list[str], list[NDArray[np.float32]]]]
    titles: list[str]
    name: list[str]
    labels: list[str] = field(default_factory=list)


def draw_page(
    cards: Sequence[Card],
    bands: Sequence[str],
    title: str,
    notes: Sequence[str] = (),
    rows: tuple[str, str] = ('before', 'after'),
) -> Figure:
    """Draw patches in a grid, each with its pictures before above those after.

    Args:
        cards: The patches.
        bands: Names of their channels.
        title: Title of the page.
        notes: What a reader has to know, below the title.
        rows: What the two rows of a card are.

    Returns:
        The figure, as high as it has to be.
    """
    count = len(composites(cards[0].before, bands))
    card = max(_LEFT + count * (_PANEL + _GAP), 3.1)
    fit = max(1, int((_WIDTH + 0.3) // (card + 0.3)))
    columns = math.ceil(len(cards) / math.ceil(len(cards) / fit))  # even lines
    width = max(columns * (card + 0.3) + 2 * _MARGIN - 0.3, 7.5)
    laid = [_lay(one, bands, rows, card) for one in cards]
    lines = [laid[start : start + columns] for start in range(0, len(laid), columns)]
    heights = [_height(line) for line in lines]
    said = [part for note in notes for part in wrap(note, width - 2 * _MARGIN, 8)]
    head = _MARGIN + 0.3 + 0.16 * len(said) + 0.15
    height = head + sum(heights) + _MARGIN - 0.2
    figure = Figure(figsize=(width, height), facecolor='white')
    pen = _Pen(figure, width, height)
    pen.write(_MARGIN, _MARGIN, title, 12, weight='bold')
    for number, part in enumerate(said):
        pen.write(_MARGIN, _MARGIN + 0.3 + 0.16 * number, part, 8, color=_GREY)
    top = head
    for line, tall in zip(lines, heights, strict=True):
        for number, one in enumerate(line):
            _draw(pen, one, _MARGIN + number * (card + 0.3), top, line)
        top += tall
    return figure


class _Pen:
    """Places things on a figure in inches from its upper left corner."""

    def __init__(self, figure: Figure, width: float, height: float) -> None:
        self.figure, self.width, self.height = figure, width, height

    def write(
        self, x: float, y: float, text: str, size: float, **style: str | float
    ) -> None:
        """Write one line with its upper left corner at (x, y)."""
        style = {'va': 'top', 'ha': 'left', 'color': _INK, **style}
        self.figure.text(
            x / self.width,
            1 - y / self.height,
            text,
            fontsize=size,
            parse_math=False,
            **style,  # type: ignore[arg-type]
        )

    def picture(self, x: float, y: float, pixels: NDArray[np.float32]) -> None:
        """Draw a picture, NaN in a colour of its own."""
        panel = self.figure.add_axes(
            (
                x / self.width,
                1 - (y + _PANEL) / self.height,
                _PANEL / self.width,
                _PANEL / self.height,
            )
        )
        panel.set_facecolor(MISSING)
        panel.set_xticks([])
        panel.set_yticks([])
        for spine in panel.spines.values():
            spine.set_linewidth(0.4)
        hidden = np.isnan(pixels if pixels.ndim == 2 else pixels[..., 0])
        filled = np.nan_to_num(pixels)
        if pixels.ndim == 2:
            filled = np.repeat(filled[..., None], 3, axis=-1)
        shown = np.concatenate([filled, 1.0 - hidden[..., None]], axis=-1)
        panel.imshow(shown, interpolation='nearest')


def _lay(
    card: Card, bands: Sequence[str], rows: tuple[str, str], width: float
) -> _Laid:
    made = []
    titles: list[str] = []
    for what, image in zip(rows, (card.before, card.after), strict=True):
        pictures = composites(image, bands)
        titles = [title for title, _ in pictures]
        made.append((what, _ranges(image, bands), [pixels for _, pixels in pictures]))
    labels = card.labels
    text = '' if labels is None else '; '.join(labels) or 'no class'
    return _Laid(
        rows=made,
        titles=titles,
        name=wrap(card.name, width, 7),
        labels=wrap(text, width, 7) if text else [],
    )


def _ranges(image: Tensor, bands: Sequence[str]) -> list[str]:
    """Between which values most pixels lie, of radar and other bands apart."""
    radar = [band in _RADAR for band in bands]
    texts = []
    for name, chosen in (('', [not one for one in radar]), ('radar ', radar)):
        pixels = image[torch.tensor(chosen)]
        known = pixels[pixels.isfinite()].cpu().numpy()
        if known.size:
            low, high = np.percentile(known, [2, 98])
            digits = 0 if max(abs(low), abs(high)) >= 100 else 1
            values = f'{_number(low, digits)} to {_number(high, digits)}'
            texts.append(values if all(chosen) else f'{name}{values}')
    return texts or ['no data']


def _number(value: float, digits: int) -> str:
    rounded = round(float(value), digits) + 0.0  # no -0
    return f'{rounded:,.{digits}f}'.replace('-', '\N{MINUS SIGN}')


def _height(line: Sequence[_Laid]) -> float:
    names = max(len(one.name) for one in line)
    labels = max(len(one.labels) for one in line)
    return _LINE * (names + 1 + labels) + 2 * (_PANEL + _GAP) + 0.34


def _draw(pen: _Pen, one: _Laid, x: float, y: float, line: Sequence[_Laid]) -> None:
    names = max(len(other.name) for other in line)
    for number, part in enumerate(one.name):
        pen.write(x, y + number * _LINE, part, 7)
    y += names * _LINE + 0.03
    for number, title in enumerate(one.titles):
        left = x + _LEFT + number * (_PANEL + _GAP)
        pen.write(left + _PANEL / 2, y, title, 7, ha='center', color=_GREY)
    y += _LINE + 0.02
    for what, values, pictures in one.rows:
        middle = y + _PANEL / 2
        pen.write(x, middle, what, 7.5, rotation=90, va='center')
        for number, text in enumerate(values):
            pen.write(
                x + 0.15 + 0.12 * number,
                middle,
                text,
                6.5,
                rotation=90,
                va='center',
                color=_GREY,
            )
        for number, pixels in enumerate(pictures):
            pen.picture(x + _LEFT + number * (_PANEL + _GAP), y, pixels)
        y += _PANEL + _GAP
    y += 0.03
    for number, part in enumerate(one.labels):
        pen.write(x, y + number * _LINE, part, 7)
