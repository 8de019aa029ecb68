"""The decoder of the masked autoencoder: predict the pixels of hidden tokens."""

from collections.abc import Sequence
from typing import override

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models import checkpoint_seq
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ..token_numbers import locate
from .attention import DeviceAttention
from .tokens import (
    SPECTRAL,
    gather_tokens,
    init_embedding,
    separable_positions,
    spectral_parameters,
)


class ChannelMAEDecoder(nn.Module):
    """Transformer that predicts pixels from encoded visible tokens.

    Follows MAE (https://arxiv.org/abs/2111.06377): a light transformer over the visible
    tokens and a learned mask token for every hidden one, with separable positions of
    its own.
    """

    def __init__(
        self,
        bands: Sequence[str],
        grid_size: tuple[int, int],
        patch_size: int,
        encoder_dim: int,
        embed_dim: int = 512,
        depth: int = 4,
        num_heads: int = 8,
        embed_std: float = 0.02,
    ) -> None:
        """Initialize a new ChannelMAEDecoder instance.

        Args:
            bands: Names of the bands, in the order of the image's channels.
            grid_size: Cells down and across that positions are learned for.
            patch_size: P, patch side in pixels.
            encoder_dim: Width of the encoder's tokens.
            embed_dim: Width of the decoder's tokens, a multiple of `num_heads`.
            depth: Number of blocks.
            num_heads: Attention heads per block.
            embed_std: Standard deviation of the initial positions and band embeddings.
        """
        super().__init__()
        if min(embed_dim, depth, num_heads) < 1 or embed_dim % num_heads:
            raise ValueError(
                f'A decoder of width {embed_dim}, depth {depth} and {num_heads} heads '
                f'cannot be built. Use positive values; heads must divide the width.'
            )
        self.grid_size = grid_size
        self.embed = nn.Linear(encoder_dim, embed_dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        cells = grid_size[0] * grid_size[1]
        positions = init_embedding(torch.empty(1, cells, embed_dim), embed_std)
        self.pos_embed = nn.Parameter(positions)
        self.spectral_embed = spectral_parameters(bands, embed_dim, embed_std)
        options = {'qkv_bias': True, 'attn_layer': DeviceAttention}
        blocks = (Block(embed_dim, num_heads, **options) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.pixels = nn.Linear(embed_dim, patch_size**2)
        self.grad_checkpointing = False
        self.init_weights()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Set whether blocks recompute their activations in the backward pass."""
        self.grad_checkpointing = enable

    def init_weights(self) -> None:
        """Initialize as MAE does: Xavier for matrices, zero biases, a small mask token.

        The last layer starts small: first predictions are near each band's mean.
        """
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.pixels.weight, std=0.02)

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters without weight decay."""
        return {'mask_token', 'pos_embed', *(SPECTRAL + b for b in self.spectral_embed)}

    @override
    def forward(
        self,
        encoded: Tensor,
        visible: Tensor,
        hidden: Tensor,
        grid_size: tuple[int, int],
        produce: Tensor | None = None,
    ) -> Tensor:
        """Produce the pixels of tokens.

        Args:
            encoded: (B, prefix + V, D), the encoder's output for the visible tokens.
            visible: (B, V) int64, their numbers, band-major.
            hidden: (B, M) int64, the numbers of the tokens to fill in.
            grid_size: Cells down and across of this image.
            produce: (B, T) int64, the tokens to produce; None for `hidden`.

        Returns:
            (B, T, P^2), in the order of `produce`, or of `hidden`.
        """
        positions = resample_abs_pos_embed(
            self.pos_embed, list(grid_size), list(self.grid_size), num_prefix_tokens=0
        )
        table = separable_positions(positions[0], self.spectral_embed)  # (N, D)
        tokens = self.embed(encoded)
        prefix = tokens.shape[1] - visible.shape[1]
        seen = tokens[:, prefix:] + F.embedding(visible, table)
        filled = self.mask_token + F.embedding(hidden, table)
        tokens = torch.cat([tokens[:, :prefix], seen, filled.to(seen.dtype)], dim=1)
        if self.grad_checkpointing and self.training:
            tokens = checkpoint_seq(self.blocks, tokens)
        else:
            tokens = self.blocks(tokens)
        if produce is None:
            tokens = tokens[:, prefix + visible.shape[1] :]
        else:
            where = locate(produce, torch.cat([visible, hidden], dim=1), len(table))
            tokens = gather_tokens(tokens, where + prefix)
        return self.pixels(self.norm(tokens))
