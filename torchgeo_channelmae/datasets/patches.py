"""What all datasets of BigEarthNet's pairs do alike, wherever pixels come from."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .. import plotting, sensors
from .metadata import CLASSES, PatchTable
from .resample import resample
from .stored import BANDS, Stored

Pixels = npt.NDArray[Any]


class BigEarthNetPatches:
    """Samples of BigEarthNet's pairs; a subclass reads the pixels.

    A sample has ``image`` (float32, C x 120 x 120, bands in the order asked for),
    ``label`` (int64, 19), ``patch_id`` (the name of the Sentinel-2 patch) and
    ``index`` (its row).

    With ``native``, it has instead of ``image`` the key ``native``: a dictionary from
    the names of bands that share a sensor and size to their pixels (bands, height,
    width) as stored. Nothing is resampled then; that is left to a batch
    (:func:`~torchgeo_channelmae.datasets.resample.resample`).

    With ``on_error='skip'``, a patch that can't be read is a sample of ``patch_id``,
    ``index`` and ``skipped``, the reason.
    """

    classes: ClassVar[tuple[str, ...]] = CLASSES
    s1_bands: ClassVar[tuple[str, ...]] = sensors.names(sensors.SENTINEL1_GRD)
    s2_bands: ClassVar[tuple[str, ...]] = sensors.names(sensors.SENTINEL2_L2A)
    all_bands: ClassVar[tuple[str, ...]] = s2_bands + s1_bands
    rgb_bands: ClassVar[tuple[str, ...]] = sensors.names(sensors.RGB)
    side: ClassVar[int] = 120
    stored: ClassVar[Mapping[str, Stored]] = BANDS

    table: PatchTable
    bands: Any
    transforms: Callable[[dict[str, Any]], dict[str, Any]] | None

    def prepare(
        self,
        table: PatchTable,
        bands: Sequence[str] | None,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None,
        native: bool,
        max_nonfinite: float,
        on_error: str,
    ) -> None:
        """Keep what samples are made from.

        Args:
            table: The patches, a row a sample.
            bands: Names of Sentinel-2 or Sentinel-1 bands or both, in the order
                wanted. None is the 12 of Sentinel-2.
            transforms: Takes a sample and returns a transformed version.
            native: Return pixels as stored.
            max_nonfinite: Largest share of a band's pixels without data (NaN or
                infinite, or 0 in all Sentinel-2 bands of its size) that is filled with
                the mean of the band's other pixels. More is an error.
            on_error: 'raise' or 'skip'.

        Raises:
            ValueError: If a band is unknown or ``on_error`` neither of the two.
        """
        if on_error not in ('raise', 'skip'):
            raise ValueError(f"on_error is {on_error!r}: use 'raise' or 'skip'.")
        requested = self.s2_bands if bands is None else bands
        chosen = sensors.select(
            requested, sensors.SENTINEL2_L2A + sensors.SENTINEL1_GRD
        )
        self.bands = sensors.names(chosen)
        self.wanted_s1 = tuple(band for band in self.bands if band in self.s1_bands)
        self.wanted_s2 = tuple(band for band in self.bands if band in self.s2_bands)
        groups: dict[tuple[str, int], list[str]] = {}
        for band in chosen:
            group = (band.sensor, self.stored[band.name].side)
            groups.setdefault(group, []).append(band.name)
        self._groups = [tuple(names) for names in groups.values()]
        self.table = table
        self.transforms = transforms
        self.native = native
        self.max_nonfinite = max_nonfinite
        self.on_error = on_error
        self._filled: set[tuple[str, str]] = set()

    @abstractmethod
    def read(self, index: int) -> dict[str, Pixels]:
        """Read the pixels of a patch.

        Args:
            index: Row of the table.

        Returns:
            A (height, width) array of its own for each of ``bands``, as stored.

        Raises:
            ValueError: If they can't be read.
            OSError: If a file is missing or can't be opened.
        """

    def label(self, index: int) -> Tensor:
        """Return the labels of a patch, (19,) int64."""
        return self.table.labels[index].clone()

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one patch.

        Args:
            index: Row of the table.

        Returns:
            A sample, see the class.

        Raises:
            IndexError: If there is no such row.
            ValueError: If the patch is damaged or has too many pixels without data.
            OSError: If a file is missing or can't be opened.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f'There is no patch {index} among {len(self)}.')
        index = int(index) % len(self)
        sample: dict[str, Any] = {
            'patch_id': self.table.s2_names[index].decode(),
            'index': index,
        }
        try:
            if self.native:
                sample['native'] = self.groups(index)
            else:
                sample['image'] = self.image(index)
            sample['label'] = self.label(index)
            sample |= self.extras(index)
        except (ValueError, OSError) as error:
            if self.on_error == 'raise':
                raise
            return {
                'patch_id': sample['patch_id'],
                'index': index,
                'skipped': str(error),
            }
        return sample if self.transforms is None else self.transforms(sample)

    def extras(self, index: int) -> dict[str, Any]:
        """Return what else a subclass has in its samples."""
        return {}

    def groups(self, index: int) -> dict[tuple[str, ...], Pixels]:
        """Return the pixels of a patch as stored, bands of a sensor and size together.

        Args:
            index: Row of the table.

        Returns:
            For each group of band names, in the order asked for, (bands, h, w). The
            groups and sizes are the same for every patch.

        Raises:
            ValueError: If a band has another size or type than BigEarthNet's, or too
                many pixels without data.
        """
        if self.wanted_s1 and not self.table.s1_names[index]:
            check_radar_names(self.table, index)  # says so
        pixels = self.read(index)
        for band in self.bands:
            if fault := self.stored[band].fault(pixels[band]):
                raise ValueError(
                    f'Band {band} of patch {self._patch(band, index)} {fault}: convert '
                    f'the original archive again.'
                )
        return {
            names: self._filled_in(
                np.stack([pixels[band] for band in names]), names, index
            )
            for names in self._groups
        }

    def image(self, index: int) -> Tensor:
        """Return the pixels of a patch as (C, 120, 120), coarse bands resampled.

        Args:
            index: Row of the table.
        """
        return self._on_grid(self.groups(index))

    def _on_grid(self, native: Mapping[tuple[str, ...], Pixels | Tensor]) -> Tensor:
        """Resample native pixels to (C, 120, 120)."""
        groups = {
            names: torch.as_tensor(stack)[None] for names, stack in native.items()
        }
        return resample(groups, self.bands, (self.side, self.side))[0]

    @property
    def patch_ids(self) -> list[str]:
        """Names of the Sentinel-2 patches, row by row."""
        return [name.decode() for name in self.table.s2_names]

    @property
    def labels(self) -> Tensor:
        """Labels, row by row, (rows, 19) int64."""
        return self.table.labels

    def class_frequencies(self) -> Tensor:
        """Return the share of patches with each class, (19,) float32."""
        return self.labels.float().mean(dim=0)

    def _patch(self, band: str, index: int) -> str:
        """Name the patch that a band belongs to."""
        names = self.table.s1_names if band in self.s1_bands else self.table.s2_names
        name: str = names[index].decode()
        return name

    def _filled_in(self, stack: Pixels, names: Sequence[str], index: int) -> Pixels:
        """Fill the pixels without data of (bands, h, w), in place."""
        if stack.dtype.kind == 'f':
            bad = (
                None if np.isfinite(stack.min() + stack.max()) else ~np.isfinite(stack)
            )
        elif stack[0].min():
            bad = None
        else:
            nothing = ~stack.any(axis=0)
            bad = np.broadcast_to(nothing, stack.shape) if nothing.any() else None
        if bad is not None:
            for band, pixels, holes in zip(names, stack, bad, strict=True):
                if holes.any():
                    self._fill(pixels, holes, band, index)
        return stack

    def _fill(self, pixels: Pixels, holes: Pixels, band: str, index: int) -> None:
        patch = self._patch(band, index)
        kind = 'NaN or infinite' if pixels.dtype.kind == 'f' else 'without data (0)'
        share = float(holes.mean())
        if share > self.max_nonfinite:
            raise ValueError(
                f'Band {band} of patch {patch} is {kind} in {share:.2%} of its pixels, '
                f'more than max_nonfinite={self.max_nonfinite:.2%}: take the patch out '
                f"of metadata.parquet, skip it with on_error='skip' or raise "
                f'max_nonfinite.'
            )
        if holes.all():
            raise ValueError(
                f'Band {band} of patch {patch} has no pixel with data to fill the '
                f'others with: take the patch out of metadata.parquet, or skip it with '
                f"on_error='skip'."
            )
        mean = float(pixels[~holes].mean(dtype=np.float64))
        pixels[holes] = mean if pixels.dtype.kind == 'f' else round(mean)
        if (patch, band) not in self._filled:
            self._filled.add((patch, band))
            warnings.warn(
                f'Band {band} of patch {patch} has {int(holes.sum())} pixels {kind}: '
                f'filled with {mean:.4g}, the mean of its other pixels.',
                stacklevel=2,
            )

    def plot(
        self,
        sample: dict[str, Any],
        show_titles: bool = True,
        suptitle: str | None = None,
    ) -> Figure:
        """Plot a sample from the dataset.

        Args:
            sample: A sample with ``image``, of any size, or with ``native`` pixels.
            show_titles: Whether to show what the panels are, the labels, and the
                ``prediction`` if any.
            suptitle: A title above the figure.

        Returns:
            A figure with a panel for each picture that the bands allow: true colour,
            false colour (near infrared), and VV, VH and VV - VH.

        Raises:
            ValueError: If the patch was skipped.
        """
        if 'skipped' in sample:
            raise ValueError(f'Nothing to plot: {sample["skipped"]}')
        native = sample.get('native')
        return plotting.plot_patch(
            sample['image'] if native is None else self._on_grid(native),
            self.bands,
            labels=self._class_names(sample.get('label')),
            predictions=self._class_names(sample.get('prediction')),
            show_titles=show_titles,
            title=suptitle,
        )

    def _class_names(self, hot: Tensor | None) -> list[str] | None:
        if hot is None:
            return None
        return [name for name, on in zip(self.classes, hot, strict=True) if on]


def check_radar_names(table: PatchTable, rows: int | slice = slice(None)) -> None:
    """Check that patches have names of Sentinel-1 patches.

    Args:
        table: The patches.
        rows: A row or some; all by default.

    Raises:
        ValueError: If one lacks it.
    """
    nameless = np.atleast_1d(table.s1_names[rows] == b'')
    if nameless.any():
        patch = np.atleast_1d(table.s2_names[rows])[nameless.argmax()]
        raise ValueError(
            f'Patch {patch.decode()} has no name of a Sentinel-1 patch in its table '
            f'(s1_name): get the table again, or use Sentinel-2 alone.'
        )


def check_rows(table: PatchTable, split: str, root: str | Path) -> None:
    """Check that a split has patches.

    Raises:
        ValueError: If it has none.
    """
    if not len(table):
        raise ValueError(
            f'No patch of {root} is in the split {split!r}: use a root, filters or '
            f'splits that leave some.'
        )
