"""A land-cover map with the shapes that land has: fields, towns, rivers, coasts.

First the classes of a patch are drawn, then how much of it each takes, then where:
each takes the pixels that score highest for it among those still free. The sea takes
what lies beyond a ragged line, a river what lies near a winding one, a town what lies
near its centre, farmland whole parcels, and the forest the rest. So shares are met
nearly exactly, whatever the shapes.

All maps are 120 x 120 px of 10 m; every function draws from the generator it is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import fields

SIZE = fields.SIZE
"""Pixels along a side, of 10 m."""

THRESHOLD = 0.03
"""Share of the patch from which a class is a label."""

# Latent classes of the label sets of BigEarthNet v2 (metadata.parquet, 480,038 rows):
# a mixture of independent labels, fitted by `benchmarks/synthetic.py --fit`. A row is a
# landscape: its percentage of patches with each of the 19 classes, in their order.
LANDSCAPES = {
    'taiga': (0, 0, 8, 0, 3, 1, 7, 0, 8, 94, 71, 2, 1, 62, 0, 16, 0, 2, 2),
    'cropland': (9, 3, 100, 11, 31, 20, 15, 0, 16, 2, 3, 1, 0, 8, 0, 2, 0, 6, 0),
    'sea': (0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 0, 0, 0, 1, 0, 1, 0, 100),
    'woodland': (0, 1, 19, 5, 10, 13, 28, 8, 100, 6, 21, 15, 7, 67, 0, 1, 0, 6, 0),
    'mosaic': (19, 2, 59, 2, 47, 58, 39, 1, 40, 38, 67, 0, 0, 22, 0, 2, 0, 7, 0),
    'clearings': (7, 1, 56, 0, 2, 3, 52, 0, 15, 78, 89, 0, 0, 35, 0, 3, 1, 24, 3),
    'town': (98, 18, 75, 10, 25, 49, 38, 1, 26, 8, 18, 0, 1, 6, 0, 1, 0, 9, 1),
    'lakes': (2, 0, 0, 0, 0, 0, 12, 0, 7, 80, 69, 0, 0, 31, 0, 6, 0, 100, 0),
    'hills': (19, 1, 42, 8, 15, 84, 85, 0, 82, 0, 6, 3, 0, 27, 0, 0, 0, 5, 0),
    'montado': (2, 1, 66, 24, 31, 11, 3, 100, 37, 5, 10, 1, 2, 36, 0, 0, 0, 7, 0),
    'meadows': (10, 1, 20, 0, 100, 6, 19, 0, 8, 34, 19, 3, 6, 14, 1, 11, 1, 5, 3),
    'heath': (17, 4, 16, 43, 5, 33, 44, 2, 11, 15, 15, 10, 47, 51, 3, 9, 2, 6, 7),
}
"""Name of a landscape: the chance of each class in it, in per cent."""

# The same fit: how often each landscape occurs in a country, in per cent.
COUNTRIES = {
    'Finland': (31, 1, 23, 1, 3, 20, 1, 21, 0, 0, 0, 0),
    'Portugal': (3, 10, 10, 18, 5, 2, 4, 0, 4, 31, 1, 13),
    'Serbia': (1, 26, 0, 28, 5, 1, 10, 0, 26, 0, 1, 2),
    'Lithuania': (8, 17, 5, 6, 31, 9, 8, 2, 9, 0, 4, 1),
    'Ireland': (3, 22, 22, 1, 7, 0, 4, 0, 1, 0, 36, 3),
    'Austria': (8, 20, 0, 5, 22, 7, 22, 1, 7, 0, 7, 2),
    'Belgium': (7, 12, 0, 3, 20, 2, 37, 0, 8, 0, 10, 1),
    'Switzerland': (6, 9, 0, 2, 27, 11, 31, 2, 1, 0, 10, 2),
}
"""Name of a country: how often each landscape occurs, in per cent."""

FREQUENCIES = (
    *(0.1328, 0.0232, 0.3917, 0.0616, 0.1992, 0.2075, 0.2556, 0.0691, 0.2832, 0.3228),
    *(0.3453, 0.0248, 0.0289, 0.2940, 0.0027, 0.0436, 0.0029, 0.1317, 0.1288),
)
"""Share of the patches of BigEarthNet v2 (all 480,038) that have each class."""

LABELS_A_PATCH = 2.949
"""Mean number of classes of a patch of BigEarthNet v2."""

URBAN, INDUSTRIAL, COMPLEX, AGROFORESTRY = 0, 1, 5, 7
PASTURES, MIXED_USE, BEACHES, MARSHES = 4, 6, 14, 15
SALT_MARSHES, WATERS, SEA = 16, 17, 18
FARMLAND = (2, 3, PASTURES, COMPLEX, MIXED_USE, AGROFORESTRY)
NATURAL = (8, 9, 10, 11, 12, 13)

# how large a class tends to be where it occurs, beside the others
_EXTENT = np.ones(19)
_EXTENT[[URBAN, INDUSTRIAL, BEACHES, SALT_MARSHES, WATERS]] = 0.9, 0.4, 0.2, 0.6, 0.8
_EXTENT[SEA] = 2.5
_FLOOR = 0.045  # least share of a class that shall be a label
_TRACE = 0.02  # most of a class that shall not


@dataclass(frozen=True)
class ClassMap:
    """Where the classes of a patch are.

    Attributes:
        classes: (120, 120) uint8, numbers of the 19 classes.
        parcels: (120, 120) int64, numbers of the field that a pixel would belong to.
        density: (120, 120) float32, how built-up: 1 in the centre of a town, 0 outside.
    """

    classes: npt.NDArray[np.uint8]
    parcels: npt.NDArray[np.int64]
    density: npt.NDArray[np.float32]


def draw_shares(rng: np.random.Generator, country: str) -> npt.NDArray[np.float64]:
    """Draw which classes a patch has, and the share of each.

    Args:
        rng: What to draw from.
        country: A name in :data:`COUNTRIES`.

    Returns:
        (19,) shares with sum 1. Now and then one class has a trace, less than makes a
        label.
    """
    often = np.array(COUNTRIES[country], dtype=float)
    chances = list(LANDSCAPES.values())[rng.choice(len(often), p=often / often.sum())]
    drawn = rng.random(19) * 100 < chances
    if not drawn.any():
        drawn[np.argmax(chances)] = True
    weights = np.where(drawn, rng.gamma(1.3, size=19) * _EXTENT, 0)
    shares = np.where(
        drawn, _FLOOR + (1 - _FLOOR * drawn.sum()) * weights / weights.sum(), 0
    )
    others = np.flatnonzero(~drawn & (np.array(chances) > 0))
    if len(others) and rng.random() < 0.3:
        trace = rng.uniform(0.003, _TRACE)
        shares[np.argmax(shares)] -= trace
        shares[rng.choice(others)] = trace
    return shares


def draw_classes(rng: np.random.Generator, shares: npt.NDArray[np.float64]) -> ClassMap:
    """Draw a map in which each class has its share.

    Args:
        rng: What to draw from.
        shares: (19,) with sum 1.

    Returns:
        The map; the last class laid takes what rounding leaves.
    """
    layers = _Layers(shares)
    parcels = _districts(rng)
    _lay_waters(rng, layers)
    centre = _lay_town(rng, layers, parcels)
    present = [column for column in (*FARMLAND, *NATURAL) if layers.left[column]]
    smooth = fields.fractal(rng, len(present) + 1, coarse=3, fine=24, hurst=0.9)
    border: npt.NDArray[np.floating] = smooth[-1]
    if rng.random() < 0.7:  # the wood ends where fields do
        border = _whole(parcels, border)
    farmed = layers.best(border, FARMLAND, NATURAL)
    for number in rng.permutation(len(present)):
        column, score = present[number], smooth[number]
        if column in FARMLAND:
            layers.lay(column, _whole(parcels, score) + 1e3 * farmed)
        else:
            layers.lay(column, score - 1e3 * farmed)
    classes = layers.finish()
    density = np.clip(1.1 + 0.4 * centre, 0.3, 1) * (classes == URBAN)
    return ClassMap(classes, parcels, density.astype(np.float32))


def labels_of(classes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return (19,) 1 for each class with at least :data:`THRESHOLD` of the map."""
    counts = np.bincount(classes.ravel(), minlength=19)
    return (counts >= THRESHOLD * classes.size).astype(np.int64)


