"""How a model's images were normalized, as stored in its checkpoints."""

from collections.abc import Mapping
from typing import Any

KEY = 'channelmae_normalization'
"""Key of :func:`normalization_of` in a checkpoint."""


def normalization_of(facts: Any) -> dict[str, list[Any]] | None:
    """Return how images are normalized; None if unknown.

    The :class:`~torchgeo_channelmae.facts.DataFacts` give ``bands``, ``mean`` and
    ``std``, lists with one entry per band, in physical units.
    """
    if facts is None:
        return None
    values = {name: getattr(facts, name).double().tolist() for name in ('mean', 'std')}
    return {'bands': list(facts.bands), **values}


def from_checkpoint(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the normalization in the content of a checkpoint; None if it has none."""
    return checkpoint.get(KEY)


def difference(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> str:
    """Describe the bands that are normalized notably differently; '' if there are none.

    Compares two results of :func:`normalization_of`. A difference is notable if the
    means are more than half a standard deviation apart, or one standard deviation is
    more than 1.5 times the other.
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
    return '; '.join(found)
