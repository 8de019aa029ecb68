"""Where the land cover of a sample is known from: labels, its own map, or a raster."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchgeo.datasets import MMEarth
from tqdm import tqdm

from ..datamodules.known_sources import find_facts
from ..datamodules.sources import Source
from ..datasets.metadata import PatchTable
from ..datasets.parallel import use_in_order
from ..samplers.shares import Values, label_shares
from .landcover_raster import Counts, count_values

Look = Callable[[int], tuple[Counts, int]]
"""Returns the pixels of each class of a sample, and the number of all its pixels."""

Rows = npt.NDArray[np.int64]

_LEAST = 0.5  # of a sample's pixels have to have a class


def known_source(dataset: Any) -> Source | None:
    """Return what is known of a dataset, None if its class is not known."""
    facts = find_facts(type(dataset))
    return None if facts.bands is None else Source(dataset, facts)


def known_centres(
    source: Source | None, rows: Rows
) -> dict[int, tuple[float, float]] | None:
    """Return longitude and latitude of samples, where a dataset knows them.

    Raises:
        ValueError: If a file that should tell has no georeference.
    """
    if source is None:
        return None
    try:
        places = source.places(rows)
    except ValueError as error:
        raise ValueError(
            f'The coordinates of {source.name} could not be read: '
            f'{str(error).rpartition(": ")[0] or error}.'
        ) from None
    if places is None:
        return None
    return {
        int(row): (lon, lat)
        for row, (lon, lat) in zip(rows, places.tolist(), strict=True)
    }


def read_labels(
    dataset: Any, rows: Rows, workers: int = 0
) -> tuple[Values, tuple[str, ...]]:
    """Return class shares from a dataset's labels.

    Args:
        dataset: A dataset with a ``table`` of patches, with the ``targets`` of a folder
            of images, or whose samples have a ``label``: a class number, or 1 for each
            of its classes.
        rows: Samples.
        workers: Processes that read samples, where nothing else tells the labels.

    Returns:
        (rows, K) shares and the names of the classes.

    Raises:
        ValueError: If samples have no such label, or can't be read.
        OSError: If a worker dies.
    """
    names = tuple(getattr(dataset, 'classes', ()))
    table = getattr(dataset, 'table', None)
    if isinstance(table, PatchTable):
        return label_shares(table.labels.numpy()[rows]), names
    labels: list[npt.NDArray[Any]] = []
    _go_through(_LabelLook(dataset), rows, 'labels', workers, labels.append)
    stacked = np.stack(labels)
    if stacked.ndim == 1:
        stacked = np.eye(max(len(names), int(stacked.max()) + 1))[stacked]
    numbered = tuple(f'class {column}' for column in range(stacked.shape[1]))
    return label_shares(stacked), names if len(names) == len(numbered) else numbered


@dataclass
class _LabelLook:
    """Returns the label of a sample, without its image where that is possible."""

    dataset: Any

    def __call__(self, row: int) -> npt.NDArray[Any]:
        targets = getattr(self.dataset, 'targets', None)
        if isinstance(targets, list):
            return np.asarray(targets[row])
        label = self.dataset[row].get('label')
        if not isinstance(label, torch.Tensor | int) or np.ndim(label) > 1:
            raise ValueError(
                f'Sample {row} of {type(self.dataset).__name__} has no label of '
                f'classes: use another source.'
            )
        return np.asarray(label)


@dataclass
class OwnMap:
    """Counts the pixels of a land-cover map that comes with a sample.

    Attributes:
        dataset: The dataset.
        key: Key of the map in a sample.
        nodata: Value that is no class, as NaN is.
    """

    dataset: Any
    key: str
    nodata: int = 255

    def __call__(self, row: int) -> tuple[Counts, int]:
        """Return the pixels of each class of a sample, and of all pixels."""
        pixels = self.dataset[row][self.key].numpy()
        return count_values(pixels[~np.isnan(pixels)], (self.nodata,)), pixels.size


def own_map(dataset: MMEarth, modality: str) -> OwnMap:
    """Return what counts a map of MMEarth, reading nothing else."""
    lean = copy.copy(dataset)
    lean.modality_bands = {modality: dataset.all_modality_bands[modality]}
    return OwnMap(lean, f'mask_{modality}')


@dataclass(frozen=True)
class _Error:
    said: str


class _Told[T]:
    """Returns an error instead of raising it, so that a worker can hand it over."""

    def __init__(self, look: Callable[[int], T]) -> None:
        self.look = look

    def __call__(self, row: int) -> T | _Error:
        try:
            return self.look(row)
        except (ValueError, OSError) as error:
            return _Error(str(error))


def _go_through[T](
    look: Callable[[int], T],
    rows: Rows,
    what: str,
    workers: int,
    use: Callable[[T], None],
) -> None:
    """Look at each sample, in order and with a progress bar."""
    with tqdm(total=len(rows), desc=what, unit='sample') as bar:

        def take(row: int, found: T | _Error) -> None:
            if isinstance(found, _Error):
                raise ValueError(found.said)
            use(found)
            bar.update()

        try:
            use_in_order(_Told(look), rows.tolist(), take, workers)
        except ChildProcessError as error:
            raise OSError(
                f'Looking for {what} stopped, as {error}: use fewer workers.'
            ) from None


def count_shares(
    look: Look, rows: Rows, titled: dict[int, str] | None, workers: int
) -> tuple[Values, tuple[str, ...]]:
    """Count the pixels of samples, with a progress bar.

    Args:
        look: Counts those of one sample.
        rows: Samples.
        titled: Names of classes by value. None makes each value a class.
        workers: Processes that count.

    Returns:
        (rows, K) shares, NaN for samples of which less than half has a class, and the
        names of the classes.

    Raises:
        ValueError: If a value is no class, or a sample can't be looked up.
        OSError: If a worker dies.
    """
    counted: list[Counts] = []

    def use(found: tuple[Counts, int]) -> None:
        counts, pixels = found
        strange = set() if titled is None else set(counts) - set(titled)
        if strange:
            raise ValueError(
                f'The land cover of sample {rows[len(counted)]} has the value '
                f'{min(strange)}, which is no class: name it in classes or list it in '
                f'ignore.'
            )
        enough = sum(counts.values()) >= max(_LEAST * pixels, 1)
        counted.append(counts if enough else {})

    _go_through(look, rows, 'land cover', workers, use)
    if titled is None:
        values = sorted(set().union(*counted))
        titled = {value: f'class {value}' for value in values}
    columns = {value: column for column, value in enumerate(titled)}
    pixels = np.zeros((len(rows), len(titled)))
    for line, counts in zip(pixels, counted, strict=True):
        for value, count in counts.items():
            line[columns[value]] = count
    total = pixels.sum(axis=1, keepdims=True)
    total[total == 0] = np.nan
    return (pixels / total).astype(np.float32), tuple(titled.values())