def is_among(
    classes: npt.NDArray[np.uint8], columns: Sequence[int]
) -> npt.NDArray[np.bool_]:
    """Return where a map has one of some classes."""
    among = np.zeros(256, dtype=bool)
    among[list(columns)] = True
    return among[classes]


class _Layers:
    """A map that classes are laid on, one after the other, where nothing is yet."""

    def __init__(self, shares: npt.NDArray[np.float64]) -> None:
        self.classes = np.full(SIZE * SIZE, 255, dtype=np.uint8)
        self.left = np.round(shares * SIZE * SIZE).astype(int)
        self.last = int(np.argmax(shares))

    def is_class(self, *columns: int) -> npt.NDArray[np.float32]:
        """Return (120, 120), 1 where one of the classes is laid, else 0."""
        laid = is_among(self.classes.reshape(SIZE, SIZE), columns)
        return laid.astype(np.float32)

    def best(
        self,
        score: npt.NDArray[np.floating],
        group: tuple[int, ...],
        others: tuple[int, ...],
    ) -> npt.NDArray[np.bool_]:
        """Return where a group belongs that leaves the free rest to others."""
        wanted = self.left[list(group)].sum()
        found = np.zeros(SIZE * SIZE, dtype=bool)
        free = np.flatnonzero(self.classes == 255)
        wanted = min(wanted, len(free))
        if not self.left[list(others)].sum():
            wanted = len(free)
        found[_highest(score.ravel(), free, wanted)] = True
        return found.reshape(SIZE, SIZE)

    def lay(self, column: int, score: npt.NDArray[np.floating]) -> None:
        """Give a class the free pixels that score highest."""
        count = self.left[column]
        if not count:
            return
        free = np.flatnonzero(self.classes == 255)
        self.classes[_highest(score.ravel(), free, min(count, len(free)))] = column
        self.left[column] = 0
        self.last = column

    def finish(self) -> npt.NDArray[np.uint8]:
        """Return the map; what is still free goes to the class laid last."""
        self.classes[self.classes == 255] = self.last
        return self.classes.reshape(SIZE, SIZE)


