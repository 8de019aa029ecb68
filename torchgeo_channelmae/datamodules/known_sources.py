"""Facts of TorchGeo's datasets, as read from its classes and the datasets' papers."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchgeo.datasets as tg
from torch import Tensor
from torchgeo.datasets.utils import lazy_import

from .. import sensors
from ..datasets import BigEarthNetLMDB
from ..datasets.names import acquisition, tile
from ..sensors import Band
from .sources import LEVELS, Rows, Source, SourceFacts, lookup, padded, tiles_in

_S1, _L1C, _L2A = sensors.SENTINEL1_GRD, LEVELS['L1C'], LEVELS['L2A']


_SSL4EO = {'s1': _S1, 's2c': _L1C, 's2a': _L2A}


def find_facts(kind: type) -> SourceFacts:
    """Return the facts of a class of datasets, empty if it is unknown."""
    return next((FACTS[base] for base in kind.__mro__ if base in FACTS), SourceFacts())


def _listed(*known: Sequence[Band]) -> Callable[[Source], Sequence[Band]]:
    """Return bands in the order of the dataset's own ``bands``."""
    return lambda source: lookup(source.dataset.bands, *known)


def _bigearthnet(dataset: Any, rows: Rows) -> dict[str, Any]:
    table = dataset.table.rows(rows)
    s2_names, s1_names = np.char.decode([table.s2_names, table.s1_names], 'utf-8')
    tiles = [[tile(name) or ''] for name in s1_names]
    return {
        'names': s2_names,
        'scenes': [acquisition(name) for name in s2_names],
        'tiles': tiles if any(name for (name,) in tiles) else tiles_in(s2_names),
        'patches': table.known_names,
    }


def _eurosat(dataset: Any, rows: Rows) -> dict[str, Any]:
    return {'names': [Path(dataset.imgs[row][0]).stem for row in rows]}


def _s2100k(dataset: Any, rows: Rows) -> dict[str, Any]:
    table = dataset.index.iloc[rows]
    places = table[['lon', 'lat']].to_numpy(dtype=np.float64)
    return {'names': [Path(name).stem for name in table['fn']], 'places': places}


def _so2sat_arguments(bands: Sequence[str] | None) -> dict[str, Any]:
    known = tg.So2Sat.all_band_names
    names = tg.So2Sat.all_s2_band_names
    if bands is not None:
        names = [band if band in known else f'S2_{band}' for band in bands]
    return {'bands': [name for name in names if name in known]}


def _so2sat_bands(source: Source) -> Sequence[Band]:
    """Return radar bands (complex amplitudes) first, as in the images."""
    radar, nan = source.dataset.s1_band_names, float('nan')
    optical = [name.removeprefix('S2_') for name in source.dataset.s2_band_names]
    unknown = [Band(name, 'Sentinel-1 SLC', None, nan, nan, nan) for name in radar]
    return [*unknown, *lookup(optical, _L1C)]


def _seco_arguments(bands: Sequence[str] | None) -> dict[str, Any]:
    known = dict(zip(sensors.names(_L2A), tg.SeasonalContrastS2.all_bands, strict=True))
    return {'bands': [known[band] for band in bands or known if band in known]}


def _sen12ms(dataset: Any, rows: Rows) -> dict[str, Any]:
    names = [Path(dataset.ids[row]).stem.replace('_lc_', '_') for row in rows]
    return {'names': names, 'scenes': [name.rsplit('_', 1)[0] for name in names]}


def _sen12ms_file(dataset: Any, row: int) -> Path:
    name = dataset.ids[row].replace('_lc_', '_s2_')
    region, season, sensor, scene, _ = name.split('_')
    return Path(dataset.root, f'{region}_{season}', f'{sensor}_{scene}', name)


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


# MMEarth: TorchGeo's class mixes the product levels, of which one is used here, and
# normalizes. Radar is that of ascending orbits.

_MMEARTH_IMAGES = ('sentinel1_asc', 'sentinel2')


def _mmearth_arguments(bands: Sequence[str] | None) -> dict[str, Any]:
    radar = sensors.names(_S1)
    images = {_MMEARTH_IMAGES[band not in radar] for band in bands or ('B01',)}
    return {'modalities': sorted(images)}


