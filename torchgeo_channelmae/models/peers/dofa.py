"""DOFA: the projection of patches is made from the wavelength of every band."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from .base import Peer, add_drop_path, check_grid, fix, optics, positions_of

_RADAR = 3750.0
"""What DOFA v1, whose weights TorchGeo has, calls the wavelength of VV and of VH in nm:
a placeholder (3.75 um) and none of C band. 5.405 is that of DOFA v2.

Source: TorchGeo's ``DOFA.forward``, https://github.com/torchgeo/torchgeo/pull/3942."""


class DOFAPeer(Peer):
    """DOFA on standardised bands of any optical sensor or Sentinel-1.

    Its weights were trained on 8-bit pictures, standardised band by band; how digital
    numbers and decibels became 8 bits is not published with the statistics, so the
    bands come standardised with the statistics of the data.

    Source: https://arxiv.org/abs/2403.15356
    """

    def __init__(
        self,
        name: str,
        builder: Callable[..., Any],
        bands: Sequence[str],
        num_classes: int,
        size: int,
        drop_path_rate: float = 0.0,
    ) -> None:
        """Initialise the model.

        Args:
            name: Name of the model.
            builder: TorchGeo's function that makes it.
            bands: Names of the bands.
            num_classes: Outputs of the head.
            size: Side of the images in pixels.
            drop_path_rate: Stochastic depth rate of the last block.

        Raises:
            ValueError: If the wavelength of a band is not known, or patches do not fit.
        """
        patch_size = 14 if 'patch14' in name else 16
        check_grid(name, size, patch_size)
        wavelengths = [nm / 1000 for nm in optics(name, bands, [_RADAR] * 2)]
        encoder = builder(img_size=size, num_classes=0)
        width = encoder.embed_dim
        super().__init__(encoder, width, bands, size, num_classes)
        self.wavelengths = wavelengths  # um
        # TorchGeo starts the fixed positions at 0 and has them with the weights alone.
        fix(encoder, 'pos_embed', positions_of(width, size // patch_size))
        add_drop_path(encoder.blocks, drop_path_rate)

    def features(self, image: Tensor) -> Tensor:
        """Return the mean over patches, normalised: (B, D)."""
        return self.encoder.forward_features(image, self.wavelengths)
