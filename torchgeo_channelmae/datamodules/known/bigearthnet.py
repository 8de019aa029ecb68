"""TorchGeo's and our own datasets of BigEarthNet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, override

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ... import sensors
from ...datasets.metadata import PatchTable
from ...datasets.names import acquisition, tile
from ...sensors import Band
from .source import LEVELS, Names, Rows, Source, lookup, stems, tiles_in

_S1 = sensors.SENTINEL1_GRD
_L2A = LEVELS['L2A']
_S1_NAMES = sensors.names(_S1)


class _BigEarthNet(Source):
    """A dataset of BigEarthNet's patches, which have names."""

    nodata = 0

    def patch_names(self, rows: Rows) -> tuple[list[str], list[str]]:
        """Return the Sentinel-2 and Sentinel-1 name of each sample."""
        raise NotImplementedError

    @override
    def names(self, rows: Rows) -> Names:
        """Return the names of the Sentinel-2 patches."""
        return np.array(self.patch_names(rows)[0], dtype=np.str_)

    @override
    def scenes(self, rows: Rows) -> Names:
        """Return the Sentinel-2 acquisitions."""
        return np.array([acquisition(name) for name in self.names(rows)])

    @override
    def tiles(self, rows: Rows) -> Names | None:
        """Return the tiles in the Sentinel-1 names, else those in Sentinel-2's (v2)."""
        s2_names, s1_names = self.patch_names(rows)
        return _tiles(s1_names) if any(s1_names) else tiles_in(s2_names)

    @override
    def patches(self, rows: Rows) -> npt.NDArray[np.bytes_]:
        """Return the names in v1, where known, by which both versions know a patch."""
        return np.char.encode(self.names(rows), 'utf-8')


class OwnBigEarthNet(_BigEarthNet):
    """Our own datasets of BigEarthNet."""

    @classmethod
    @override
    def arguments(cls, bands: Sequence[str] | None) -> dict[str, Any]:
        """Only the bands wanted are read."""
        return {} if bands is None else {'bands': list(bands)}

    @override
    def find_bands(self) -> tuple[Band, ...]:
        """Bands are in the order asked for."""
        return lookup(self.dataset.bands, _L2A, _S1)

    @override
    def patch_names(self, rows: Rows) -> tuple[list[str], list[str]]:
        """Names are in the table."""
        table: PatchTable = self.dataset.table
        return tuple(  # type: ignore[return-value]
            [name.decode() for name in column[rows]]
            for column in (table.s2_names, table.s1_names)
        )

    @override
    def patches(self, rows: Rows) -> npt.NDArray[np.bytes_]:
        """Return the v1 names of the table, where it has them."""
        return _v1_names(super().patches(rows), self.dataset.table.v1_names, rows)


class BigEarthNetV1(_BigEarthNet):
    """TorchGeo's ``BigEarthNet``: Sentinel-1 in the order of file names, VH first."""

    @classmethod
    @override
    def arguments(cls, bands: Sequence[str] | None) -> dict[str, Any]:
        """Which of the two archives is read."""
        if bands is None:
            return {'bands': 's2'}
        radar = {band in _S1_NAMES for band in bands}
        chosen = 's1' if radar == {True} else 's2'
        return {'bands': 'all' if len(radar) == 2 else chosen}

    @override
    def find_bands(self) -> tuple[Band, ...]:
        """``VH.tif`` sorts before ``VV.tif``."""
        if self.dataset.bands != 's2':
            rank_zero_warn(
                f'{self.name} of TorchGeo rounds Sentinel-1 to whole decibels: '
                f'BigEarthNetS1S2DataModule reads it as stored.'
            )
        s1 = lookup(('VH', 'VV'), _S1)
        return {'s1': s1, 's2': _L2A, 'all': s1 + _L2A}[self.dataset.bands]

    @override
    def patch_names(self, rows: Rows) -> tuple[list[str], list[str]]:
        """Patches are folders."""
        folders = [self.dataset.folders[row] for row in rows]
        return tuple(  # type: ignore[return-value]
            [Path(folder[sensor]).name for folder in folders] for sensor in ('s2', 's1')
        )


class BigEarthNetV2(BigEarthNetV1):
    """TorchGeo's ``BigEarthNetV2``: two images where both sensors are read."""

    @override
    def image(self, sample: Mapping[str, Any]) -> Tensor:
        """Stack the two images."""
        if self.dataset.bands == 'all':
            stacked = torch.cat([sample['image_s1'], sample['image_s2']])
            sample = {**sample, 'image': stacked}
        return super().image(sample)

    @override
    def patch_names(self, rows: Rows) -> tuple[list[str], list[str]]:
        """Names are in the table."""
        chosen = self.dataset.metadata_df.iloc[rows]
        return chosen['patch_id'].tolist(), chosen['s1_name'].tolist()

    @override
    def patches(self, rows: Rows) -> npt.NDArray[np.bytes_]:
        """Return the v1 names of the table, where it has them."""
        table = self.dataset.metadata_df
        known = None
        if 's2v1_name' in table:
            known = np.char.encode(table['s2v1_name'].fillna('').to_numpy(str), 'utf-8')
        return _v1_names(super().patches(rows), known, rows)


class CopernicusBench(Source):
    """Copernicus-Bench's part of BigEarthNet; its radar is VV, VH in decibels."""

    nodata = 0

    @override
    def find_bands(self) -> tuple[Band, ...]:
        """Bands are in the order asked for."""
        return lookup(self.dataset.bands, _L2A, _S1)

    @override
    def names(self, rows: Rows) -> Names:
        """Return the names of the files of the sensor."""
        return self._stems(rows, 0 if self.dataset.all_bands == _S1_NAMES else 1)

    @override
    def scenes(self, rows: Rows) -> Names:
        """Return the acquisitions of the sensor."""
        return np.array([acquisition(name) for name in self.names(rows)])

    @override
    def tiles(self, rows: Rows) -> Names | None:
        """Return the tiles in the Sentinel-1 names, which both sensors' tables have."""
        return _tiles(self._stems(rows, 0).tolist())

    def _stems(self, rows: Rows, column: int) -> Names:
        files = self.dataset.files.iloc[rows, column].tolist()
        return np.array([stem.removesuffix('_allbands') for stem in stems(files)])


def _tiles(s1_names: Sequence[str]) -> Names | None:
    found = [[tile(name) or ''] for name in s1_names]
    return np.array(found) if any(name for (name,) in found) else None


def _v1_names(
    own: npt.NDArray[np.bytes_], known: npt.NDArray[np.bytes_] | None, rows: Rows
) -> npt.NDArray[np.bytes_]:
    return own if known is None else np.where(known[rows] == b'', own, known[rows])
