"""What a load of weights did, told in one line: nothing is dropped in silence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


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
