"""How Sentinel-2 and Sentinel-1 see the synthetic Earth.

Each looks at the land with draws of its own: the land is all that two images share.
"""

import numpy as np
import numpy.typing as npt

from .. import sensors
from . import fields
from .covers import COVERS, NUMBER, TRAITS, spectra
from .ground import Land
from .landscape import SIZE
from .scenes import Scene

S2_BANDS = sensors.names(sensors.SENTINEL2_L2A)
S1_BANDS = sensors.names(sensors.SENTINEL1_GRD)
LOOKS = 4.4
"""Equivalent number of looks of Sentinel-1 GRD (IW, high resolution)."""

_FACTORS = [round(band.resolution / 10) for band in sensors.SENTINEL2_L2A]
_TO_POWER = np.float32(np.log(10) / 10)
_NOISE_FLOOR = np.float32(10**-3.2)
_WIND = {NUMBER['sea']: 4.0, NUMBER['fresh water']: 2.5}  # dB a standard deviation
# per band, B01 to B12: what more leaves do to log reflectance; light that the air adds;
# reflectance of snow and of clouds
_VIGOUR = np.array([-4, -4, -1, -8, -1, 5, 7, 7, 7, 7, -3, -7], np.float32) / 10
_SCATTER = np.array([15, 10, 6, 4, 3, 2, 2, 1, 1, 0, 0, 0], np.float32) / 10
_SNOW = np.array([84, 84, 83, 82, 80, 77, 75, 73, 71, 52, 8, 6], np.float32) / 100
_CLOUD = np.array([58, 59, 58, 58, 58, 58, 58, 58, 58, 46, 42, 33], np.float32) / 100


def observe_optical(
    rng: np.random.Generator,
    land: Land,
    scene: Scene,
    snow: bool = False,
    cloud: bool = False,
) -> dict[str, npt.NDArray[np.uint16]]:
    """Look at a land as Sentinel-2 does (level 2A).

    Args:
        rng: What to draw from: light, air, how fields differ, texture, noise.
        land: The land.
        scene: The acquisition.
        snow: Whether snow lies.
        cloud: Whether a cloud stands before it, with its shadow.

    Returns:
        Band: (h, w) digital numbers, at the band's own resolution.
    """
    light = _reflectance(rng, land, scene)
    if snow or cloud:
        drift = fields.fractal(rng, 2, coarse=2, fine=32, hurst=1)
        if snow:
            lying = np.clip(0.7 + drift[0], 0, 1) * TRAITS['snow'][land.covers]
            light += lying * (_SNOW[:, None, None] - light)
        if cloud:
            light *= 1 - 0.5 * np.clip(np.roll(drift[1], (12, 9), (0, 1)) - 0.4, 0, 1)
            light += np.clip(drift[1] - 0.4, 0, 1) * (_CLOUD[:, None, None] - light)
    haze = scene.haze * rng.lognormal(0, 0.3)
    light += np.float32(haze) * _SCATTER[:, None, None]
    seen = fields.soften(light, 0.12)  # point spread of the telescope
    bands = {}
    for band, factor, image in zip(S2_BANDS, _FACTORS, seen, strict=True):
        pixels = fields.block_mean(image, factor)
        noise = rng.standard_normal(pixels.shape, dtype=np.float32)
        numbers = np.rint(1e4 * pixels * (1 + 0.006 * noise) + 6 * noise)
        bands[band] = np.clip(numbers, 1, 16000).astype(np.uint16)
    return bands


