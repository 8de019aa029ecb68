"""How a model's images were normalised, as stored in its checkpoints."""

from collections.abc import Mapping
from typing import Any

import torch

KEY = 'channelmae_normalization'
"""Key of :func:`normalization_of` in a checkpoint."""

_FIELDS = ('bands', 'mean', 'std')


def normalization_of(datamodule: object) -> dict[str, Any] | None:
    """Return how a datamodule normalises.

    Args:
        datamodule: One of this package, or of TorchGeo with ``bands``, ``mean`` and
            ``std``.

    Returns:
        ``bands``, ``mean`` and ``std``, lists with one entry per band, in physical
        units; None where unknown.
    """
    source = getattr(datamodule, 'facts', None) or datamodule  # as facts.data_facts
    bands, mean, std = (getattr(source, name, None) for name in _FIELDS)
    if not (torch.is_tensor(mean) and torch.is_tensor(std)):
        return None
    values = [value.double().flatten().tolist() for value in (mean, std)]
    if not isinstance(bands, list | tuple) or {*map(len, values)} != {len(bands)}:
        return None
    return {'bands': [str(b) for b in bands], 'mean': values[0], 'std': values[1]}


def from_checkpoint(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the normalisation stored in the content of a checkpoint, None if none."""
    found = checkpoint.get(KEY)
    if not isinstance(found, dict):
        return None
    values = [found.get(name) for name in _FIELDS]
    lengths = {len(value) if isinstance(value, list) else None for value in values}
    return found if len(lengths) == 1 and None not in lengths else None


def difference(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> str:
    """Describe the bands that are normalised notably differently.

    Notable is a mean that is half a standard deviation away, or a standard deviation
    half as large again.

    Args:
        one: As :func:`normalization_of` returns it.
        other: Another.

    Returns:
        Band names with both means and standard deviations; '' if there are none.
    """
    if one is None or other is None:
        return ''
    there, here = (
        {b: (m, s) for b, m, s in zip(*map(each.__getitem__, _FIELDS), strict=True)}
        for each in (one, other)
    )
    found = []
    for band in sorted(there.keys() & here.keys()):
        (m0, s0), (m1, s1) = there[band], here[band]
        if abs(m0 - m1) > 0.5 * min(s0, s1) or max(s0, s1) > 1.5 * min(s0, s1):
            found.append(f'{band} {m0:g} ± {s0:g} there, {m1:g} ± {s1:g} here')
    return '; '.join(found)
