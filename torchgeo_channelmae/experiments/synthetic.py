"""A synthetic Earth: pairs of optical and radar patches, whatever number is asked for.

A test bed for the machinery, not evidence about Earth. Scores on it tell whether code
works and whether a method can find what was put in; never which method is better on
real land.

A sample depends on the seed of the world and on its own number, on nothing else. The
land of a sample is drawn first; then each sensor looks at it with draws of its own, so
that the land is all that the two images share.
"""

import functools
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from ..randomness import derive_seed
from .ground import Land, draw_land
from .landscape import ClassMap, draw_classes, draw_shares, labels_of
from .observe import observe_optical, observe_radar
from .scenes import SCENES, SPLITS, Scene, draw_scene

NOTE = (
    'Synthetic Earth: drawn by a program to test the machinery; scores on it are no '
    'evidence about Earth.'
)
"""What has to stand beside every score on these data."""

_COLUMNS = 90  # of patches in a scene
_CLOUDY, _SNOWY = 0.03, 0.3
_SNOW_COUNTRIES = ('Finland', 'Lithuania', 'Austria', 'Switzerland')
_NULL_BLOCK = 1024  # samples within which the null world swaps its radar


@dataclass(frozen=True)
class Sample:
    """What is known of a sample without drawing its pixels.

    Attributes:
        s2_name: Name of the Sentinel-2 patch, as in BigEarthNet v2.
        s1_name: Name of the Sentinel-1 patch.
        v1_name: Name that the Sentinel-2 patch would have in v1.
        scene: Its acquisition.
        labels: (19,) int64.
        snow: Whether snow lies on it.
        cloud: Whether a cloud hides some of it.
    """

    s2_name: str
    s1_name: str
    v1_name: str
    scene: Scene
    labels: npt.NDArray[np.int64]
    snow: bool
    cloud: bool


@dataclass(frozen=True)
class World:
    """A synthetic Earth.

    Attributes:
        seed: What all of it is drawn from.
        null: Whether radar patches are swapped between the samples of a split, so that
            the radar of a sample tells nothing about its labels.
    """

    seed: int = 0
    null: bool = False

    def sample(self, index: int) -> Sample:
        """Describe a sample.

        Args:
            index: Its number, from 0; there is no last one.
        """
        scene = self.scene(index)
        row, column = divmod(index // SCENES, _COLUMNS)
        satellite = 'AB'[scene.number % 2]
        taken = f'S2{satellite}_MSIL2A_{scene.time:%Y%m%dT%H%M%S}'
        passed = scene.time + timedelta(hours=7 if scene.ascending else -5)
        radar = f'S1{satellite}_IW_GRDH_1SDV_{passed:%Y%m%dT%H%M%S}_{scene.tile}'
        snow, cloud = self._weather(index)
        return Sample(
            s2_name=f'{taken}_N9999_R000_T{scene.tile}_{row:02d}_{column:02d}',
            s1_name=f'{radar}_{row:02d}_{column:02d}',
            v1_name=f'{taken}_{row}_{column}',
            scene=scene,
            labels=labels_of(self._class_map(index).classes),
            snow=snow,
            cloud=cloud,
        )

    def scene(self, index: int) -> Scene:
        """Return the acquisition that a sample belongs to."""
        return draw_scene(self.seed, index % SCENES)

    def land(self, index: int) -> Land:
        """Draw the land of a sample."""
        rng = self._generator('ground', index)
        return draw_land(rng, self._class_map(index), self.scene(index).day)

    def optical(self, index: int) -> dict[str, npt.NDArray[np.uint16]]:
        """Draw the Sentinel-2 patch of a sample.

        Returns:
            Band: (h, w) digital numbers of reflectance x 10,000, at the band's own
            resolution (120, 60 or 20 px).
        """
        snow, cloud = self._weather(index)
        rng = self._generator('optical', index)
        return observe_optical(rng, self.land(index), self.scene(index), snow, cloud)

    def radar(self, index: int) -> dict[str, npt.NDArray[np.float32]]:
        """Draw the Sentinel-1 patch of a sample.

        Returns:
            'VV' and 'VH': (120, 120) decibels.
        """
        source = self.radar_source(index)
        rng = self._generator('radar', source)
        return observe_radar(rng, self.land(source), self.scene(source))

    def radar_source(self, index: int) -> int:
        """Return the sample whose land the radar of a sample shows.

        In the null world that is another sample of the same split, and each sample's
        radar is used once: within each 1024 samples, those of a split pass theirs on in
        a circle of random order.
        """
        if not self.null:
            return index
        block, place = divmod(index, _NULL_BLOCK)
        return block * _NULL_BLOCK + int(_swapped(self.seed, block)[place])

    def _class_map(self, index: int) -> ClassMap:
        rng = self._generator('classes', index)
        return draw_classes(rng, draw_shares(rng, self.scene(index).country))

    def _weather(self, index: int) -> tuple[bool, bool]:
        """Return whether a sample has snow and whether it has clouds."""
        scene = self.scene(index)
        cold = scene.country in _SNOW_COUNTRIES and not 85 < scene.day < 315
        draws = self._generator('weather', index).random(2)
        return bool(cold and draws[0] < _SNOWY), bool(draws[1] < _CLOUDY)

    def _generator(self, *address: str | int) -> np.random.Generator:
        return np.random.default_rng(derive_seed(self.seed, 'synthetic', *address))


@functools.lru_cache(maxsize=8)
def _swapped(seed: int, block: int) -> npt.NDArray[np.int64]:
    """Return, for each place of a block of samples, whose radar it gets."""
    rng = np.random.default_rng(derive_seed(seed, 'synthetic', 'null', block))
    splits = np.array([SPLITS[place % 4] for place in range(_NULL_BLOCK)])
    swapped = np.empty(_NULL_BLOCK, dtype=np.int64)
    for split in sorted(set(SPLITS)):
        circle = rng.permutation(np.flatnonzero(splits == split))
        swapped[circle] = np.roll(circle, 1)
    return swapped
