"""The file of an export: tensors with a header that says what they are.

A ``.safetensors`` file with one entry of metadata, JSON with sorted keys, so that equal
content is an equal file byte for byte. Tensors are named as in a checkpoint: ``model.``
and, where it is there, ``decoder.``; and ``patches.N`` are hashes of the patches that
trainings read. Nothing in such a file is ever run.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

KEY = 'torchgeo_channelmae'
"""Name of the entry of metadata."""

VERSION = 1

_FIELDS = {
    'version',
    'model',
    'bands',
    'patch_size',
    'size',
    'embed_dim',
    'embed_std',
    'normalization',
    'decoder',
    'provenance',
    'versions',
    'hash',
}


def content_hash(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Hash what a file holds: header, names, types, shapes and values.

    Args:
        header: The header; its own ``hash`` is left out.
        tensors: Tensors by name.

    Returns:
        BLAKE2b, 32 hexadecimal digits.
    """
    told = {name: value for name, value in header.items() if name != 'hash'}
    digest = hashlib.blake2b(_json(told).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_file(
    path: str | os.PathLike[str],
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> None:
    """Write an export, whole or not at all.

    Args:
        path: Where to; what is there is replaced.
        header: The header without its ``hash``.
        tensors: Tensors by name.
    """
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    told = {**header, 'hash': content_hash(header, whole)}
    partial = f'{os.fspath(path)}.partial'
    save_file(whole, partial, metadata={KEY: _json(told)})
    os.replace(partial, path)


def read_header(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read the header of an export.

    Args:
        path: A ``.safetensors`` file.

    Returns:
        The header, None where the file is of something else.

    Raises:
        ValueError: If the file is no safetensors file, is cut off, or has a header of
            another version or none that can be.
    """
    try:
        with safe_open(path, framework='pt') as file:
            text = (file.metadata() or {}).get(KEY)
    except SafetensorError as error:
        raise ValueError(
            f'{os.fspath(path)!r} is no checkpoint that can be read: it is no whole '
            f'.safetensors file ({error}); copy or '
            f'export it again.'
        ) from error
    if text is None:
        return None
    try:
        header = json.loads(text)
    except json.JSONDecodeError:
        header = None
    if not isinstance(header, dict) or not set(header) >= _FIELDS:
        raise ValueError(
            f'The header of {os.fspath(path)!r} is not as an export has it: it was '
            f'changed; export it again.'
        )
    if header['version'] != VERSION:
        raise ValueError(
            f'{os.fspath(path)!r} is an export of version {header["version"]}, but '
            f'this package reads version {VERSION}: install a newer one.'
        )
    return header


def read_checkpoint(path: str) -> Mapping[str, Any]:
    """Open a checkpoint to read what it notes beside its tensors.

    Args:
        path: The file.

    Returns:
        Its content, with tensors that are read when they are looked at; nothing where
        the file is no checkpoint. No code in it is run.
    """
    if not zipfile.is_zipfile(path):
        return {}
    content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    return content if isinstance(content, Mapping) else {}


def read_file(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """Read a ``.safetensors`` file and, where it is an export, check it.

    Args:
        path: The file.

    Returns:
        The header, None where the file is of something else, and all tensors by name;
        those of an export with bands in the header's order.

    Raises:
        ValueError: If it is cut off, or not as it was when it was exported.
    """
    header = read_header(path)
    with safe_open(path, framework='pt') as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if header is None:
        return None, tensors
    if content_hash(header, tensors) != header['hash']:
        raise ValueError(
            f'{os.fspath(path)!r} is not as it was exported, as its content does not '
            f'fit the hash in its header: copy or export it again.'
        )
    order = {name: number for number, name in enumerate(header['bands'])}

    def position(name: str) -> int:
        band = name.rpartition('.')[2]
        return order.get(band, -1) if 'spectral_embed.' in name else -1

    return header, {name: tensors[name] for name in sorted(tensors, key=position)}


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(',', ':'), ensure_ascii=False)
