"""What each masking shows and asks for, drawn by the maskings themselves."""

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from torchgeo_channelmae import sensors
from torchgeo_channelmae.masking import make_masking

BANDS = sensors.names(sensors.SENTINEL2_L2A)
CELLS = 16
STRATEGIES = [
    ('random (S1)', 'random', {}),
    ('same_band (S2)', 'same_band', {}),
    ('same_band, visible: all', 'same_band', {'visible': 'all'}),
    ('cross_band (S3)', 'cross_band', {}),
    ('cross_band, bands: 3 (S4)', 'cross_band', {'bands': 3}),
    ('columns', 'columns', {}),
    ('channels_and_patches', 'channels_and_patches', {}),
]
OUT, SEEN, ASKED, BOTH = range(4)
COLOURS = ['#e4e1d8', '#1f5f8b', '#e8963c', '#7d5ba6']
MEANING = [
    'neither seen nor produced',
    'seen by the encoder',
    'hidden, and produced',
    'seen, and produced',
]


def draw() -> Figure:
    """Draw a matrix of bands and cells for each strategy."""
    figure = Figure(figsize=(6.2, 8.6), layout='constrained')
    panels = figure.subplots(4, 2).flatten()
    for panel, (title, name, options) in zip(panels, STRATEGIES, strict=False):
        mask = make_masking(name, 0.75, options)(
            torch.tensor([21]), 0, len(BANDS), CELLS
        )
        state = np.full(len(BANDS) * CELLS, OUT)
        state[mask.visible[0]] = SEEN
        target = mask.target[0].numpy()
        state[target] = np.where(state[target] == SEEN, BOTH, ASKED)
        panel.pcolormesh(
            state.reshape(len(BANDS), CELLS),
            cmap=ListedColormap(COLOURS),
            vmin=-0.5,
            vmax=3.5,
            edgecolors='white',
            linewidth=0.8,
        )
        for band in mask.bands[0].tolist():
            panel.plot(CELLS + 0.7, band + 0.5, '.', color='#333333', markersize=5)
        panel.set_title(title, fontsize=10.5, loc='left', fontweight='bold')
        panel.set_xlim(0, CELLS + 1.2)
        panel.set_ylim(len(BANDS), 0)
        panel.set_yticks(np.arange(len(BANDS)) + 0.5, BANDS, fontsize=8)
        panel.set_xticks([])
        panel.tick_params(length=0)
        for side in panel.spines.values():
            side.set_visible(False)
    panels[-2].set_xlabel(f'{CELLS} grid cells', fontsize=9)
    panels[-1].set_axis_off()
    handles = [
        Patch(color=color, label=text)
        for color, text in zip(COLOURS, MEANING, strict=True)
    ]
    dots = panels[-1].plot(
        [], [], '.', color='#333333', label='band of the spectral loss'
    )
    panels[-1].legend(
        handles=[*handles[1:], handles[0], *dots],
        loc='center left',
        frameon=False,
        fontsize=10,
        labelspacing=0.9,
        handlelength=1.1,
        handleheight=1.1,
    )
    return figure
