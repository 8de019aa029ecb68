"""Pretrained weights from files into an encoder that may have other bands.

Nothing is dropped in silence: a load returns a report of what arrived, what was
resampled, what started fresh and how, and what was left over.
"""

import math
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor
from torchgeo.models import get_weight
from torchvision.models import WeightsEnum

from .. import sensors
from ..randomness import generator
from .channelvit import ChannelViT
from .decoder import ChannelMAEDecoder
from .exported import read_file
from .tags import ChannelMAE_Weights, file_of

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

_SPECTRAL = 'spectral_embed.'
_HEAD = ('head.',)
_ORDER = sensors.names(sensors.SENTINEL2_L1C + sensors.SENTINEL1_GRD)


@dataclass(frozen=True)
class LoadReport:
    """What a load did, by names of tensors and bands.

    Attributes:
        loaded: Tensors that arrived bit for bit.
        resampled: Tensors that were resampled to another grid.
        kept_bands: Bands whose embedding came with the weights.
        fresh_bands: Each band that the weights do not know, and how it started.
        fresh: Other tensors of the model that nothing was loaded into, and why.
        left_over: Tensors of the weights that the model has no place for.
    """

    loaded: tuple[str, ...]
    resampled: tuple[str, ...]
    kept_bands: tuple[str, ...]
    fresh_bands: dict[str, str]
    fresh: dict[str, str]
    left_over: tuple[str, ...]

    def __str__(self) -> str:
        """Say it in one line."""
        parts = [f'{len(self.loaded)} tensors loaded']
        if self.resampled:
            parts.append(f'resampled: {", ".join(self.resampled)}')
        if self.kept_bands:
            parts.append(f'bands with their weights: {", ".join(self.kept_bands)}')
        for title, told in (
            ('fresh bands', self.fresh_bands),
            ('other fresh tensors', self.fresh),
        ):
            if told:
                parts.append(f'{title}: {_reasons(told)}')
        if self.left_over:
            parts.append(f'left over: {_summary(self.left_over)}')
        return '; '.join(parts) + '.'


def _summary(names: Sequence[str]) -> str:
    """Count names by their first part, e.g. ``decoder (62), head.bias``."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split('.')[0], []).append(name)
    return ', '.join(
        group[0] if len(group) == 1 else f'{start} ({len(group)} tensors)'
        for start, group in groups.items()
    )


def _reasons(told: Mapping[str, str]) -> str:
    """Say each name with how it started, many of one part and one reason together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, how in told.items():
        groups.setdefault((name.split('.')[0], how), []).append(name)
    return ', '.join(
        f'{start} ({len(names)} tensors, {how})'
        if len(names) > 4
        else ', '.join(f'{name} ({how})' for name in names)
        for (start, how), names in groups.items()
    )


def read_weights(weights: WeightsEnum | str) -> dict[str, Tensor]:
    """Read the tensors of pretrained weights.

    Args:
        weights: Path of a Lightning checkpoint, of an export or another file of tensors
            (``.safetensors``, or a state dict), a weights enum of TorchGeo or its name,
            or the tag of registered weights. No code in a file is ever run.

    Returns:
        Tensors by name. An encoder that stands under ``model.`` or ``backbone.`` has
        lost that prefix.

    Raises:
        FileNotFoundError: If `weights` is neither a file nor the name of an enum.
        ValueError: If the file holds no tensors by name.
    """
    if isinstance(weights, ChannelMAE_Weights):
        return read_weights(weights.path())
    if isinstance(weights, WeightsEnum):
        try:
            content = weights.get_state_dict(
                progress=True, check_hash=True, weights_only=True
            )
        except pickle.UnpicklingError as error:
            raise ValueError(
                f'weights {weights} hold more than tensors and plain values, and no '
                f'code in a file is run: give other weights.'
            ) from error
        return _bare(_flat(content))
    if not os.path.exists(weights):
        if (registered := file_of(weights)) is not None:
            return read_weights(registered)
        try:
            return read_weights(get_weight(weights))
        except (KeyError, ValueError):
            raise FileNotFoundError(
                f'weights {weights!r} is neither a file nor the name of registered '
                f'weights: run the pretraining that writes it, give the path of '
                f'another checkpoint, or null to start from scratch.'
            ) from None
    try:
        if weights.endswith('.safetensors'):
            content = _tensors_of(weights)
        else:
            content = torch.load(weights, map_location='cpu', weights_only=True)
    except Exception as error:  # an unpickler of wrong bytes may raise anything
        if weights.endswith('.safetensors') and type(error) is ValueError:
            raise ValueError(f'weights {error}') from None  # tells of an export
        raise ValueError(
            f'weights {weights!r} is no checkpoint that can be read: it is damaged, or '
            f'holds more than tensors and plain values; give a .ckpt or .safetensors '
            f'file.'
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get('state_dict'), Mapping):
        content = content['state_dict']
    if not isinstance(content, Mapping):
        content = {}
    tensors = _flat(content)
    if not tensors:
        raise ValueError(
            f'weights {weights!r} is no checkpoint: it holds no tensors by name.'
        )
    return _bare(tensors)


