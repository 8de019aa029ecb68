"""Read pretrained weights with their metadata, and write exports.

A ``.safetensors`` export has one entry of metadata, JSON with sorted keys, so that
equal content is an equal file. Its tensors are named as in a checkpoint: ``model.`` and
``decoder.``; ``patches.N`` are hashes of the patches that trainings read.
"""

import hashlib
import json
import os
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torchgeo.models import get_weight
from torchvision.models import WeightsEnum

from .. import sensors
from ..provenance import normalization as normalizations
from ..provenance import record as records
from ..provenance.published import seen_by
from ..provenance.record import UNKNOWN, DataRecord, Provenance, Training
from .tokens import SPECTRAL

KEY = 'torchgeo_channelmae'
"""Name of the entry of metadata of an export."""

VERSION = 1
"""Version of an export's header."""

_ORDER = sensors.names(sensors.SENTINEL2_L1C + sensors.SENTINEL1_GRD)


@dataclass(frozen=True)
class Checkpoint:
    """Pretrained weights with their metadata.

    Attributes:
        tensors: Tensors by name. An encoder under ``model.`` or ``backbone.`` has lost
            that prefix, a decoder is under ``decoder.``.
        provenance: What the trainings behind the weights read.
        normalization: ``bands``, ``mean`` and ``std`` of the images of the last
            training; None where unknown.
        hyper_parameters: Those of the task, such as ``model``; empty where unknown. Of
            an export, its header and the decoder's.
    """

    tensors: dict[str, Tensor]
    provenance: Provenance = UNKNOWN
    normalization: dict[str, Any] | None = None
    hyper_parameters: Mapping[str, Any] = field(default_factory=dict)


def read_checkpoint(weights: WeightsEnum | str | os.PathLike[str]) -> Checkpoint:
    """Read pretrained weights once.

    Prefixes of DDP and ``torch.compile`` are removed. No code in a file is run.

    Args:
        weights: Path of a Lightning checkpoint, an export or another file of tensors,
            a weights enum of TorchGeo, or the name of one.

    Raises:
        FileNotFoundError: If `weights` is neither a file nor the name of an enum.
        ValueError: If the file holds no tensors by name, is damaged, or is an export
            that was changed.
    """
    if not isinstance(weights, WeightsEnum) and not os.path.exists(weights):
        try:
            weights = get_weight(os.fspath(weights))
        except (KeyError, ValueError):
            raise FileNotFoundError(
                f'weights {os.fspath(weights)!r} is neither a file nor the name of '
                f'published weights. Run the pretraining that writes it, or give '
                f'another checkpoint, or null to start from scratch.'
            ) from None
    if isinstance(weights, WeightsEnum):
        options = {'progress': True, 'check_hash': True, 'weights_only': True}
        tensors = _without_prefix(_flat(weights.get_state_dict(**options)))
        return Checkpoint(tensors, published_provenance(weights))
    path = os.fspath(weights)
    try:
        if path.endswith('.safetensors'):
            return _read_safetensors(path)
        content = torch.load(path, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError) as error:
        raise ValueError(
            f'Cannot read weights {path!r}: the file is truncated, or holds more than '
            f'tensors and plain values. Give a .ckpt or .safetensors file.'
        ) from error
    content = _mapping(content)
    tensors = _flat(_mapping(content.get('state_dict')) or content)
    if not tensors:
        raise ValueError(f'weights {path!r} holds no tensors by name.')
    return Checkpoint(
        _without_prefix(tensors),
        records.from_state(content.get(records.KEY)),
        normalizations.from_checkpoint(content),
        _mapping(content.get('hyper_parameters')),
    )


def bands_of(tensors: Iterable[str]) -> list[str]:
    """Return the bands of an encoder's or decoder's tensors, in their order."""
    return [k.removeprefix(SPECTRAL) for k in tensors if k.startswith(SPECTRAL)]


