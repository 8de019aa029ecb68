"""What a test shares with the pretraining behind a model: sensors, places, labels.

Answers are True, False or None for unknown. An unknown training never makes a claim
true: it leaves the claim open, unless another training refutes it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from .record import DataRecord, Provenance, Training

CLAIMS = ('sensor_free', 'place_free', 'label_free', 'overlap_free')
"""What a test claims about the pretraining before it, see :class:`Verdict`."""


@dataclass(frozen=True)
class Overlap:
    """Numbers of test patches that share something with trainings, or may share it."""

    shared: int
    unknown: int
    total: int

    @property
    def share(self) -> float | None:
        """Fraction of shared patches; None if any patch is unknown."""
        return None if self.unknown else self.shared / max(1, self.total)

    @property
    def free(self) -> bool | None:
        """Whether no patch is shared; a single shared one refutes it."""
        return False if self.shared else None if self.unknown else True


@dataclass(frozen=True)
class Verdict:
    """What a task, or its test, has in common with pretraining.

    Attributes:
        pretraining: Trainings of the weights that the task started from.
        targets: Sensors of the task, with 'unknown' if some data have no record.
        sensor_free: Whether pretraining never read a sensor of the task.
        label_free: Whether pretraining neither learned labels nor sampled by them.
        places: Test patches on MGRS tiles that pretraining read; None if unknown.
        patches: Test patches that pretraining read; None if unknown.
        trained: Test patches that any training learned labels of; None if unknown.
    """

    pretraining: tuple[Training, ...]
    targets: tuple[str, ...]
    sensor_free: bool | None
    label_free: bool | None
    places: Overlap | None
    patches: Overlap | None
    trained: Overlap | None

    @property
    def place_free(self) -> bool | None:
        """Whether no test patch lies on a tile that pretraining read."""
        return None if self.places is None else self.places.free

    @property
    def overlap_free(self) -> bool | None:
        """Whether sensors do not overlap, the paper's sense of the word."""
        return self.sensor_free

    def numbers(self) -> dict[str, float]:
        """Return 1 for true claims, 0 for false ones and shares; NaN for unknown."""
        found: dict[str, float | None] = {name: getattr(self, name) for name in CLAIMS}
        for name, overlap in (('place', self.places), ('patch', self.patches)):
            found[f'{name}_overlap'] = overlap.share if overlap else None
        return {k: math.nan if v is None else float(v) for k, v in found.items()}


def judge(
    provenance: Provenance,
    present: DataRecord | None,
    test_tiles: npt.NDArray[np.str_] | None = None,
    test_patches: Tensor | None = None,
    name_spaces: Sequence[str] = (),
) -> Verdict:
    """Compare a task, or its test, with the pretraining that it started from.

    `present` is what the task's data read; None if unknown. The arguments after it are
    those of :func:`place_overlap` and :func:`patch_overlap`.
    """
    task = (Training(present, None), *provenance.own)
    targets = tuple(sorted({name for one in task for name in one.data.sensors}))
    pretraining = provenance.inherited
    places = place_overlap(pretraining, test_tiles)
    patches = patch_overlap(pretraining, test_patches, name_spaces)
    trained = patch_overlap(_learned(provenance), test_patches, name_spaces)
    free = sensor_free(pretraining, targets), label_free(pretraining)
    return Verdict(pretraining, targets, *free, places, patches, trained)


def sensor_free(trainings: Sequence[Training], targets: Sequence[str]) -> bool | None:
    """Return whether no training read the sensors of a task, `targets`.

    Product levels, the last word of a name, do not matter: Sentinel-2 L2A and L1C are
    one sensor.
    """
    wanted = _instruments(targets)
    read = {name for one in trainings for name in _instruments(one.data.sensors)}
    if (read & wanted) - {'unknown'}:
        return False
    return None if trainings and 'unknown' in read | wanted else True


def label_free(trainings: Sequence[Training]) -> bool | None:
    """Return whether no training used labels, neither to learn nor to sample by."""
    used = {one.supervised for one in trainings}
    used |= {one.data.labels_steered for one in trainings}
    return False if True in used else None if None in used else True


