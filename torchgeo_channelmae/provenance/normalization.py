"""How a model's images were normalised, as its checkpoints note it."""

from collections.abc import Mapping
from typing import Any

import torch

from ..models.exported import read_checkpoint, read_header
from ..models.tags import path_of

KEY = 'channelmae_normalization'
"""Where a checkpoint has :func:`normalization_of`."""


def normalization_of(datamodule: object) -> dict[str, Any] | None:
    """Return how a datamodule normalises.

    Args:
        datamodule: Any; those of this package and many of TorchGeo tell.

    Returns:
        ``bands``, ``mean`` and ``std``, plain lists of one entry a band, in physical
        units; None where it does not tell.
    """
    bands = getattr(datamodule, 'bands', None)
    values = [getattr(datamodule, name, None) for name in ('mean', 'std')]
    if not isinstance(bands, list | tuple) or not all(map(torch.is_tensor, values)):
        return None
    mean, std = (value.double().flatten().tolist() for value in values)  # type: ignore[union-attr]
    if not len(mean) == len(std) == len(bands):
        return None
    return {'bands': [str(band) for band in bands], 'mean': mean, 'std': std}


def read_normalization(weights: object) -> dict[str, Any] | None:
    """Return how the images of pretrained weights were normalised.

    Args:
        weights: Path of a checkpoint or export that can be read, or anything else.

    Returns:
        As :func:`normalization_of`; None where it is not told.
    """
    path = path_of(weights)
    if path is None:
        return None
    if path.endswith('.safetensors'):
        header = read_header(path)
        return None if header is None else header['normalization']
    return noted(read_checkpoint(path))


def noted(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how the images of a checkpoint were normalised, as it notes that.

    Args:
        checkpoint: Its content.

    Returns:
        As :func:`normalization_of`; None where it is not told, or in another form.
    """
    found = checkpoint.get(KEY)
    if not isinstance(found, dict):
        return None
    values = [found.get(name) for name in ('bands', 'mean', 'std')]
    lengths = {len(value) if isinstance(value, list) else None for value in values}
    return found if len(lengths) == 1 and None not in lengths else None


def difference(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> str:
    """Say which bands are normalised notably differently, '' where none is known to be.

    Notable is a mean that is half a standard deviation away, or a standard deviation
    half as large again.

    Args:
        one: As :func:`normalization_of` returns it.
        other: Another.

    Returns:
        Band names with both means and standard deviations.
    """
    if one is None or other is None:
        return ''
    rows = [
        {
            band: (each['mean'][number], each['std'][number])
            for number, band in enumerate(each['bands'])
        }
        for each in (one, other)
    ]
    told = []
    for band in rows[0].keys() & rows[1].keys():
        (m0, s0), (m1, s1) = rows[0][band], rows[1][band]
        if abs(m0 - m1) > 0.5 * min(s0, s1) or max(s0, s1) > 1.5 * min(s0, s1):
            told.append(f'{band} {m0:g} ± {s0:g} there, {m1:g} ± {s1:g} here')
    return '; '.join(sorted(told))
