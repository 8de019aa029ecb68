"""The figures of the concepts, drawn from the code that they explain."""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.masking import make_masking

BANDS = ['B02', 'B04', 'B08', 'B11', 'VV', 'VH']
SIDE, CELLS = 64, 4
_SEEN, _TARGET, _IDLE = '#1f5a92', '#e8a33d', '#d9d9d9'


def patch() -> torch.Tensor:
    """One bundled patch, (C, 64, 64), standardised."""
    data = BigEarthNetS1S2DataModule(bands=BANDS, size=SIDE, batch_size=8)
    data.setup('fit')
    image: torch.Tensor = data.finish(next(iter(data.val_dataloader())), False)['image']
    return image[1]


def tokens(out: Path) -> None:
    """Every band is cut into patches of its own; one patch of one band is a token."""
    image = patch()
    drawing = Figure(figsize=(9, 2.2), layout='constrained')
    panels = drawing.subplots(1, len(BANDS))
    for panel, name, band in zip(panels, BANDS, image, strict=True):
        panel.imshow(band, cmap='gray', vmin=-2, vmax=2)
        for line in range(0, SIDE + 1, SIDE // CELLS):
            panel.axhline(line - 0.5, color='white', lw=0.8)
            panel.axvline(line - 0.5, color='white', lw=0.8)
        panel.add_patch(Rectangle((15.5, 31.5), 16, 16, fill=False, ec=_TARGET, lw=2))
        panel.set_title(name, fontsize=10)
        panel.set_xticks([])
        panel.set_yticks([])
    drawing.savefig(out / 'tokens.png', dpi=110)


STRATEGIES = {
    'S1: random': ('random', {}),
    'S2: same band': ('same_band', {}),
    'S3: cross band, 1 in': ('cross_band', {'bands': 1}),
    'S4: cross band, 3 in': ('cross_band', {'bands': 3}),
    'columns': ('columns', {}),
    'channels and patches': ('channels_and_patches', {}),
}


def masks(out: Path) -> None:
    """What the encoder sees and the decoder produces, by strategy, for one sample."""
    drawing = Figure(figsize=(9.5, 4.4), layout='constrained')
    panels = drawing.subplots(2, 3).flat
    for panel, (title, (name, options)) in zip(panels, STRATEGIES.items(), strict=True):
        masking = make_masking(name, 0.75, options)
        mask = masking(torch.tensor([3]), 7, len(BANDS), CELLS**2)
        state = torch.zeros(len(BANDS) * CELLS**2, dtype=torch.long)
        state[mask.target[0]] = 2
        state[mask.visible[0]] = 1
        _grid(panel, state.unflatten(0, (len(BANDS), -1)))
        panel.set_title(title, fontsize=10)
    handles = [
        Rectangle((0, 0), 1, 1, color=colour, label=label)
        for colour, label in (
            (_SEEN, 'the encoder sees it'),
            (_TARGET, 'the decoder produces it'),
            (_IDLE, 'neither'),
        )
    ]
    drawing.legend(handles=handles, loc='outside lower center', ncols=3, fontsize=9)
    drawing.savefig(out / 'masks.png', dpi=110)


def _grid(panel: Axes, state: torch.Tensor) -> None:
    """Draw a row a band and a column a cell."""
    colours = (_IDLE, _SEEN, _TARGET)
    for band, row in enumerate(state.tolist()):
        for cell, kind in enumerate(row):
            place = (cell + 0.06, band + 0.06)
            panel.add_patch(Rectangle(place, 0.88, 0.88, color=colours[kind], lw=0))
    panel.set_xlim(0, state.shape[1])
    panel.set_ylim(len(BANDS), 0)
    panel.set_yticks([n + 0.5 for n in range(len(BANDS))], BANDS, fontsize=8)
    panel.set_xticks([])
    panel.set_xlabel('16 cells of the grid', fontsize=8)
    panel.tick_params(length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)


def losses(out: Path) -> None:
    """The two losses of one cell: token by token, and the mean over its bands."""
    values = torch.tensor([-0.9, -0.4, 1.1, 0.6, -0.2, -0.7])
    guess = values + torch.tensor([0.5, 0.2, -0.5, 0.4, 0.3, -0.4])
    drawing = Figure(figsize=(8.5, 2.8), layout='constrained')
    left, right = drawing.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    x = torch.arange(len(values))
    left.bar(x - 0.18, values, 0.34, color=_SEEN, label='pixels')
    left.bar(x + 0.18, guess, 0.34, color=_TARGET, label='prediction')
    for place, one, two in zip(
        x.tolist(), values.tolist(), guess.tolist(), strict=True
    ):
        left.plot([place + 0.4] * 2, [one, two], color='black', lw=1.2)
    left.set_xticks(x, BANDS, fontsize=8)
    left.set_title('token to token: each band by itself', fontsize=10)
    left.legend(fontsize=8)
    right.bar([-0.18], [float(values.mean())], 0.34, color=_SEEN)
    right.bar([0.18], [float(guess.mean())], 0.34, color=_TARGET)
    right.plot([0.4] * 2, [values.mean(), guess.mean()], color='black', lw=1.2)
    right.set_xticks([0], ['mean over bands'], fontsize=8)
    right.set_title('spectral to spectral', fontsize=10)
    right.set_xlim(-0.8, 0.8)
    for panel in (left, right):
        panel.axhline(0, color='black', lw=0.6)
        panel.tick_params(labelsize=8)
    drawing.savefig(out / 'losses.png', dpi=110)


def loading(out: Path) -> None:
    """Which band of a fine-tuning gets what from the weights of a pretraining."""
    drawing = Figure(figsize=(8.5, 2.4), layout='constrained')
    panel = drawing.subplots()
    known, asked = ['B02', 'B04', 'B08', 'B11'], ['B08', 'VV', 'VH', 'B04']
    for place, name in enumerate(known):
        panel.text(place, 1, name, ha='center', va='center', color='white', fontsize=10,
                   bbox={'boxstyle': 'round', 'fc': _SEEN, 'ec': 'none'})  # fmt: skip
    for place, name in enumerate(asked):
        colour = _SEEN if name in known else _TARGET
        panel.text(place, 0, name, ha='center', va='center', color='white', fontsize=10,
                   bbox={'boxstyle': 'round', 'fc': colour, 'ec': 'none'})  # fmt: skip
        starts = [known.index(name)] if name in known else range(len(known))
        for start in starts:
            panel.annotate(
                '',
                (place, 0.17),
                (start, 0.83),
                arrowprops={
                    'arrowstyle': '->',
                    'color': colour,
                    'lw': 2 if name in known else 0.7,
                },
            )
    panel.text(3.6, 1, 'weights', va='center', fontsize=9)
    panel.text(3.6, 0, 'model; orange: drawn around the mean', va='center', fontsize=9)
    panel.set_xlim(-0.5, 6)
    panel.set_ylim(-0.3, 1.3)
    panel.axis('off')
    drawing.savefig(out / 'loading.png', dpi=110)


def draw_all(out: Path) -> None:
    """Draw all figures into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    for draw in (tokens, masks, losses, loading):
        draw(out)


if __name__ == '__main__':
    draw_all(Path(__file__).parent / 'images' / 'drawn')
