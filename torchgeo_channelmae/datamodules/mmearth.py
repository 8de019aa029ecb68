"""MMEarth as a source: TorchGeo's class mixes product levels and normalizes."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchgeo.datasets.utils import lazy_import

from .. import sensors
from ..sensors import Band
from .sources import LEVELS, Rows, Source, SourceFacts, lookup, padded

_IMAGES = ('sentinel1_asc', 'sentinel2')


def _arguments(bands: Sequence[str] | None) -> dict[str, Any]:
    """Read only the images needed."""
    radar = {band in sensors.names(sensors.SENTINEL1_GRD) for band in bands or ['B01']}
    return {'modalities': [_IMAGES[not kind] for kind in sorted(radar)]}


def _names(source: Source) -> dict[str, list[str]]:
    """Return the names of the channels of each image, in order."""
    order, read = source.dataset.all_modality_bands, source.dataset.modality_bands
    return {
        image: [name for name in order[image] if name in read[image]]
        for image in _IMAGES
        if image in read
    }


def _is_used(source: Source, name: str) -> bool:
    level = LEVELS[str(source.level)]
    return padded(name) in sensors.names(sensors.SENTINEL1_GRD + level)


def _bands(source: Source) -> Sequence[Band]:
    mode = source.dataset.normalization_mode
    if mode != 'z-score':
        raise ValueError(
            f'normalization_mode of MMEarth is {mode!r}, which cannot be undone. Leave '
            f'it at z-score.'
        )
    names = [name for each in _names(source).values() for name in each]
    used = [name for name in names if _is_used(source, name)]
    return lookup(used, sensors.SENTINEL1_GRD, LEVELS[str(source.level)])


def _image(source: Source, sample: Mapping[str, Any]) -> Tensor:
    """Turn z-scores back into digital numbers and decibels."""
    parts = []
    for image, names in _names(source).items():
        optical = image == 'sentinel2'
        kind = f'sentinel2_{_level(source)}' if optical else 'sentinel1'
        order = source.dataset.all_modality_bands[image]
        mean, std = (
            torch.tensor([values[order.index(name)] for name in names])[:, None, None]
            for values in map(source.dataset.band_stats[kind].get, ('mean', 'std'))
        )
        pixels = sample[f'image_{image}'] * std + mean
        used = [_is_used(source, name) for name in names]
        parts.append((pixels.round() if optical else pixels)[used])
    return torch.cat(parts)


def _level(source: Source) -> str:
    return str(source.level).lower()


@lru_cache(maxsize=2)
def _table(path: Path) -> list[str]:
    """Return the ids of all tiles of the file."""
    with lazy_import('h5py').File(path, 'r') as file:
        table = file['metadata'][:]
    first = table[table.dtype.names[0]] if table.dtype.names else table[:, 0]
    return [name.decode() for name in first]


def _ids(dataset: Any, rows: Rows) -> list[str]:
    folder = dataset.filenames[dataset.subset]
    table = _table(Path(dataset.root, folder, dataset.dataset_filename))
    return [table[dataset.indices[row]] for row in rows]


def _rows(source: Source) -> Rows:
    """Return the tiles of the product level; radar has no level."""
    rows = np.arange(len(source.dataset))
    if 'sentinel2' not in source.dataset.modality_bands:
        return rows
    info = source.dataset.tile_info
    kinds = [info[name]['S2_type'] for name in _ids(source.dataset, rows)]
    return np.flatnonzero(np.array(kinds) == _level(source))


def _columns(dataset: Any, rows: Rows) -> dict[str, Any]:
    names = _ids(dataset, rows)
    infos = [dataset.tile_info[name] for name in names]
    return {'names': names, 'places': [(each['lon'], each['lat']) for each in infos]}


MMEARTH = SourceFacts(
    bands=_bands,
    arguments=_arguments,
    level='L2A',
    nodata=0,
    image=_image,
    rows=_rows,
    columns=_columns,
)
"""Half L1C, half L2A, of which one is used; radar is VV and VH of ascending orbits."""
