"""How an image becomes tokens: one band at one grid cell each."""

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.models.tokens import patchify

BANDS = ['B02', 'B04', 'B08', 'B11']
COLOURS = ['#3b7dd8', '#c9484b', '#8a4fa3', '#a87632']
SIZE, PATCH = 64, 16
CELL = 6  # the cell that is pointed out


def draw() -> Figure:
    """Draw four bands with their grid above the tokens that they are cut into."""
    sample = BigEarthNetLMDB(split='train', bands=BANDS)[2]
    image = sample['image'][:, 20 : 20 + SIZE, 20 : 20 + SIZE].float()
    tokens = patchify(image[None], PATCH)[0]  # (N, P^2)
    side = SIZE // PATCH
    cells = side**2

    figure = Figure(figsize=(6.2, 4.3), layout='constrained')
    above, below = figure.subfigures(2, 1, height_ratios=[1.05, 1])
    for panel, band, pixels, color in zip(
        above.subplots(1, len(BANDS)), BANDS, image, COLOURS, strict=True
    ):
        low, high = pixels.flatten().quantile(0.02), pixels.flatten().quantile(0.98)
        panel.imshow(pixels, cmap='gray', vmin=low, vmax=high)
        for at in range(PATCH, SIZE, PATCH):
            panel.axhline(at - 0.5, color='white', linewidth=0.8)
            panel.axvline(at - 0.5, color='white', linewidth=0.8)
        row, column = divmod(CELL, side)
        panel.add_patch(
            Rectangle(
                (column * PATCH - 0.5, row * PATCH - 0.5),
                PATCH,
                PATCH,
                fill=False,
                edgecolor='#ffb000',
                linewidth=2.5,
            )
        )
        panel.set_title(band, color=color, fontweight='bold', fontsize=11)
        panel.set_axis_off()
    above.suptitle(
        f'An image of C = {len(BANDS)} bands, cut into L = {side} x {side} cells',
        fontsize=11,
    )

    panel = below.subplots()
    for band, (name, color) in enumerate(zip(BANDS, COLOURS, strict=True)):
        for cell in range(cells):
            number = band * cells + cell
            level = float(tokens[number].mean())
            level = (level - tokens.mean().item()) / tokens.std().item()
            panel.add_patch(
                Rectangle(
                    (cell, -band),
                    0.94,
                    0.88,
                    facecolor=color,
                    alpha=min(max(0.45 + 0.2 * level, 0.15), 0.85),
                )
            )
            panel.text(
                cell + 0.47, -band + 0.42, str(number), ha='center', va='center', size=8
            )
        panel.text(
            -0.25, -band + 0.42, name, ha='right', va='center', color=color, size=10
        )
    panel.add_patch(
        Rectangle(
            (CELL - 0.04, -len(BANDS) + 0.94),
            1.02,
            len(BANDS) - 0.01,
            fill=False,
            edgecolor='#ffb000',
            linewidth=2.5,
        )
    )
    panel.set_xlim(-1.7, cells + 0.1)
    panel.set_ylim(-len(BANDS) + 0.8, 1.05)
    panel.set_axis_off()
    below.suptitle(
        f'N = C L = {len(tokens)} tokens of {PATCH} x {PATCH} px, band by band',
        fontsize=11,
    )
    return figure