def _mmearth_channels(source: Source) -> Iterator[tuple[str, list[str], list[bool]]]:
    """Yield each image that is read, its channels' names and which are used."""
    order, read = source.dataset.all_modality_bands, source.dataset.modality_bands
    known = sensors.names(_S1 + LEVELS[str(source.level)])
    for image in _MMEARTH_IMAGES:
        if image in read:
            names = [name for name in order[image] if name in read[image]]
            yield image, names, [padded(name) in known for name in names]


def _mmearth_bands(source: Source) -> Sequence[Band]:
    mode = source.dataset.normalization_mode
    if mode != 'z-score':
        raise ValueError(
            f'normalization_mode of MMEarth is {mode!r}, which cannot be undone. Leave '
            f'it at z-score.'
        )
    channels = _mmearth_channels(source)
    names = [name for _, names, used in channels for name in compress(names, used)]
    return lookup(names, _S1, LEVELS[str(source.level)])


def _mmearth_image(source: Source, sample: Mapping[str, Any]) -> Tensor:
    """Turn z-scores back into digital numbers and decibels."""
    parts = []
    for image, names, used in _mmearth_channels(source):
        optical = image == 'sentinel2'
        stats = f'sentinel2_{str(source.level).lower()}' if optical else 'sentinel1'
        order = source.dataset.all_modality_bands[image]
        mean, std = (
            torch.tensor([values[order.index(name)] for name in names])[:, None, None]
            for values in map(source.dataset.band_stats[stats].get, ('mean', 'std'))
        )
        pixels = sample[f'image_{image}'] * std + mean
        parts.append((pixels.round() if optical else pixels)[used])
    return torch.cat(parts)


def _mmearth_tiles(dataset: Any, rows: Rows) -> list[tuple[str, dict[str, Any]]]:
    """Return the id and facts of samples, which the dataset has by place in a file."""
    folder = dataset.filenames[dataset.subset]
    path = Path(dataset.root, folder, dataset.dataset_filename)
    with lazy_import('h5py').File(path, 'r') as file:
        table = file['metadata'][:]
    ids = [table[dataset.indices[row]][0].decode() for row in rows]
    return [(name, dataset.tile_info[name]) for name in ids]


def _mmearth_rows(source: Source) -> Rows:
    """Return the samples of the product level; of radar alone if it is given."""
    rows = np.arange(len(source.dataset))
    if 'sentinel2' not in source.dataset.modality_bands and not source.level_is_given:
        return rows
    levels = [info['S2_type'] for _, info in _mmearth_tiles(source.dataset, rows)]
    return np.flatnonzero(np.array(levels) == str(source.level).lower())


def _mmearth(dataset: Any, rows: Rows) -> dict[str, Any]:
    found = _mmearth_tiles(dataset, rows)
    places = [(info['lon'], info['lat']) for _, info in found]
    return {'names': [name for name, _ in found], 'places': places}


FACTS: dict[type, SourceFacts] = {
    BigEarthNetLMDB: SourceFacts(
        bands=_listed(_L2A, _S1),
        arguments=lambda bands: {} if bands is None else {'bands': list(bands)},
        nodata=0,
        columns=_bigearthnet,
    ),
    tg.EuroSAT: SourceFacts(
        bands=_listed(_L1C),
        nodata=0,
        columns=_eurosat,
        file=lambda dataset, row: dataset.imgs[row][0],
    ),
    tg.MMEarth: SourceFacts(
        bands=_mmearth_bands,
        arguments=_mmearth_arguments,
        level='L2A',
        nodata=0,
        image=_mmearth_image,
        rows=_mmearth_rows,
        columns=_mmearth,
    ),
    tg.S2100k: SourceFacts(bands=lambda source: _L2A, nodata=0, columns=_s2100k),
    tg.SEN12MS: SourceFacts(  # patches of a scene overlap by half
        bands=_listed(_S1, _L1C),
        nodata=0,
        columns=_sen12ms,
        file=_sen12ms_file,
        scenes_are_places=True,
    ),
    tg.SSL4EOS12: _seasons(
        lambda source: lookup(source.dataset.bands, _SSL4EO[source.dataset.split]),
        folder=lambda dataset: Path(dataset.root, dataset.split),
        digits=7,
    ),
    tg.SeasonalContrastS2: _seasons(
        _listed(_L2A),
        folder=lambda data: Path(data.root, data.metadata[data.version]['directory']),
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
