"""Readers of BigEarthNet's GeoTIFF archives, with pixels as they are stored.

TorchGeo's datasets of the same archives round decibels to integers and resample all
bands to 10 m, so only the layout of the folders is taken from them.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, override

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from rasterio.errors import RasterioError
from torch import Tensor
from torchgeo.datasets import BigEarthNet, BigEarthNetV2
from torchgeo.datasets import CopernicusBenchBigEarthNetS1 as Bench
from tqdm.contrib.concurrent import thread_map

from .bigearthnet import NATIVE_SIDES, SIDE, BigEarthNetLMDB
from .metadata import CLASSES, SPLITS, PatchTable, read_table, table_note
from .names import check_pairs
from .records import Pixels

_S1, _S2 = BigEarthNetLMDB.s1_bands, BigEarthNetLMDB.s2_bands
_COLUMNS = {
    name: BigEarthNet.label_converter.get(number)
    for number, name in enumerate(BigEarthNet.class_sets[43])
}
_GDAL = {'GDAL_DISABLE_READDIR_ON_OPEN': 'EMPTY_DIR'}
_PROBED = 8  # radar files whose order of bands is checked


class Archive(ABC):
    """The Sentinel-1 and Sentinel-2 patches of an unpacked archive.

    Attributes:
        root: Folder of the archive.
        table: The patches; those of v1 without labels, see :meth:`labelled`.
        keys: Names of all Sentinel-1 and Sentinel-2 patches to encode, sorted.
        note: What readers of scores on these patches have to know, if anything.
    """

    name: ClassVar[str]
    folders: ClassVar[tuple[str, ...]]
    note: str | None = None

    def __init__(self, root: Path, table: PatchTable, sensors: str) -> None:
        """Check the table and list the patches of ``sensors``: 'all', 's1' or 's2'."""
        self.root = root
        self.table = table
        self.parts = ('s1', 's2') if sensors == 'all' else (sensors,)
        check_pairs(table.s1_names, table.s2_names, root)
        self.keys = self.names(table)
        if '' in self.keys:
            raise ValueError(f'{root} has patches without s1_name. Use sensors s2.')

    def names(self, table: PatchTable) -> list[str]:
        """Return the names of the patches to encode of a table, sorted."""
        columns = {'s1': table.s1_names, 's2': table.s2_names}
        return sorted({name.decode() for part in self.parts for name in columns[part]})

    @abstractmethod
    def read(self, name: str) -> dict[str, Pixels]:
        """Read the bands of a Sentinel-1 or Sentinel-2 patch, (height, width) each."""

    def labelled(self, rows: npt.NDArray[Any]) -> PatchTable:
        """Return some rows of the table with their labels."""
        return self.table.rows(rows)


class V1(Archive):
    """BigEarthNet v1: a folder per patch, with a JSON file of labels."""

    name = 'BigEarthNet v1'
    folders = tuple(
        BigEarthNet.metadata[part][key]
        for part in ('s1', 's2')
        for key in ('directory', 'filename')
    )

    def __init__(self, root: Path, sensors: str) -> None:
        """Read the lists of splits."""
        rows = [
            (Path(pair['s1']).name, Path(pair['s2']).name, split)
            for split in SPLITS
            for pair in BigEarthNet(root, split, bands=sensors).folders  # type: ignore[arg-type]
        ]
        table = _table(rows, torch.full((len(rows), len(CLASSES)), -1))
        super().__init__(root, replace(table, v1_names=table.s2_names), sensors)

    @override
    def read(self, name: str) -> dict[str, Pixels]:
        folder = self._folder(name)
        if name.startswith('S2') or self.parts == ('s1',):
            _read_labels(folder)  # to find damage early
        return _read_folder(folder)

    @override
    def labelled(self, rows: npt.NDArray[Any]) -> PatchTable:
        table = super().labelled(rows)
        names = table.s2_names if 's2' in self.parts else table.s1_names
        folders = [self._folder(name.decode()) for name in names]
        labels = thread_map(_read_labels, folders, max_workers=8, desc='Reading labels')
        return replace(table, labels=torch.stack(labels))

    def _folder(self, name: str) -> Path:
        part = 's1' if name.startswith('S1') else 's2'
        return self.root / BigEarthNet.metadata[part]['directory'] / name


class V2(Archive):
    """BigEarthNet v2: a folder per scene and patch, and ``metadata.parquet``."""

    name = 'BigEarthNet v2'
    folders = tuple(BigEarthNetV2.dir_file_names[part] for part in ('s1', 's2'))

    def __init__(self, root: Path, sensors: str) -> None:
        """Read ``metadata.parquet``."""
        super().__init__(root, read_table(root), sensors)
        self.note = table_note(root)

    @override
    def read(self, name: str) -> dict[str, Pixels]:
        part, cut = ('s1', 3) if name.startswith('S1') else ('s2', 2)
        scenes = self.root / BigEarthNetV2.dir_file_names[part]
        return _read_folder(scenes / name.rsplit('_', cut)[0] / name)


class CopernicusBench(Archive):
    """Copernicus-Bench's 5 % of BigEarthNet v2: a file per sensor and patch.

    All bands are on the 10 m grid. The order of the two radar bands is verified: land
    scatters less into the other polarization, so VH is about 7 dB below VV.
    """

    name = 'Copernicus-Bench BigEarthNet'
    folders = (Bench.directory, Bench.zipfile)
    note = (
        'The patches are those of Copernicus-Bench, 5 % of BigEarthNet v2: scores '
        'compare with others on these patches only.'
    )

    def __init__(self, root: Path, sensors: str) -> None:
        """Read the tables of the splits, after unpacking the zip file if need be."""
        self._paths: dict[str, Path] = {}
        rows, labels = [], []
        for split in SPLITS:
            frame = Bench(root, split).files  # type: ignore[arg-type]
            for files in frame.iloc[:, :2].to_numpy(dtype=str):
                names = [Path(file).stem.removesuffix('_allbands') for file in files]
                rows.append((*names, split))
                for name, part, file in zip(names, (1, 2), files, strict=True):
                    folder = root / self.folders[0] / f'BigEarthNet-S{part}-5%'
                    self._paths[name] = folder / file
            hot = frame.iloc[:, 2:]
            if set(hot) == set(CLASSES):  # else in TorchGeo's order
                hot = hot[list(CLASSES)]
            labels.append(torch.from_numpy(hot.to_numpy(dtype=np.int64)))
        super().__init__(root, _table(rows, torch.cat(labels)), sensors)
        self._radar = self._radar_order() if 's1' in self.parts else _S1

    @override
    def read(self, name: str) -> dict[str, Pixels]:
        bands = self._radar if name.startswith('S1') else _S2
        return read_geotiff(self._paths[name], bands, SIDE)

    def _radar_order(self) -> tuple[str, ...]:
        """Return the names of the two bands: VV is the brighter in most files."""
        names = self.table.s1_names
        swapped = []
        for row in np.linspace(0, len(names) - 1, min(_PROBED, len(names)), dtype=int):
            with suppress(ValueError):  # encoding it raises or skips
                pixels = read_geotiff(self._paths[names[row].decode()], _S1, SIDE)
                swapped.append(np.nanmedian(pixels['VH']) > np.nanmedian(pixels['VV']))
        return _S1[::-1] if sum(swapped) > len(swapped) / 2 else _S1


def open_archive(root: str | Path, sensors: str) -> Archive:
    """Return the archive of a folder, unpacked as TorchGeo does.

    Raises:
        FileNotFoundError: If its lists of patches are missing.
        ValueError: If it has no archive or several.
    """
    root = Path(root)
    kinds = (V1, V2, CopernicusBench)
    found = [kind for kind in kinds if any((root / f).exists() for f in kind.folders)]
    if len(found) != 1:
        has = ' and '.join(kind.name for kind in found) or 'no unpacked archive'
        named = '; '.join(f'{kind.folders[0]} ({kind.name})' for kind in kinds)
        raise ValueError(f'{root} has {has}. Give a folder with one of {named}.')
    return found[0](root, sensors)


def read_geotiff(path: Path, bands: Sequence[str], side: int) -> dict[str, Pixels]:
    """Read all bands of a GeoTIFF, (side, side) each.

    Args:
        path: The file.
        bands: Names of its bands, all of one sensor, unless the file has them itself.
        side: Height and width.

    Returns:
        Float32 decibels, NaN where the file declares no data, or digital numbers as
        uint16 or int16.

    Raises:
        ValueError: If the file is damaged, or not like BigEarthNet's.
    """
    try:
        with rasterio.Env(**_GDAL), rasterio.open(path) as file:
            stack, nodata, described = file.read(), file.nodata, file.descriptions
    except RasterioError as error:
        raise ValueError(f'{path} cannot be read: {error}') from error
    if stack.shape != (len(bands), side, side):
        raise ValueError(f'{path} is {stack.shape}, not {(len(bands), side, side)}.')
    holes = stack == (np.nan if nodata is None else nodata)
    if bands[0] in _S1:
        if stack.dtype.kind != 'f':
            raise ValueError(f'{path} is {stack.dtype}, not float32 decibels.')
        stack = stack.astype(np.float32)
        stack[holes] = np.nan
    else:
        if nodata and holes.any():
            raise ValueError(f'{path} has pixels of {nodata:g}, which is no data.')
        stack = _counts(stack, path)
    named = described if set(described) == set(bands) else bands
    return dict(zip(named, stack, strict=True))


def _counts(stack: Pixels, path: Path) -> Pixels:
    """Return digital numbers as integers, which some files store as floats."""
    if stack.dtype in (np.uint16, np.int16):
        return stack
    with np.errstate(invalid='ignore'):
        whole = stack.astype(np.uint16)
    if (whole != stack).any():
        raise ValueError(f'{path} is {stack.dtype}, not uint16 digital numbers.')
    return whole


def _read_folder(folder: Path) -> dict[str, Pixels]:
    """Read a patch that has a file per band."""
    pixels: dict[str, Pixels] = {}
    for band in _S1 if folder.name.startswith('S1') else _S2:
        path = folder / f'{folder.name}_{band}.tif'
        pixels |= read_geotiff(path, (band,), NATIVE_SIDES[band])
    return pixels


def _read_labels(folder: Path) -> Tensor:
    """Read the labels of a v1 patch, converted to the 19 classes, (19,)."""
    path = folder / f'{folder.name}_labels_metadata.json'
    try:
        columns = [_COLUMNS[name] for name in json.loads(path.read_text())['labels']]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} has no labels of v1: {error!r}') from error
    hot = torch.zeros(len(CLASSES), dtype=torch.int64)
    hot[[column for column in columns if column is not None]] = 1
    return hot


def _table(rows: Sequence[tuple[str, ...]], labels: Tensor) -> PatchTable:
    """Return a table from rows of Sentinel-1 name, Sentinel-2 name and split."""
    s1, s2, split = zip(*rows, strict=True)
    s1_names, s2_names = np.array(s1, dtype='S'), np.array(s2, dtype='S')
    return PatchTable(s2_names, s1_names, np.array(split, dtype='U5'), labels)
