"""Tokens of one band at one grid cell: cutting, gathering, positions."""

import math
from collections.abc import Sequence

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from ..sensors import check_names

SPECTRAL = 'spectral_embed.'
"""Prefix of the band embeddings in a state dict; the band's name follows."""


def check_size(height: int, width: int, patch_size: int) -> None:
    """Raise ValueError unless the patch side divides both sides of an image."""
    for side in (height, width):
        if side % patch_size or side < patch_size:
            below = max(0, side // patch_size * patch_size)
            near = f'{below} or {below + patch_size}' if below else f'{patch_size}'
            raise ValueError(
                f'A size of {side} px is not a multiple of the patch size '
                f'{patch_size} px. Use {near} px.'
            )


def patchify(image: Tensor, patch_size: int) -> Tensor:
    """Cut every band into patches.

    Args:
        image: (B, C, H, W).
        patch_size: P, patch side in pixels; divides H and W.

    Returns:
        (B, N, P^2), N = C * L, band-major, cells row by row.
    """
    check_size(image.shape[-2], image.shape[-1], patch_size)
    patches = image.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size))
    return patches.transpose(3, 4).flatten(4).flatten(1, 3)  # (B, C, h, w, P^2)


def unpatchify(tokens: Tensor, num_bands: int, grid_size: tuple[int, int]) -> Tensor:
    """Assemble tokens into an image, the inverse of :func:`patchify`.

    Args:
        tokens: (B, N, P^2).
        num_bands: C.
        grid_size: (h, w), cells down and across.

    Returns:
        (B, C, H, W).
    """
    side = round(tokens.shape[-1] ** 0.5)
    patches = tokens.unflatten(2, (side, side)).unflatten(1, (num_bands, *grid_size))
    return patches.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Select tokens of each sample, (B, N, D) and (B, T) int64 to (B, T, D)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def init_embedding(embedding: Tensor, std: float) -> Tensor:
    """Fill an embedding from a normal distribution truncated at -2 and 2, in place."""
    if not std > 0:
        raise ValueError(f'embed_std is {std}. Give a standard deviation above 0.')
    return nn.init.trunc_normal_(embedding, std=std)


def spectral_parameters(
    bands: Sequence[str], dim: int, std: float = 0.02
) -> nn.ParameterDict:
    """Create a spectral embedding (D,) per band, keyed by name, in the bands' order.

    Args:
        bands: Band names.
        dim: D, width of an embedding.
        std: Standard deviation of the initial values.

    Raises:
        ValueError: If a name is repeated, empty or contains a dot.
    """
    check_names(bands)
    embeddings = nn.ParameterDict()
    for name in bands:  # one by one: a ParameterDict sorts the keys of a dict
        embeddings[name] = nn.Parameter(init_embedding(torch.empty(dim), std))
    return embeddings


def separable_positions(
    positions: Tensor, spectral: nn.ParameterDict, chosen: Sequence[int] | None = None
) -> Tensor:
    """Add the position of every cell to the embedding of every band.

    Args:
        positions: (L, D).
        spectral: C parameters of shape (D,).
        chosen: Indices of the bands that are present, in their order; None for all.

    Returns:
        (N, D), band-major.
    """
    bands = torch.stack(list(spectral.values()))
    if chosen is not None:  # the others get a gradient of 0, which DDP needs
        bands = bands[list(chosen)]
    return (bands[:, None] + positions[None]).flatten(0, 1)


def square_side(stored: Tensor, dim: int, prefix: int = 0) -> int | None:
    """Return the side of the square grid that learned positions belong to.

    Args:
        stored: (1, prefix + L, D).
        dim: D.
        prefix: Number of prefix tokens that have a position.

    Returns:
        Cells down and across; None if `stored` does not have that shape.
    """
    if stored.ndim != 3 or stored.shape[2] != dim or stored.shape[1] <= prefix:
        return None
    side = math.isqrt(stored.shape[1] - prefix)
    return side if side**2 == stored.shape[1] - prefix else None


def resample_positions(
    stored: Tensor, dim: int, grid: Sequence[int], prefix: int = 0
) -> Tensor | None:
    """Resample learned positions of a square grid to another grid.

    Args:
        stored: (1, prefix + L, D).
        dim: D.
        grid: Cells down and across of the other grid.
        prefix: Number of prefix tokens that have a position.

    Returns:
        (1, prefix + cells, D); None if `stored` is not of a square grid.
    """
    if square_side(stored, dim, prefix) is None:
        return None
    return resample_abs_pos_embed(stored, list(grid), num_prefix_tokens=prefix)
