"""The patch embedding: one projection that all bands share."""

from typing import Any, override

import torch
import torch.nn.functional as F
from timm.layers import to_2tuple
from torch import Tensor, nn

from .tokens import check_size, patchify

Size = int | tuple[int, int]


class ChannelPatchEmbed(nn.Module):
    """Project the patches of all bands with one shared one-band projection."""

    def __init__(
        self,
        img_size: Size = 128,
        patch_size: int = 16,
        in_chans: int = 12,
        embed_dim: int = 768,
        bias: bool = True,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        """Initialize a new ChannelPatchEmbed instance.

        Args:
            img_size: Side, or height and width, of the image in pixels.
            patch_size: P, patch side in pixels.
            in_chans: C, number of bands; no parameter depends on it.
            embed_dim: D, width of a token.
            bias: Whether the projection has a bias.
            device: Device of the parameters.
            dtype: Type of the parameters.
            **kwargs: Further arguments of timm's embeddings, ignored.
        """
        super().__init__()
        self.in_chans = in_chans
        self.proj = nn.Conv2d(
            1, embed_dim, patch_size, patch_size, bias=bias, device=device, dtype=dtype
        )
        self.patch_size = (patch_size, patch_size)
        self.set_input_size(img_size)

    @property
    def num_patches(self) -> int:
        """L, number of grid cells; a cell has one token per band."""
        return self.grid_size[0] * self.grid_size[1]

    def set_input_size(
        self, img_size: Size | None = None, patch_size: Size | None = None
    ) -> None:
        """Set the image size that positions belong to.

        Args:
            img_size: Side, or height and width, in pixels; None keeps it.
            patch_size: Must be None or the present one.
        """
        side = self.patch_size[0]
        if patch_size not in (None, side, self.patch_size):
            raise ValueError(
                f'patch_size is {patch_size}, but this model has {side} px. Create a '
                f'model with that patch size.'
            )
        if img_size is not None:
            height, width = to_2tuple(img_size)
            check_size(height, width, side)
            self.img_size = (height, width)
        self.grid_size = (self.img_size[0] // side, self.img_size[1] // side)

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Return the grid cells down and across an image of that height and width."""
        return img_size[0] // self.patch_size[0], img_size[1] // self.patch_size[1]

    def project(self, patches: Tensor) -> Tensor:
        """Project flattened one-band patches, (..., P^2) to (..., D)."""
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Project all patches of all bands, (B, C, H, W) to (B, C, h, w, D)."""
        grid = self.dynamic_feat_size((x.shape[-2], x.shape[-1]))
        tokens = self.project(patchify(x, self.patch_size[0]))
        return tokens.unflatten(1, (x.shape[1], *grid))
