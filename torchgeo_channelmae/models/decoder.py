"""The decoder of the masked autoencoder: it produces pixels of hidden tokens."""

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
    gather_tokens,
    init_embedding,
    separable_positions,
    spectral_parameters,
)


class ChannelMAEDecoder(nn.Module):
    """Transformer that turns encoded visible tokens into pixels.

    Follows MAE (https://arxiv.org/abs/2111.06377): a light transformer over the visible
    tokens and a learned mask token for every hidden one. It has separable positions of
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
        mlp_ratio: float = 4.0,
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
            num_heads: Attention heads of a block.
            mlp_ratio: Hidden width of a block's MLP over its width.
            embed_std: Standard deviation that positions and band embeddings start
                with.

        Raises:
            ValueError: If the heads do not divide the width, or a size is not positive.
        """
        super().__init__()
        if min(embed_dim, depth, num_heads) < 1 or embed_dim % num_heads:
            raise ValueError(
                f'A decoder of width {embed_dim}, depth {depth} and {num_heads} heads '
                f'cannot be built: the heads have to divide the width, all above 0.'
            )
        self.grid_size = grid_size
        self.embed = nn.Linear(encoder_dim, embed_dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        cells = grid_size[0] * grid_size[1]
        positions = init_embedding(torch.empty(1, cells, embed_dim), embed_std)
        self.pos_embed = nn.Parameter(positions)
        self.spectral_embed = spectral_parameters(bands, embed_dim, embed_std)
        self.blocks = nn.Sequential(
            *(
                Block(
                    embed_dim,
                    num_heads,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=True,
                    attn_layer=DeviceAttention,
                )
                for _ in range(depth)
            )
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.pixels = nn.Linear(embed_dim, patch_size**2)
        self.grad_checkpointing = False
        self.init_weights()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Say whether blocks compute anew what they would keep for their gradients."""
        self.grad_checkpointing = enable

    def init_weights(self) -> None:
        """Initialise as MAE does: Xavier for matrices, zero biases, a small token.

        The last layer starts small, so that a prediction starts near each band's mean
        and not as noise that has to be unlearned.
        """
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.pixels.weight, std=0.02)

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that weight decay leaves alone."""
        spectral = {f'spectral_embed.{name}' for name in self.spectral_embed}
        return {'mask_token', 'pos_embed'} | spectral

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
            encoded: (B, prefix + V, D), what the encoder made of the visible tokens.
            visible: (B, V) int64, their numbers, band-major.
            hidden: (B, M) int64, the numbers of the tokens to fill in.
            grid_size: Cells down and across of this image.
            produce: (B, T) int64, tokens among both whose pixels are wanted; the
                hidden ones if None.

        Returns:
            (B, T, P^2), in the order of `produce`, or of `hidden`.
        """
        positions = resample_abs_pos_embed(
            self.pos_embed,
            new_size=list(grid_size),
            old_size=list(self.grid_size),
            num_prefix_tokens=0,
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
            wanted = tokens[:, prefix + visible.shape[1] :]
        else:
            among = torch.cat([visible, hidden], dim=1)
            where = locate(produce, among, len(table)) + prefix
            wanted = gather_tokens(tokens, where)
        return self.pixels(self.norm(wanted))
