"""The encoder: a timm vision transformer whose tokens are one band at one grid cell.

Follows ChannelViT (https://arxiv.org/abs/2309.16108): one projection shared by all
bands, a position for every cell and an embedding for every band. Band embeddings are
looked up by name, so the state dict itself says which bands a checkpoint knows.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, override

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info
from timm.layers import resample_abs_pos_embed
from timm.models import checkpoint_seq
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ..sensors import check_names, default_names
from .attention import DeviceAttention
from .patch_embed import ChannelPatchEmbed
from .positions import square_side
from .tokens import (
    gather_tokens,
    init_embedding,
    patchify,
    separable_positions,
    spectral_parameters,
)

_SPECTRAL = 'spectral_embed.'
BandMaps = Literal['mean', 'concat']
"""How the bands of a grid cell become one pixel of a feature map.

* ``mean``: their mean, (B, D, h, w).
* ``concat``: one after the other, (B, C * D, h, w), in the order of the bands.
"""


class ChannelViT(VisionTransformer):
    """Vision transformer over channel tokens.

    Beside what timm's class does (pooling, layer decay, drop path, gradient
    checkpointing, fused attention), it encodes a chosen subset of tokens without
    computing the others (:meth:`encode`) and takes any input size that the patch side
    divides: positions are resampled to it.
    """

    patch_embed: ChannelPatchEmbed

    def __init__(
        self,
        img_size: int | tuple[int, int] = 128,
        patch_size: int = 16,
        in_chans: int | None = None,
        num_classes: int = 0,
        global_pool: str = 'avg',
        bands: Sequence[str] | None = None,
        embed_std: float = 0.02,
        band_maps: BandMaps = 'mean',
        **kwargs: Any,
    ) -> None:
        """Initialize a new ChannelViT instance.

        Args:
            img_size: Side, or height and width, of the image that positions are learned
                for, in pixels.
            patch_size: P, patch side in pixels.
            in_chans: C, number of bands. Defaults to as many as are named.
            num_classes: Outputs of the head; 0 for no head.
            global_pool: How tokens become one feature: ``avg`` (mean over tokens),
                ``token`` (class token), or another of timm's.
            bands: Names of the bands, in the order of the input's channels. Defaults to
                those that `in_chans` stands for (:func:`~..sensors.default_names`), 12
                Sentinel-2 L2A bands where it is not given either.
            embed_std: Standard deviation that positions and band embeddings start
                with. At 0.02 they are small beside the projected pixels; in trials of
                some minutes, one run each, larger ones learned faster.
            band_maps: How feature maps bring the bands of a grid cell together:
                ``mean`` or ``concat``.
            **kwargs: Arguments of timm's ``VisionTransformer``.

        Raises:
            ValueError: If bands and channel count disagree, a name is repeated, the
                patch side does not divide the image, `band_maps` is not known, or
                `dynamic_img_size` is given.
        """
        if 'dynamic_img_size' in kwargs:  # of TorchGeo's ChangeViT, which would go on
            raise ValueError(
                'dynamic_img_size is given, but the model takes any size anyway: leave '
                "it out, and instead of TorchGeo's changevit, which reads one token a "
                'grid cell, so the first band alone, choose unet with a variant of two '
                'dates (register_variant of torchgeo_channelmae.callbacks.register).'
            )
        if band_maps not in get_args(BandMaps):
            raise ValueError(
                f"band_maps {band_maps!r} is not known: choose 'mean' or 'concat'."
            )
        if bands is None:
            bands = default_names(12 if in_chans is None else in_chans)
        elif in_chans is not None and in_chans != len(bands):
            raise ValueError(
                f'in_channels is {in_chans}, but bands names {len(bands)} '
                f'({", ".join(bands)}): make them agree, or leave one out.'
            )
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            in_chans=len(bands),
            num_classes=num_classes,
            global_pool=global_pool,
            embed_layer=ChannelPatchEmbed,
            attn_layer=kwargs.pop('attn_layer', DeviceAttention),
            no_embed_class=True,  # pos_embed is of grid cells alone, (1, L, D)
            dynamic_img_size=True,
            # One norm, at the end of the encoder: the decoder of the pretraining and
            # either pooling of the fine-tuning read the same normalised tokens.
            fc_norm=False,
            **kwargs,
        )
        self.embed_std = embed_std
        init_embedding(self.pos_embed, embed_std)
        self.spectral_embed = spectral_parameters(bands, self.embed_dim, embed_std)
        self.band_maps = band_maps
        self.choose_bands(None)
        # TorchGeo takes a model's last child for its head.
        for name in ('head_drop', 'head'):
            self._modules[name] = self._modules.pop(name)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the order of the input's channels."""
        return tuple(self.spectral_embed)

    @property
    def map_channels(self) -> int:
        """Channels of a feature map."""
        maps = self.num_chosen if self.band_maps == 'concat' else 1
        return maps * int(self.embed_dim)

    def choose_bands(self, bands: Sequence[str] | None) -> None:
        """Say which bands the images have from now on.

        Args:
            bands: Names of some of the model's bands, in the order of the channels.
                None is all, in the model's order.

        Raises:
            ValueError: If one is not the model's, or named twice.
        """
        if bands is not None:
            check_names(bands)
        for name in bands or ():
            if name not in self.spectral_embed:
                raise ValueError(
                    f'The model has no band {name!r}: choose from '
                    f'{", ".join(self.bands)}.'
                )
        self.chosen: tuple[int, ...] | None = (
            None if bands is None else tuple(self.bands.index(name) for name in bands)
        )
        for info in self.feature_info:
            info['num_chs'] = self.map_channels

    @property
    def num_chosen(self) -> int:
        """Number of bands that images have: all, or those chosen."""
        return len(self.bands if self.chosen is None else self.chosen)

    def encode(self, x: Tensor, visible: Tensor) -> Tensor:
        """Encode some of an image's tokens; the others are never computed.

        Args:
            x: (B, C, H, W).
            visible: (B, V) int64, numbers of the tokens to encode, band-major.

        Returns:
            (B, prefix + V, D): the class token, where there is one, then the tokens.

        Raises:
            ValueError: If the image has other channels than the model has bands, or
                the patch side does not divide it.
        """
        self._check_channels(x.shape[1])
        side = self.patch_embed.patch_size[0]
        tokens = self.patch_embed.project(gather_tokens(patchify(x, side), visible))
        grid = self.patch_embed.dynamic_feat_size((x.shape[-2], x.shape[-1]))
        tokens = tokens + F.embedding(visible, self._positions(grid))
        return self._transform(self._prepend_class_token(tokens))

    @override
    def _pos_embed(self, x: Tensor) -> Tensor:
        """Add positions to all tokens and put the class token first.

        Args:
            x: (B, C, h, w, D), as the patch embedding gives them.

        Returns:
            (B, prefix + N, D).
        """
        self._check_channels(x.shape[1])
        positions = self._positions((x.shape[2], x.shape[3]))
        return self._prepend_class_token(x.flatten(1, 3) + positions)

    def _positions(self, grid_size: tuple[int, int]) -> Tensor:
        """Separable positions for a grid, (N, D)."""
        positions = resample_abs_pos_embed(
            self.pos_embed,
            new_size=list(grid_size),
            old_size=list(self.patch_embed.grid_size),
            num_prefix_tokens=0,
        )
        return separable_positions(positions[0], self.spectral_embed, self.chosen)

    def _prepend_class_token(self, tokens: Tensor) -> Tensor:
        prefix = [
            token.expand(tokens.shape[0], -1, -1)
            for token in (self.cls_token, self.reg_token)
            if token is not None
        ]
        return self.pos_drop(torch.cat([*prefix, tokens], dim=1))

    def _transform(self, tokens: Tensor) -> Tensor:
        tokens = self.norm_pre(self.patch_drop(tokens))
        if self.grad_checkpointing:
            tokens = checkpoint_seq(self.blocks, tokens)
        else:
            tokens = self.blocks(tokens)
        return self.norm(tokens)

    def _check_channels(self, channels: int) -> None:
        if channels != self.num_chosen:
            chosen = '' if self.chosen is None else f'{self.num_chosen} chosen ones of '
            raise ValueError(
                f'The image has {channels} channels, but the model has {chosen}'
                f'{len(self.spectral_embed)} bands ({", ".join(self.bands)}).'
            )

    @override
    def forward_intermediates(
        self, x: Tensor, *args: Any, output_fmt: str = 'NCHW', **kwargs: Any
    ) -> Any:
        """Return intermediate features, as timm's method does.

        ``NCHW`` maps bring the bands of a grid cell together as `band_maps` says;
        ``NLC`` has every token, (B, N, D).
        """
        if output_fmt != 'NCHW':
            return super().forward_intermediates(
                x, *args, output_fmt=output_fmt, **kwargs
            )
        found = super().forward_intermediates(x, *args, output_fmt='NLC', **kwargs)
        shape = (
            self.num_chosen,
            *self.patch_embed.dynamic_feat_size((x.shape[-2], x.shape[-1])),
        )

        def to_map(feature: Any) -> Any:
            if isinstance(feature, tuple):  # (tokens, prefix tokens)
                return to_map(feature[0]), *feature[1:]
            maps = feature.unflatten(1, shape).permute(0, 1, 4, 2, 3)  # (B, C, D, h, w)
            maps = maps.mean(1) if self.band_maps == 'mean' else maps.flatten(1, 2)
            return maps.contiguous()

        if isinstance(found, dict):
            maps = [to_map(feature) for feature in found['image_intermediates']]
            return found | {'image_intermediates': maps}
        if isinstance(found, tuple):
            return found[0], [to_map(feature) for feature in found[1]]
        return [to_map(feature) for feature in found]

    @override
    @torch.jit.ignore
    def load_pretrained(self, checkpoint_path: str, prefix: str = '') -> None:
        """Load weights of a pretrained tag, bands by name, as timm asks for it.

        Args:
            checkpoint_path: A checkpoint or an export.
            prefix: Not used.

        Raises:
            ValueError: If they are of another model, or the file is damaged.
        """
        from .weights import read_weights

        told = self.take_weights(read_weights(checkpoint_path))
        rank_zero_info(f'Weights {checkpoint_path}: {told}')

    @torch.jit.ignore
    def take_weights(self, tensors: Mapping[str, Tensor]) -> str:
        """Take the grid of weights and load them, bands by name.

        Args:
            tensors: By name, see :func:`~.weights.read_weights`.

        Returns:
            What was loaded, in words.

        Raises:
            ValueError: If they are of another model.
        """
        from .weights import load_encoder

        own = {k: v for k, v in tensors.items() if not k.startswith('decoder.')}
        return str(load_encoder(self, own, takes_grid=True))

    @override
    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Name the parameters that weight decay leaves alone."""
        return super().no_weight_decay() | {_SPECTRAL + name for name in self.bands}

    @override
    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Say which parameters belong to which layer, for layer-wise decay."""
        groups: dict[str, Any] = super().group_matcher(coarse)
        stem = r'^cls_token|reg_token|pos_embed|spectral_embed|patch_embed|norm_pre'
        return groups | {'stem': stem}

    @override
    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load tensors as torch does, and warn of bands that are not among them.

        TorchGeo's own tasks load without asking what is missing.
        """
        keys = super().load_state_dict(state_dict, strict, assign)
        fresh = [band for band in self.bands if _SPECTRAL + band in keys.missing_keys]
        if fresh:
            warnings.warn(
                f'The weights know no band {", ".join(fresh)}, whose embedding keeps '
                f'its random start: load them with LoadWeights of '
                f'torchgeo_channelmae.callbacks.register to start it near the embeddings that '
                f'they know.',
                stacklevel=2,
            )
        return keys

    def take_grid(self, positions: Tensor | None) -> None:
        """Take over the grid of stored positions, so that they fit as they are.

        Args:
            positions: (1, L, D), for a square grid; anything else changes nothing.
        """
        if positions is None or positions.shape[1:] == self.pos_embed.shape[1:]:
            return
        side = square_side(positions, self.embed_dim)
        if side is not None:
            self.patch_embed.set_input_size(side * self.patch_embed.patch_size[0])
            self.pos_embed.data = self.pos_embed.data.new_empty(positions.shape)

    @override
    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Take over the grid of a state dict, so that its positions arrive untouched.

        They are resampled to the input, not to the size the model was made with.
        """
        self.take_grid(state_dict.get(f'{prefix}pos_embed'))
        super()._load_from_state_dict(state_dict, prefix, *args)
