"""Load pretrained tensors into an encoder or decoder, bands by name.

Nothing is dropped silently: a load returns a report of what was loaded, resampled,
initialised and left over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from .. import sensors
from ..randomness import generator
from .channelvit import ChannelViT
from .decoder import ChannelMAEDecoder
from .tokens import SPECTRAL, resample_positions

FreshBands = Literal['sample', 'index', 'nearest', 'random']
"""Initialisation of the embedding of a band that the weights lack.

* ``sample``: drawn around the mean of the pretrained embeddings with their spread.
* ``index``: the embedding at the same position, as SpectralGPT's family of code does.
* ``nearest``: that of the band nearest in wavelength, where both have one.
* ``random``: as in a model from scratch.

Where ``index`` or ``nearest`` finds no embedding, ``sample`` is used. Draws are seeded
by the band's name, so that they differ between bands and are equal in every run.
"""


@dataclass(frozen=True)
class LoadReport:
    """What a load did, by names of tensors and bands.

    Attributes:
        loaded: Tensors that were loaded unchanged.
        resampled: Tensors that were resampled to another grid.
        kept_bands: Bands that have their embedding from the weights.
        fresh_bands: Each band that the weights lack, and how it was initialised.
        fresh: Other tensors of the model that nothing was loaded into, and why.
        left_over: Tensors of the weights that the model does not have.
    """

    loaded: tuple[str, ...]
    resampled: tuple[str, ...]
    kept_bands: tuple[str, ...]
    fresh_bands: dict[str, str]
    fresh: dict[str, str]
    left_over: tuple[str, ...]

    def __str__(self) -> str:
        """Return the report in one line."""
        parts = [
            ('resampled', ', '.join(self.resampled)),
            ('bands with their weights', ', '.join(self.kept_bands)),
            ('fresh bands', _grouped(self.fresh_bands)),
            ('other fresh tensors', _grouped(self.fresh)),
            ('left over', _grouped(dict.fromkeys(self.left_over, ''), 2)),
        ]
        texts = [f'{title}: {text}' for title, text in parts if text]
        return '; '.join([f'{len(self.loaded)} tensors loaded', *texts]) + '.'


def load_encoder(
    model: ChannelViT,
    state_dict: Mapping[str, Tensor],
    policy: FreshBands = 'sample',
    *,
    adopt_grid: bool = False,
) -> LoadReport:
    """Load pretrained tensors into an encoder, bands by name, in place.

    The head is never loaded.

    Args:
        model: The encoder.
        state_dict: Tensors by name, as :func:`~.checkpoints.read_checkpoint` returns
            them.
        policy: Initialisation of bands that the weights lack.
        adopt_grid: Where the grids differ, whether the encoder adopts the grid of the
            weights, with its image size, and resamples to each input from there.
            Otherwise positions are resampled once, to the encoder's own grid.

    Returns:
        What was done.

    Raises:
        ValueError: If fewer than half of the encoder's tensors have a counterpart, or
            the policy is unknown. The encoder is unchanged then.
    """
    check_policy(policy)
    grid = model.patch_embed.grid_size
    own = {k: v for k, v in model.state_dict().items() if not k.startswith('head.')}
    values, resampled, missing = _match(own, state_dict, grid, adopt_grid)
    fresh = {k: why for k, why in missing.items() if not k.startswith(SPECTRAL)}
    expected = [name for name in own if not name.startswith(SPECTRAL)]
    if 2 * len(fresh) > len(expected):
        name, why = next(iter(fresh.items()))
        raise ValueError(
            f'The weights match {len(expected) - len(fresh)} of the {len(expected)} '
            f'tensors of the model, so they belong to another model. The first '
            f'difference is {name} ({why}).'
        )
    rows = {
        key.removeprefix(SPECTRAL): value
        for key, value in state_dict.items()
        if key.startswith(SPECTRAL) and value.shape == (model.embed_dim,)
    }
    fresh_rows, fresh_bands = {}, {}
    for position, band in enumerate(model.bands):
        if SPECTRAL + band not in values:
            fresh_rows[SPECTRAL + band], fresh_bands[band] = init_band(
                band, position, rows, model.embed_dim, model.embed_std, policy
            )
    model.load_state_dict(values | fresh_rows, strict=False)
    return LoadReport(
        loaded=tuple(k for k in own if k in values and k not in resampled),
        resampled=tuple(resampled),
        kept_bands=tuple(band for band in model.bands if band not in fresh_bands),
        fresh_bands=fresh_bands,
        fresh=fresh,
        left_over=tuple(name for name in state_dict if name not in values),
    )


def load_decoder(
    decoder: ChannelMAEDecoder, state_dict: Mapping[str, Tensor]
) -> LoadReport | None:
    """Load the decoder of a pretraining, bands by name, in place.

    Args:
        decoder: The decoder.
        state_dict: Tensors by name, a decoder's under ``decoder.``.

    Returns:
        What was done; None if the weights have no decoder, or one of another width or
        depth, and this one is unchanged.
    """
    start = 'decoder.'
    own = decoder.state_dict()
    stored = {
        key.removeprefix(start): value
        for key, value in state_dict.items()
        if key.startswith(start)
    }
    values, resampled, missing = _match(own, stored, decoder.grid_size)
    if not all(name.startswith(SPECTRAL) for name in missing):
        return None
    decoder.load_state_dict(values, strict=False)
    fresh = [name.removeprefix(SPECTRAL) for name in missing]
    return LoadReport(
        loaded=tuple(name for name in values if name not in resampled),
        resampled=tuple(resampled),
        kept_bands=tuple(b for b in decoder.spectral_embed if b not in fresh),
        fresh_bands=dict.fromkeys(fresh, 'random'),
        fresh={},
        left_over=tuple(name for name in stored if name not in values),
    )


def check_policy(policy: str) -> None:
    """Check the name of a policy for fresh bands.

    Raises:
        ValueError: If it is unknown.
    """
    known = get_args(FreshBands)
    if policy not in known:
        raise ValueError(f'Unknown fresh_bands {policy!r}. Use {", ".join(known)}.')


def init_band(
    band: str,
    position: int,
    rows: Mapping[str, Tensor],
    dim: int,
    std: float,
    policy: FreshBands,
) -> tuple[Tensor, str]:
    """Initialise the embedding of a band that the weights lack.

    Args:
        band: Its name.
        position: Its index among the model's bands.
        rows: Embeddings (D,) in the weights, by band.
        dim: D.
        std: Standard deviation of an embedding from scratch.
        policy: The policy.

    Returns:
        The (D,) embedding, and a description of its origin.
    """
    noise = torch.randn(dim, generator=generator('fresh band', band))
    if policy == 'random' or not rows:
        return std * noise, 'random'
    if policy == 'index' and position < len(rows):
        name = list(rows)[position]
        return rows[name].clone(), f'index: as {name}'
    if policy == 'nearest' and (nearest := _nearest(band, rows)):
        return rows[nearest].clone(), f'nearest: as {nearest}'
    stack = torch.stack(list(rows.values())).float()
    spread = stack.std(0) if len(rows) > 1 else torch.full((dim,), std)
    how = f'sample: around the mean of {len(rows)} bands'
    return (stack.mean(0) + spread * noise).to(next(iter(rows.values())).dtype), how


def _nearest(band: str, rows: Mapping[str, Tensor]) -> str | None:
    """Return the band nearest in wavelength; None where wavelengths are unknown."""
    own = sensors.find(band)
    if own is None or own.wavelength is None:
        return None
    distances = {
        name: abs(known.wavelength - own.wavelength)
        for name in rows
        if (known := sensors.find(name)) is not None and known.wavelength is not None
    }
    return min(distances, key=distances.__getitem__) if distances else None


def _match(
    own: Mapping[str, Tensor],
    stored: Mapping[str, Tensor],
    grid: Sequence[int],
    adopt_grid: bool = False,
) -> tuple[dict[str, Tensor], list[str], dict[str, str]]:
    """Find stored tensors that fit: values, names resampled, and why others do not."""
    values: dict[str, Tensor] = {}
    resampled: list[str] = []
    missing: dict[str, str] = {}
    for name, tensor in own.items():
        found = stored.get(name)
        moved = None
        if found is not None and name == 'pos_embed' and found.shape != tensor.shape:
            moved = resample_positions(found, tensor.shape[2], grid)
        if found is None:
            missing[name] = 'not in the weights'
        elif found.shape == tensor.shape or (moved is not None and adopt_grid):
            values[name] = found
        elif moved is not None:
            values[name] = moved
            resampled.append(name)
        else:
            missing[name] = f'{_shape(found)} in the weights, {_shape(tensor)} here'
    return values, resampled, missing


def _shape(tensor: Tensor) -> str:
    return 'x'.join(map(str, tensor.shape))


def _grouped(reasons: Mapping[str, str], most: int = 5) -> str:
    """List names with reasons; `most` or more of one module and reason as a count."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, reason in reasons.items():
        groups.setdefault((name.split('.')[0], reason), []).append(name)
    texts = []
    for (module, reason), names in groups.items():
        if len(names) >= most:
            inside = [f'{len(names)} tensors', *([reason] if reason else [])]
            texts.append(f'{module} ({", ".join(inside)})')
        else:
            texts += [f'{name} ({reason})' if reason else name for name in names]
    return ', '.join(texts)
