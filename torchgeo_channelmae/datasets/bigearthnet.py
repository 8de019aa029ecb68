"""BigEarthNet from an LMDB of safetensors, with decibels as they were stored."""

import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, override

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torchgeo.datasets import NonGeoDataset

from .. import sensors
from .metadata import CLASSES, SPLITS, find_lmdb, read_metadata
from .records import missing_keys, read_bands

SAMPLE_ROOT = Path(__file__).parents[1] / 'data' / 'bigearthnet'
"""The bundled sample of 59 real pairs."""


class BigEarthNetLMDB(NonGeoDataset):
    """BigEarthNet pairs of Sentinel-2 and Sentinel-1 patches, read from an LMDB.

    The layout is the one that BigEarthNet's converter `rico-hdl
    <https://github.com/rsim-tu-berlin/rico-hdl>`__ writes: a record a patch, named as
    the patch, with each band at its native size. ``metadata.parquet`` of BigEarthNet
    v2 says which patches belong together, their labels and their split.

    Dataset features:

    * 480,038 pairs (v2) over ten European countries, Jun 2017 - May 2018
    * 120 x 120 px at 10 m; bands of 20 m and 60 m are resampled to that grid
      (bilinear, pixel edges aligned)
    * Sentinel-2 L2A: B01, B02, B03, B04, B05, B06, B07, B08, B8A, B09, B11, B12 in
      digital numbers of surface reflectance x 10,000
    * Sentinel-1 GRD: VV, VH in decibels, exactly as stored
    * 19 land-cover classes, several a patch

    A sample has ``image`` (float32, C x 120 x 120, bands in the order asked for),
    ``label`` (int64, 19), ``patch_id`` (the name of the Sentinel-2 patch) and
    ``index`` (its row in the split). Only the bands asked for are read.

    Without a ``root`` the dataset is the bundled sample of 59 pairs.

    If you use this dataset in your research, please cite the following papers:

    * https://doi.org/10.1109/MGRS.2021.3089174
    * https://arxiv.org/abs/2407.03653
    """

    classes: ClassVar[tuple[str, ...]] = CLASSES
    s1_bands: ClassVar[tuple[str, ...]] = sensors.names(sensors.SENTINEL1_GRD)
    s2_bands: ClassVar[tuple[str, ...]] = sensors.names(sensors.SENTINEL2_L2A)
    all_bands = s2_bands + s1_bands
    rgb_bands = sensors.names(sensors.RGB)
    image_size = 120

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = 'train',
        bands: Sequence[str] | None = None,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        lmdb: str | Path | None = None,
        max_nonfinite: float = 0.01,
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
            max_nonfinite: Largest share of NaN or infinite pixels in a band that is
                filled with the mean of the band's other pixels. More is an error.

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
        requested = self.s2_bands if bands is None else bands
        self.bands = sensors.names(
            sensors.select(requested, sensors.SENTINEL2_L2A + sensors.SENTINEL1_GRD)
        )
        self.transforms = transforms
        self.max_nonfinite = max_nonfinite
        self.lmdb = find_lmdb(self.root, lmdb)
        patches = read_metadata(self.root)[split]
        self.labels = patches.labels
        self._ids = patches.s2_names
        self._records = [  # names of the records to read, and of their bands
            (names, wanted)
            for names, kind in (
                (patches.s2_names, self.s2_bands),
                (patches.s1_names, self.s1_bands),
            )
            if (wanted := [band for band in self.bands if band in kind])
        ]
        self._filled: set[tuple[str, str]] = set()
        self._check_records()

    @override
    def __len__(self) -> int:
        """Return the number of patches in the split."""
        return len(self._ids)

    @override
    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one patch.

        Args:
            index: Row in the split.

        Returns:
            A sample with ``image``, ``label``, ``patch_id`` and ``index``.

        Raises:
            IndexError: If there is no such row.
            ValueError: If a record is damaged or has too many non-finite pixels.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f'Patch {index} of {len(self)} in split {self.split!r}.')
        index = int(index) % len(self)
        sample: dict[str, Any] = {
            'image': self._read_image(index),
            'label': self.labels[index].clone(),
            'patch_id': self._ids[index].decode(),
            'index': index,
        }
        return sample if self.transforms is None else self.transforms(sample)

    @property
    def patch_ids(self) -> list[str]:
        """Names of the split's Sentinel-2 patches, row by row."""
        return [name.decode() for name in self._ids]

    def class_frequencies(self, split: str | None = None) -> Tensor:
        """Return the share of patches with each class, from the metadata alone.

        Args:
            split: 'train', 'val' or 'test'. None is the dataset's own.

        Returns:
            A float32 tensor (19,), NaN where the split has no patch.
        """
        labels = read_metadata(self.root)[split or self.split].labels
        return labels.float().mean(dim=0)

    def _check_records(self) -> None:
        if not len(self):
            raise ValueError(
                f'{self.root / "metadata.parquet"} has no patch of the split '
                f'{SPLITS[self.split]!r}: use a root that has.'
            )
        for names, bands in self._records:
            missing = missing_keys(self.lmdb, names.tolist())
            if missing:
                raise ValueError(
                    f'{len(missing)} of the {len(self)} patches of split '
                    f'{self.split!r} needed for {", ".join(bands)} are not in the LMDB '
                    f'{self.lmdb}, the first is {missing[0].decode()!r}: convert them '
                    f'or take them out of metadata.parquet.'
                )

    def _read_image(self, index: int) -> Tensor:
        pixels = {
            band: self._fill(array, band, names[index].decode())
            for names, wanted in self._records
            for band, array in read_bands(self.lmdb, names[index], wanted).items()
        }
        image = torch.empty(len(self.bands), self.image_size, self.image_size)
        for shape in {array.shape for array in pixels.values()}:
            rows = [i for i, b in enumerate(self.bands) if pixels[b].shape == shape]
            stack = torch.from_numpy(np.stack([pixels[self.bands[i]] for i in rows]))
            if shape != image.shape[1:]:
                stack = F.interpolate(
                    stack[None], image.shape[1:], mode='bilinear', align_corners=False
                )[0]
            image[rows] = stack
        return image

    def _fill(
        self, array: npt.NDArray[Any], band: str, name: str
    ) -> npt.NDArray[np.float32]:
        """Return a band as float32 with its non-finite pixels filled."""
        pixels = array.astype(np.float32, copy=False)
        finite = np.isfinite(pixels)
        count = pixels.size - int(finite.sum())
        if not count:
            return pixels
        share = count / pixels.size
        if share > self.max_nonfinite:
            raise ValueError(
                f'Band {band} of patch {name} is NaN or infinite in {share:.2%} of its '
                f'pixels, more than max_nonfinite={self.max_nonfinite:.2%}: take the '
                f'patch out of metadata.parquet or raise max_nonfinite.'
            )
        if not finite.any():
            raise ValueError(
                f'Band {band} of patch {name} has no finite pixel to fill the others '
                f'with: take the patch out of metadata.parquet.'
            )
        mean = float(pixels[finite].mean(dtype=np.float64))
        pixels[~finite] = mean
        if (name, band) not in self._filled:
            self._filled.add((name, band))
            warnings.warn(
                f'Band {band} of patch {name} has {count} NaN or infinite pixels: '
                f'filled with {mean:.4g}, the mean of its other pixels.',
                stacklevel=2,
            )
        return pixels

    def plot(
        self,
        sample: dict[str, Any],
        show_titles: bool = True,
        suptitle: str | None = None,
    ) -> Figure:
        """Plot a sample from the dataset.

        Bands B04, B03 and B02 are shown as red, green and blue, otherwise VV, VH and
        VV - VH as a false-colour image, otherwise the first band in gray, each
        stretched between its 2nd and 98th percentile (true colour jointly).

        Args:
            sample: A sample in physical units, of any size.
            show_titles: Whether to show the labels, and the ``prediction`` if any.
            suptitle: A title above the figure.

        Returns:
            A figure with one panel.
        """
        bands = dict(zip(self.bands, sample['image'].float().numpy(), strict=True))
        if all(band in bands for band in self.rgb_bands):
            shown = _stretch(np.stack([bands[band] for band in self.rgb_bands], -1))
        elif all(band in bands for band in self.s1_bands):
            vv, vh = (bands[band] for band in self.s1_bands)
            shown = np.stack([_stretch(band) for band in (vv, vh, vv - vh)], -1)
        else:
            shown = _stretch(bands[self.bands[0]])
        figure, axes = plt.subplots(figsize=(4, 4))
        axes.imshow(shown, cmap='gray')
        axes.axis('off')
        if show_titles:
            lines = [f'Labels: {self._class_list(sample["label"])}']
            if 'prediction' in sample:
                lines.append(f'Predictions: {self._class_list(sample["prediction"])}')
            axes.set_title('\n'.join(textwrap.fill(line, 60) for line in lines), size=8)
        if suptitle is not None:
            figure.suptitle(suptitle)
        return figure

    def _class_list(self, hot: Tensor) -> str:
        chosen = (name for name, on in zip(self.classes, hot, strict=True) if on)
        return ', '.join(chosen) or 'none'


def _stretch(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    low, high = np.percentile(pixels, (2, 98))
    stretched: npt.NDArray[Any] = (pixels - low) / max(high - low, 1e-6)
    return stretched.clip(0, 1)
