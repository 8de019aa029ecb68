"""Facts about the data that tasks, callbacks and experiments read."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor

from .provenance.record import DataRecord


@dataclass(frozen=True)
class DataFacts:
    """Facts about the images: ``datamodule.facts``, after ``setup``.

    Attributes:
        bands: Names of the bands, in the order of the channels.
        mean: (C,) mean of each band in physical units, as normalized with.
        std: (C,) standard deviation of each band.
        size: Height and width of the images in pixels.
        record: What training on these data reads; None where unknown.
        class_names: Names of the classes; None without labels.
        note: A warning to print above every score (such as that of sample data).
        clip_pixels: Standard deviations that pixels are clipped to; None if not.
    """

    bands: tuple[str, ...]
    mean: Tensor
    std: Tensor
    size: int
    record: DataRecord | None = None
    class_names: tuple[str, ...] | None = None
    note: str | None = None
    clip_pixels: float | None = None


@dataclass(frozen=True)
class TestFacts:
    """Facts about the test set besides images and labels: ``datamodule.test_facts``.

    Attributes:
        groups: Number of random groups that the test set is split into.
        group_seeds: Seeds of the groups.
        frequencies: (K,) share of training samples with each class, for the floor.
        tiles: (samples,) MGRS tile of each test sample, '' where unknown.
        patches: (samples, spaces) hashes of the names of each test sample.
        name_spaces: Kind of each of these names.
        patch_names: (samples,) names to use in messages.
        frame: ``tile``, ``acquisition`` and ``country`` by id of the test samples.
    """

    __test__ = False  # not a test class, whatever its name says to pytest

    groups: int = 5
    group_seeds: tuple[int, ...] = (0, 1, 2)
    frequencies: Tensor | None = None
    tiles: npt.NDArray[np.str_] | None = None
    patches: Tensor | None = None
    name_spaces: tuple[str, ...] = ()
    patch_names: npt.NDArray[Any] | None = None
    frame: pd.DataFrame | None = None


def data_facts(datamodule: object) -> DataFacts | None:
    """Return the facts of a datamodule's images; None if it has none."""
    return getattr(datamodule, 'facts', None)


def test_facts(datamodule: object) -> TestFacts:
    """Return the facts of a datamodule's test set, or the defaults."""
    return getattr(datamodule, 'test_facts', None) or TestFacts()


test_facts.__test__ = False  # type: ignore[attr-defined]
