"""How a model's images were normalized, as stored in its checkpoints."""

from collections.abc import Mapping
from typing import Any

KEY = 'channelmae_normalization'
"""Key of :func:`normalization_of` in a checkpoint."""


def normalization_of(facts: Any) -> dict[str, Any] | None:
    """Return how images are normalized; None if unknown.

    The :class:`~torchgeo_channelmae.facts.DataFacts` give ``bands``, ``mean`` and
    ``std``, lists with one entry per band, in physical units, and ``clip_pixels``.
    """
    if facts is None:
        return None
    values = {name: getattr(facts, name).double().tolist() for name in ('mean', 'std')}
    return {'bands': list(facts.bands), **values, 'clip_pixels': facts.clip_pixels}


def from_checkpoint(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the normalization in the content of a checkpoint; None if it has none."""
    return checkpoint.get(KEY)


def difference(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> str:
    """Describe what is normalized notably differently; '' if nothing is.

    Compares two results of :func:`normalization_of`. A difference is notable if the
    means of a band are more than half a standard deviation apart, one standard
    deviation is more than 1.5 times the other, or ``clip_pixels`` is another.
    """
    if one is None or other is None:
        return ''
    there, here = (
        dict(
            zip(each['bands'], zip(each['mean'], each['std'], strict=True), strict=True)
        )
        for each in (one, other)
    )
    found = []
    for band in sorted(there.keys() & here.keys()):
        (m0, s0), (m1, s1) = there[band], here[band]
        if abs(m0 - m1) > 0.5 * min(s0, s1) or max(s0, s1) > 1.5 * min(s0, s1):
            found.append(f'{band} {m0:g} ± {s0:g} there, {m1:g} ± {s1:g} here')
    limits = [each.get('clip_pixels') for each in (one, other)]
    if limits[0] != limits[1]:
        found.append('clip_pixels {} there, {} here'.format(*limits))
    return '; '.join(found)
