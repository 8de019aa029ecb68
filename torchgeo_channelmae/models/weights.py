"""Pretrained weights from files into an encoder that may have other bands.

Nothing is dropped in silence: a load returns a report of what arrived, what was
resampled, what started fresh and how, and what was left over.
"""

import os
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchgeo.models import get_weight
from torchvision.models import WeightsEnum

from .. import sensors
from .channelvit import ChannelViT
from .decoder import ChannelMAEDecoder
from .exported import read_file
from .fresh import FreshBands, check_policy, start_band
from .positions import resample_positions
from .report import LoadReport
from .tags import ChannelMAE_Weights, file_of

_SPECTRAL = 'spectral_embed.'
_HEAD = ('head.',)
_ORDER = sensors.names(sensors.SENTINEL2_L1C + sensors.SENTINEL1_GRD)


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
    model: ChannelViT,
    state_dict: Mapping[str, Tensor],
    policy: FreshBands = 'sample',
    *,
    takes_grid: bool = False,
) -> LoadReport:
    """Load pretrained tensors into an encoder, bands by name, in place.

    The head is never loaded.

    Args:
        model: The encoder.
        state_dict: Tensors by name, as :func:`read_weights` returns them.
        policy: How bands start that the weights do not know.
        takes_grid: Where the grids differ, whether the encoder takes over that of the
            weights, with its image size, and resamples to each input from there.
            Otherwise the positions are resampled once, to the encoder's own.

    Returns:
        What was done.

    Raises:
        ValueError: If fewer than half of the encoder's tensors find their counterpart,
            or the policy is unknown. The encoder is as it was then.
    """
    check_policy(policy)
    grid = model.patch_embed.grid_size
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
        elif (
            name == 'pos_embed'
            and (moved := resample_positions(stored, model.embed_dim, grid)) is not None
        ):
            values[name] = stored if takes_grid else moved
            if not takes_grid:
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
            row, how = start_band(
                band, position, rows, model.embed_dim, model.embed_std, policy
            )
            values[_SPECTRAL + band] = row
            fresh_bands[band] = how
    model.load_state_dict(values, strict=False)  # which takes the grid of positions
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
        elif (
            name == 'pos_embed'
            and (moved := resample_positions(found, tensor.shape[2], decoder.grid_size))
            is not None
        ):
            values[name] = moved
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


def _shape(tensor: Tensor) -> str:
    return 'x'.join(map(str, tensor.shape))


def _first_difference(fresh: Mapping[str, str]) -> str:
    name, why = next(iter(fresh.items()))
    return f'The first difference is {name} ({why}).'
