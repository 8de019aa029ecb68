"""Self-attention that picks the faster of two implementations for the device."""

from typing import override

import torch
from timm.layers import Attention
from torch import Tensor

#: Tokens up to which scores are materialised, at a quarter more memory per block.
MOST_TOKENS = 256


class DeviceAttention(Attention):
    """timm's attention, with explicit matrix products where those are faster.

    The fused kernel of torch 2.15 for CPUs has a slow backward pass in bfloat16: two
    matrix products take a third to a fifth of its time. Everywhere else, and for more
    than :data:`MOST_TOKENS` tokens, the fused kernel is used, so that memory grows
    linearly with the number of tokens.
    """

    @override
    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Attend among tokens, (B, N, D) to (B, N, D)."""
        plain = attn_mask is None and not is_causal and self.gate is None
        if not plain or not products_are_faster(x):
            return super().forward(x, attn_mask, is_causal)
        heads = (3, self.num_heads, self.head_dim)
        q, k, v = self.qkv(x).unflatten(-1, heads).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (self.q_norm(q) * self.scale) @ self.k_norm(k).transpose(-2, -1)
        x = self.attn_drop(scores.softmax(dim=-1)) @ v
        return self.proj_drop(self.proj(self.norm(x.transpose(1, 2).flatten(2))))


def products_are_faster(x: Tensor) -> bool:
    """Return whether (B, N, D) is few tokens, in bfloat16, on a CPU."""
    if x.device.type != 'cpu' or x.shape[1] > MOST_TOKENS:
        return False
    autocast = torch.is_autocast_enabled('cpu')
    dtype = torch.get_autocast_dtype('cpu') if autocast else x.dtype
    return dtype == torch.bfloat16
