"""The scenes of the synthetic Earth: what patches of one acquisition have in common."""

import functools
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from ..randomness import derive_seed

SPLITS = ('train', 'val', 'train', 'test')
"""Splits of the scenes, in turn."""

_PLACES = {  # countries of a split's scenes, in turn; in all about as in the real table
    'train': (
        *('Finland', 'Portugal', 'Serbia', 'Finland', 'Austria', 'Ireland'),
        *('Finland', 'Portugal', 'Lithuania', 'Serbia', 'Finland', 'Belgium'),
        *('Portugal', 'Finland', 'Serbia', 'Austria'),
    ),
    'val': (
        *('Finland', 'Serbia', 'Portugal', 'Lithuania', 'Finland', 'Ireland'),
        *('Portugal', 'Switzerland'),
    ),
    'test': (
        *('Finland', 'Portugal', 'Serbia', 'Finland', 'Ireland', 'Austria'),
        *('Finland', 'Lithuania'),
    ),
}
SCENES = 32
"""Number of scenes, the acquisitions that samples are dealt to in turn."""


@dataclass(frozen=True)
class Scene:
    """One acquisition: what its patches have in common.

    Attributes:
        number: 0 to :data:`SCENES` - 1.
        split: 'train', 'val' or 'test'.
        country: Whose landscapes it has.
        time: When Sentinel-2 took it.
        sun: Angle of the sun from the zenith, radians.
        haze: Share of light that the air scatters into the blue band.
        wetness: Backscatter above the usual, dB.
        ascending: Whether Sentinel-1 flew northwards.
    """

    number: int
    split: str
    country: str
    time: datetime
    sun: float
    haze: float
    wetness: float
    ascending: bool

    @property
    def day(self) -> int:
        """Day of the year."""
        return self.time.timetuple().tm_yday

    @property
    def tile(self) -> str:
        """An MGRS tile that Earth does not have: its zones end at 60."""
        return f'{61 + self.number}SYN'


@functools.lru_cache(maxsize=4 * SCENES)
def draw_scene(seed: int, number: int) -> Scene:
    """Draw an acquisition; days are spread evenly from March to November."""
    split = SPLITS[number % 4]
    turn = sum(SPLITS[place % 4] == split for place in range(number))
    rng = np.random.default_rng(derive_seed(seed, 'synthetic', 'scene', number))
    day = 65 + int(260 * ((0.618034 * (number // 4) + rng.uniform(0, 0.12)) % 1))
    start = datetime(2018 if day < 152 else 2017, 1, 1, 10, number, 31)
    season = np.cos(2 * np.pi * (day - 172) / 365)
    country = _PLACES[split][turn]
    return Scene(
        number=number,
        split=split,
        country=country,
        time=start + timedelta(days=day - 1),
        sun=float(np.radians(48 - 20 * season + rng.normal(0, 2))),
        haze=float(0.006 * rng.lognormal(0, 0.5)),
        wetness=float(rng.normal(0, 0.8)),
        ascending=bool(rng.random() < 0.5),
    )
