"""What a test shares with the pretraining behind a model: sensors, places, labels.

Answers are True, False or None, which is 'not known'. What is not known never becomes
True: one training on unknown data leaves a claim open, unless what is known of the
others refutes it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from .record import DataRecord, Provenance, Training


@dataclass(frozen=True)
class Overlap:
    """How many patches of a test share something with trainings.

    Attributes:
        shared: Patches that are known to share it.
        unknown: Patches of which that is not known.
        total: All patches.
    """

    shared: int
    unknown: int
    total: int

    @property
    def share(self) -> float | None:
        """Share of the patches that share it; None unless known of each."""
        return None if self.unknown else self.shared / max(1, self.total)

    @property
    def free(self) -> bool | None:
        """Whether no patch shares it: one that does refutes it, whatever the others."""
        return False if self.shared else None if self.unknown else True


def sensor_free(trainings: Iterable[Training], targets: Sequence[str]) -> bool | None:
    """Tell whether trainings never read the sensors of a task.

    Two product levels, the last word of the names, are one sensor: who read Sentinel-2
    L2A is not free of Sentinel-2 L1C.

    Args:
        trainings: The trainings. Of none it is true.
        targets: Names of the task's sensors, 'unknown' for one that has no name.
    """
    wanted = _instruments(targets)
    answers = []
    for training in trainings:
        record = training.record
        read = _instruments(() if record is None else record.sensors)
        if (read & wanted) - {None}:
            return False
        answers.append(None not in read | wanted)
    return all(answers) or None


def _instruments(sensors: Sequence[str]) -> set[str | None]:
    """Return the sensors without their levels; None stands for an unknown one."""
    return {
        None if name in ('', 'unknown') else name.rpartition(' ')[0] or name
        for name in sensors or ('unknown',)
    }


def label_free(trainings: Iterable[Training]) -> bool | None:
    """Tell whether trainings saw no label: neither learned nor to sample by.

    Args:
        trainings: The trainings. Of none it is true.
    """
    saw = [
        used
        for training in trainings
        for used in (
            training.supervised,
            None if training.record is None else training.record.labels_steered,
        )
    ]
    return False if True in saw else None if None in saw else True


def place_overlap(
    trainings: Iterable[Training], test_tiles: npt.NDArray[np.str_] | None
) -> Overlap | None:
    """Count the test patches on MGRS tiles that trainings read.

    Tiles are compared by name. A training that knows its coordinates names all tiles
    that may cover them, so that its share is never too small. One that knows the names
    of its images only may have seen a patch at an edge in the tile next to its own, as
    tiles overlap by about 10 km.

    Args:
        trainings: The trainings.
        test_tiles: The tile of each test patch, '' where unknown; None if no tile is
            known.

    Returns:
        The patches; None if there are trainings, but no tile is known.
    """
    records = [training.record for training in trainings]
    if not records or test_tiles is None:
        return None if records else Overlap(0, 0, 0)
    read = [None if record is None else record.tiles for record in records]
    names = sorted({tile for tiles in read for tile in tiles or ()})
    shared = np.isin(test_tiles, names)
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
        test_patches: (patches,) or (patches, K) int64, :func:`patch_hashes` of the test
            patches, by all names that are known of each; None is unknown.
        name_spaces: What kinds of names they are, see :class:`DataRecord`.

    Returns:
        The patches; None if there are trainings, but the test's patches are unknown.
    """
    records = [training.record for training in trainings]
    if not records or test_patches is None:
        return None if records else Overlap(0, 0, 0)
    shared = were_read(records, test_patches)
    unknown = any(
        record is None or record.patches is None or not _comparable(record, name_spaces)
        for record in records
    )
    count, total = int(shared.sum()), len(test_patches)
    return Overlap(count, total - count if unknown else 0, total)


def _comparable(record: DataRecord, name_spaces: Sequence[str]) -> bool:
    """Whether a training's patches have names of a kind that the test's have as well.

    Those that name no kind are taken to be of one.
    """
    return bool(set(record.name_spaces or ('',)) & set(name_spaces or ('',)))


def were_read(records: Iterable[DataRecord | None], patches: Tensor) -> Tensor:
    """Tell of each patch, (patches,) or (patches, K) hashes, whether it was read."""
    patches = patches.cpu().view(len(patches), *patches.shape[1:] or (1,))
    shared = torch.zeros(len(patches), dtype=torch.bool)
    for record in records:
        if record is not None and record.patches is not None:
            shared |= torch.isin(patches, record.patches).any(dim=1)
    return shared


