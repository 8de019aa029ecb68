"""Draw docs/images/augmentations.png: each augmentation on one bundled patch.

uv run python docs/augmentations.py
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.sensors import SENTINEL1_GRD, SENTINEL2_L2A, names
from torchgeo_channelmae.transforms import (
    BandAugmentation,
    RandomBandDropout,
    RandomBandGain,
    RandomBandNoise,
    RandomHaze,
    RandomSpeckle,
    RandomSpectralShift,
)

BANDS = [*names(SENTINEL2_L2A), *names(SENTINEL1_GRD)]
STRONG: dict[str, BandAugmentation] = {
    'band dropout': RandomBandDropout((5, 5), protect=['B02', 'B04', 'VV']),
    'gain and bias': RandomBandGain((0.6, 1.4), (-0.5, 0.5)),
    'spectral shift': RandomSpectralShift(1.0),
    'band noise': RandomBandNoise((0.3, 0.3)),
    'haze': RandomHaze((0.25, 0.25)),
    'speckle': RandomSpeckle((2, 2)),
}


def patch() -> tuple[Tensor, BigEarthNetS1S2DataModule]:
    """Read one patch with all its bands, (1, C, H, W), standardized."""
    data = BigEarthNetS1S2DataModule(bands=BANDS, size=120, batch_size=8)
    data.setup('fit')
    batch = data.finish(next(iter(data.val_dataloader())), training=False)
    return batch['image'][1:2], data


def main() -> None:
    """Draw true color, radar and spectra, a column an augmentation."""
    image, data = patch()
    drawing = Figure(figsize=(13, 5.6), layout='constrained')
    panels = drawing.subplots(3, 1 + len(STRONG))
    wavelengths = [b.wavelength for b in SENTINEL2_L2A if b.wavelength is not None]
    red, green, blue, vv = (BANDS.index(name) for name in ('B04', 'B03', 'B02', 'VV'))
    middle = [image[0, :, 60, 60], image[0, :, 30, 80]]
    for column, (title, augmentation) in enumerate(
        {'as it is': None, **STRONG}.items()
    ):
        shown = image
        if augmentation is not None:
            augmentation.bind(BANDS, data.mean, data.std)
            torch.manual_seed(4)
            shown = augmentation(image)
        color = shown[0, [red, green, blue]].permute(1, 2, 0)
        panels[0, column].imshow(((color + 1.2) / 2.4).clamp(0, 1).numpy())
        panels[1, column].imshow(shown[0, vv].numpy(), cmap='gray', vmin=-2.5, vmax=2.5)
        panels[0, column].set_title(title, fontsize=10)
        for before, (y, x), tint in zip(
            middle, ((60, 60), (30, 80)), ('C0', 'C1'), strict=True
        ):
            panels[2, column].plot(wavelengths, before[:12], ':', color=tint, lw=1)
            panels[2, column].plot(
                wavelengths, shown[0, :12, y, x], 'o-', ms=3, lw=1, color=tint
            )
        panels[2, column].set_ylim(-3, 3)
        panels[2, column].set_xlabel('wavelength, nm', fontsize=8)
        panels[2, column].tick_params(labelsize=7)
        for row in (0, 1):
            panels[row, column].set_xticks([])
            panels[row, column].set_yticks([])
    for row, text in enumerate(('true color', 'radar, VV', 'two pixels, std')):
        panels[row, 0].set_ylabel(text, fontsize=9)
    out = Path(__file__).parent / 'images/augmentations.png'
    drawing.savefig(out, dpi=100)


if __name__ == '__main__':
    main()
