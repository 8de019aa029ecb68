"""BigEarthNet from an LMDB of safetensors, with decibels as they were stored."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, override

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchgeo.datasets import NonGeoDataset

from .. import plotting, sensors
from .metadata import CLASSES, PatchTable, find_lmdb, read_table
from .records import Pixels, missing_keys, read_bands
from .resample import resample

SAMPLE_ROOT = Path(__file__).parents[1] / 'data' / 'bigearthnet'
"""The bundled sample of 59 real pairs."""

SIDE = 120
"""Height and width in pixels of a patch of 1.2 km at 10 m."""

_AVAILABLE = sensors.SENTINEL2_L2A + sensors.SENTINEL1_GRD

NATIVE_SIDES = {band.name: round(1200 / band.resolution) for band in _AVAILABLE}
"""Name of a band: height and width in pixels at its own resolution."""


class BigEarthNetLMDB(NonGeoDataset):
    """BigEarthNet pairs of Sentinel-2 and Sentinel-1 patches, read from an LMDB.

    The layout is that of BigEarthNet's converter `rico-hdl
    <https://github.com/rsim-tu-berlin/rico-hdl>`__ and of ``channelmae encode``: one
    record per patch, under its name, with each band at its native size.
    ``metadata.parquet`` has the pairs, their labels and splits.

    Dataset features:

    * 480,038 pairs (v2) over ten European countries, Jun 2017 - May 2018
    * 120 x 120 px at 10 m; bands of 20 m and 60 m are resampled to that grid
      (bilinear, pixel edges aligned)
    * Sentinel-2 L2A: B01, B02, B03, B04, B05, B06, B07, B08, B8A, B09, B11, B12 in
      digital numbers of surface reflectance x 10,000
    * Sentinel-1 GRD: VV, VH in decibels, exactly as stored
    * 19 land-cover classes, several per patch

    A sample has ``image`` (float32, C x 120 x 120, bands in the requested order),
    ``label`` (int64, 19), ``patch_id`` (the name of the Sentinel-2 patch) and ``index``
    (its row). With ``native``, it has ``native`` instead of ``image``: the names of
    bands of one sensor and size with their pixels (bands, height, width) as stored.
    With ``on_error='skip'``, an unreadable patch has ``skipped``, the reason.

    If you use this dataset in your research, please cite the following papers:

    * https://doi.org/10.1109/MGRS.2021.3089174
    * https://arxiv.org/abs/2407.03653
    """

    classes: ClassVar[tuple[str, ...]] = CLASSES
    s1_bands: ClassVar[tuple[str, ...]] = sensors.names(sensors.SENTINEL1_GRD)
    s2_bands: ClassVar[tuple[str, ...]] = sensors.names(sensors.SENTINEL2_L2A)
    all_bands: ClassVar[tuple[str, ...]] = s2_bands + s1_bands
    side: ClassVar[int] = SIDE

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
        """Initialize the dataset and check that its patches are in the LMDB.

        Args:
            root: Folder of ``metadata.parquet`` and LMDB. None is the bundled sample.
            split: 'train', 'val' or 'test'.
            bands: Names of Sentinel-2 and Sentinel-1 bands, in the order of the
                channels. None is the 12 of Sentinel-2.
            transforms: Function applied to each sample.
            lmdb: Folder of the LMDB, anywhere; required if ``root`` has several.
            max_nonfinite: Largest share of a band's pixels without data (NaN or
                infinite, or 0 in all Sentinel-2 bands of its size) that is filled with
                the mean of its other pixels. More is an error.
            native: Return bands as stored, not resampled.
            on_error: 'raise', or 'skip' to return the reason as a sample.
            table: Patches with their splits, such as
                :meth:`~torchgeo_channelmae.datasets.selection.Selection.apply` returns.
                None is ``metadata.parquet``.

        Raises:
            FileNotFoundError: If a file or folder is missing.
            ValueError: If a name is unknown, or the table does not fit the LMDB.
        """
        if on_error not in ('raise', 'skip'):
            raise ValueError(f'on_error is {on_error!r}. Use raise or skip.')
        self.root = Path(SAMPLE_ROOT if root is None else root)
        self.split = split
        self.transforms = transforms
        self.native = native
        self.max_nonfinite = max_nonfinite
        self.on_error = on_error
        chosen = sensors.select(self.s2_bands if bands is None else bands, _AVAILABLE)
        self.bands = sensors.names(chosen)
        self.lmdb = find_lmdb(self.root, lmdb).resolve()
        patches = read_table(self.root) if table is None else table
        self.table = patches.rows(patches.split == split)
        if not len(self.table):
            raise ValueError(
                f'No patch of {self.root} is in the split {split!r}. Use train, val or '
                f'test, or loosen the filters.'
            )
        optical = [band for band in self.bands if band in self.s2_bands]
        radar = [band for band in self.bands if band in self.s1_bands]
        parts = (self.table.s2_names, optical), (self.table.s1_names, radar)
        self._records = [(names, wanted) for names, wanted in parts if wanted]
        if on_error == 'raise':
            self._check_records()
        self._sides = self._stored_sides()
        groups: dict[tuple[str, int], list[str]] = {}
        for band in chosen:
            group = (band.sensor, self._sides[band.name])
            groups.setdefault(group, []).append(band.name)
        self._groups = [tuple(names) for names in groups.values()]
        self._filled: set[tuple[int, str]] = set()

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.table)

    @override
    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the sample of a row of the table."""
        name = self.table.s2_names[index].decode()
        index = int(index) % len(self)
        sample: dict[str, Any] = {'patch_id': name, 'index': index}
        try:
            native = self._read_native(index)
        except ValueError as error:
            if self.on_error == 'raise':
                raise
            return sample | {'skipped': str(error)}
        if self.native:
            sample['native'] = native
        else:
            sample['image'] = self._on_grid(native)
        sample['label'] = self.table.labels[index].clone()
        return sample if self.transforms is None else self.transforms(sample)

    def read(self, index: int) -> dict[str, Pixels]:
        """Read each of ``bands`` of a row, (height, width), exactly as stored.

        Raises:
            ValueError: If a record is missing, damaged or not like BigEarthNet's.
        """
        pixels: dict[str, Pixels] = {}
        for names, wanted in self._records:
            pixels |= read_bands(self.lmdb, names[index], wanted)
        for band, array in pixels.items():
            side = self._sides[band]
            kinds = ('f4',) if band in self.s1_bands else ('u2', 'i2')
            if array.shape != (side, side) or array.dtype not in kinds:
                raise ValueError(
                    f'Band {band} of patch {self._name(band, index)} is '
                    f'{" x ".join(map(str, array.shape))} {array.dtype}, not {side} x '
                    f'{side} {np.dtype(kinds[0])}. Encode the archive again.'
                )
        return pixels

    @property
    def patch_ids(self) -> list[str]:
        """Names of the Sentinel-2 patches, row by row."""
        return [name.decode() for name in self.table.s2_names]

    @property
    def labels(self) -> Tensor:
        """Labels, row by row, (rows, 19) int64."""
        return self.table.labels

    def plot(
        self,
        sample: dict[str, Any],
        show_titles: bool = True,
        suptitle: str | None = None,
    ) -> Figure:
        """Plot a sample: true color, false color, VV, VH and VV - VH, as bands allow.

        Args:
            sample: A sample with ``image``, of any size, or with ``native`` pixels.
            show_titles: Whether to show titles above the panels, the labels and the
                ``prediction`` if any.
            suptitle: A title above the figure.
        """
        names = {
            key: [name for name, on in zip(CLASSES, sample[key], strict=True) if on]
            for key in ('label', 'prediction')
            if key in sample
        }
        native = sample.get('native')
        return plotting.plot_patch(
            sample['image'] if native is None else self._on_grid(native),
            self.bands,
            labels=names.get('label'),
            predictions=names.get('prediction'),
            show_titles=show_titles,
            title=suptitle,
        )

    def _check_records(self) -> None:
        """Check that the LMDB has the patches of the table, without reading pixels."""
        for names, bands in self._records:
            if missing := missing_keys(self.lmdb, names):
                first = self.patch_ids[names.tolist().index(missing[0])]
                raise ValueError(
                    f'{len(missing)} of {len(self)} patches in split {self.split!r} '
                    f'have no record of {", ".join(bands)} in {self.lmdb}, such as '
                    f'{first}. Use the metadata.parquet that belongs to it, or encode '
                    f'them.'
                )

    def _stored_sides(self) -> dict[str, int]:
        """Return each band's size: 120 px if the first patch has it so, else native."""
        sides = dict(NATIVE_SIDES)
        for names, bands in self._records:
            try:
                first = read_bands(self.lmdb, names[0], bands)
            except ValueError:
                continue  # reading the patch raises it
            whole = [band for band in bands if first[band].shape == (SIDE, SIDE)]
            sides |= dict.fromkeys(whole, SIDE)
        return sides

    def _read_native(self, index: int) -> dict[tuple[str, ...], Pixels]:
        """Read a patch: bands of a sensor and size together, filled where empty."""
        pixels = self.read(index)
        native = {}
        for names in self._groups:
            native[names] = stack = np.stack([pixels[band] for band in names])
            if (holes := _holes(stack)) is not None:
                for row, band in enumerate(names):
                    self._fill(stack[row], holes[row], band, index)
        return native

    def _fill(self, pixels: Pixels, holes: Pixels, band: str, index: int) -> None:
        """Fill the pixels without data of a band, in place."""
        if not holes.any():
            return
        who = f'Band {band} of patch {self._name(band, index)}'
        share = float(holes.mean())
        if share > self.max_nonfinite or holes.all():
            raise ValueError(
                f'{who} has no data (NaN, infinite or 0) in {share:.2%} of its pixels, '
                f'more than max_nonfinite={self.max_nonfinite:.2%} allows. Delete the '
                f"patch from metadata.parquet or use on_error='skip'."
            )
        mean = float(pixels[~holes].mean(dtype=np.float64))
        pixels[holes] = mean if pixels.dtype.kind == 'f' else round(mean)
        if (index, band) not in self._filled:
            self._filled.add((index, band))
            warnings.warn(
                f'{who}: {int(holes.sum())} pixels without data were filled with the '
                f'mean of the others, {mean:.4g}.',
                stacklevel=2,
            )

    def _on_grid(self, native: Mapping[tuple[str, ...], Pixels | Tensor]) -> Tensor:
        """Resample native pixels to (C, 120, 120)."""
        groups = {names: torch.as_tensor(a)[None] for names, a in native.items()}
        return resample(groups, self.bands, (SIDE, SIDE))[0]

    def _name(self, band: str, index: int) -> str:
        radar = band in self.s1_bands
        names = self.table.s1_names if radar else self.table.s2_names
        return str(names[index].decode())


def _holes(stack: Pixels) -> Pixels | None:
    """Mark the pixels without data of (bands, h, w), None if all have."""
    if stack.dtype.kind == 'f':
        finite = np.isfinite(stack.min() + stack.max())  # one pass less than a mask
        return None if finite else ~np.isfinite(stack)
    if stack[0].all():
        return None
    empty = ~stack.any(axis=0)
    return np.broadcast_to(empty, stack.shape) if empty.any() else None