@dataclass(frozen=True)
class Verdict:
    """What pretraining has in common with a task, or with the test of it.

    Attributes:
        pretraining: The trainings of the weights that the task started from.
        targets: Names of the task's sensors, 'unknown' among them if not all are known.
        places: Test patches on MGRS tiles that pretraining read; None is unknown.
        patches: Test patches that pretraining read; None is unknown.
        trained: Test patches that labels were learned from, in the task or before it;
            None is unknown.
    """

    pretraining: tuple[Training, ...]
    targets: tuple[str, ...]
    places: Overlap | None
    patches: Overlap | None
    trained: Overlap | None

    @property
    def sensor_free(self) -> bool | None:
        """Whether pretraining never read a sensor of the task."""
        return sensor_free(self.pretraining, self.targets)

    @property
    def place_free(self) -> bool | None:
        """Whether no test patch is on a tile that pretraining read."""
        return None if self.places is None else self.places.free

    @property
    def label_free(self) -> bool | None:
        """Whether pretraining neither learned labels nor was sampled by them."""
        return label_free(self.pretraining)

    @property
    def overlap_free(self) -> bool | None:
        """Whether no sensor overlaps, which is the sense that the paper gives the word.

        It holds where ``sensor_free`` does, and says nothing of places and labels.
        """
        return self.sensor_free

    def numbers(self) -> dict[str, float]:
        """Return 1 for what holds, 0 for what does not, shares; NaN for unknown."""
        claims = ('sensor_free', 'place_free', 'label_free', 'overlap_free')
        found: dict[str, float | None] = {name: getattr(self, name) for name in claims}
        for name, overlap in (('place', self.places), ('patch', self.patches)):
            found[f'{name}_overlap'] = None if overlap is None else overlap.share
        return {
            name: math.nan if value is None else float(value)
            for name, value in found.items()
        }


def judge(
    provenance: Provenance,
    present: DataRecord | None,
    test_tiles: npt.NDArray[np.str_] | None = None,
    test_patches: Tensor | None = None,
    name_spaces: Sequence[str] = (),
) -> Verdict:
    """Compare a task, or its test, with the pretraining that it started from.

    Args:
        provenance: The past of the task's weights.
        present: What the task's data read; None is unknown.
        test_tiles: See :func:`place_overlap`.
        test_patches: See :func:`patch_overlap`.
        name_spaces: What kinds of names the test patches have.
    """
    records = [present, *(training.record for training in provenance.own)]
    named = [('unknown',) if record is None else record.sensors for record in records]
    pretraining = provenance.inherited
    return Verdict(
        pretraining=pretraining,
        targets=tuple(sorted(set(chain.from_iterable(named)))),
        places=place_overlap(pretraining, test_tiles),
        patches=patch_overlap(pretraining, test_patches, name_spaces),
        trained=patch_overlap(_learned(provenance), test_patches, name_spaces),
    )


def check_not_trained_on(
    provenance: Provenance,
    test_patches: Tensor | None,
    names: Sequence[str | bytes] | None = None,
    name_spaces: Sequence[str] = (),
) -> None:
    """Check that a test scores no patch whose labels the weights learned.

    Warns where that can't be told, as names of other kinds are known of each.

    Args:
        provenance: The past of the task's weights.
        test_patches: See :func:`patch_overlap`.
        names: Names of the test patches, for the message.
        name_spaces: What kinds of names the test patches have.

    Raises:
        ValueError: If it does.
    """
    if test_patches is None:
        return
    records = [training.record for training in _learned(provenance)]
    rows = were_read(records, test_patches).nonzero().flatten().tolist()
    if not rows:
        _warn_unless_comparable(records, name_spaces)
        return
    example = ''
    if names is not None:
        name = names[rows[0]]
        example = f', such as {name.decode() if isinstance(name, bytes) else name}'
    raise ValueError(
        f'{len(rows)} of the {len(test_patches)} test patches are patches whose labels '
        f'this checkpoint was trained on, maybe in the other version of BigEarthNet'
        f'{example}: test on the version and splits that it was trained with, or train '
        f'it on splits without these patches.'
    )


def _warn_unless_comparable(
    records: Iterable[DataRecord | None], name_spaces: Sequence[str]
) -> None:
    for record in records:
        if record is None or record.patches is None:
            continue
        if not _comparable(record, name_spaces):
            known, tested = (
                ' and '.join(spaces) or 'no'
                for spaces in (record.name_spaces, name_spaces)
            )
            rank_zero_warn(
                f'Whether this checkpoint learned the labels of test patches can not '
                f'be checked: of the patches of {record.dataset} that it was trained '
                f'on, {known} names are known, of the test patches {tested} names. Use '
                f'a metadata.parquet with s2v1_name for every patch.'
            )
            return


def _learned(provenance: Provenance) -> list[Training]:
    """Return the trainings that learned labels, as far as is known."""
    return [one for one in provenance.trainings if one.supervised is not False]
