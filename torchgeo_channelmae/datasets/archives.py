"""BigEarthNet v1 and v2 from their original archives of GeoTIFFs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, override

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchgeo.datasets import BigEarthNet, BigEarthNetV2

from .. import sensors
from .downloads import check_digests, download_files, unpack
from .layout import (
    archive_table,
    archive_version,
    check_folders,
    read_band,
    read_label,
    read_labels,
)
from .metadata import SPLITS, PatchTable
from .patches import BigEarthNetPatches, Pixels, check_radar_names, check_rows

IGNORE = 255
"""What ``mask`` is where the land cover is none of the 19 classes."""


class _GeoTIFFPatches(BigEarthNetPatches):
    """What the two versions do alike."""

    version: ClassVar[str]

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
        table: PatchTable | None = None,
    ) -> None:
        """Initialise the dataset and check that its patches have folders.

        Args:
            root: Folder with the archives, unpacked or as downloaded.
            split: 'train', 'val' or 'test'.
            bands: Names of Sentinel-2 or Sentinel-1 bands or both, in the order
                wanted. None is the 12 of Sentinel-2.
            transforms: Takes a sample and returns a transformed version.
            download: Download what the bands need and ``root`` lacks.
            checksum: Check downloaded archives before they are unpacked (slow).
            native: Return bands as stored, not resampled.
            max_nonfinite: Largest share of a band's pixels without data that is filled
                with the mean of its other pixels. More is an error.
            on_error: 'raise' or, to return the reason as a sample, 'skip'.
            table: The patches to choose the split from, such as
                :meth:`~torchgeo_channelmae.datasets.selection.Selection.apply` returns.
                None is the archive's own.

        Raises:
            FileNotFoundError: If a file or folder is missing.
            ValueError: If a split, band or label is unknown, a file is damaged, or
                ``root`` has the other version.
        """
        if split not in SPLITS:
            raise ValueError(
                f'Unknown split {split!r}: choose one of {", ".join(SPLITS)}.'
            )
        self.root = Path(root)
        self.split = split
        self.download = download
        self.checksum = checksum
        self.num_classes = len(self.classes)
        self._parts = self._parts_of(bands)
        self._table_given = table is not None
        self._verify()
        if table is None:
            table = archive_table(self.root, self.version, labels=False)
        table = table.rows(np.flatnonzero(table.split == split))
        self.prepare(table, bands, transforms, native, max_nonfinite, on_error)
        check_rows(table, split, self.root)
        if on_error == 'raise' and self.wanted_s1:
            check_radar_names(table)
        for part in self._parts if on_error == 'raise' else ():
            names = table.s1_names if part == 's1' else table.s2_names
            who = f'split {split!r}'
            check_folders(self.root, self.version, part, names.tolist(), who)

    @override
    def read(self, index: int) -> dict[str, Pixels]:
        """Read the pixels of a patch, see the base class."""
        return {
            band: read_band(self.root, self.version, self._patch(band, index), band)
            for band in self.bands
        }

    def _parts_of(self, bands: Sequence[str] | None) -> list[str]:
        """Return which of the archive's folders are needed."""
        available = sensors.SENTINEL2_L2A + sensors.SENTINEL1_GRD
        chosen = sensors.select(self.s2_bands if bands is None else bands, available)
        radar = [band in sensors.SENTINEL1_GRD for band in chosen]
        return ['s1'] * any(radar) + ['s2'] * (not all(radar))

    def _downloads(self) -> dict[str, dict[str, tuple[str, str]]]:
        """Return what has to be in the root, and the files that it comes from.

        Returns:
            For each folder or file its downloads: name, URL and digest.
        """
        raise NotImplementedError

    def _verify(self) -> None:
        """Unpack or download what is needed and not there, and nothing else.

        Raises:
            FileNotFoundError: If something is missing and not to be downloaded.
            ValueError: If a download is damaged, or the root has the other version.
        """
        for target, files in self._downloads().items():
            if (self.root / target).exists():
                continue
            if self.download:
                download_files(self.root, files, self.checksum)
            elif not all((self.root / name).is_file() for name in files):
                self._raise_missing(target, files)
            elif self.checksum:
                check_digests(self.root, files)
            if target not in files:
                unpack([self.root / name for name in files], self.root, target)

    def _raise_missing(self, target: str, files: Mapping[str, object]) -> None:
        try:
            found = archive_version(self.root)
        except (FileNotFoundError, ValueError):
            found = self.version
        if found != self.version:
            raise ValueError(
                f'BigEarthNet root {self.root} is {found}, not {self.version}: use '
                f'the dataset or version {found}, or another root.'
            )
        made_from = '' if target in files else f' nor {", ".join(files)} to unpack'
        raise FileNotFoundError(
            f'BigEarthNet root {self.root} has no {target}{made_from}: give the folder '
            f'that has it, or download=True.'
        )


