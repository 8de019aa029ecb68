"""What a test shares with the pretraining behind a model: sensors, places, labels.

Answers are True, False or None for unknown. An unknown training never makes a claim
true: it leaves the claim open, unless another training refutes it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from .record import DataRecord, Provenance, Training

CLAIMS = ('sensor_free', 'place_free', 'label_free', 'overlap_free')
"""What a test claims of the pretraining before it, see :class:`Verdict`."""


@dataclass(frozen=True)
class Overlap:
    """How many test patches share something with earlier trainings.

    Attributes:
        shared: Patches known to share it.
        unknown: Patches that may share it.
        total: All patches.
    """

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
            found[f'{name}_overlap'] = None if overlap is None else overlap.share
        return {k: math.nan if v is None else float(v) for k, v in found.items()}


def judge(
    provenance: Provenance,
    present: DataRecord | None,
    test_tiles: npt.NDArray[np.str_] | None = None,
    test_patches: Tensor | None = None,
    name_spaces: Sequence[str] = (),
) -> Verdict:
    """Compare a task, or its test, with the pretraining that it started from.

    Args:
        provenance: Past trainings of the task's weights.
        present: What the task's data read; None if unknown.
        test_tiles: See :func:`place_overlap`.
        test_patches: See :func:`patch_overlap`.
        name_spaces: Kinds of names that the test patches have.
    """
    records = [present, *(training.record for training in provenance.own)]
    named = [('unknown',) if record is None else record.sensors for record in records]
    targets = tuple(sorted(set(chain.from_iterable(named))))
    pretraining = provenance.inherited
    return Verdict(
        pretraining,
        targets,
        sensor_free(pretraining, targets),
        label_free(pretraining),
        place_overlap(pretraining, test_tiles),
        patch_overlap(pretraining, test_patches, name_spaces),
        patch_overlap(_learned(provenance), test_patches, name_spaces),
    )


def sensor_free(trainings: Iterable[Training], targets: Sequence[str]) -> bool | None:
    """Return whether no training read the sensors of a task.

    Product levels, the last word of a name, do not matter: Sentinel-2 L2A and L1C are
    one sensor.

    Args:
        trainings: The trainings; without any the answer is True.
        targets: Names of the task's sensors, or 'unknown'.
    """
    wanted = _instruments(targets)
    answers: list[bool | None] = []
    for training in trainings:
        read = _instruments(training.record.sensors if training.record else ())
        known = None not in read | wanted
        answers.append(False if (read & wanted) - {None} else True if known else None)
    return _all(answers)


def label_free(trainings: Iterable[Training]) -> bool | None:
    """Return whether no training used labels, neither to learn nor to sample by."""
    used = [
        answer
        for training in trainings
        for answer in (
            training.supervised,
            training.record.labels_steered if training.record else None,
        )
    ]
    return _all(None if answer is None else not answer for answer in used)


def place_overlap(
    trainings: Iterable[Training], test_tiles: npt.NDArray[np.str_] | None
) -> Overlap | None:
    """Count the test patches on MGRS tiles that trainings read.

    Tiles are compared by name. Data with coordinates list every tile that may cover
    them, so that the count is never too small. Data with image names only may have
    seen a patch at an edge in a neighbouring tile, as tiles overlap by about 10 km.

    Args:
        trainings: The trainings.
        test_tiles: (patches,) tile of each test patch, '' where unknown; None if no
            tile is known.

    Returns:
        The counts; None if there are trainings but no tile is known.
    """
    records = [training.record for training in trainings]
    if not records or test_tiles is None:
        return None if records else Overlap(0, 0, 0)
    read = [None if record is None else record.tiles for record in records]
    names = [tile for tiles in read for tile in tiles or ()]
    shared = np.isin(test_tiles, np.array(names, dtype=str))
    unknown = ~shared & ((test_tiles == '') | (None in read))
    return Overlap(int(shared.sum()), int(unknown.sum()), len(test_tiles))


def patch_overlap(
    trainings: Iterable[Training],
    test_patches: Tensor | None,
    name_spaces: Sequence[str] = (),
) -> Overlap | None:
    """Count the test patches that trainings read.

    Args:
        trainings: The trainings.
        test_patches: (patches,) or (patches, names) int64 hashes of the names of each
            test patch, see :func:`~torchgeo_channelmae.provenance.record.patch_hashes`;
            None if unknown.
        name_spaces: Kinds of these names, see :class:`DataRecord`.

    Returns:
        The counts; None if there are trainings but the test patches are unknown.
    """
    records = [training.record for training in trainings]
    if not records or test_patches is None:
        return None if records else Overlap(0, 0, 0)
    count, total = int(_were_read(records, test_patches).sum()), len(test_patches)
    known = all(_comparable(record, name_spaces) for record in records)
    return Overlap(count, 0 if known else total - count, total)


def check_not_trained_on(
    provenance: Provenance,
    test_patches: Tensor | None,
    names: Sequence[Any] | npt.NDArray[Any] | None = None,
    name_spaces: Sequence[str] = (),
) -> None:
    """Check that no label of a test patch was learned.

    Warns if that cannot be checked because the training's patches have other names.

    Args:
        provenance: Past trainings of the task's weights.
        test_patches: See :func:`patch_overlap`.
        names: Names of the test patches, for the message.
        name_spaces: Kinds of names that the test patches have.

    Raises:
        ValueError: If a label was learned.
    """
    if test_patches is None:
        return
    records = [training.record for training in _learned(provenance)]
    rows = _were_read(records, test_patches).nonzero().flatten().tolist()
    if rows:
        name = '' if names is None else names[rows[0]]
        example = name.decode() if isinstance(name, bytes) else name
        raise ValueError(
            f'The checkpoint was trained on the labels of {len(rows)} of the '
            f'{len(test_patches)} test patches, maybe in the other version of '
            f'BigEarthNet{f", such as {example}" if example else ""}. Test on the '
            f'version and splits of its training, or train without these patches.'
        )
    for record in records:
        if record is None or record.patches is None:
            continue
        if not _comparable(record, name_spaces):
            known, tested = (
                ' and '.join(spaces) or 'no'
                for spaces in (record.name_spaces, name_spaces)
            )
            rank_zero_warn(
                f'Cannot check whether the checkpoint was trained on labels of test '
                f'patches: {record.dataset} of the training has {known} names, the '
                f'test has {tested} names. Use a metadata.parquet with s2v1_name for '
                f'every patch.'
            )
            return


def _all(answers: Iterable[bool | None]) -> bool | None:
    """Return whether all hold: one False refutes, one None leaves it open."""
    found = set(answers)
    return False if False in found else None if None in found else True


def _instruments(sensors: Sequence[str]) -> set[str | None]:
    """Return sensors without product levels, None for an unknown one."""
    return {
        None if name in ('', 'unknown') else name.rpartition(' ')[0] or name
        for name in sensors or ('unknown',)
    }


def _comparable(record: DataRecord | None, name_spaces: Sequence[str]) -> bool:
    """Return whether patches of a training and the test have a kind of name in common.

    Patches without kinds are of one unnamed kind.
    """
    if record is None or record.patches is None:
        return False
    return bool(set(record.name_spaces or ('',)) & set(name_spaces or ('',)))


def _were_read(records: Iterable[DataRecord | None], patches: Tensor) -> Tensor:
    """Return which patches were read, (patches,) bool, by any of their names."""
    patches = patches.cpu().unsqueeze(-1).flatten(1)  # (patches, names)
    read = [r.patches for r in records if r is not None and r.patches is not None]
    found = [torch.isin(patches, hashes).any(dim=1) for hashes in read]
    return torch.stack([torch.zeros(len(patches), dtype=torch.bool), *found]).any(dim=0)


def _learned(provenance: Provenance) -> list[Training]:
    """Return the trainings that learned labels, or may have."""
    return [one for one in provenance.trainings if one.supervised is not False]
