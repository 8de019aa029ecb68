"""What the trainings behind a model's weights read, as stored in its checkpoints.

:mod:`~torchgeo_channelmae.provenance.overlap` judges what a test shares with them.
"""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

KEY = 'channelmae_provenance'
"""Key of :meth:`Provenance.state` in a checkpoint."""

_VERSION = 1


@dataclass(frozen=True, eq=False)
class DataRecord:
    """What a training read. Records are equal if all their content is.

    Attributes:
        dataset: Name of the dataset, or names.
        bands: Names of the bands.
        sensors: Names of their sensors with product level, as in
            :class:`~torchgeo_channelmae.sensors.Band`; 'unknown' where there is none.
        tiles: Sentinel-2 tiles such as '33UUP', sorted and unique: those in the names
            of images, and all that may cover coordinates; None if unknown.
        patches: (patches,) int64, :func:`patch_hashes` of their names, sorted and
            unique; None if unknown.
        labels_steered: Whether labels decided what was sampled; None if unknown.
        name_spaces: Kinds of names that ``patches`` has for every patch, such as 'v1'
            and 'v2' of BigEarthNet. Patches are compared within one kind.
    """

    dataset: str
    bands: tuple[str, ...]
    sensors: tuple[str, ...]
    tiles: tuple[str, ...] | None
    patches: Tensor | None
    labels_steered: bool | None
    name_spaces: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Sort tiles and patches, and convert all to types that checkpoints hold."""
        names = ('bands', 'sensors', 'name_spaces')
        values: dict[str, Any] = {k: tuple(map(str, getattr(self, k))) for k in names}
        if self.tiles is not None:
            tiles = sorted({str(tile) for tile in self.tiles})
            values['tiles'] = None if '' in tiles else tuple(tiles)  # not all known
        if self.patches is not None:
            values['patches'] = self.patches.cpu().unique()
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        """Compare all fields."""
        return isinstance(other, DataRecord) and self._content() == other._content()

    def __hash__(self) -> int:
        """Hash all fields."""
        return hash(self._content())

    def _content(self) -> tuple[object, ...]:
        return tuple((vars(self) | {'patches': _bytes(self.patches)}).values())


@dataclass(frozen=True)
class Training:
    """One training that weights went through.

    Attributes:
        record: What it read; None if unknown.
        supervised: Whether it learned labels; None if unknown.
    """

    record: DataRecord | None
    supervised: bool | None

    @property
    def data(self) -> DataRecord:
        """The record; one without any knowledge if there is none."""
        return self.record or _UNKNOWN_DATA


@dataclass(frozen=True)
class Provenance:
    """All trainings that a model's weights went through.

    Attributes:
        inherited: Those of the weights that the task started from, oldest first; empty
            from scratch.
        own: Those of the task itself: several if it was resumed on other data.
    """

    inherited: tuple[Training, ...] = ()
    own: tuple[Training, ...] = ()

    @property
    def trainings(self) -> tuple[Training, ...]:
        """All trainings, oldest first."""
        return _distinct(*self.inherited, *self.own)

    def started_from(self, weights: 'Provenance') -> 'Provenance':
        """Return the provenance after loading weights with that provenance.

        Nothing is removed, since a load may leave parts of a model as they were.
        """
        return replace(self, inherited=_distinct(*self.inherited, *weights.trainings))

    def trained(self, training: Training) -> 'Provenance':
        """Return the provenance after a training of the task."""
        return replace(self, own=_distinct(*self.own, training))

    def state(self) -> dict[str, Any]:
        """Return plain values and tensors, which load with ``weights_only=True``.

        Equal sets of patches are one tensor, so that a checkpoint stores them once.
        """
        shared: dict[bytes | None, Tensor | None] = {}

        def plain(training: Training) -> dict[str, Any]:
            content = None
            if (record := training.record) is not None:
                content = {
                    name: list(value) if isinstance(value, tuple) else value
                    for name, value in vars(record).items()
                }
                same = shared.setdefault(_bytes(record.patches), record.patches)
                content['patches'] = same
            return {'record': content, 'supervised': training.supervised}

        return {
            'version': _VERSION,
            'inherited': [plain(training) for training in self.inherited],
            'own': [plain(training) for training in self.own],
        }


_UNKNOWN_DATA = DataRecord('unknown', (), ('unknown',), None, None, None)

UNKNOWN = Provenance(inherited=(Training(None, None),), own=(Training(None, None),))
"""The provenance of weights that have none stored."""


def from_state(state: object) -> Provenance:
    """Return the provenance that :meth:`Provenance.state` stored.

    Without a state it is :data:`UNKNOWN`, and with a warning if another version of this
    package stored it in another form.
    """
    if not isinstance(state, Mapping) or state.get('version') != _VERSION:
        if state is not None:
            warnings.warn(
                'The checkpoint stores the data of its training in a form that this '
                'version cannot read, so they count as unknown.',
                stacklevel=2,
            )
        return UNKNOWN

    def trainings(name: str) -> tuple[Training, ...]:
        return tuple(
            Training(
                plain['record'] and DataRecord(**plain['record']), plain['supervised']
            )
            for plain in state[name]
        )

    return Provenance(trainings('inherited'), trainings('own'))


def _bytes(patches: Tensor | None) -> bytes | None:
    return None if patches is None else patches.numpy().tobytes()


def _distinct(*trainings: Training) -> tuple[Training, ...]:
    return tuple(dict.fromkeys(trainings))


def patch_hashes(names: npt.NDArray[np.bytes_]) -> Tensor:
    """Hash names in UTF-8, the same on every machine: 64 bits of BLAKE2b, int64.

    An empty name raises a ValueError: all patches without a name would be one.
    """
    listed = np.asarray(names, dtype=np.bytes_).tolist()
    if b'' in listed:
        raise ValueError(
            f'Patch {listed.index(b"")} of {len(listed)} has an empty name. Name every '
            f'patch, or pass no patches.'
        )
    digests = [hashlib.blake2b(name, digest_size=8).digest() for name in listed]
    return torch.from_numpy(np.frombuffer(b''.join(digests), '<i8').astype(np.int64))
