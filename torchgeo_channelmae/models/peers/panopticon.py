"""Panopticon: channels of any sensor, told apart by wavelength or polarisation."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchgeo.models import panopticon_vitb14

from .base import Peer, add_drop_path, check_grid, optics

_PATCH = 14
_VV, _VH = -1.0, -2.0  # of an unknown orbit; -5, -6 ascending, -9, -10 descending


class PanopticonPeer(Peer):
    """Panopticon on standardised bands of any optical sensor or Sentinel-1.

    Its authors ask for standard normal input and standardised each dataset with its own
    statistics, so the bands come as the data have them.

    Source: https://arxiv.org/abs/2503.10845, https://github.com/Panopticon-FM/panopticon
    """

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
            ValueError: If the wavelength of a band is not known, or patches do not fit.
        """
        check_grid(name, size, _PATCH)
        channels = optics(name, bands, (_VV, _VH))
        encoder = panopticon_vitb14(img_size=size).model
        width = encoder.embed_dim
        super().__init__(encoder, width, bands, size, num_classes)
        self.pretrained_cfg['spectral'] = 'encoder.patch_embed.chnfus.chnemb'
        self.channels = channels
        add_drop_path(encoder.blocks, drop_path_rate)

    def features(self, image: Tensor) -> Tensor:
        """Return the class token, normalised: (B, D)."""
        # The model writes into its ids: each batch has its own.
        ids = torch.tensor(self.channels, device=image.device).repeat(len(image), 1)
        return self.encoder({'imgs': image, 'chn_ids': ids})
