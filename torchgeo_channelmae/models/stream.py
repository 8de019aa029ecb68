"""The residual stream of an encoder, compared with what it started from."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from ..randomness import generator
from .channelvit import ChannelViT

#: Growth of the stream over its start from which weights are suspicious.
GROWN = 10


@torch.no_grad()
def stream_norm(model: ChannelViT) -> float:
    """Return the mean norm of a token after the last block, before the final norm.

    The tokens are some of two fixed random images. The model and the global random
    state are unaffected.
    """
    copied: Any = copy.deepcopy(model).eval()
    copied.norm = nn.Identity()
    bands, embed, place = copied.num_chosen, copied.patch_embed, copied.pos_embed
    image = torch.randn(2, bands, *embed.img_size, generator=generator('stream'))
    tokens = torch.linspace(0, bands * embed.num_patches - 1, 32).long()  # enough
    visible = tokens.expand(2, -1).to(place.device)
    return float(copied.encode(image.to(place), visible).norm(dim=-1).mean())


@contextmanager
def watched_stream(model: Any, source: str) -> Iterator[None]:
    """Warn if what is loaded in this context makes the stream :data:`GROWN` times.

    Training at too high a rate for its warm-up leaves such weights, and they transfer
    worse than others.

    Args:
        model: The model; others than channel-token encoders are not checked.
        source: What is loaded, for the warning.
    """
    start = stream_norm(model) if isinstance(model, ChannelViT) else None
    yield
    if start and (growth := stream_norm(model) / start) > GROWN:
        rank_zero_warn(
            f'The residual stream of {source} is {growth:.0f} times that of a new '
            f'encoder; transfer may suffer. Pretrain with a longer warm-up or a lower '
            f'base_lr.'
        )