class BigEarthNetV1GeoTIFF(_GeoTIFFPatches, BigEarthNet):
    """BigEarthNet v1, Sentinel-2 and Sentinel-1, from its original archives.

    TorchGeo's layout, lists of splits and downloads, and of
    :class:`torchgeo.datasets.BigEarthNet` these differ:

    * bands by name, in any order, and only their files and archives are needed
    * Sentinel-1 in float32 decibels, exactly as stored
    * samples are those of
      :class:`~torchgeo_channelmae.datasets.patches.BigEarthNetPatches`, at native
      resolution if wanted
    * damaged or missing files, and pixels without data, are found and named

    Dataset features:

    * 590,326 pairs over ten European countries, Jun 2017 - May 2018; the lists of
      splits leave those out that snow, clouds or their shadows cover
    * 120 x 120 px at 10 m; bands of 20 m and 60 m are resampled to that grid
    * 43 land-cover classes, as the 19 of the later nomenclature; labels are in a file a
      patch and are read with the patch

    If you use this dataset in your research, please cite the following paper:

    * https://doi.org/10.1109/MGRS.2021.3089174
    """

    version = 'v1'

    @override
    def label(self, index: int) -> Tensor:
        """Return the labels of a patch, (19,) int64."""
        known = self.table.labels[index]
        if (known >= 0).all():
            return known.clone()
        return read_label(self.root, self._labelled()[index].decode())

    @property
    @override
    def labels(self) -> Tensor:
        """Labels, row by row, (rows, 19) int64; reads the file of every patch, once."""
        if (self.table.labels < 0).any():
            names = [name.decode() for name in self._labelled()]
            self.table = replace(self.table, labels=read_labels(self.root, names))
        return self.table.labels

    def _labelled(self) -> npt.NDArray[np.bytes_]:
        """Return the patches of a sensor in use, whose folders have the labels."""
        return self.table.s2_names if 's2' in self._parts else self.table.s1_names

    @override
    def _downloads(self) -> dict[str, dict[str, tuple[str, str]]]:
        images = {
            where['directory']: {where['filename']: (where['url'], where['md5'])}
            for where in (BigEarthNet.metadata[part] for part in self._parts)
        }
        lists = {
            where['filename']: {where['filename']: (where['url'], where['md5'])}
            for where in self.splits_metadata.values()
        }
        return images if self._table_given else images | lists


class BigEarthNetV2GeoTIFF(_GeoTIFFPatches, BigEarthNetV2):
    """BigEarthNet v2 (reBEN), Sentinel-2 and Sentinel-1, from its original archives.

    TorchGeo's layout, splits and downloads, and of
    :class:`torchgeo.datasets.BigEarthNetV2` these differ:

    * bands by name, in any order, and only their files and archives are needed; the
      reference maps only for ``land_cover``
    * Sentinel-1 in float32 decibels, exactly as stored
    * samples are those of
      :class:`~torchgeo_channelmae.datasets.patches.BigEarthNetPatches`, at native
      resolution if wanted; with ``land_cover`` also ``mask``, int64 (120, 120): the
      number of the class of each pixel, or 255 where the land cover is none of the 19
    * downloads are checked by the algorithm that each published digest is of
    * damaged or missing files, and pixels without data, are found and named

    Dataset features:

    * 480,038 pairs over ten European countries, Jun 2017 - May 2018
    * 120 x 120 px at 10 m; bands of 20 m and 60 m are resampled to that grid
    * 19 land-cover classes, several a patch

    If you use this dataset in your research, please cite the following paper:

    * https://arxiv.org/abs/2407.03653
    """

    version = 'v2'

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
        table: PatchTable | None = None,
        land_cover: bool = False,
    ) -> None:
        """Initialise the dataset and check that its patches have folders.

        Args:
            root: Folder with the archives, unpacked or as downloaded.
            split: 'train', 'val' or 'test'.
            bands: Names of Sentinel-2 or Sentinel-1 bands or both, in the order
                wanted. None is the 12 of Sentinel-2.
            transforms: Takes a sample and returns a transformed version.
            download: Download what the bands need and ``root`` lacks.
            checksum: Check downloaded archives before they are unpacked (slow).
            native: Return bands as stored, not resampled.
            max_nonfinite: Largest share of a band's pixels without data that is filled
                with the mean of its other pixels. More is an error.
            on_error: 'raise' or, to return the reason as a sample, 'skip'.
            table: The patches to choose the split from, such as
                :meth:`~torchgeo_channelmae.datasets.selection.Selection.apply` returns.
                None is the archive's own.
            land_cover: Whether samples have ``mask``, from the reference maps.

        Raises:
            FileNotFoundError: If a file or folder is missing.
            ValueError: If a split, band or label is unknown, a file is damaged, or
                ``root`` has the other version.
        """
        self.land_cover = land_cover
        super().__init__(
            root,
            split,
            bands,
            transforms,
            download,
            checksum,
            native,
            max_nonfinite,
            on_error,
            table,
        )

    @override
    def extras(self, index: int) -> dict[str, Any]:
        """Return the mask, if wanted."""
        if not self.land_cover:
            return {}
        name = self.table.s2_names[index].decode()
        codes = read_band(self.root, self.version, name, 'reference_map')
        return {'mask': torch.from_numpy(_CLASS_OF[codes.clip(0, len(_CLASS_OF) - 1)])}

    @override
    def _parts_of(self, bands: Sequence[str] | None) -> list[str]:
        return super()._parts_of(bands) + ['maps'] * self.land_cover

    @override
    def _downloads(self) -> dict[str, dict[str, tuple[str, str]]]:
        parts = self._parts if self._table_given else [*self._parts, 'metadata']
        return {
            self.dir_file_names[part]: {
                name: (self.url.format(name), digest)
                for name, digest in self.metadata_locs[part]['files'].items()
            }
            for part in parts
        }


_CLASS_OF = np.full(max(BigEarthNetV2.clc_codes) + 2, IGNORE)
"""CORINE code: the number of its class; the last is for all codes beyond."""
_CLASS_OF[list(BigEarthNetV2.clc_codes)] = list(BigEarthNetV2.clc_codes.values())
