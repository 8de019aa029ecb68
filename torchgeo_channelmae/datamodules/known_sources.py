"""Facts of TorchGeo's datasets, as read from its classes and the datasets' papers."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchgeo.datasets as tg
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from .. import sensors
from ..datasets import BigEarthNetLMDB
from ..datasets.names import acquisition, tile
from ..sensors import Band
from .mmearth import MMEARTH
from .sources import (
    LEVELS,
    Rows,
    Source,
    SourceFacts,
    described_bands,
    lookup,
    stems,
    tiles_in,
)

_S1, _L1C, _L2A = sensors.SENTINEL1_GRD, LEVELS['L1C'], LEVELS['L2A']


def find_facts(kind: type) -> SourceFacts:
    """Return the facts of a class of datasets; none if it is unknown."""
    return next((FACTS[base] for base in kind.__mro__ if base in FACTS), SourceFacts())


def _listed(*known: Sequence[Band]) -> Callable[[Source], Sequence[Band]]:
    """Return bands in the order of the dataset's own ``bands``."""
    return lambda source: lookup(source.dataset.bands, *known)


def _eurosat(dataset: Any, rows: Rows) -> dict[str, Any]:
    return {'names': stems(dataset.imgs[row][0] for row in rows)}


def _s2100k(dataset: Any, rows: Rows) -> dict[str, Any]:
    table = dataset.index.iloc[rows]
    places = table[['lon', 'lat']].to_numpy(dtype=np.float64)
    return {'names': stems(table['fn']), 'places': places}


def _so2sat_arguments(bands: Sequence[str] | None) -> dict[str, Any]:
    known = tg.So2Sat.all_band_names
    names = tg.So2Sat.all_s2_band_names
    if bands is not None:
        names = [band if band in known else f'S2_{band}' for band in bands]
    return {'bands': [name for name in names if name in known]}


def _so2sat_bands(source: Source) -> Sequence[Band]:
    """Sentinel-1 comes first, whatever order was asked for."""
    radar = described_bands(source.dataset.s1_band_names, None)
    optical = [name.removeprefix('S2_') for name in source.dataset.s2_band_names]
    return [
        *(replace(b, sensor='Sentinel-1 SLC') for b in radar),
        *lookup(optical, _L1C),
    ]


def _seco_arguments(bands: Sequence[str] | None) -> dict[str, Any]:
    known = dict(zip(sensors.names(_L2A), tg.SeasonalContrastS2.all_bands, strict=True))
    return {'bands': [known[band] for band in bands or known if band in known]}


def _sen12ms_parts(dataset: Any, row: int) -> list[str]:
    """Return region, season, scene and patch."""
    region, season, _, scene, patch = Path(dataset.ids[row]).stem.split('_')
    return [region, season, scene, patch]


def _sen12ms(dataset: Any, rows: Rows) -> dict[str, Any]:
    parts = [_sen12ms_parts(dataset, row) for row in rows]
    scenes = ['_'.join(each[:3]) for each in parts]
    return {'names': ['_'.join(each) for each in parts], 'scenes': scenes}


def _sen12ms_file(dataset: Any, row: int) -> Path:
    region, season, scene, patch = _sen12ms_parts(dataset, row)
    folder = Path(dataset.root, f'{region}_{season}', f's2_{scene}')
    return folder / f'{region}_{season}_s2_{scene}_{patch}.tif'


def _seasons(
    bands: Callable[[Source], Sequence[Band]],
    folder: Callable[[Any], Path],
    digits: int,
    **others: Any,
) -> SourceFacts:
    """Return facts of a folder with a folder per location and, in it, per date."""

    def one_season(source: Source) -> Sequence[Band]:
        if source.dataset.seasons != 1:
            raise ValueError(
                f'seasons of {source.name} is {source.dataset.seasons}. Leave it at 1: '
                f'each draw of a location draws one of its seasons.'
            )
        return bands(source)

    def location(dataset: Any, row: int) -> Path:
        return folder(dataset) / f'{row:0{digits}}'

    def rows(source: Source) -> Rows:
        """Return the locations on disk; the dataset's length is that of the whole."""
        names = os.listdir(folder(source.dataset))
        return np.array(sorted(int(name) for name in names if name.isdigit()))

    def columns(dataset: Any, rows: Rows) -> dict[str, Any]:
        paths = [location(dataset, row) for row in rows]
        with ThreadPoolExecutor(16) as pool:
            tiles = tiles_in(map(' '.join, pool.map(os.listdir, paths)))
        return {'names': [path.name for path in paths], 'tiles': tiles}

    return SourceFacts(
        bands=one_season,
        nodata=0,
        rows=rows,
        columns=columns,
        file=lambda dataset, row: min(location(dataset, row).glob('*/*.tif')),
        draws=True,
        **others,
    )