def place_overlap(
    trainings: Sequence[Training], test_tiles: npt.NDArray[np.str_] | None
) -> Overlap | None:
    """Count the test patches on MGRS tiles that trainings read.

    Tiles are compared by name. Data with coordinates list every tile that may cover
    them, so the count is never too small. Data with only image names may have seen a
    patch at the edge of a neighboring tile, since tiles overlap by about 10 km.
    `test_tiles` (patches,) has the tile of each test patch, '' where unknown; it is
    None if no tile is known, and then so is the result.
    """
    if test_tiles is None or not trainings:
        return None if trainings else Overlap(0, 0, 0)
    read = [one.data.tiles for one in trainings]
    names = [tile for tiles in read for tile in tiles or ()]
    shared = np.isin(test_tiles, np.array(names, dtype=str))
    unknown = ~shared & ((test_tiles == '') | (None in read))
    return Overlap(int(shared.sum()), int(unknown.sum()), len(test_tiles))


def patch_overlap(
    trainings: Sequence[Training],
    test_patches: Tensor | None,
    name_spaces: Sequence[str] = (),
) -> Overlap | None:
    """Count the test patches that trainings read; None if `test_patches` is unknown.

    These are (patches,) or (patches, names) int64 hashes of the names of each patch,
    see :func:`~torchgeo_channelmae.provenance.record.patch_hashes`; `name_spaces` are
    the kinds of these names, see :class:`DataRecord`.
    """
    if test_patches is None or not trainings:
        return None if trainings else Overlap(0, 0, 0)
    count, total = int(_were_read(trainings, test_patches).sum()), len(test_patches)
    known = all(_comparable(one.data, name_spaces) for one in trainings)
    return Overlap(count, 0 if known else total - count, total)


def check_not_trained_on(
    provenance: Provenance,
    test_patches: Tensor | None,
    names: Sequence[Any] | npt.NDArray[Any] | None = None,
    name_spaces: Sequence[str] = (),
) -> None:
    """Raise a ValueError if the label of a test patch was learned.

    Warns if that cannot be checked because the training's patches have other names.
    `names` are those to print; see :func:`patch_overlap` for the other arguments.
    """
    if test_patches is None:
        return
    learned = _learned(provenance)
    rows = _were_read(learned, test_patches).nonzero().flatten().tolist()
    if rows:
        name = '' if names is None else names[rows[0]]
        name = name.decode() if isinstance(name, bytes) else name
        raise ValueError(
            f'The checkpoint was trained on the labels of {len(rows)} of the '
            f'{len(test_patches)} test patches, maybe in the other version of '
            f'BigEarthNet{name and f", such as {name}"}. Test on the version and '
            f'splits of its training, or train without these patches.'
        )
    read = [one.data for one in learned if one.data.patches is not None]
    if other := [data for data in read if not _comparable(data, name_spaces)]:
        kinds = other[0].name_spaces, name_spaces
        known, tested = (' and '.join(each) or 'no' for each in kinds)
        rank_zero_warn(
            f'Cannot check whether the checkpoint was trained on labels of test '
            f'patches: {other[0].dataset} of the training has {known} names, the test '
            f'has {tested} names. Use a metadata.parquet with s2v1_name for all.'
        )


def _instruments(sensors: Sequence[str]) -> set[str]:
    """Return sensors without product levels."""
    return {name.rpartition(' ')[0] or name or 'unknown' for name in sensors or ('',)}


def _comparable(data: DataRecord, name_spaces: Sequence[str]) -> bool:
    """Return whether a training and the test share a kind of names; '' if unnamed."""
    kinds = set(data.name_spaces or ('',)) & set(name_spaces or ('',))
    return data.patches is not None and bool(kinds)


def _were_read(trainings: Sequence[Training], patches: Tensor) -> Tensor:
    """Return which patches were read, (patches,) bool, by any of their names."""
    patches = patches.cpu().unsqueeze(-1).flatten(1)  # (patches, names)
    read = [one.data.patches for one in trainings if one.data.patches is not None]
    return torch.isin(patches, torch.cat([patches.new_empty(0), *read])).any(dim=1)


def _learned(provenance: Provenance) -> list[Training]:
    """Return the trainings that learned labels, or may have."""
    return [one for one in provenance.trainings if one.supervised is not False]
