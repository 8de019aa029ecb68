"""Copernicus-FM: patches are projected by wavelength and bandwidth of every band."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchgeo.models import copernicusfm_base

from ... import sensors
from .base import Peer, add_drop_path, check_grid, fix, positions_of
from .scaling import Expected

#: Central wavelength and bandwidth in nm, as the authors give them.
_SPECTRUM = {
    'B01': (440, 20),
    'B02': (490, 65),
    'B03': (560, 35),
    'B04': (665, 30),
    'B05': (705, 15),
    'B06': (740, 15),
    'B07': (783, 20),
    'B08': (842, 115),
    'B8A': (860, 20),
    'B09': (940, 20),
    'B10': (1370, 30),
    'B11': (1610, 90),
    'B12': (2190, 180),
    'VV': (5e7, 1e9),
    'VH': (5e7, 1e9),
}
#: Mean and standard deviation in pretraining: digital numbers, decibels.
_STATISTICS = {
    **{band.name: (band.mean, band.std) for band in sensors.SENTINEL2_L1C},
    'VV': (-12.59, 5.26),
    'VH': (-20.26, 5.91),
}
_PATCH = 16
_OF = ('coord', 'scale', 'time')  # what else than its cell a token is told


class CopernicusFMPeer(Peer):
    """Copernicus-FM on bands of Sentinel-2 and Sentinel-1.

    It is told how large a patch is on the ground, at the bands' native resolution as in
    its own benchmark; where and when the images were taken is left unknown, which the
    model allows.

    Source: https://arxiv.org/abs/2503.11849; statistics, wavelengths and bandwidths:
    https://github.com/zhu-xlab/Copernicus-FM (pretraining and Copernicus-Bench).
    """

    stem = r'^encoder\.(?:patch_embed_|pos_embed|cls_token|coord_|scale_|time_)'

    def __init__(
        self,
        name: str,
        bands: Sequence[str],
        num_classes: int,
        size: int,
        drop_path_rate: float = 0.0,
    ) -> None:
        """Initialise the model.

        Args:
            name: Name of the model.
            bands: Names of the bands.
            num_classes: Outputs of the head.
            size: Side of the images in pixels.
            drop_path_rate: Stochastic depth rate of the last block.

        Raises:
            ValueError: If a band is not known, or patches do not fit.
        """
        check_grid(name, size, _PATCH)
        for band in bands:
            if band not in _SPECTRUM:
                raise ValueError(
                    f'{name} has to know wavelength and bandwidth of every band, and '
                    f'those of {band!r} are not known: use {", ".join(_SPECTRUM)}.'
                )
        encoder = copernicusfm_base(img_size=size, patch_size=_PATCH, num_classes=0)
        width = encoder.cls_token.shape[-1]
        super().__init__(encoder, width, bands, size, num_classes)
        self.pretrained_cfg['first_conv'] = 'encoder.patch_embed_spectral'
        self.pretrained_cfg['positions'] = (
            'encoder.pos_embed',
            *(f'encoder.{of}_{part}' for of in _OF for part in ('fc', 'token')),
        )
        self.wavelengths = [float(_SPECTRUM[band][0]) for band in bands]
        self.bandwidths = [float(_SPECTRUM[band][1]) for band in bands]
        found = [sensors.find(band) for band in bands]
        resolution = min(band.resolution for band in found if band is not None)
        self.patch_area = (_PATCH * resolution / 1000) ** 2  # km2
        # The projection of variables without a spectrum, and the token of an unknown
        # area, have no part in this: left as parameters, they would get no gradient.
        del encoder.patch_embed_variable
        fix(encoder, 'scale_token')
        fix(encoder, 'pos_embed', positions_of(width, size // _PATCH))
        add_drop_path(encoder.blocks, drop_path_rate)

    def expected(self) -> Expected:
        """Bands are standardised as in pretraining."""
        mean, std = zip(*(_STATISTICS[band] for band in self.bands), strict=True)
        return Expected(mean, std, physical=True)

    def features(self, image: Tensor) -> Tensor:
        """Return the mean over patches, normalised: (B, D)."""
        told = torch.tensor([math.nan, math.nan, math.nan, self.patch_area])
        metadata = told.to(image.device).expand(len(image), -1)
        return self.encoder.forward_features(
            image, metadata, self.wavelengths, self.bandwidths
        )