def _patches(s2_names: Any, s1_names: Any, v1_names: Any = None) -> dict[str, Any]:
    """Return the columns of BigEarthNet's patches; v1 names may be ''."""
    names = np.array(s2_names, dtype=np.str_)
    own = names if v1_names is None else np.where(v1_names == '', names, v1_names)
    tiles = [[tile(name) or ''] for name in s1_names]
    return {
        'names': names,
        'scenes': [acquisition(name) for name in s2_names],
        'tiles': tiles if any(name for (name,) in tiles) else tiles_in(s2_names),
        'patches': np.char.encode(own, 'utf-8'),
    }


def _own_bigearthnet(dataset: Any, rows: Rows) -> dict[str, Any]:
    table = dataset.table.rows(rows)
    s2, s1 = np.char.decode([table.s2_names, table.s1_names], 'utf-8')
    v1 = table.v1_names
    return _patches(s2, s1, None if v1 is None else np.char.decode(v1, 'utf-8'))


def _bigearthnet_v1(dataset: Any, rows: Rows) -> dict[str, Any]:
    folders = [dataset.folders[row] for row in rows]
    names = [[Path(each[key]).name for each in folders] for key in ('s2', 's1')]
    return _patches(*names)


def _bigearthnet_v2(dataset: Any, rows: Rows) -> dict[str, Any]:
    table = dataset.metadata_df.iloc[rows].fillna({'s2v1_name': ''})
    v1_names = table['s2v1_name'].to_numpy(str) if 's2v1_name' in table else None
    return _patches(table['patch_id'].tolist(), table['s1_name'].tolist(), v1_names)


def _archives(bands: Sequence[str] | None) -> dict[str, Any]:
    """Read only the archives that the bands need."""
    radar = {band in sensors.names(_S1) for band in bands or ['B01']}
    return {'bands': 'all' if len(radar) == 2 else 's1' if radar == {True} else 's2'}


def _archive_bands(source: Source) -> Sequence[Band]:
    if source.dataset.bands != 's2':
        rank_zero_warn(
            f"TorchGeo's {source.name} rounds Sentinel-1 to whole decibels. "
            f'BigEarthNetS1S2DataModule does not.'
        )
    radar = lookup(('VH', 'VV'), _S1)  # sorted by file name
    return {'s1': radar, 's2': _L2A, 'all': radar + _L2A}[source.dataset.bands]


def _stacked(source: Source, sample: Mapping[str, Any]) -> Tensor:
    keys = ('image_s1', 'image_s2') if source.dataset.bands == 'all' else ('image',)
    return torch.cat([sample[key] for key in keys])


FACTS: dict[type, SourceFacts] = {
    BigEarthNetLMDB: SourceFacts(
        bands=_listed(_L2A, _S1),
        arguments=lambda bands: {} if bands is None else {'bands': list(bands)},
        nodata=0,
        columns=_own_bigearthnet,
    ),
    tg.BigEarthNet: SourceFacts(
        bands=_archive_bands, arguments=_archives, nodata=0, columns=_bigearthnet_v1
    ),
    tg.BigEarthNetV2: SourceFacts(
        bands=_archive_bands,
        arguments=_archives,
        nodata=0,
        image=_stacked,
        columns=_bigearthnet_v2,
    ),
    tg.EuroSAT: SourceFacts(
        bands=_listed(_L1C),
        nodata=0,
        columns=_eurosat,
        file=lambda dataset, row: dataset.imgs[row][0],
    ),
    tg.MMEarth: MMEARTH,
    tg.S2100k: SourceFacts(bands=lambda source: _L2A, nodata=0, columns=_s2100k),
    tg.SEN12MS: SourceFacts(  # patches of a scene overlap by half
        bands=_listed(_S1, _L1C),
        nodata=0,
        columns=_sen12ms,
        file=_sen12ms_file,
        scenes_are_places=True,
    ),
    tg.SSL4EOS12: _seasons(
        lambda source: lookup(  # named B1 rather than B01
            source.dataset.bands,
            {'s1': _S1, 's2c': _L1C, 's2a': _L2A}[source.dataset.split],
        ),
        folder=lambda dataset: Path(dataset.root, dataset.split),
        digits=7,
    ),
    tg.SeasonalContrastS2: _seasons(
        _listed(_L2A),
        folder=lambda dataset: Path(
            dataset.root, dataset.metadata[dataset.version]['directory']
        ),
        digits=6,
        arguments=_seco_arguments,
        scale=10_000 / 255,  # bytes
    ),
    tg.So2Sat: SourceFacts(
        bands=_so2sat_bands,
        arguments=_so2sat_arguments,
        scale=10_000,  # reflectance from 0 to 1
    ),
}
"""Facts per class of datasets; subclasses share those of their base."""
