"""Operations of a step, counted only for tokens that a loss needs.

A multiplication with its addition counts two. Products of matrices alone are counted:
they are what a peak is measured with. The backward pass costs the forward twice, but
for the patch embedding, whose input learns nothing. Nothing computed twice counts.
"""

from typing import Any


def block(tokens: int, queries: int, dim: int, mlp_ratio: int = 4) -> int:
    """Forward pass of a transformer block for one sample.

    Args:
        tokens: Tokens that are attended to.
        queries: Those of them whose output is needed.
        dim: D.
        mlp_ratio: Hidden width of the MLP over D.
    """
    keys_values = 2 * tokens * 2 * dim**2
    query_output = 2 * queries * 2 * dim**2
    attention = 2 * 2 * queries * tokens * dim
    mlp = 2 * queries * 2 * mlp_ratio * dim**2
    return keys_values + query_output + attention + mlp


def blocks(tokens: int, needed: int, dim: int, depth: int) -> int:
    """Forward pass of `depth` blocks of which the last is read at some tokens."""
    return (depth - 1) * block(tokens, tokens, dim) + block(tokens, needed, dim)


def encoder(model: Any, tokens: int, needed: int) -> int:
    """Forward and backward of the encoder for one sample.

    Args:
        model: A channel-token encoder.
        tokens: Channel tokens that are encoded, without the class token.
        needed: Tokens whose encoding is read.
    """
    dim, side = model.embed_dim, model.patch_embed.patch_size[0]
    embed = 2 * tokens * side**2 * dim
    prefix = model.num_prefix_tokens
    return 2 * embed + 3 * blocks(tokens + prefix, needed, dim, len(model.blocks))


def decoder(module: Any, encoded: int, filled: int, produced: int) -> int:
    """Forward and backward of the decoder for one sample.

    Args:
        module: The decoder.
        encoded: Tokens of the encoder, with the class token.
        filled: Mask tokens.
        produced: Tokens whose pixels are read.
    """
    source, dim = module.embed.in_features, module.embed.out_features
    embed = 2 * encoded * source * dim
    pixels = 2 * produced * dim * module.pixels.out_features
    inner = blocks(encoded + filled, produced, dim, len(module.blocks))
    return 3 * (embed + inner + pixels)


def head(model: Any) -> int:
    """Forward and backward of a classifier for one sample."""
    return 3 * 2 * model.head.in_features * model.head.out_features