def _highest(
    score: npt.NDArray[np.floating], among: npt.NDArray[np.intp], count: int
) -> npt.NDArray[np.intp]:
    """Return the `count` numbers of `among` that score highest."""
    if count >= len(among):
        return among
    if count == 0:
        return among[:0]
    order = np.argpartition(-score[among], count - 1)
    return among[order[:count]]


def _lay_waters(rng: np.random.Generator, layers: _Layers) -> None:
    """Lay sea, coast, lakes or a river, and the wetlands beside them."""
    coast = layers.left[[BEACHES, SALT_MARSHES]].any()
    if layers.left[SEA]:
        rough = fields.fractal(rng, 1, coarse=2, fine=32, hurst=0.8)[0]
        across = fields.rotated(rng.uniform(0, 2 * np.pi))[0] / SIZE
        layers.lay(SEA, 3 * across + rng.uniform(0.3, 0.9) * rough)
        if coast:
            along = fields.fractal(rng, 2, coarse=3, fine=12, hurst=0.9)
            shore = fields.blur(layers.is_class(SEA), 5)
            layers.lay(BEACHES, shore + 0.08 * along[0])
            shore = fields.blur(layers.is_class(SEA, BEACHES), 14)
            layers.lay(SALT_MARSHES, 2 * shore + 0.3 * along[1])
    if layers.left[WATERS]:
        rough = fields.fractal(rng, 1, coarse=2, fine=32, hurst=0.8)[0]
        if rng.random() < 0.4 and layers.left[WATERS] < 0.2 * SIZE * SIZE:
            rough = fields.blur(_river(rng), 3) + 0.01 * rough
        layers.lay(WATERS, rough)
    if layers.left[MARSHES] or coast:
        wet: npt.NDArray[np.floating] = 2 * fields.blur(
            layers.is_class(WATERS, SEA), 12
        )
        if coast and not wet.any():  # the sea lies beyond the edge
            wet = 3 * fields.rotated(rng.uniform(0, 2 * np.pi))[0] / SIZE
        flat = fields.fractal(rng, 3, coarse=3, fine=24, hurst=0.7)
        for column, score in zip((BEACHES, SALT_MARSHES, MARSHES), flat, strict=True):
            layers.lay(column, wet + 0.5 * score)


def _lay_town(
    rng: np.random.Generator, layers: _Layers, parcels: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Lay a town and its industry; return how near its centre a pixel is, at most 0."""
    rows, columns = np.ogrid[:SIZE, :SIZE]
    row, column = rng.uniform(15, 105, 2)
    centre = (-np.hypot(rows - row, columns - column) / 25).astype(np.float32)
    if layers.left[URBAN] or layers.left[INDUSTRIAL]:
        rough = fields.fractal(rng, 2, coarse=3, fine=24, hurst=0.8)
        layers.lay(URBAN, centre + 0.5 * rough[0])
        layers.lay(INDUSTRIAL, _whole(parcels, centre + 0.5 * rough[1]))
    return centre


def _river(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draw a meandering line, 1 on it: direction swings like a sine along the way.

    The sine-generated curve of Langbein & Leopold
    (https://doi.org/10.3133/pp422H), its swing and length varying.
    """
    way = np.arange(700) * 0.4
    length = rng.uniform(30, 90)
    bend = 0.4 * np.cumsum(rng.normal(size=700)) / 20
    swing = rng.uniform(0.4, 1.6) * np.sin(2 * np.pi * way / length + bend)
    course = rng.uniform(0, 2 * np.pi) + swing
    points = np.stack([np.cumsum(np.sin(course)), np.cumsum(np.cos(course))]) * 0.4
    middle = points[:, 350] - rng.uniform(30, 90, 2)
    pixels = np.round(points - middle[:, None]).astype(int)
    rows, columns = pixels[:, ((pixels >= 0) & (pixels < SIZE)).all(axis=0)]
    line = np.zeros((SIZE, SIZE), dtype=np.float32)
    line[rows, columns] = 1
    return line


def _districts(rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw fields of two directions, either side of a wandering border."""
    scale = np.exp(rng.normal(0, 0.35))
    first = fields.parcels(rng, 11 * scale, 20 * scale, rng.uniform(0, np.pi))
    second = fields.parcels(rng, 13 * scale, 16 * scale, rng.uniform(0, np.pi))
    side = fields.fractal(rng, 1, coarse=2, fine=4, hurst=1)[0] > rng.normal(0, 0.5)
    return np.where(side, first, second + first.max() + 1)


def _whole(
    parcels: npt.NDArray[np.int64], score: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """Give all pixels of a parcel its mean score, no two parcels the same."""
    flat = parcels.ravel()
    sums = np.bincount(flat, score.ravel())
    means = sums / np.maximum(np.bincount(flat), 1) + 1e-9 * np.arange(len(sums))
    return means[parcels]
