"""What lies on the ground of a patch: a cover for each pixel, and the terrain.

Everything that the optical and the radar image of a patch have in common is in
:class:`Land`; beyond it they share nothing.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import fields
from .covers import FOLLOWS, NUMBER, mixtures
from .landscape import (
    AGROFORESTRY,
    COMPLEX,
    FARMLAND,
    INDUSTRIAL,
    MIXED_USE,
    NATURAL,
    PASTURES,
    SEA,
    SIZE,
    URBAN,
    WATERS,
    ClassMap,
    is_among,
)

_TREES = NUMBER['broad-leaved trees']


@dataclass(frozen=True)
class Land:
    """The land of a patch.

    Attributes:
        classes: (120, 120) uint8, numbers of the 19 classes.
        covers: (120, 120) int64, numbers of what is there (``covers.NUMBER``).
        units: (120, 120) int64, numbers of the field, building or stand that is alike.
        slopes: (2, 120, 120) float32, rise to the south and to the east, m per m.
    """

    classes: npt.NDArray[np.uint8]
    covers: npt.NDArray[np.int64]
    units: npt.NDArray[np.int64]
    slopes: npt.NDArray[np.float32]


def draw_land(rng: np.random.Generator, where: ClassMap, day: int) -> Land:
    """Draw the ground for a map of classes.

    Args:
        rng: What to draw from.
        where: The classes and parcels.
        day: Day of the year, for what grows on the fields.

    Returns:
        The land.
    """
    classes = where.classes
    present = np.flatnonzero(np.bincount(classes.ravel(), minlength=19))
    units = {'parcel': where.parcels, 'plot': where.parcels, 'pixel': where.parcels}
    if {COMPLEX, MIXED_USE} & set(present.tolist()):
        units['plot'] = (
            fields.parcels(rng, 5, 8, rng.uniform(0, np.pi)) + where.parcels.max() + 1
        )
    relief, wild = fields.fractal(rng, 2, coarse=4, fine=32, hurst=0.9)
    values: dict[str, npt.NDArray[np.float32]] = {
        'parcel': _draw_each(rng, units['parcel']),
        'plot': _draw_each(rng, units['plot']),
        'pixel': rng.random((SIZE, SIZE), dtype=np.float32),
    }
    # stands: smooth patches with frayed edges, as even numbers between 0 and 1
    values['wild'] = _even(wild + 0.5 * (values['pixel'] - 0.5))
    # winding channels and pools in the lows, and what lies ever farther from them
    low = np.minimum(np.abs(2 * _even(wild) - 1), _even(relief))
    values['channels'] = 1 - (1 - low) ** 2 + 0.04 * (values['pixel'] - 0.5)
    covers = np.zeros((SIZE, SIZE), dtype=np.int64)
    mixed = mixtures(day)
    for column in present.tolist():
        numbers, sums = mixed[column]
        inside = classes == column
        chosen = np.searchsorted(sums, values[FOLLOWS[column]][inside], side='right')
        covers[inside] = numbers[chosen]
    alike = np.where(is_among(classes, (COMPLEX, MIXED_USE)), units['plot'], 0)
    alike = np.where(alike == 0, where.parcels, alike)
    _plant(rng, covers, classes, where.parcels, values['pixel'])
    if URBAN in present or INDUSTRIAL in present:
        alike = _build(rng, covers, where, alike)
    _lay_roads(rng, covers, classes)
    steep = 0.035 * np.exp(0.8 * rng.normal() + 2 * is_among(classes, NATURAL).mean())
    slopes = np.stack(np.gradient(relief)) * np.float32(4 * steep)
    slopes *= ~is_among(classes, (WATERS, SEA))
    return Land(classes, covers, alike, slopes.astype(np.float32))


def _even(normal: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Spread numbers of standard normal distribution evenly between 0 and 1."""
    return np.asarray(1 / (1 + np.exp(-1.7 * normal)), np.float32)


def _draw_each(
    rng: np.random.Generator, units: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Draw a number between 0 and 1 for each unit, as a map."""
    return rng.random(int(units.max()) + 1, dtype=np.float32)[units]


def _plant(
    rng: np.random.Generator,
    covers: npt.NDArray[np.int64],
    classes: npt.NDArray[np.uint8],
    parcels: npt.NDArray[np.int64],
    value: npt.NDArray[np.float32],
) -> None:
    """Put hedges, single trees, tracks and farms on farmland."""
    edges = fields.borders(parcels)
    kept = _draw_each(rng, parcels)
    hedges = is_among(classes, (PASTURES, MIXED_USE)) & (kept < 0.6)
    covers[edges & hedges & (value < 0.8)] = _TREES
    tracks = is_among(classes, FARMLAND) & (kept > 0.7)
    covers[edges & tracks] = NUMBER['bare soil']
    covers[(classes == AGROFORESTRY) & (value < 0.2)] = _TREES
    farms = (classes == COMPLEX) & (value < 0.04) | (classes == MIXED_USE) & (
        value < 0.008
    )
    covers[farms] = NUMBER['tiled roof']


def _build(
    rng: np.random.Generator,
    covers: npt.NDArray[np.int64],
    where: ClassMap,
    alike: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Build towns: blocks between streets, houses denser to the centre; and halls."""
    angle = rng.uniform(0, np.pi)
    blocks = fields.parcels(rng, rng.uniform(7, 10), rng.uniform(11, 17), angle)
    streets = fields.borders(blocks)
    urban, industrial = where.classes == URBAN, where.classes == INDUSTRIAL
    houses = fields.parcels(rng, 2.4, 2.8, angle)
    drawn, open_ = _draw_each(rng, houses), _draw_each(rng, blocks)
    built = urban & (drawn < 0.75 * where.density) & (open_ > 0.12)
    covers[built] = NUMBER['tiled roof']
    covers[built & (open_ > 0.85)] = NUMBER['bright roof']
    parks = urban & ~built & (drawn > 0.6) & (open_ < 0.3)
    covers[parks] = _TREES
    halls = fields.parcels(rng, 6, 10, angle)
    roofed = industrial & (_draw_each(rng, halls) < 0.5)
    covers[roofed] = NUMBER['bright roof']
    covers[(urban | industrial) & streets] = NUMBER['asphalt']
    first = alike.max() + 1
    alike = np.where(urban, houses + first, alike)
    return np.where(industrial, halls + first + houses.max() + 1, alike)


def _lay_roads(
    rng: np.random.Generator,
    covers: npt.NDArray[np.int64],
    classes: npt.NDArray[np.uint8],
) -> None:
    """Lay up to two roads, more where people are; none over water."""
    lived = is_among(classes, (URBAN, INDUSTRIAL, *FARMLAND)).mean()
    land = ~is_among(classes, (WATERS, SEA))
    for _ in range(rng.binomial(2, 0.1 + 0.5 * lived)):
        along, across = fields.rotated(rng.uniform(0, np.pi))
        bend = rng.uniform(2, 12) * np.sin(along / rng.uniform(15, 40))
        distance = np.abs(across + bend + rng.uniform(-40, 40))
        covers[land & (distance < rng.uniform(0.4, 0.9))] = NUMBER['asphalt']
