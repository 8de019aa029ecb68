"""What each loss compares, and how large one is beside the other."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from torchgeo_channelmae.losses import spectral_to_spectral, token_to_token
from torchgeo_channelmae.masking import make_masking

ASKED, SEEN, TOGETHER = '#e8963c', '#1f5f8b', '#8a4f1d'
CELLS, PIXELS, SAMPLES = 4, 16, 400
BANDS = [1, 2, 3, 4, 6, 8, 10, 12]
LINES = [
    ('sum', 'common', '#c9484b', '-', 'sum, errors common to the bands'),
    ('sum', 'independent', '#c9484b', '--', 'sum, independent errors'),
    ('mean', 'common', '#1f5f8b', '-', 'mean, errors common to the bands'),
    ('mean', 'independent', '#1f5f8b', '--', 'mean, independent errors'),
]


def ratio(num_bands: int, reduction: str, kind: str) -> float:
    """Spectral-to-spectral over token-to-token loss of random errors."""
    draw = torch.Generator().manual_seed(0)
    shape = (SAMPLES, num_bands if kind == 'independent' else 1, CELLS, PIXELS)
    error = torch.randn(shape, generator=draw).expand(-1, num_bands, -1, -1)
    error = error.flatten(1, 2)
    zero = torch.zeros_like(error)
    spectral = spectral_to_spectral(error, zero, num_bands, reduction)
    return float(spectral.mean() / token_to_token(error, zero).mean())


def draw_terms(panels: Sequence[Axes]) -> None:
    """Draw which tokens each loss reads, of 5 bands and 8 cells."""
    bands, cells = 5, 8
    mask = make_masking('random', 0.75)(torch.tensor([5]), 0, bands, cells)
    target = set(mask.target[0].tolist())
    for panel, title in zip(
        panels, ('token-to-token', 'spectral-to-spectral'), strict=True
    ):
        together = title.startswith('spectral')
        for number in range(bands * cells):
            band, cell = divmod(number, cells)
            read = together or number in target
            color = ASKED if read else SEEN
            panel.add_patch(Rectangle((cell, -band), 0.92, 0.88, facecolor=color))
        if together:
            for cell in range(cells):
                panel.add_patch(
                    Rectangle((cell, -bands - 0.9), 0.92, 0.88, facecolor=TOGETHER)
                )
                panel.annotate(
                    '',
                    (cell + 0.46, -bands + 0.0),
                    (cell + 0.46, -bands + 0.95),
                    arrowprops={'arrowstyle': '-|>', 'color': '#777777', 'lw': 0.9},
                )
        says = (
            'errors of the bands taken together,\nat every cell'
            if together
            else 'error of each hidden token'
        )
        panel.set_title(title, fontweight='bold', fontsize=11)
        below = -bands - (1.2 if together else 0)
        panel.text(cells / 2, below, says, ha='center', va='top')
        panel.set_xlim(-0.2, cells + 0.2)
        panel.set_ylim(-bands - 2.7, 1)
        panel.set_axis_off()


def draw() -> Figure:
    """Draw what the losses read, and their ratio against the number of bands."""
    figure = Figure(figsize=(6.2, 6.3), layout='constrained')
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.15])
    draw_terms(above.subplots(1, 2))
    panel = below.subplots()
    for reduction, kind, color, style, label in LINES:
        values = [ratio(count, reduction, kind) for count in BANDS]
        panel.plot(BANDS, values, style, color=color, marker='o', ms=3.5, label=label)
        panel.annotate(
            f'{values[-1]:.3g}',
            (BANDS[-1], values[-1]),
            textcoords='offset points',
            xytext=(7, 3),
            color=color,
        )
    panel.axhline(1, color='#888888', linewidth=0.8, zorder=0)
    panel.set_yscale('log')
    panel.set_yticks([0.1, 1, 10, 100], ['0.1', '1', '10', '100'])
    panel.set_xticks(BANDS)
    panel.set_xlim(0.7, 13.2)
    panel.set_xlabel('bands taken together')
    panel.set_ylabel('spectral-to-spectral\nover token-to-token')
    panel.spines[['top', 'right']].set_visible(False)
    panel.legend(frameon=False, fontsize=9, loc='upper left')
    panel.set_ylim(0.06, 4000)
    panel.minorticks_off()
    return figure
