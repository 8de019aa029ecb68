"""Encoders of segmentation-models-pytorch: a feature pyramid from a plain encoder.

One light layer per map brings the maps of several depths to strides of 2, 4, 8, 16 and
32 px, as usual for plain vision transformers in segmentation
(https://arxiv.org/abs/2106.08254, https://arxiv.org/abs/2203.16527).
"""

import math
from collections.abc import Mapping
from typing import Any, override

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from ..sensors import default_names
from .channelvit import ChannelViT
from .padding import STRIDE
from .tokens import spectral_parameters
from .weights import load_encoder


class PyramidEncoder(ChannelViT):
    """A channel-token encoder that returns maps at several strides.

    It has the interface of the library's encoders. Tensors are named as in a
    checkpoint; the layers of the pyramid (``pyramid.``) are never pretrained.
    """

    def __init__(
        self,
        name: str,
        vit: Mapping[str, Any],
        depth: int = 5,
        output_stride: int = 32,
        dates: int = 1,
    ) -> None:
        """Initialize a new PyramidEncoder instance.

        Args:
            name: Name to use in errors.
            vit: Arguments of :class:`~.channelvit.ChannelViT`. Without ``bands``, they
                follow from the number of channels
                (:func:`~torchgeo_channelmae.sensors.default_names`).
            depth: Number of maps; the last one has a stride of ``2**depth`` px.
            output_stride: Largest stride of a map in px.
            dates: T, number of images stacked along the channels. Each is encoded
                separately, and their maps are concatenated.
        """
        super().__init__(**{'in_chans': None, **vit, 'num_classes': 0})
        self.name = name
        self.dates = dates
        self._names_bands = vit.get('bands') is not None
        self._depth = depth
        self._output_stride = output_stride
        self._build()

    def _build(self) -> None:
        """Create the layers of the pyramid."""
        dim, side = self.embed_dim, self.patch_embed.patch_size[0]
        widths = [dim // 8, dim // 4, dim // 2, dim, dim][: self._depth]
        self.pyramid = nn.ModuleList(
            nn.Sequential(
                _resampling(self.dates * self.map_channels, width, side, stride),
                LayerNorm2d(width),
                nn.GELU(),
            )
            for width, stride in zip(widths, self.strides, strict=True)
        )
        self.out_channels = [self.dates * len(self.bands), *widths]

    @property
    def output_stride(self) -> int:
        """Largest stride of a map in px."""
        return self.strides[-1]

    @property
    def strides(self) -> list[int]:
        """Strides of the maps in px, the finest first."""
        return [min(2**n, self._output_stride) for n in range(1, self._depth + 1)]

    @property
    def layers(self) -> list[int]:
        """Index of the block of each map, finest first; the two finest share one."""
        steps = max(1, self._depth - 1)
        last = [math.ceil(max(1, n) * len(self.blocks) / steps) for n in range(steps)]
        return [n - 1 for n in (*last, len(self.blocks))][-self._depth :]

    def set_in_channels(self, in_channels: int, pretrained: bool = True) -> None:
        """Set the number of channels, T * C, and the bands where none were named."""
        count, rest = divmod(in_channels, self.dates)
        if rest or (self._names_bands and count != len(self.bands)):
            names = f' of {", ".join(self.bands)}' if self._names_bands else ''
            raise ValueError(
                f'in_channels is {in_channels}, but encoder {self.name!r} takes '
                f'{self.dates} dates{names}.'
            )
        if not self._names_bands:
            self.spectral_embed = spectral_parameters(
                default_names(count), self.embed_dim, self.embed_std
            )
            self.patch_embed.in_chans = count
        self._build()

    def make_dilated(self, output_stride: int) -> None:
        """Limit the stride of the maps, in px."""
        self._output_stride = output_stride
        self._build()

    @override
    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Return the image and its maps.

        Args:
            x: (B, T * C, H, W), H and W multiples of 32, see
                :func:`~.padding.pad_inputs`.

        Returns:
            The image, and a map (B, channels, H / stride, W / stride) per stride.
        """
        if x.shape[-2] % STRIDE or x.shape[-1] % STRIDE:
            raise ValueError(
                f'An image of {x.shape[-2]} x {x.shape[-1]} px does not fit encoder '
                f'{self.name!r}. Use multiples of {STRIDE} px, or pad_inputs(model) of '
                f'torchgeo_channelmae.models, which RegisterModels calls for tasks.'
            )
        dates = x.unflatten(1, (self.dates, -1)).flatten(0, 1)  # (B * T, C, H, W)
        wanted = sorted(set(self.layers))
        # With the norm, as DDP expects a gradient for every tensor.
        found = self.forward_intermediates(
            dates, indices=wanted, norm=True, intermediates_only=True
        )
        stacked = (maps.unflatten(0, (-1, self.dates)).flatten(1, 2) for maps in found)
        by_layer = dict(zip(wanted, stacked, strict=True))
        levels = zip(self.pyramid, self.layers, strict=True)
        maps = [level(by_layer[layer]) for level, layer in levels]
        if self.training and torch.is_grad_enabled():
            # Some decoders leave maps unused; their layers get a gradient of 0.
            maps[-1] = maps[-1] + 0 * sum(p.sum() for p in self.pyramid.parameters())
        return [x, *maps]

    @override
    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load an encoder of this class, or one from a checkpoint.

        A checkpoint has no pyramid. Its bands are loaded by name
        (:func:`~.weights.load_encoder`), and the report is logged.
        """
        if strict and not any(name.startswith('pyramid.') for name in state_dict):
            from lightning.pytorch.utilities import rank_zero_info  # slow to import

            report = load_encoder(self, state_dict, adopt_grid=True)
            rank_zero_info(f'Weights of encoder {self.name}: {report}')
            state_dict = self.state_dict()
        return super().load_state_dict(state_dict, strict, assign)


def _resampling(channels: int, width: int, side: int, stride: int) -> nn.Module:
    """Create the layer that resamples a map from cells of a side to a stride, in px."""
    if stride < side:
        return nn.ConvTranspose2d(channels, width, side // stride, side // stride)
    return nn.Conv2d(channels, width, stride // side, stride // side)
