"""Copernicus-Bench's part of BigEarthNet: a small, public track for both sensors."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, override

import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio
import torch
from rasterio.errors import RasterioError
from torch import Tensor
from torchgeo.datasets import (
    CopernicusBenchBigEarthNetS1,
    CopernicusBenchBigEarthNetS2,
    DatasetNotFoundError,
    NonGeoDataset,
)

from .metadata import CLASSES, SPLITS, PatchTable
from .pairs import check_pairs
from .patches import BigEarthNetPatches, Pixels, check_rows
from .stored import RESAMPLED

_S1, _S2 = CopernicusBenchBigEarthNetS1, CopernicusBenchBigEarthNetS2
_FOLDERS = ('BigEarthNet-S1-5%', 'BigEarthNet-S2-5%')


class CopernicusBenchBigEarthNet(BigEarthNetPatches, NonGeoDataset):
    """Sentinel-1 and Sentinel-2 patches of Copernicus-Bench's BigEarthNet.

    The files of TorchGeo's
    :class:`~torchgeo.datasets.CopernicusBenchBigEarthNetS1` and
    :class:`~torchgeo.datasets.CopernicusBenchBigEarthNetS2`, read as one dataset:

    * bands by name, in any order, of one sensor or both
    * labels by the names of their columns, where they are named
    * samples are those of
      :class:`~torchgeo_channelmae.datasets.patches.BigEarthNetPatches`

    Dataset features:

    * 5 % of BigEarthNet v2: 11,894 training, 6,117 validation and 5,991 test pairs
    * 120 x 120 px at 10 m, a file a sensor and patch
    * Sentinel-2 L2A in digital numbers of reflectance x 10,000, its coarser bands
      already resampled to 10 m by the makers
    * Sentinel-1 GRD, VV and VH, in decibels
    * 19 land-cover classes, several a patch

    If you use this dataset in your research, please cite the following papers:

    * https://arxiv.org/abs/2503.11849
    * https://arxiv.org/abs/2407.03653
    """

    stored = RESAMPLED

    def __init__(
        self,
        root: str | Path = 'data',
        split: str = 'train',
        bands: Sequence[str] | None = None,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        download: bool = False,
        checksum: bool = True,
        native: bool = False,
        max_nonfinite: float = 0.01,
        on_error: str = 'raise',
        radar_order: Sequence[str] = ('VV', 'VH'),
    ) -> None:
        """Initialise the dataset and check that its files are there.

        Args:
            root: Folder with ``bigearthnet_s1s2``, or with the zip file of it.
            split: 'train', 'val' or 'test'.
            bands: Names of Sentinel-2 or Sentinel-1 bands or both, in the order
                wanted. None is the 12 of Sentinel-2.
            transforms: Takes a sample and returns a transformed version.
            download: Download the data where ``root`` lacks them (as one zip file).
            checksum: Check what was downloaded.
            native: Return bands as stored, see the samples.
            max_nonfinite: Largest share of a band's pixels without data that is filled
                with the mean of its other pixels. More is an error.
            on_error: 'raise' or, to return the reason as a sample, 'skip': so are
                missing files then.
            radar_order: What the two bands of a Sentinel-1 file are, where the file
                does not name them.

        Raises:
            FileNotFoundError: If a file or folder is missing.
            ValueError: If a split, band or column is unknown, or the patches of a row
                are not of the same place.
        """
        if split not in SPLITS:
            raise ValueError(
                f'Unknown split {split!r}: choose one of {", ".join(SPLITS)}.'
            )
        if sorted(radar_order) != sorted(_S1.all_bands):
            raise ValueError(
                f'radar_order is {list(radar_order)}: name VV and VH, each once.'
            )
        self.root = Path(root)
        self.split = split
        self.radar_order = tuple(radar_order)
        self._files, table = read_split(self.root, split, download, checksum)
        self.prepare(table, bands, transforms, native, max_nonfinite, on_error)
        check_rows(table, split, self.root)
        wanted = (self.wanted_s1, self.wanted_s2)
        self._sensors = [sensor for sensor in (0, 1) if wanted[sensor]]
        self._check_pairs()
        if on_error == 'raise':
            self._check_files()

    @override
    def read(self, index: int) -> dict[str, Pixels]:
        """Read the pixels of a patch, see the base class."""
        pixels: dict[str, Pixels] = {}
        for sensor in self._sensors:
            order = self.radar_order if sensor == 0 else self.s2_bands
            wanted = self.wanted_s1 if sensor == 0 else self.wanted_s2
            found = read_bands_of(self._path(index, sensor), order, wanted)
            pixels |= {band: _counts(found[band], sensor) for band in wanted}
        return pixels

    def radar(self, index: int) -> dict[str, Pixels]:
        """Read VV and VH of a patch as stored, whichever bands are wanted.

        Args:
            index: Row of the table.
        """
        return read_bands_of(self._path(index, 0), self.radar_order, self.s1_bands)

    def _path(self, index: int, sensor: int) -> Path:
        folder = self.root / _S1.directory / _FOLDERS[sensor]
        return folder / str(self._files.iat[index, sensor])

    def _check_pairs(self) -> None:
        """Check that both files of a row are of one place, if both are wanted."""
        if len(self._sensors) < 2:
            return
        where = f'split {self.split!r} of {self.root}'
        check_pairs(self.table.s1_names, self.table.s2_names, where)

    def _check_files(self) -> None:
        missing = [
            path
            for index in range(len(self))
            for path in (self._path(index, sensor) for sensor in self._sensors)
            if not path.is_file()
        ]
        if missing:
            raise FileNotFoundError(
                f'{len(missing)} of the files of the {len(self)} patches of split '
                f'{self.split!r} are missing, the first is {missing[0]}: unpack '
                f'{_S1.zipfile} again.'
            )


def read_split(
    root: Path, split: str, download: bool = False, checksum: bool = True
) -> tuple[pd.DataFrame, PatchTable]:
    """Read the table of a split, after unpacking or downloading the data.

    Args:
        root: Folder with ``bigearthnet_s1s2``, or with the zip file of it.
        split: 'train', 'val' or 'test'.
        download: Download the data where ``root`` lacks them.
        checksum: Check what was downloaded.

    Returns:
        The files of each patch, of Sentinel-1 and of Sentinel-2, and the patches.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ValueError: If the table is damaged or has an unknown column.
    """
    try:
        stock = _S1(root, split, None, None, download, checksum)  # type: ignore[arg-type]
    except DatasetNotFoundError:
        raise FileNotFoundError(
            f'{root} has neither {_S1.directory} nor {_S1.zipfile}: give the folder '
            f'with Copernicus-Bench, or download=True.'
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = str(error).splitlines()[0]
        name = _S1.filename.format(split)
        raise ValueError(
            f'{root / _S1.directory / name} is no table ({reason}): unpack it again.'
        ) from None
    files = stock.files.iloc[:, :2]
    table = PatchTable(
        s2_names=_names(files.iloc[:, 1]),
        s1_names=_names(files.iloc[:, 0]),
        split=np.full(len(files), split),
        labels=_labels(
            stock.files.iloc[:, 2:], f'{_S1.filename.format(split)} of {root}'
        ),
    )
    return files, table


def _labels(columns: pd.DataFrame, where: str) -> Tensor:
    """Return the labels, columns in the order of the classes."""
    if columns.shape[1] != len(CLASSES):
        raise ValueError(
            f'{where} has {columns.shape[1]} columns of labels, expected '
            f'{len(CLASSES)}: unpack it again.'
        )
    named = [str(name) for name in columns]
    unknown = [name for name in named if name not in CLASSES]
    if len(unknown) == len(named):
        order = list(range(len(named)))  # without names, in TorchGeo's order
    elif unknown:
        raise ValueError(
            f'{where} has labels of {unknown[0]!r}, none of the classes '
            f'{"; ".join(CLASSES)}: unpack it again.'
        )
    else:
        order = [named.index(name) for name in CLASSES]
    values = columns.to_numpy()
    if not np.isin(values, [0, 1]).all():
        raise ValueError(f'{where} has labels other than 0 and 1: unpack it again.')
    return torch.from_numpy(values.astype(np.int64)[:, order])


def read_bands_of(
    path: Path, order: Sequence[str], wanted: Sequence[str]
) -> dict[str, Pixels]:
    """Read bands of a GeoTIFF that has one patch of a sensor.

    Args:
        path: The file.
        order: What its bands are, unless it names them itself.
        wanted: Names of the bands to read.

    Returns:
        A (height, width) array for each, as stored; decibels of the no-data value that
        the file declares are NaN.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it can't be read or has another number of bands, or if pixels of
            Sentinel-2 hold no data by another value than 0.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing: unpack the archive again.')
    try:
        with rasterio.open(path) as file:
            if file.count != len(order):
                raise ValueError(
                    f'{path} has {file.count} bands, expected {", ".join(order)}: '
                    f'unpack it again.'
                )
            named = set(file.descriptions) == set(order)
            bands = list(file.descriptions if named else order)
            stack = file.read([bands.index(band) + 1 for band in wanted])
            nodata = file.nodata
    except RasterioError as error:
        reason = ' '.join(str(error).split())
        raise ValueError(
            f'{path} is no readable GeoTIFF ({reason}): unpack it again.'
        ) from None
    holes = np.zeros_like(stack, dtype=bool)
    if nodata:  # 0 says it already
        holes |= stack == nodata
    if set(order) == set(_S1.all_bands):
        stack[holes | (stack == nodata)] = np.nan
        return dict(zip(wanted, stack, strict=True))
    holes |= ~np.isfinite(stack)
    if holes.any():  # 0 would be dark there, where another band has data
        raise ValueError(
            f'{path} has {int(holes.sum())} pixels without data that are not 0: unpack '
            f"it again, or skip the patch with on_error='skip'."
        )
    return dict(zip(wanted, stack, strict=True))


def _counts(pixels: Pixels, sensor: int) -> Pixels:
    """Return digital numbers as integers, which some copies hold as floats."""
    if sensor == 0 or pixels.dtype.kind != 'f':
        return pixels
    whole = pixels.astype(np.int32)
    return whole if (whole == pixels).all() else pixels


def _names(paths: 'pd.Series[str]') -> npt.NDArray[np.bytes_]:
    stems = [Path(str(path)).stem.removesuffix('_allbands') for path in paths]
    return np.array([stem.encode() for stem in stems], dtype='S')
