"""Initialize the embeddings of bands that pretrained weights lack."""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

from ..randomness import generator, global_seed
from ..sensors import wavelength
from .channelvit import ChannelViT

FreshBands = Literal['sample', 'index', 'nearest', 'random']
"""Initialization of the embedding of a band that the weights lack.

* ``sample``: drawn around the mean of the pretrained embeddings with their spread.
* ``index``: the embedding at the same position, as SpectralGPT's family of code does.
* ``nearest``: that of the band nearest in wavelength, where both have one.
* ``random``: as in a model from scratch.

Where ``index`` or ``nearest`` finds no embedding, ``sample`` is used. Draws are seeded
by ``seed_everything`` and the band's name: the runs of several seeds contain their
variance, and one is the same however often it is repeated.
"""


def init_band(
    band: str, rows: Mapping[str, Tensor], model: ChannelViT, policy: FreshBands
) -> tuple[Tensor, str]:
    """Return the embedding of a band that the weights lack, and its origin.

    Args:
        band: Name of the band.
        rows: (D,) embeddings that the weights have, by name of the band.
        model: The encoder.
        policy: How to initialize it.
    """
    seed = global_seed()
    draw = generator('fresh band', band, seed)
    noise = torch.randn(model.embed_dim, generator=draw)
    if policy == 'random' or not rows:
        return model.embed_std * noise, f'random: draw {seed}'
    position = model.bands.index(band)
    if policy == 'index' and position < len(rows):
        name = list(rows)[position]
        return rows[name].clone(), f'index: as {name}'
    if policy == 'nearest' and (nearest := _nearest(band, rows)):
        return rows[nearest].clone(), f'nearest: as {nearest}'
    stack = torch.stack(list(rows.values()))
    known = stack.float()
    spread = known.std(0) if len(rows) > 1 else model.embed_std
    how = f'sample: around the mean of {len(rows)} bands, draw {seed}'
    return (known.mean(0) + spread * noise).to(stack.dtype), how


def _nearest(band: str, rows: Iterable[str]) -> str | None:
    """Return the band nearest in wavelength; None where wavelengths are unknown."""
    own = wavelength(band)
    known = {name: value for name in rows if (value := wavelength(name)) is not None}
    if own is None or not known:
        return None
    return min(known, key=lambda name: abs(known[name] - own))
