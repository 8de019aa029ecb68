"""MMEarth, whose class normalises what it returns."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, override

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchgeo.datasets.utils import lazy_import

from ... import sensors
from ...sensors import Band
from .source import LEVELS, Names, Rows, Source, lookup, padded

_S1 = sensors.SENTINEL1_GRD


class MMEarth(Source):
    """``MMEarth``: half L1C, half L2A, normalised by the class, and B8A before B8.

    One product level is used, L2A unless told otherwise, and TorchGeo's z-scores are
    turned back into the digital numbers and decibels that they were made of.
    """

    nodata = 0
    places_at_hand = True

    @classmethod
    @override
    def arguments(cls, bands: Sequence[str] | None) -> dict[str, Any]:
        """Only the images wanted are read; radar is that of ascending orbits."""
        radar = {band in ('VV', 'VH', 'HH', 'HV') for band in bands or ['B01']}
        images = {True: 'sentinel1_asc', False: 'sentinel2'}
        return {'modalities': [images[kind] for kind in sorted(radar)]}

    @override
    def find_bands(self) -> tuple[Band, ...]:
        """Channels are in the order of TorchGeo's table, whatever was asked for."""
        if self.dataset.normalization_mode != 'z-score':
            raise ValueError(
                'normalization_mode of MMEarth is '
                f'{self.dataset.normalization_mode!r}: leave it at z-score, which can '
                f'be undone.'
            )
        self.level = self.level or 'L2A'
        images = ('sentinel1_asc', 'sentinel1_desc', 'sentinel2')  # TorchGeo's order
        self.images = [key for key in images if key in self.dataset.modality_bands]
        bands: tuple[Band, ...] = ()
        self.channels: list[tuple[str, list[int]]] = []
        for image in self.images:
            names = self._order(image)
            if image == 'sentinel2':
                level = LEVELS[self.level]
                there = sensors.names(level)
                kept = [i for i, name in enumerate(names) if padded(name) in there]
                bands += lookup([names[i] for i in kept], level)
            else:
                kept = list(range(len(names)))
                bands += tuple(_polarisation(name) for name in names)
            self.channels.append((image, kept))
        return bands

    def _order(self, image: str) -> list[str]:
        wanted = self.dataset.modality_bands[image]
        return [
            name for name in self.dataset.all_modality_bands[image] if name in wanted
        ]

    @override
    def image(self, sample: Mapping[str, Any]) -> Tensor:
        """Undo the z-scores."""
        parts = []
        for image, kept in self.channels:
            scores = sample[f'image_{image}']
            where = self.dataset._select_indices_for_modality(image, self._order(image))
            optical = image == 'sentinel2'
            level = str(self.level).lower()
            stats = self.dataset.band_stats[
                f'sentinel2_{level}' if optical else 'sentinel1'
            ]
            mean, std = (
                torch.tensor([stats[name][i] for i in where])[:, None, None]
                for name in ('mean', 'std')
            )
            values = scores * std + mean
            parts.append((values.round() if optical else values)[kept])
        return super().image({self.key: torch.cat(parts)})

    @override
    def rows(self) -> Rows:
        """Return the tiles of the product level; radar alone has no level."""
        if 'sentinel2' not in self.images:
            return super().rows()
        level = str(self.level).lower()
        return np.flatnonzero([info['S2_type'] == level for info in self._infos])

    @override
    def names(self, rows: Rows) -> Names:
        """Return the ids of the tiles."""
        return np.array(self._ids)[rows]

    @override
    def coordinates(self, rows: Rows) -> npt.NDArray[np.float64]:
        """Return the coordinates in the table of tiles."""
        infos = self._infos
        places = [(infos[row]['lon'], infos[row]['lat']) for row in rows]
        return np.array(places, dtype=np.float64).reshape(-1, 2)

    @cached_property
    def _infos(self) -> list[dict[str, Any]]:
        return [self.dataset.tile_info[name] for name in self._ids]

    @cached_property
    def _ids(self) -> list[str]:
        h5py = lazy_import('h5py')
        folder = self.dataset.filenames[self.dataset.subset]
        path = Path(self.dataset.root, folder, self.dataset.dataset_filename)
        with h5py.File(path, 'r') as file:
            table = file['metadata'][:]
        first = table[table.dtype.names[0]] if table.dtype.names else table[:, 0]
        return [first[row].decode() for row in self.dataset.indices]


def _polarisation(name: str) -> Band:
    for band in _S1:
        if band.name == name:
            return band
    unknown = float('nan')
    return Band(name, 'Sentinel-1 GRD', None, 10, unknown, unknown)