def _reflectance(
    rng: np.random.Generator, land: Land, scene: Scene
) -> npt.NDArray[np.float32]:
    """Return (12, 120, 120) reflectance at 10 m, without air."""
    shape = (len(COVERS), 1)
    tint = 0.08 * rng.standard_normal(shape, dtype=np.float32)
    vigour = 0.12 * rng.standard_normal(shape, dtype=np.float32)
    looks = spectra(scene.day) * np.exp(tint + vigour * _VIGOUR)
    light = np.ascontiguousarray(looks.T)[:, land.covers]
    count = int(land.units.max()) + 1
    each = rng.standard_normal((2, count), dtype=np.float32)[:, land.units]
    grain = rng.standard_normal((2, SIZE, SIZE), dtype=np.float32)
    patchy, rough = TRAITS['patchy'][land.covers], TRAITS['rough'][land.covers]
    brighter = 0.7 * patchy * each[0] + rough * grain[0]
    greener = patchy * each[1] + 0.3 * rough * grain[1]
    light *= np.exp(brighter + _VIGOUR[:, None, None] * greener)
    azimuth = rng.normal(np.radians(160), 0.2)
    south, east = -float(np.cos(azimuth)), float(np.sin(azimuth))  # towards the sun
    rise = south * land.slopes[0] + east * land.slopes[1]
    light *= np.clip(1 - float(np.tan(scene.sun)) * rise, 0.4, 1.6)
    return light


def observe_radar(
    rng: np.random.Generator, land: Land, scene: Scene
) -> dict[str, npt.NDArray[np.float32]]:
    """Look at a land as Sentinel-1 does (GRD, terrain-corrected).

    Args:
        rng: What to draw from: wind, moisture, how fields differ, speckle.
        land: The land.
        scene: The acquisition.

    Returns:
        'VV' and 'VH': (120, 120) decibels.
    """
    usual = np.stack([TRAITS['vv'], TRAITS['vh']])
    usual += 0.8 * rng.standard_normal((1, 1), dtype=np.float32)
    usual += 0.7 * rng.standard_normal((1, len(COVERS)), dtype=np.float32)
    usual += 0.5 * rng.standard_normal((2, len(COVERS)), dtype=np.float32)
    wind = rng.standard_normal(dtype=np.float32)
    for cover, swing in _WIND.items():
        usual[:, cover] += wind * swing
    decibels = usual[:, land.covers]
    count = int(land.units.max()) + 1
    each = rng.standard_normal((2, count), dtype=np.float32)
    each[1] = 0.7 * each[0] + 0.7 * each[1]  # the channels see much the same
    decibels += TRAITS['uneven'][land.covers] * each[:, land.units]
    decibels += _terrain(rng, land, scene) + np.float32(scene.wetness)
    power = fields.soften(np.exp(decibels * _TO_POWER), 0.2) + _NOISE_FLOOR
    power *= speckle(rng, 2)
    return dict(zip(S1_BANDS, np.log(power) / _TO_POWER, strict=True))


def _terrain(
    rng: np.random.Generator, land: Land, scene: Scene
) -> npt.NDArray[np.float32]:
    """Return (120, 120) decibels: slopes that face the radar are brighter."""
    looking_east = 1 if scene.ascending else -1  # Sentinel-1 looks to its right
    facing = np.clip(12 * looking_east * land.slopes[1], -5, 5)
    ramp = rng.normal(0, 0.3) * np.linspace(-1, 1, SIZE)  # across the swath
    return (facing + ramp).astype(np.float32)


def speckle(rng: np.random.Generator, channels: int) -> npt.NDArray[np.float32]:
    """Draw multi-look speckle, a factor of power with mean 1.

    Gamma of shape :data:`LOOKS`, made from normal noise that is averaged over near
    neighbours, so that they correlate as the pixels of GRD do, which are half as wide
    as its resolution. The cube of a normal number is a gamma number but for errors that
    do not matter here (Wilson & Hilferty, https://doi.org/10.1073/pnas.17.12.684).

    Args:
        rng: What to draw from.
        channels: How many independent images.

    Returns:
        (channels, 120, 120).
    """
    weight = 0.15
    spread = (1 - 2 * weight) ** 2 + 2 * weight**2  # that averaging leaves of 1
    noise = rng.standard_normal((channels, SIZE + 2, SIZE + 2), dtype=np.float32)
    normal = fields.soften(noise, weight)[:, 1:-1, 1:-1] / np.float32(spread)
    root = 1 - 1 / (9 * LOOKS) + normal / (3 * LOOKS**0.5)
    return np.maximum(root, 0.01) ** 3