def published_provenance(weights: WeightsEnum) -> Provenance:
    """Return the provenance of published weights; unknown if they are not listed."""
    seen = seen_by(weights)
    if seen is None:
        return UNKNOWN
    record = DataRecord(
        seen.dataset, seen.bands, seen.sensors, None, None, seen.labels_steered
    )
    return Provenance(inherited=(Training(record, seen.supervised),))


def save_export(
    path: Path,
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    provenance: Provenance,
) -> dict[str, Any]:
    """Write a ``.safetensors`` export and return its whole header.

    Args:
        path: The file.
        header: Description of the model, without ``version`` and ``provenance``.
        tensors: Tensors by name.
        provenance: What the trainings behind them read.
    """
    stored = {name: tensor.contiguous() for name, tensor in tensors.items()}
    state = provenance.state()  # in which equal tensors are one
    names: dict[int, str] = {}
    for record in _records_with_patches(state):
        patches = record['patches']
        record['patches'] = names.setdefault(id(patches), f'patches.{len(names)}')
        stored[record['patches']] = patches
    whole = {**header, 'version': VERSION, 'provenance': state}
    whole['hash'] = _content_hash(whole, stored)
    save_file(stored, path, metadata={KEY: _to_json(whole)})
    return whole


def _records_with_patches(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    records = [training['record'] for training in state['inherited'] + state['own']]
    return [each for each in records if each and each['patches'] is not None]


def _to_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(',', ':'), ensure_ascii=False)


def _content_hash(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the BLAKE2b of a header without its hash, and of names and tensors."""
    text = _to_json({name: value for name, value in header.items() if name != 'hash'})
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_safetensors(path: str) -> Checkpoint:
    """Read a ``.safetensors`` file and, if it is an export, check it."""
    with safe_open(path, framework='pt') as file:
        text = (file.metadata() or {}).get(KEY)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if text is None:
        return Checkpoint(_without_prefix(_sorted_bands(tensors, _ORDER)))
    header = json.loads(text)
    if header.get('version') != VERSION:
        raise ValueError(
            f'weights {path!r} is an export of version {header.get("version")}, but '
            f'this package reads version {VERSION}. Install a newer package.'
        )
    if _content_hash(header, tensors) != header.get('hash'):
        raise ValueError(
            f'weights {path!r} was changed: its content does not fit the hash in its '
            f'header. Copy or export it again.'
        )
    provenance = header['provenance'] or UNKNOWN.state()
    for record in _records_with_patches(provenance):
        record['patches'] = tensors[record['patches']]
    own = {k: v for k, v in tensors.items() if not k.startswith('patches.')}
    return Checkpoint(
        _without_prefix(_sorted_bands(own, header['bands'])),
        records.from_state(provenance),
        header['normalization'],
        header | (header['decoder'] or {}),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _flat(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors, also those in mappings, without prefixes of wrappers."""
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        inner = _mapping(value).items()
        found = {f'{key}.{k}': v for k, v in inner} | {key: value}
        tensors |= {str(k): v for k, v in found.items() if torch.is_tensor(v)}
    if all(key.startswith('module.') for key in tensors):  # of DDP
        tensors = {k.removeprefix('module.'): v for k, v in tensors.items()}
    return {k.replace('_orig_mod.', ''): v for k, v in tensors.items()}  # of compile


def _without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip the prefix of the encoder inside its task."""
    for prefix in ('model.', 'backbone.'):
        if any(key.startswith(prefix) for key in tensors):
            return {key.removeprefix(prefix): v for key, v in tensors.items()}
    return dict(tensors)


def _sorted_bands(
    tensors: Mapping[str, Tensor], order: Sequence[str]
) -> dict[str, Tensor]:
    """Put bands in their order: a ``.safetensors`` file sorts by name."""

    def position(name: str) -> int:
        band = name.rpartition('.')[2]
        return order.index(band) if SPECTRAL in name and band in order else -1

    return {name: tensors[name] for name in sorted(tensors, key=position)}
