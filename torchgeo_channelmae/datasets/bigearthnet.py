"""BigEarthNet from an LMDB of safetensors, with decibels as they were stored."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, override

import numpy as np
from torchgeo.datasets import NonGeoDataset

from .metadata import SPLITS, PatchTable, find_lmdb, read_table
from .pairs import of_version
from .patches import BigEarthNetPatches, Pixels, check_radar_names, check_rows
from .records import first_key, missing_keys, read_bands

SAMPLE_ROOT = Path(__file__).parents[1] / 'data' / 'bigearthnet'
"""The bundled sample of 59 real pairs."""


class BigEarthNetLMDB(BigEarthNetPatches, NonGeoDataset):
    """BigEarthNet pairs of Sentinel-2 and Sentinel-1 patches, read from an LMDB.

    The layout is the one that BigEarthNet's converter `rico-hdl
    <https://github.com/rsim-tu-berlin/rico-hdl>`__ writes, and ``channelmae encode``: a
    record a patch, named as the patch, with each band at its native size.
    ``metadata.parquet`` says which patches belong together, their labels and splits.

    Dataset features:

    * 480,038 pairs (v2) over ten European countries, Jun 2017 - May 2018
    * 120 x 120 px at 10 m; bands of 20 m and 60 m are resampled to that grid
      (bilinear, pixel edges aligned)
    * Sentinel-2 L2A: B01, B02, B03, B04, B05, B06, B07, B08, B8A, B09, B11, B12 in
      digital numbers of surface reflectance x 10,000
    * Sentinel-1 GRD: VV, VH in decibels, exactly as stored
    * 19 land-cover classes, several a patch

    Samples are those of
    :class:`~torchgeo_channelmae.datasets.patches.BigEarthNetPatches`. Only the bands
    asked for are read.

    Without a ``root`` the dataset is the bundled sample of 59 pairs.

    If you use this dataset in your research, please cite the following papers:

    * https://doi.org/10.1109/MGRS.2021.3089174
    * https://arxiv.org/abs/2407.03653
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = 'train',
        bands: Sequence[str] | None = None,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        lmdb: str | Path | None = None,
        max_nonfinite: float = 0.01,
        native: bool = False,
        on_error: str = 'raise',
        table: PatchTable | None = None,
    ) -> None:
        """Initialise the dataset and check that its patches are there.

        Args:
            root: Folder with ``metadata.parquet`` and the folder of the LMDB. None is
                the bundled sample.
            split: 'train', 'val' or 'test'.
            bands: Names of Sentinel-2 or Sentinel-1 bands or both, in the order
                wanted. None is the 12 of Sentinel-2.
            transforms: Takes a sample and returns a transformed version.
            lmdb: The folder of the LMDB, in ``root`` or anywhere; needed only where
                ``root`` has several.
            max_nonfinite: Largest share of a band's pixels without data that is filled
                with the mean of its other pixels. More is an error.
            native: Return bands as stored, not resampled.
            on_error: 'raise' or, to return the reason as a sample, 'skip'.
            table: The patches to choose the split from, such as
                :meth:`~torchgeo_channelmae.datasets.selection.Selection.apply` returns.
                None is ``metadata.parquet``.

        Raises:
            FileNotFoundError: If a file or folder is missing.
            ValueError: If a split, band or label is unknown, the metadata lack a
                column or the LMDB lacks a patch.
        """
        if split not in SPLITS:
            raise ValueError(
                f'Unknown split {split!r}: choose one of {", ".join(SPLITS)}.'
            )
        self.root = Path(SAMPLE_ROOT if root is None else root)
        self.split = split
        self.lmdb = find_lmdb(self.root, lmdb).absolute()
        patches = read_table(self.root) if table is None else table
        rows = np.flatnonzero(patches.split == split)
        self.prepare(
            patches.rows(rows), bands, transforms, native, max_nonfinite, on_error
        )
        check_rows(self.table, split, self.root)
        self._records = [  # names of the records to read, and of their bands
            (names, wanted)
            for names, wanted in (
                (self.table.s2_names, self.wanted_s2),
                (self.table.s1_names, self.wanted_s1),
            )
            if wanted
        ]
        self._check_version()
        if on_error == 'raise':
            if self.wanted_s1:
                check_radar_names(self.table)
            self._check_records()

    @override
    def read(self, index: int) -> dict[str, Pixels]:
        """Read the pixels of a patch, see the base class."""
        pixels: dict[str, Pixels] = {}
        for names, wanted in self._records:
            pixels |= read_bands(self.lmdb, names[index], wanted)
        return pixels

    def _check_version(self) -> None:
        """Check that the LMDB has the Sentinel-2 names of the table's version."""
        first = first_key(self.lmdb, b'S2') if self.wanted_s2 else None
        for version, other in (('v1', 'v2'), ('v2', 'v1')):
            if (
                first is not None
                and of_version(np.array([first]), version).all()
                and of_version(self.table.s2_names, other).all()
                and missing_keys(self.lmdb, self.table.s2_names[:1].tolist())
            ):  # without a patch of the table: an LMDB may hold both
                raise ValueError(
                    f'The LMDB {self.lmdb} holds patches by their names in BigEarthNet '
                    f'{version}, but the table of {self.root} names those of {other}: '
                    f'use the metadata.parquet that belongs to the LMDB.'
                )

    def _check_records(self) -> None:
        for names, bands in self._records:
            missing = missing_keys(self.lmdb, names.tolist())
            if missing:
                raise ValueError(
                    f'{len(missing)} of the {len(self)} patches of split '
                    f'{self.split!r} needed for {", ".join(bands)} are not in the LMDB '
                    f'{self.lmdb}, the first is {missing[0].decode()!r}: convert them '
                    f'or take them out of metadata.parquet.'
                )
