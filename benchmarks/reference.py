"""The same models as the peers write them, on the weights of the task at hand.

All tokens are embedded and then chosen from, attention keeps its scores (*eager*), the
decoder carries and produces every token, and the losses read a mask of zeros and ones.
With ``fused`` only the attention is the fused kernel: what is left of a difference to
that is not the kernel's.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchgeo_channelmae.masking import TokenMask
from torchgeo_channelmae.randomness import global_seed, shared_key
from torchgeo_channelmae.tasks.base import sample_keys


def attend(attention: Any, x: Tensor, fused: bool) -> Tensor:
    """Self-attention, (B, N, D) to (B, N, D)."""
    heads = (3, attention.num_heads, attention.head_dim)
    q, k, v = attention.qkv(x).unflatten(-1, heads).permute(2, 0, 3, 1, 4)
    if fused:
        attended = F.scaled_dot_product_attention(q, k, v)
    else:
        scores = (q @ k.transpose(-2, -1)) * attention.scale
        attended = scores.softmax(dim=-1) @ v
    return attention.proj(attended.transpose(1, 2).flatten(2))


def transform(block: Any, x: Tensor, fused: bool) -> Tensor:
    """Run one block, (B, N, D) to (B, N, D)."""
    x = x + attend(block.attn, block.norm1(x), fused)
    return x + block.mlp(block.norm2(x))


compiled_transform = torch.compile(transform)  # only when it is first called


def transform_all(blocks: Any, x: Tensor, fused: bool, compiled: bool) -> Tensor:
    """Run blocks one after the other."""
    one = compiled_transform if compiled else transform
    for block in blocks:
        x = one(block, x, fused)
    return x


def positions_of(model: Any) -> Tensor:
    """Position of the cell plus embedding of the band, (N, D), band-major."""
    bands = torch.stack(list(model.spectral_embed.values()))  # (C, D)
    return (bands[:, None] + model.pos_embed[0]).flatten(0, 1)


def gather(tokens: Tensor, numbers: Tensor) -> Tensor:
    """Take tokens by their numbers, (B, N, D) and (B, V) to (B, V, D)."""
    return tokens.gather(1, numbers[..., None].expand(-1, -1, tokens.shape[-1]))


def encode(
    model: Any,
    image: Tensor,
    visible: Tensor | None = None,
    fused: bool = False,
    compiled: bool = False,
) -> Tensor:
    """Encode tokens, all or those visible, (B, C, H, W) to (B, 1 + V, D)."""
    tokens = model.patch_embed(image).flatten(1, 3) + positions_of(model)
    if visible is not None:
        tokens = gather(tokens, visible)
    tokens = torch.cat([model.cls_token.expand(len(image), -1, -1), tokens], dim=1)
    return model.norm(transform_all(model.blocks, tokens, fused, compiled))


def decode(
    decoder: Any,
    encoded: Tensor,
    visible: Tensor,
    fused: bool = False,
    compiled: bool = False,
) -> Tensor:
    """Produce the pixels of all tokens, (B, 1 + V, D) to (B, N, P^2)."""
    positions = positions_of(decoder)
    tokens = decoder.embed(encoded)
    where = visible[..., None].expand(-1, -1, tokens.shape[-1])
    full = decoder.mask_token.to(tokens.dtype).repeat(len(tokens), len(positions), 1)
    full = full.scatter(1, where, tokens[:, 1:]) + positions
    tokens = torch.cat([tokens[:, :1], full], dim=1)
    tokens = transform_all(decoder.blocks, tokens, fused, compiled)
    return decoder.pixels(decoder.norm(tokens))[:, 1:]


def hidden_ones(mask: TokenMask, num_tokens: int) -> Tensor:
    """Say of every token whether it is a target, (B, N), 1 or 0."""
    ones = torch.zeros(len(mask.target), num_tokens, device=mask.target.device)
    return ones.scatter_(1, mask.target, 1.0)


def mask_losses(
    prediction: Tensor, target: Tensor, hidden: Tensor, bands: int, reduction: str
) -> tuple[Tensor, Tensor]:
    """Token-to-token and spectral-to-spectral loss of a batch.

    Args:
        prediction: (B, N, P^2).
        target: (B, N, P^2).
        hidden: (B, N), 1 or 0.
        bands: C.
        reduction: ``mean`` or ``sum`` over bands.
    """
    error = (prediction - target).square().mean(-1)
    token = (error * hidden).sum() / hidden.sum()
    by_band = (prediction - target).unflatten(1, (bands, -1))
    together = by_band.sum(1) if reduction == 'sum' else by_band.mean(1)
    return token, together.square().mean()


def pretraining_loss(
    task: Any, batch: dict[str, Tensor], fused: bool = False, compiled: bool = False
) -> Tensor:
    """Loss of a pretraining step of `task`, with the mask that the task draws.

    Raises:
        ValueError: If the task does what the reference does not.
    """
    hparams = task.hparams
    if hparams['masking'] != 'random' or hparams['norm_target']:
        raise ValueError(
            'The reference knows random masking of pixels as they are: leave out the '
            'options masking and norm_target.'
        )
    image = batch['image']
    model, bands = task.model, image.shape[1]
    cells = model.pos_embed.shape[1]
    keys = sample_keys(batch['index'], global_seed(), 'mask', 0)
    mask = task.masking(keys, shared_key('bands', 0), bands, cells)
    encoded = encode(model, image, mask.visible, fused, compiled)
    prediction = decode(task.decoder, encoded, mask.visible, fused, compiled)
    side = model.patch_embed.patch_size[0]
    patches = F.unfold(image.flatten(0, 1)[:, None], side, stride=side)
    target = patches.transpose(1, 2).unflatten(0, (-1, bands)).flatten(1, 2)
    hidden = hidden_ones(mask, bands * cells)
    prediction, reduction = prediction.to(target.dtype), hparams['spectral_loss']
    token, spectral = mask_losses(prediction, target, hidden, bands, reduction)
    return token + hparams['spectral_weight'] * spectral


def finetuning_loss(
    task: Any, batch: dict[str, Tensor], fused: bool = False, compiled: bool = False
) -> Tensor:
    """Loss of a fine-tuning step of `task`."""
    tokens = encode(task.model, batch['image'], None, fused, compiled)
    logits = task.model.head(tokens[:, 1:].mean(1))
    return F.binary_cross_entropy_with_logits(logits.float(), batch['label'])
