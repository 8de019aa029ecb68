"""How the embedding of a band starts that pretrained weights do not know."""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from .. import sensors
from ..randomness import generator

FreshBands = Literal['sample', 'index', 'nearest', 'random']
"""How the embedding of a band starts that the weights do not know.

* ``sample``: drawn around the mean of the pretrained embeddings with their spread.
* ``index``: the embedding at the same position, as SpectralGPT's family of code does.
* ``nearest``: that of the band nearest in wavelength, where both have one.
* ``random``: as in a model from scratch.

Where ``index`` or ``nearest`` has nothing to give, ``sample`` steps in. Draws are
seeded by the band's name: no two drawn bands start alike, and each starts alike in
every run. Copies may be alike: the same band can be nearest to two.
"""


def check_policy(policy: str) -> None:
    """Check that a policy is known.

    Raises:
        ValueError: If it is not.
    """
    known = get_args(FreshBands)
    if policy not in known:
        raise ValueError(
            f'fresh_bands {policy!r} is not known: choose one of {", ".join(known)}.'
        )


def start_band(
    band: str,
    position: int,
    rows: Mapping[str, Tensor],
    dim: int,
    small: float,
    policy: FreshBands,
) -> tuple[Tensor, str]:
    """Start the embedding of a band that the weights do not know.

    Args:
        band: Its name.
        position: Its place among the model's bands.
        rows: Embeddings (D,) that the weights know, by band.
        dim: D.
        small: Standard deviation of an embedding from scratch.
        policy: How.

    Returns:
        The (D,) embedding and how it came about, in words.
    """
    noise = torch.randn(dim, generator=generator('fresh band', band))
    if policy == 'random' or not rows:
        return small * noise, 'random'
    if policy == 'index' and position < len(rows):
        name = list(rows)[position]
        return rows[name].clone(), f'index: as {name}'
    if policy == 'nearest' and (nearest := _nearest(band, rows)):
        return rows[nearest].clone(), f'nearest: as {nearest}'
    stack = torch.stack(list(rows.values())).float()
    spread = stack.std(0) if len(rows) > 1 else torch.full((dim,), small)
    how = f'sample: around the mean of {len(rows)} bands'
    return (stack.mean(0) + spread * noise).to(next(iter(rows.values())).dtype), how


def _nearest(band: str, rows: Mapping[str, Tensor]) -> str | None:
    """Name the band nearest in wavelength, or None where wavelengths are not known."""
    own = sensors.find(band)
    if own is None or own.wavelength is None:
        return None
    distances = {
        name: abs(known.wavelength - own.wavelength)
        for name in rows
        if (known := sensors.find(name)) is not None and known.wavelength is not None
    }
    return min(distances, key=distances.__getitem__) if distances else None
