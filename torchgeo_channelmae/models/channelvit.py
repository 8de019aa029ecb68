"""The encoder: a timm vision transformer with one token per band and grid cell.

Follows ChannelViT (https://arxiv.org/abs/2309.16108): one projection shared by all
bands, a position for every cell and an embedding for every band. Band embeddings are
keyed by name, so the state dict itself says which bands a checkpoint has.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, override

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models import checkpoint_seq
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ..sensors import default_names
from .attention import DeviceAttention
from .patch_embed import ChannelPatchEmbed
from .tokens import (
    SPECTRAL,
    gather_tokens,
    init_embedding,
    patchify,
    separable_positions,
    spectral_parameters,
    square_side,
)

BandMaps = Literal['mean', 'concat']
"""Reduction of the bands of a grid cell to one pixel of a feature map.

* ``mean``: their mean, (B, D, h, w).
* ``concat``: one after the other, (B, C * D, h, w), in the order of the bands.
"""


class ChannelViT(VisionTransformer):
    """Vision transformer over channel tokens.

    In addition to timm's class (pooling, layer decay, drop path, gradient
    checkpointing, fused attention), it encodes a subset of tokens without computing
    the others (:meth:`encode`) and accepts any input size that is a multiple of the
    patch side, by resampling positions.
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
            in_chans: C, number of bands. Defaults to the number of names.
            num_classes: Outputs of the head; 0 for no head.
            global_pool: Pooling of tokens to one feature: ``avg`` (mean over tokens),
                ``token`` (class token), or another of timm's.
            bands: Names of the bands, in the order of the input's channels. Defaults to
                those of `in_chans` channels (:func:`~..sensors.default_names`), or the
                12 bands of Sentinel-2 L2A.
            embed_std: Standard deviation of the initial positions and band embeddings.
                0.02 is small compared to the projected pixels; in trials of some
                minutes, one run each, larger values learned faster.
            band_maps: Reduction of the bands in feature maps, ``mean`` or ``concat``.
            **kwargs: Arguments of timm's ``VisionTransformer``.

        Raises:
            ValueError: If bands and channel count disagree, a name is repeated, the
                patch side does not divide the image, `band_maps` is unknown, or
                `dynamic_img_size` is given.
        """
        if 'dynamic_img_size' in kwargs:  # by TorchGeo's ChangeViT
            raise ValueError(
                "dynamic_img_size (TorchGeo's changevit) would read only the first "
                'band. Use unet with a variant of two dates (register_variant).'
            )
        if band_maps not in get_args(BandMaps):
            raise ValueError(f"band_maps is {band_maps!r}. Use 'mean' or 'concat'.")
        if bands is None:
            bands = default_names(12 if in_chans is None else in_chans)
        elif in_chans is not None and in_chans != len(bands):
            raise ValueError(
                f'in_channels is {in_chans}, but bands names {len(bands)} '
                f'({", ".join(bands)}). Make them agree, or leave one out.'
            )
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            in_chans=len(bands),
            num_classes=num_classes,
            global_pool=global_pool,
            embed_layer=ChannelPatchEmbed,
            attn_layer=kwargs.pop('attn_layer', DeviceAttention),
            no_embed_class=True,  # pos_embed has grid cells only, (1, L, D)
            dynamic_img_size=True,
            # One norm, at the end of the encoder: the decoder in pretraining and the
            # pooling in fine-tuning read the same normalized tokens.
            fc_norm=False,
            **kwargs,
        )
        self.embed_std = embed_std
        init_embedding(self.pos_embed, embed_std)
        self.spectral_embed = spectral_parameters(bands, self.embed_dim, embed_std)
        self.band_maps = band_maps
        self.choose_bands(None)
        self.register_load_state_dict_pre_hook(_adopt_stored_grid)
        for name in ('head_drop', 'head'):  # TorchGeo uses the last child as the head
            module = getattr(self, name)
            delattr(self, name)
            setattr(self, name, module)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the order of the input's channels."""
        return tuple(self.spectral_embed)

    @property
    def num_chosen(self) -> int:
        """Number of bands of the images: all, or those chosen."""
        return len(self.bands if self.chosen is None else self.chosen)

    @property
    def map_channels(self) -> int:
        """Channels of a feature map."""
        return self.embed_dim * (self.num_chosen if self.band_maps == 'concat' else 1)

    def choose_bands(self, bands: Sequence[str] | None) -> None:
        """Set which bands the images have from now on.

        Args:
            bands: Some of the model's bands, in channel order; None for all of them.
        """
        self.chosen: tuple[int, ...] | None = (
            None if bands is None else tuple(map(self.bands.index, bands))
        )
        for info in self.feature_info:
            info['num_chs'] = self.map_channels

    def encode(self, x: Tensor, visible: Tensor) -> Tensor:
        """Encode some of an image's tokens, without computing the others.

        Args:
            x: (B, C, H, W).
            visible: (B, V) int64, numbers of the tokens to encode, band-major.

        Returns:
            (B, prefix + V, D): the class token, where there is one, then the tokens.
        """
        self._check_channels(x.shape[1])
        side = self.patch_embed.patch_size[0]
        tokens = self.patch_embed.project(gather_tokens(patchify(x, side), visible))
        grid = self.patch_embed.dynamic_feat_size((x.shape[-2], x.shape[-1]))
        tokens = tokens + F.embedding(visible, self._positions(grid))
        return self._transform(self._prepend_class_token(tokens))

    @override
    def _pos_embed(self, x: Tensor) -> Tensor:
        """Add positions, prepend the class token: (B, C, h, w, D) to (B, 1 + N, D)."""
        self._check_channels(x.shape[1])
        positions = self._positions((x.shape[2], x.shape[3]))
        return self._prepend_class_token(x.flatten(1, 3) + positions)

    def _positions(self, grid_size: tuple[int, int]) -> Tensor:
        """Return the separable positions for a grid, (N, D)."""
        positions = resample_abs_pos_embed(
            self.pos_embed,
            new_size=list(grid_size),
            old_size=list(self.patch_embed.grid_size),
            num_prefix_tokens=0,
        )
        return separable_positions(positions[0], self.spectral_embed, self.chosen)

    def _prepend_class_token(self, tokens: Tensor) -> Tensor:
        prefix = [t for t in (self.cls_token, self.reg_token) if t is not None]
        expanded = [token.expand(len(tokens), -1, -1) for token in prefix]
        return self.pos_drop(torch.cat([*expanded, tokens], dim=1))

    def _transform(self, tokens: Tensor) -> Tensor:
        tokens = self.norm_pre(self.patch_drop(tokens))
        if self.grad_checkpointing:
            return self.norm(checkpoint_seq(self.blocks, tokens))
        return self.norm(self.blocks(tokens))

    def _check_channels(self, channels: int) -> None:
        if channels != self.num_chosen:
            bands = [self.bands[i] for i in self.chosen or range(len(self.bands))]
            raise ValueError(
                f'The image has {channels} channels, but the model expects '
                f'{len(bands)} bands ({", ".join(bands)}).'
            )

    @override
    def forward_intermediates(
        self, x: Tensor, *args: Any, output_fmt: str = 'NCHW', **kwargs: Any
    ) -> Any:
        """Return intermediate features, as timm's method does.

        ``NCHW`` maps reduce the bands of a grid cell by `band_maps`; ``NLC`` has every
        token, (B, N, D).
        """
        shape = 'NLC' if output_fmt == 'NCHW' else output_fmt
        found = super().forward_intermediates(x, *args, output_fmt=shape, **kwargs)
        if output_fmt != 'NCHW':
            return found
        grid = self.patch_embed.dynamic_feat_size((x.shape[-2], x.shape[-1]))

        def to_map(feature: Any) -> Any:
            if isinstance(feature, tuple):  # (tokens, prefix tokens)
                return to_map(feature[0]), *feature[1:]
            # (B, C, D, h, w)
            maps = feature.unflatten(1, (self.num_chosen, *grid)).movedim(-1, 2)
            maps = maps.mean(1) if self.band_maps == 'mean' else maps.flatten(1, 2)
            return maps.contiguous()

        features = found
        if not isinstance(found, list):  # with the output of the last block
            key = 'image_intermediates' if isinstance(found, dict) else 1
            features = found[key]
        features[:] = map(to_map, features)
        return found

    @override
    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters without weight decay."""
        return super().no_weight_decay() | {SPECTRAL + name for name in self.bands}

    @override
    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the parameters of each layer, for layer-wise decay."""
        groups: dict[str, Any] = super().group_matcher(coarse)
        stem = r'^cls_token|reg_token|pos_embed|spectral_embed|patch_embed|norm_pre'
        return groups | {'stem': stem}

    @override
    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load as torch does; warn of missing bands, which TorchGeo's tasks ignore."""
        keys = super().load_state_dict(state_dict, strict, assign)
        fresh = [band for band in self.bands if SPECTRAL + band in keys.missing_keys]
        if fresh:
            warnings.warn(
                f'The weights have no band {", ".join(fresh)}, which keeps its random '
                f'embedding. Use LoadWeights of torchgeo_channelmae.callbacks.register '
                f'to initialize it from the bands that they have.',
                stacklevel=2,
            )
        return keys


def _adopt_stored_grid(
    model: ChannelViT, state_dict: Mapping[str, Any], prefix: str, *args: Any
) -> None:
    """Adopt the square grid of positions being loaded; torch refuses other shapes."""
    stored = state_dict.get(f'{prefix}pos_embed', model.pos_embed)
    side = square_side(stored, model.embed_dim)
    if side is not None and stored.shape != model.pos_embed.shape:
        model.patch_embed.set_input_size(side * model.patch_embed.patch_size[0])
        model.pos_embed.data = model.pos_embed.data.new_empty(stored.shape)
