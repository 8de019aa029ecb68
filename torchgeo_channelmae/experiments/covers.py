"""What lies on the ground: how the covers of the synthetic Earth look to both sensors.

A class of BigEarthNet is a mixture of covers (a pasture has grass, hedges and trees),
and classes share covers, so that a pixel does not give its class away. The numbers are
round ones, in the range that spectral libraries and radar textbooks give for European
land. They describe no place, and were set before any model was trained on them.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# reflectance in per cent: B01, B02, B03, B04, B05, B06, B07, B08, B8A, B09, B11, B12
_SUMMER = {
    'broad-leaved trees': (1.9, 2.2, 4.3, 2.3, 7.4, 23.5, 29.5, 31.5, 33, 33.5, 16, 7),
    'conifers': (1.5, 1.7, 2.8, 1.9, 4.8, 12.5, 15.5, 16.5, 17.5, 18, 7.8, 3.6),
    'young trees': (2.6, 3.1, 5.4, 4.3, 9.4, 18.5, 22, 24, 25.5, 26, 18, 9.5),
    'grass': (2.8, 3.4, 7, 4.4, 11.5, 29, 35.5, 38, 39, 39.5, 22, 11),
    'dry grass': (4.4, 5.5, 8.4, 9.6, 14, 19, 22, 24, 26, 26.5, 29, 18.5),
    'heather': (2.7, 3.1, 4.8, 5.2, 8.6, 14, 16.5, 18, 19.5, 20, 17.5, 10.5),
    'green crop': (2.6, 3.1, 6.4, 3.4, 10.5, 33, 41, 43.5, 45, 45.5, 20.5, 9.5),
    'ripe crop': (5, 6.6, 10.2, 12.4, 17, 22, 25, 27, 29, 29.5, 31.5, 21),
    'bare soil': (5, 6.4, 9, 11.6, 14, 16, 17.5, 19, 20.5, 20.5, 26, 21.5),
    'orchard': (3.6, 4.4, 7, 7.4, 12, 19.5, 23, 25, 26.5, 27, 24.5, 15.5),
    'rock': (7.4, 9.2, 12, 13.8, 16, 17.5, 19, 20.5, 21.5, 21.5, 25, 21),
    'sand': (9.5, 12.5, 16.5, 19.5, 21.5, 23.5, 25.5, 27, 28.5, 29, 34, 30),
    'bog': (2.9, 3.6, 5.6, 6.6, 9.4, 12.5, 14.5, 15.5, 17, 17, 15.5, 8.6),
    'reed': (3, 3.6, 6, 5.6, 9.6, 17.5, 20.5, 22, 23.5, 23, 14.5, 7.4),
    'salt marsh': (3.8, 4.6, 6.8, 6.6, 9.8, 15, 17, 18, 18.5, 18.5, 13, 7.4),
    'mud': (6, 7, 8.8, 9.4, 10, 10.2, 10.4, 10.4, 10.4, 10, 7, 4.8),
    'fresh water': (2.7, 2.9, 3.4, 2.2, 2, 1.4, 1.3, 1.2, 1, 0.9, 0.6, 0.4),
    'sea': (3.1, 2.8, 2, 1.1, 1, 0.9, 0.9, 0.8, 0.8, 0.8, 0.6, 0.4),
    'bright roof': (11, 13.5, 15.5, 17, 18.5, 20, 21, 22.5, 23, 23, 26, 23),
    'tiled roof': (6.4, 7.6, 9.6, 12.4, 14.5, 16, 17, 18.5, 19.5, 19.5, 24, 21),
    'asphalt': (7.8, 9.2, 10.6, 11.4, 12.2, 13, 13.6, 14.2, 14.8, 15, 16.5, 14.5),
    'garden': (3.4, 4.2, 6.8, 5.6, 10.6, 23, 27.5, 29.5, 31, 31.5, 20.5, 11),
}
_BARE_TREES = (2.8, 3.4, 4.8, 5.2, 7.5, 11, 12.5, 13.5, 15, 15.5, 14, 8)
_WINTER_GRASS = (3.5, 4.2, 6.8, 6.2, 11, 19, 22, 24, 25, 25.5, 20, 12)
_DEAD_GRASS = (4.5, 5.6, 8, 9.5, 13, 16.5, 18.5, 20, 22, 22.5, 25, 17)
_WINTER = {  # where the season makes a difference
    'broad-leaved trees': _BARE_TREES,
    'young trees': _BARE_TREES,
    'grass': _WINTER_GRASS,
    'dry grass': _WINTER_GRASS,
    'orchard': (4.2, 5.2, 7.6, 9.2, 12.5, 16, 18, 19.5, 21, 21.5, 24.5, 17.5),
    'reed': _DEAD_GRASS,
    'salt marsh': _DEAD_GRASS,
    'garden': _WINTER_GRASS,
}


class Traits(NamedTuple):
    """What else tells covers apart.

    Attributes:
        vv: Backscatter in VV, dB.
        vh: Backscatter in VH, dB.
        uneven: Standard deviation of backscatter from parcel to parcel, dB.
        rough: Standard deviation of log reflectance from pixel to pixel (crowns).
        patchy: Standard deviation of log reflectance from parcel to parcel.
        snow: Share of it that a snowfall hides.
    """

    vv: float
    vh: float
    uneven: float
    rough: float
    patchy: float
    snow: float


_TRAITS = {
    'broad-leaved trees': Traits(-9.6, -15, 0.4, 0.17, 0.05, 0.25),
    'conifers': Traits(-10.4, -15.9, 0.5, 0.19, 0.06, 0.25),
    'young trees': Traits(-11.2, -17.2, 0.6, 0.16, 0.07, 0.5),
    'grass': Traits(-12.8, -19.6, 0.9, 0.04, 0.12, 0.95),
    'dry grass': Traits(-13.4, -20.6, 0.9, 0.06, 0.12, 0.95),
    'heather': Traits(-12.2, -18.8, 0.7, 0.12, 0.06, 0.85),
    'green crop': Traits(-11.6, -17.6, 1.3, 0.03, 0.16, 1),
    'ripe crop': Traits(-12.6, -18.9, 1.2, 0.03, 0.15, 1),
    'bare soil': Traits(-12.2, -21.2, 1.6, 0.04, 0.2, 1),
    'orchard': Traits(-10.8, -17.2, 0.8, 0.08, 0.12, 0.8),
    'rock': Traits(-10.2, -18.4, 0.8, 0.16, 0.08, 0.8),
    'sand': Traits(-16, -24.6, 0.8, 0.07, 0.08, 0.9),
    'bog': Traits(-12, -18.8, 0.7, 0.1, 0.06, 0.95),
    'reed': Traits(-10.8, -17.8, 0.8, 0.1, 0.08, 0.8),
    'salt marsh': Traits(-12.6, -20.4, 0.8, 0.08, 0.06, 0.9),
    'mud': Traits(-15.4, -24, 0.8, 0.05, 0.06, 0.6),
    'fresh water': Traits(-21, -28.6, 0, 0.03, 0, 0),
    'sea': Traits(-19.6, -28.4, 0, 0.04, 0, 0),
    'bright roof': Traits(-3.4, -12, 3.2, 0.12, 0.35, 0.7),
    'tiled roof': Traits(-5.2, -12.2, 2.8, 0.14, 0.2, 0.7),
    'asphalt': Traits(-13.2, -21, 1.2, 0.08, 0.1, 0.6),
    'garden': Traits(-9.8, -16.2, 1.2, 0.16, 0.1, 0.7),
}

COVERS = tuple(_SUMMER)
"""Names of the covers."""

NUMBER = {name: number for number, name in enumerate(COVERS)}
"""Name of a cover: its number in maps."""

TRAITS: dict[str, Floats] = {
    trait: np.array([getattr(_TRAITS[name], trait) for name in COVERS], np.float32)
    for trait in Traits._fields
}
"""Name of a trait: its values, (covers,)."""

_Mixture = dict[str, float]

# number of a class: (what its covers follow, the covers and their shares); urban fabric
# and industry are built by hand
_RECIPES: dict[int, tuple[str, _Mixture]] = {
    0: ('pixel', {'garden': 0.8, 'grass': 0.2}),
    1: ('pixel', {'asphalt': 0.8, 'grass': 0.2}),
    2: ('parcel', {'crops': 0.92, 'grass': 0.08}),
    3: ('parcel', {'orchard': 0.8, 'bare soil': 0.1, 'dry grass': 0.1}),
    4: ('parcel', {'grass': 0.82, 'dry grass': 0.18}),
    5: ('plot', {'crops': 0.45, 'grass': 0.25, 'orchard': 0.2, 'garden': 0.1}),
    6: (
        'plot',
        {
            'crops': 0.3,
            'grass': 0.25,
            'dry grass': 0.1,
            'young trees': 0.2,
            'broad-leaved trees': 0.15,
        },
    ),
    7: ('parcel', {'dry grass': 0.55, 'grass': 0.25, 'ripe crop': 0.2}),
    8: ('wild', {'broad-leaved trees': 0.93, 'young trees': 0.05, 'grass': 0.02}),
    9: ('wild', {'young trees': 0.07, 'conifers': 0.93}),
    10: ('wild', {'broad-leaved trees': 0.45, 'young trees': 0.06, 'conifers': 0.49}),
    11: ('wild', {'rock': 0.25, 'dry grass': 0.5, 'grass': 0.25}),
    12: ('wild', {'young trees': 0.12, 'heather': 0.75, 'dry grass': 0.13}),
    13: (
        'wild',
        {
            'conifers': 0.12,
            'young trees': 0.55,
            'dry grass': 0.1,
            'grass': 0.08,
            'broad-leaved trees': 0.15,
        },
    ),
    14: ('wild', {'sand': 0.96, 'dry grass': 0.04}),
    15: (
        'channels',
        {'fresh water': 0.1, 'reed': 0.22, 'bog': 0.6, 'young trees': 0.08},
    ),
    16: ('channels', {'sea': 0.12, 'mud': 0.25, 'salt marsh': 0.6, 'grass': 0.03}),
    17: ('pixel', {'fresh water': 1.0}),
    18: ('pixel', {'sea': 1.0}),
}
FOLLOWS = {column: recipe[0] for column, recipe in _RECIPES.items()}
"""Number of a class: what its covers change with."""


def leaves(day: int) -> float:
    """Return how much of the leaves are out on a day of the year, 0 to 1 (north)."""
    out, fall = 1 / (1 + np.exp((118 - day) / 9)), 1 / (1 + np.exp((day - 292) / 10))
    return float(out * fall)


def crops(day: int) -> _Mixture:
    """Return what is on fields on a day of the year: shares with sum 1."""
    ripe = 0.6 * float(np.exp(-(((day - 208) / 34) ** 2)))
    bare = 0.28 + 0.22 * float(np.cos(2 * np.pi * (day - 285) / 365))
    return {'green crop': 1 - ripe - bare, 'ripe crop': ripe, 'bare soil': bare}


def spectra(day: int) -> Floats:
    """Return (covers, 12) reflectance, 0 to 1, on a day of the year."""
    summer = np.array([_SUMMER[name] for name in COVERS], np.float32)
    winter = np.array([_WINTER.get(name, _SUMMER[name]) for name in COVERS], np.float32)
    green = leaves(day)
    return np.asarray(0.01 * (green * summer + (1 - green) * winter), np.float32)


def mixtures(
    day: int,
) -> dict[int, tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]]:
    """Return what classes consist of on a day of the year.

    Returns:
        Number of a class: the numbers of its covers, and the sums of their shares up to
        and including each: ``numbers[searchsorted(sums, u)]`` is the cover for `u`
        between 0 and 1.
    """
    mixed = {}
    for column, (_, recipe) in _RECIPES.items():
        shares: _Mixture = {}
        for name, share in recipe.items():
            parts = crops(day) if name == 'crops' else {name: 1.0}
            for part, fraction in parts.items():
                shares[part] = shares.get(part, 0) + share * fraction
        sums = np.cumsum(list(shares.values()))
        sums[-1] = np.inf
        mixed[column] = np.array([NUMBER[name] for name in shares]), sums
    return mixed