def bands_of(tensors: Mapping[str, Tensor]) -> list[str]:
    """List the bands of an encoder's tensors, in their order."""
    return [k.removeprefix(_SPECTRAL) for k in tensors if k.startswith(_SPECTRAL)]


def _tensors_of(path: str) -> dict[str, Tensor]:
    """Read a ``.safetensors`` file; an export is checked, and its hashes left out."""
    header, tensors = read_file(path)
    if header is None:
        return _in_band_order(tensors)
    return {k: v for k, v in tensors.items() if not k.startswith('patches.')}


def _flat(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors, also those that stand in a mapping of a module's own."""
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str):
            continue
        inner = value.items() if isinstance(value, Mapping) else ()
        tensors |= {f'{key}.{name}': t for name, t in inner if torch.is_tensor(t)}
        if torch.is_tensor(value):
            tensors[key] = value
    return tensors


def _bare(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip the prefix that a task put before its encoder."""
    for prefix in ('model.', 'backbone.'):
        if any(key.startswith(prefix) for key in state_dict):
            return {key.removeprefix(prefix): v for key, v in state_dict.items()}
    return dict(state_dict)


def _in_band_order(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put bands as their sensor has them: a ``.safetensors`` file sorts by name."""

    def position(name: str) -> int:
        band = name.rpartition('.')[2]
        return _ORDER.index(band) if _SPECTRAL in name and band in _ORDER else -1

    return {name: tensors[name] for name in sorted(tensors, key=position)}


def load_encoder(
    model: ChannelViT, state_dict: Mapping[str, Tensor], policy: FreshBands = 'sample'
) -> LoadReport:
    """Load pretrained tensors into an encoder, bands by name, in place.

    The head is never loaded. Positions are resampled if the grids differ.

    Args:
        model: The encoder.
        state_dict: Tensors by name, as :func:`read_weights` returns them.
        policy: How bands start that the weights do not know.

    Returns:
        What was done.

    Raises:
        ValueError: If fewer than half of the encoder's tensors find their counterpart,
            or the policy is unknown.
    """
    own = {k: v for k, v in model.state_dict().items() if not k.startswith(_HEAD)}
    values: dict[str, Tensor] = {}
    resampled: list[str] = []
    fresh: dict[str, str] = {}
    for name, tensor in own.items():
        stored = state_dict.get(name)
        if name.startswith(_SPECTRAL):
            if stored is not None and stored.shape == tensor.shape:
                values[name] = stored
        elif stored is None:
            fresh[name] = 'not in the weights'
        elif stored.shape == tensor.shape:
            values[name] = stored
        elif name == 'pos_embed' and _is_square_grid(stored, tensor.shape[2]):
            grid = list(model.patch_embed.grid_size)
            values[name] = resample_abs_pos_embed(stored, grid, num_prefix_tokens=0)
            resampled.append(name)
        else:
            fresh[name] = f'{_shape(stored)} in the weights, {_shape(tensor)} here'
    expected = [name for name in own if not name.startswith(_SPECTRAL)]
    matched = [name for name in expected if name in values]
    if 2 * len(matched) < len(expected):
        raise ValueError(
            f'The weights match {len(matched)} of the {len(expected)} tensors of the '
            f'model: they are of another model. {_first_difference(fresh)}'
        )
    used = set(values)
    fresh_bands = {}
    rows = {
        key.removeprefix(_SPECTRAL): value
        for key, value in state_dict.items()
        if key.startswith(_SPECTRAL) and value.shape == (model.embed_dim,)
    }
    for position, band in enumerate(model.bands):
        if _SPECTRAL + band not in values:
            row, how = _start_band(band, position, rows, model, policy)
            values[_SPECTRAL + band] = row
            fresh_bands[band] = how
    model.load_state_dict(values, strict=False)
    return LoadReport(
        loaded=tuple(name for name in own if name in used and name not in resampled),
        resampled=tuple(resampled),
        kept_bands=tuple(band for band in model.bands if band not in fresh_bands),
        fresh_bands=fresh_bands,
        fresh=fresh,
        left_over=tuple(name for name in state_dict if name not in used),
    )


def load_decoder(
    decoder: ChannelMAEDecoder, state_dict: Mapping[str, Tensor]
) -> LoadReport | None:
    """Load a pretraining's decoder, bands by name, in place.

    Args:
        decoder: The decoder.
        state_dict: Tensors by name, a decoder's under ``decoder.``.

    Returns:
        What was done; None where the weights have no decoder, or one of another width
        or depth, and it starts afresh.
    """
    own = decoder.state_dict()
    stored = {
        name.removeprefix('decoder.'): value
        for name, value in state_dict.items()
        if name.startswith('decoder.')
    }
    values: dict[str, Tensor] = {}
    resampled: list[str] = []
    for name, tensor in own.items():
        found = stored.get(name)
        if found is None:
            continue
        if found.shape == tensor.shape:
            values[name] = found
        elif name == 'pos_embed' and _is_square_grid(found, tensor.shape[2]):
            grid = list(decoder.grid_size)
            values[name] = resample_abs_pos_embed(found, grid, num_prefix_tokens=0)
            resampled.append(name)
    bands = [name for name in own if name.startswith(_SPECTRAL)]
    if any(name not in values for name in own if name not in bands):
        return None
    decoder.load_state_dict(values, strict=False)
    kept = [name for name in bands if name in values]
    fresh = [name.removeprefix(_SPECTRAL) for name in bands if name not in values]
    return LoadReport(
        loaded=tuple(name for name in values if name not in resampled),
        resampled=tuple(resampled),
        kept_bands=tuple(name.removeprefix(_SPECTRAL) for name in kept),
        fresh_bands=dict.fromkeys(fresh, 'random'),
        fresh={},
        left_over=tuple(name for name in stored if name not in values),
    )


def _is_square_grid(positions: Tensor, dim: int) -> bool:
    """Whether these are (1, L, D) positions of a square grid, so that L tells it."""
    return (
        positions.ndim == 3
        and positions.shape[2] == dim
        and math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]
    )


def _shape(tensor: Tensor) -> str:
    return 'x'.join(map(str, tensor.shape))


def _first_difference(fresh: Mapping[str, str]) -> str:
    name, why = next(iter(fresh.items()))
    return f'The first difference is {name} ({why}).'


def _start_band(
    band: str,
    position: int,
    rows: Mapping[str, Tensor],
    model: ChannelViT,
    policy: FreshBands,
) -> tuple[Tensor, str]:
    """Start the embedding of a band that the weights do not know.

    Returns:
        The (D,) embedding and how it came about, in words.

    Raises:
        ValueError: If the policy is unknown.
    """
    if policy not in ('sample', 'index', 'nearest', 'random'):
        raise ValueError(
            f"fresh_bands {policy!r} is not known: choose 'sample', 'index', 'nearest' "
            f"or 'random'."
        )
    dim, small = model.embed_dim, model.embed_std
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
