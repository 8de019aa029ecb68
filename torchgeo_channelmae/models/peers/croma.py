"""CROMA: one encoder for Sentinel-1, one for Sentinel-2 and one for both."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ... import sensors
from .base import Peer, check_grid
from .scaling import Expected

_PATCH = 8
_PARTS = {'sar': 's1', 'optical': 's2'}
_SAR = sensors.names(sensors.SENTINEL1_GRD)
_OPTICAL = sensors.names(sensors.SENTINEL2_L2A)


class CROMAPeer(Peer):
    """CROMA on VV and VH, on the 12 bands of Sentinel-2 L2A, or on both.

    It expects bands from 0 to 1, which are two standard deviations below and above the
    mean of the data.

    Source: https://arxiv.org/abs/2311.00566, https://github.com/antofuller/CROMA
    """

    num_prefix_tokens = 0
    sar: Tensor
    optical: Tensor

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
            bands: Names of the bands, in any order.
            num_classes: Outputs of the head.
            size: Side of the images in pixels.
            drop_path_rate: It has no stochastic depth: 0.

        Raises:
            ValueError: If the bands are others, patches do not fit, or there is a rate.
        """
        check_grid(name, size, _PATCH)
        if drop_path_rate:
            raise ValueError(f'{name} has no stochastic depth: set drop_path to 0.')
        whole = {'sar': _SAR, 'optical': _OPTICAL}
        chosen = [key for key, names in whole.items() if set(names) & set(bands)]
        if sorted(bands) != sorted(band for key in chosen for band in whole[key]):
            raise ValueError(
                f'{name} takes both channels of Sentinel-1 ({", ".join(_SAR)}), all of '
                f'the 12 bands of Sentinel-2 L2A ({", ".join(_OPTICAL)}) or both '
                f'sensors, and not {", ".join(bands)}.'
            )
        encoder = builder(modalities=chosen, image_size=size)
        width = encoder.encoder_dim
        super().__init__(encoder, width, bands, size, num_classes)
        del self.pretrained_cfg['positions']
        self.pretrained_cfg['first_conv'] = tuple(
            f'encoder.{_PARTS[key]}_encoder.linear_input' for key in chosen
        )
        self.chosen = tuple(chosen)
        for key in chosen:
            order = torch.tensor([self.bands.index(band) for band in whole[key]])
            self.register_buffer(key, order, persistent=False)
        if len(chosen) == 2:  # the image is told by the joint encoding alone
            del encoder.s1_GAP_FFN, encoder.s2_GAP_FFN
            encoder.s1_GAP_FFN = encoder.s2_GAP_FFN = torch.nn.Identity()

    def expected(self) -> Expected:
        """Two standard deviations around the mean become 0 to 1."""
        return Expected((-2.0,), (4.0,), low=(0.0,), high=(1.0,))

    def features(self, image: Tensor) -> Tensor:
        """Return the mean over patches after the model's own layers: (B, D)."""
        given = {
            f'x_{key}': image.index_select(1, getattr(self, key)) for key in self.chosen
        }
        out = self.encoder(**given)
        return out[f'{"joint" if len(self.chosen) == 2 else self.chosen[0]}_GAP']

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Group parameters by layer: both encoders side by side, the joint one above.

        Args:
            coarse: Not used.
        """
        return {
            'stem': r'^encoder\.s[12]_encoder\.linear_input',
            'blocks': r'^encoder\.s[12]_encoder\.transformer\.layers\.(\d+)',
            'joint': r'^encoder\.joint_encoder\.layers\.(\d+)',
        }
