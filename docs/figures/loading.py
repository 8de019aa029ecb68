"""Which embedding each band of a model starts with, as a load reports it."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from torchgeo_channelmae.models import ChannelViT
from torchgeo_channelmae.models.weights import load_encoder

KNOWN = ['B02', 'B04', 'B08', 'B11']
WANTED = ['B08', 'B8A', 'VV', 'VH']
POLICIES = ['sample', 'index', 'nearest', 'random']
KEPT, COPIED, DRAWN = '#1f5f8b', '#c9484b', '#8a7a5c'


def make(bands: list[str]) -> ChannelViT:
    """Make a small encoder."""
    torch.manual_seed(0)
    return ChannelViT(img_size=32, bands=bands, embed_dim=32, depth=1, num_heads=2)


def label(panel: Axes, x: float, y: float, text: str, color: str) -> None:
    """Write a band in a box."""
    panel.text(
        x,
        y,
        text,
        ha='center',
        va='center',
        size=9.5,
        bbox={'boxstyle': 'round,pad=0.25', 'fc': 'white', 'ec': color, 'lw': 1.3},
    )


def arrow(
    panel: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str,
    style: str = '-',
) -> None:
    """Draw an arrow between two bands."""
    panel.annotate(
        '',
        end,
        start,
        arrowprops={
            'arrowstyle': '-|>',
            'color': color,
            'lw': 1.4,
            'ls': style,
            'shrinkA': 16,
            'shrinkB': 17,
        },
    )


def draw() -> Figure:
    """Draw a panel for each policy, from the report of a real load."""
    pretrained = make(KNOWN).state_dict()
    height = {name: -row for row, name in enumerate(KNOWN)}
    figure = Figure(figsize=(6.2, 5.4), layout='constrained')
    for panel, policy in zip(figure.subplots(2, 2).flatten(), POLICIES, strict=True):
        report = load_encoder(make(WANTED), pretrained, policy)
        for name, y in height.items():
            label(panel, 0, y, name, '#555555')
        for row, name in enumerate(WANTED):
            how = report.fresh_bands.get(name, 'kept')
            source = name if how == 'kept' else how.partition(': as ')[2]
            color = KEPT if how == 'kept' else COPIED if source else DRAWN
            label(panel, 2.4, -row, name, color)
            if source:
                arrow(panel, (0, height[source]), (2.4, -row), color)
            else:
                arrow(panel, (1.0, -2.8), (2.4, -row), DRAWN, ':')
                drawn = 'random' if how == 'random' else 'mean ± spread\nof the weights'
                panel.text(
                    0.95,
                    -2.8,
                    drawn,
                    ha='center',
                    va='center',
                    size=8.5,
                    color=DRAWN,
                    bbox={'fc': 'white', 'ec': 'none', 'pad': 1.5},
                )
        panel.set_title(policy, fontweight='bold', fontsize=11)
        panel.text(0, 0.55, 'weights', ha='center', size=8.5, color='#777777')
        panel.text(2.4, 0.55, 'model', ha='center', size=8.5, color='#777777')
        panel.set_xlim(-0.6, 3.0)
        panel.set_ylim(-3.5, 0.9)
        panel.set_axis_off()
    return figure
