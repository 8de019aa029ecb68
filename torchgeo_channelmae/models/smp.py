"""Encoders of segmentation-models-pytorch: a pyramid of maps from one plain encoder.

The maps of several depths are brought to strides of 2, 4, 8, 16 and 32 px by one light
layer each, as is usual where a plain vision transformer segments
(https://arxiv.org/abs/2106.08254, https://arxiv.org/abs/2203.16527).
"""

import math
from collections.abc import Mapping
from typing import Any, override

import torch
from segmentation_models_pytorch.encoders._base import EncoderMixin
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from ..sensors import default_names
from .channelvit import ChannelViT
from .padding import STRIDE
from .tokens import spectral_parameters


class PyramidEncoder(ChannelViT, EncoderMixin):  # type: ignore[misc]
    """A channel-token encoder that gives maps at several strides.

    Its tensors have the names that they have in a checkpoint, beside the layers of the
    pyramid (``pyramid.``), which start afresh.
    """

    _is_torch_scriptable = False

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
            name: Its name, for errors.
            vit: Arguments of :class:`~.channelvit.ChannelViT`. Without ``bands``, the
                channel count stands for them
                (:func:`~torchgeo_channelmae.sensors.default_names`).
            depth: Number of maps; the last one has a stride of ``2**depth`` px.
            output_stride: Largest stride of a map in px.
            dates: T, number of images that come stacked along the channels. Each is
                encoded by itself, and their maps are concatenated.
        """
        super().__init__(**{'in_chans': None, **vit, 'num_classes': 0})
        self.name = name
        self.dates = dates
        self._names_bands = vit.get('bands') is not None
        self._depth = depth
        self._output_stride = output_stride
        self._in_channels = dates * len(self.bands)
        self._build()

    def _build(self) -> None:
        """Make the layers of the pyramid, and say how many channels its maps have."""
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
        self._out_channels = [self._in_channels, *widths]

    @property
    def strides(self) -> list[int]:
        """Strides of the maps in px, the finest first."""
        return [min(2**n, self._output_stride) for n in range(1, self._depth + 1)]

    @property
    def layers(self) -> list[int]:
        """Number of the block that each map is taken after, the finest map first.

        The blocks are spread evenly; the two finest maps share one.
        """
        steps = max(1, self._depth - 1)
        blocks = [
            math.ceil(max(1, n) * len(self.blocks) / steps) - 1
            for n in range(self._depth)
        ]
        return blocks if self._depth > 1 else [len(self.blocks) - 1]

    @override
    def set_in_channels(self, in_channels: int, pretrained: bool = True) -> None:
        """Set the channel count, which stands for bands where none were named.

        Args:
            in_channels: T * C.
            pretrained: Not needed here.

        Raises:
            ValueError: If the count contradicts the names, or stands for none.
        """
        count, rest = divmod(in_channels, self.dates)
        if self._names_bands and in_channels != self.dates * len(self.bands):
            dates = f' at {self.dates} dates' if self.dates > 1 else ''
            raise ValueError(
                f'in_channels is {in_channels}, but encoder {self.name!r} has '
                f'{len(self.bands)} bands ({", ".join(self.bands)}){dates}: give '
                f'in_channels={self.dates * len(self.bands)}.'
            )
        if rest:
            raise ValueError(
                f'in_channels is {in_channels}, which is not {self.dates} times as '
                f'many bands: encoder {self.name!r} takes {self.dates} dates.'
            )
        if not self._names_bands:
            self.spectral_embed = spectral_parameters(
                default_names(count), self.embed_dim, self.embed_std
            )
            self.patch_embed.in_chans = count
        self._in_channels = in_channels
        self._build()

    @override
    def make_dilated(self, output_stride: int) -> None:
        """Let no map have a larger stride, in px."""
        self._output_stride = output_stride
        self._build()

    @override
    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Give the image and maps of it.

        Args:
            x: (B, T * C, H, W), H and W multiples of 32; in a model of
                segmentation-models-pytorch, any.

        Returns:
            The image and a map (B, channels, H / stride, W / stride) a stride.

        Raises:
            ValueError: If a size is no such multiple, or the channels are others.
        """
        if x.shape[1] != self._in_channels:
            raise ValueError(
                f'The image has {x.shape[1]} channels, but encoder {self.name!r} has '
                f'{self._in_channels} ({self.dates} x {", ".join(self.bands)}).'
            )
        if x.shape[-2] % STRIDE or x.shape[-1] % STRIDE:
            raise ValueError(
                f'An image of {x.shape[-2]} x {x.shape[-1]} px does not fit encoder '
                f'{self.name!r} outside of a model: pad it to multiples of {STRIDE} px.'
            )
        dates = x.unflatten(1, (self.dates, -1)).flatten(0, 1)  # (B * T, C, H, W)
        layers = self.layers
        wanted = sorted(set(layers))
        # With their norm, as DDP expects a gradient for every tensor.
        found = self.forward_intermediates(
            dates, indices=wanted, norm=True, intermediates_only=True
        )
        found = [maps.unflatten(0, (-1, self.dates)).flatten(1, 2) for maps in found]
        maps = [
            level(found[wanted.index(layer)])
            for level, layer in zip(self.pyramid, layers, strict=True)
        ]
        if self.training and torch.is_grad_enabled():
            # Some decoders leave maps unused, whose layers then get a gradient of 0.
            maps[-1] = maps[-1] + 0 * sum(p.sum() for p in self.pyramid.parameters())
        return [x, *maps]

    @override
    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load an encoder: either one of this class, or one from a checkpoint.

        A checkpoint has no pyramid. Its bands arrive by name
        (:func:`~.weights.load_encoder`), and one line tells what arrived.

        Args:
            state_dict: Tensors by name.
            strict: Whether names have to agree, where there is a pyramid among them.
            assign: As in torch.

        Raises:
            ValueError: If the tensors are of another model.
        """
        if not strict or any(name.startswith('pyramid.') for name in state_dict):
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        from lightning.pytorch.utilities import rank_zero_info  # slow to import

        from .weights import load_encoder

        report = load_encoder(self, state_dict, takes_grid=True)
        rank_zero_info(f'Weights of encoder {self.name}: {report}')
        return super().load_state_dict(self.state_dict())


def _resampling(channels: int, width: int, side: int, stride: int) -> nn.Module:
    """Make the layer that brings a map from cells of a side to a stride, in px."""
    if stride < side:
        factor = side // stride
        return nn.ConvTranspose2d(channels, width, factor, factor)
    factor = stride // side
    return nn.Conv2d(channels, width, factor, factor)
