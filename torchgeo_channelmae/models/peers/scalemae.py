"""Scale-MAE: red, green and blue, with positions in metres on the ground."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchgeo.models import scalemae_large_patch16

from ... import sensors
from .base import Peer, add_drop_path, check_grid
from .scaling import Expected
from .transforms import IMAGENET, picture

_PATCH = 16
_RESOLUTION = sensors.RGB[0].resolution  # m


class ScaleMAEPeer(Peer):
    """Scale-MAE on red, green and blue of Sentinel-2.

    Its weights were trained on 8-bit pictures of other satellites. Reflectance becomes
    such a picture as in the true-colour image of Sentinel-2 L2A.

    Source: https://arxiv.org/abs/2212.14532
    """

    order: Tensor
    level = 'L2A'

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
            bands: Names of the bands: B04, B03 and B02, in any order.
            num_classes: Outputs of the head.
            size: Side of the images in pixels.
            drop_path_rate: Stochastic depth rate of the last block.

        Raises:
            ValueError: If the bands are others, or patches do not fit.
        """
        check_grid(name, size, _PATCH)
        if sorted(bands) != sorted(IMAGENET):
            raise ValueError(
                f'{name} takes red, green and blue alone, and not '
                f'{", ".join(bands)}: give the bands B04, B03, B02 (bands/rgb.yaml).'
            )
        encoder = scalemae_large_patch16(res=_RESOLUTION, img_size=size, num_classes=0)
        width = encoder.embed_dim
        super().__init__(encoder, width, bands, size, num_classes)
        encoder.pos_embed = None  # never used: positions are computed
        order = torch.tensor([self.bands.index(band) for band in IMAGENET])
        self.register_buffer('order', order, persistent=False)
        add_drop_path(encoder.blocks, drop_path_rate)

    def look_at(self, datamodule: Any) -> None:
        """Learn how wide a pixel is on the ground, and the product level.

        Args:
            datamodule: The datamodule: its ``side``, ``size`` and ``size_by``, and its
                ``record``. What it does not tell stays: 10 m, Sentinel-2 L2A.
        """
        side = getattr(datamodule, 'side', None)
        if side is not None and getattr(datamodule, 'size_by', None) == 'resize':
            self.encoder.res = _RESOLUTION * side / self.size
        names = getattr(getattr(datamodule, 'record', None), 'sensors', ())
        self.level = 'L1C' if any(name.endswith('L1C') for name in names) else 'L2A'

    def expected(self) -> Expected:
        """A picture, standardised as those of ImageNet are."""
        return picture(self.bands, self.level)

    def features(self, image: Tensor) -> Tensor:
        """Return the class token, normalised: (B, D)."""
        return self.encoder(image.index_select(1, self.order))
