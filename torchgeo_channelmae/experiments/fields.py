"""Random maps that others are made of: smooth fields, parcels, blurring.

Everything is 120 x 120 px, drawn from the generator given. No matrix products, so that
worker processes start no threads and results do not depend on a linear algebra library.
"""

import functools

import numpy as np
import numpy.typing as npt

SIZE = 120
"""Pixels along a side."""

_REACH = 172  # more than the diagonal, pixels


def fractal(
    rng: np.random.Generator, count: int, coarse: int, fine: int, hurst: float
) -> npt.NDArray[np.float32]:
    """Draw smooth fields with detail at all scales.

    Args:
        rng: What to draw from.
        count: How many, independent of each other.
        coarse: Cells along a side at the coarsest scale; each next scale has twice as
            many.
        fine: Most cells along a side.
        hurst: How fast detail fades: amplitude is cells to the power of minus this.

    Returns:
        (count, 120, 120), each with mean 0 and standard deviation 1.
    """
    cells = coarse
    knots = rng.standard_normal((count, cells + 3, cells + 3), dtype=np.float32)
    while 2 * cells <= fine:
        cells *= 2
        knots = _refine(_refine(knots))
        detail = rng.standard_normal(knots.shape, dtype=np.float32)
        knots += np.float32((cells / coarse) ** -hurst) * detail
    total = _spread(_spread(knots, cells), cells)
    total -= total.mean(axis=(1, 2), keepdims=True)
    total /= total.std(axis=(1, 2), keepdims=True)
    return total


def _refine(knots: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Say the same cubic spline with cells of half the size along one axis.

    Turns the axes, so that doing it twice does it along both.
    """
    count, height, width = knots.shape
    fine = np.empty((count, width, 2 * height - 3), dtype=np.float32)
    turned = knots.transpose(0, 2, 1)
    fine[..., 0::2] = (turned[..., :-1] + turned[..., 1:]) / 2
    fine[..., 1::2] = (turned[..., :-2] + 6 * turned[..., 1:-1] + turned[..., 2:]) / 8
    return fine


def _spread(knots: npt.NDArray[np.float32], cells: int) -> npt.NDArray[np.float32]:
    """Evaluate a cubic spline at the pixels along one axis; turns the axes as well."""
    first, weights = _spline(cells)
    spread = weights[0, :, None] * knots[:, first]
    for tap in (1, 2, 3):
        spread += weights[tap, :, None] * knots[:, first + tap]
    return np.ascontiguousarray(spread.transpose(0, 2, 1))


@functools.lru_cache(maxsize=32)
def _spline(cells: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Return the first of each pixel's four knots and the weights (4, 120)."""
    place = (np.arange(SIZE) + 0.5) * cells / SIZE
    first = place.astype(np.intp)
    t = place - first
    weights = [
        (1 - t) ** 3,
        3 * t**3 - 6 * t**2 + 4,
        -3 * t**3 + 3 * t**2 + 3 * t + 1,
        t**3,
    ]
    return first, (np.stack(weights) / 6).astype(np.float32)


def rotated(
    angle: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the two coordinates of each pixel in axes turned by an angle.

    Args:
        angle: In radians.

    Returns:
        Two (120, 120) in pixels, 0 in the middle of the map.
    """
    y, x = (axis - np.float32((SIZE - 1) / 2) for axis in np.ogrid[:SIZE, :SIZE])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


def parcels(
    rng: np.random.Generator, width: float, length: float, angle: float
) -> npt.NDArray[np.int64]:
    """Cut the map into angular parcels: strips of one direction, each cut across.

    Args:
        rng: What to draw from.
        width: Mean width of a strip, pixels.
        length: Mean length of a parcel, pixels.
        angle: Direction of the strips, radians.

    Returns:
        (120, 120), the number of the parcel at each pixel.
    """
    # looked up at half pixels, the numbers counting up along each strip in turn
    along, across = ((2 * axis + _REACH).astype(np.intp) for axis in rotated(angle))
    strips = np.zeros(2 * _REACH, dtype=np.intp)
    strips[_cuts(rng, width, 1)[0]] = 1
    strips = np.cumsum(strips)
    ends = np.zeros((strips[-1] + 1, 2 * _REACH), dtype=np.intp)
    np.put_along_axis(ends, _cuts(rng, length, len(ends)), 1, axis=1)
    ends[1:, 0] = 1
    return np.cumsum(ends)[strips[across] * (2 * _REACH) + along]


def _cuts(rng: np.random.Generator, step: float, rows: int) -> npt.NDArray[np.intp]:
    """Return rows of places, in half pixels, about `step` pixels apart."""
    steps = rng.uniform(0.5, 1.5, (rows, int(1.5 * _REACH / step) + 2)) * step
    places = 2 * (np.cumsum(steps, axis=1) - rng.uniform(0, step, (rows, 1)))
    return np.clip(places, 0, 2 * _REACH - 1).astype(np.intp)


def borders(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return where the parcel to the right or below is another one."""
    found = np.zeros(numbers.shape, dtype=bool)
    found[:, :-1] = numbers[:, :-1] != numbers[:, 1:]
    found[:-1] |= numbers[:-1] != numbers[1:]
    return found


def blur(image: npt.NDArray[np.float32], radius: int) -> npt.NDArray[np.float32]:
    """Average twice over a square, edges repeated.

    Args:
        image: (120, 120).
        radius: The square is ``2 * radius + 1`` pixels wide.

    Returns:
        (120, 120).
    """
    for _ in range(4):
        first = np.repeat(image[:1], radius + 1, axis=0)
        last = np.repeat(image[-1:], radius, axis=0)
        sums = np.concatenate([first, image, last]).cumsum(axis=0)
        image = (sums[2 * radius + 1 :] - sums[: -2 * radius - 1]).T
    return image / np.float32((2 * radius + 1) ** 4)


def soften(image: npt.NDArray[np.float32], weight: float) -> npt.NDArray[np.float32]:
    """Mix each pixel with its neighbours along both axes, edges repeated.

    Args:
        image: (..., height, width).
        weight: Share of each of the two neighbours along an axis.

    Returns:
        Of the same shape.
    """
    for axis in (-1, -2):
        first = np.take(image, [0], axis=axis)
        last = np.take(image, [-1], axis=axis)
        padded = np.concatenate([first, image, last], axis=axis)
        size = image.shape[axis]
        before, after = (
            padded[..., start : start + size]
            if axis == -1
            else padded[..., start : start + size, :]
            for start in (0, 2)
        )
        image = (1 - 2 * weight) * image + weight * (before + after)
    return image


def block_mean(image: npt.NDArray[np.float32], factor: int) -> npt.NDArray[np.float32]:
    """Average (..., height, width) over squares of `factor` pixels."""
    *rest, height, width = image.shape
    shape = (*rest, height // factor, factor, width // factor, factor)
    return image.reshape(shape).mean(axis=(-3, -1), dtype=np.float32)
