"""What the trainings behind a model's weights read, as a checkpoint notes it.

What a test shares with it is told by :mod:`~torchgeo_channelmae.provenance.overlap`.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities import rank_zero_warn
from safetensors import safe_open
from torch import Tensor
from torchgeo.models import get_weight
from torchvision.models import WeightsEnum

from ..models.exported import read_checkpoint, read_header
from ..models.tags import path_of
from .published import seen_by

KEY = 'channelmae_provenance'
"""Where a checkpoint has :meth:`Provenance.state`."""

_VERSION = 1


@dataclass(frozen=True, eq=False)
class DataRecord:
    """What a training read. Records are equal if all that they hold is.

    Attributes:
        dataset: Name of the dataset, or names.
        bands: Names of the bands.
        sensors: Names of their sensors with product level, as in
            :class:`~torchgeo_channelmae.sensors.Band`; 'unknown' where there is none.
        tiles: Sentinel-2 tiles such as '33UUP', sorted and once each: those in the
            names of images, and all that may cover coordinates; None is unknown.
        patches: (patches,) int64, :func:`patch_hashes` of the patches' names, sorted
            and once each; None is unknown.
        labels_steered: Whether labels decided what was sampled; None is unknown.
        name_spaces: What kinds of names ``patches`` has of every patch, such as 'v1'
            and 'v2' of BigEarthNet: patches are compared within one kind.
    """

    dataset: str
    bands: tuple[str, ...]
    sensors: tuple[str, ...]
    tiles: tuple[str, ...] | None
    patches: Tensor | None
    labels_steered: bool | None
    name_spaces: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Put tiles and patches in order, and all in types that checkpoints may hold.

        Of tiles of which one is '', not all are known, so the whole is not.
        """
        tiles = None if self.tiles is None else sorted({str(one) for one in self.tiles})
        values = {
            'bands': tuple(map(str, self.bands)),
            'sensors': tuple(map(str, self.sensors)),
            'name_spaces': tuple(map(str, self.name_spaces)),
            'tiles': None if tiles is None or '' in tiles else tuple(tiles),
            # A copy of its own: the tensor may be a part of a file.
            'patches': None if self.patches is None else self.patches.cpu().unique(),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        """Compare all that two records hold."""
        if not isinstance(other, DataRecord):
            return NotImplemented
        mine, its = vars(self) | {'patches': None}, vars(other) | {'patches': None}
        return mine == its and _equal(self.patches, other.patches)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Training:
    """One training that weights went through.

    Attributes:
        record: What it read; None is unknown.
        supervised: Whether it learned labels; None is unknown.
    """

    record: DataRecord | None
    supervised: bool | None


@dataclass(frozen=True)
class Provenance:
    """All trainings that a model's weights went through.

    Attributes:
        inherited: Those of the weights that the task started from, oldest first; none
            from scratch.
        own: Those of the task itself: several if it was resumed on other data.
    """

    inherited: tuple[Training, ...] = ()
    own: tuple[Training, ...] = ()

    @property
    def trainings(self) -> tuple[Training, ...]:
        """All trainings, oldest first."""
        return _distinct(self.inherited + self.own)

    def started_from(self, weights: 'Provenance') -> 'Provenance':
        """Return what holds after loading weights with that past.

        Nothing is taken back, since a load may leave parts of a model as they were.
        """
        return replace(self, inherited=_distinct(self.inherited + weights.trainings))

    def trained(self, training: Training) -> 'Provenance':
        """Return what holds after a training of the task, told once."""
        return replace(self, own=_distinct((*self.own, training)))

    def state(self) -> dict[str, Any]:
        """Return plain values and tensors, which load with ``weights_only=True``.

        Equal sets of patches are one tensor, so that a checkpoint stores them once.
        """
        seen: list[Tensor] = []

        def plain(training: Training) -> dict[str, Any]:
            record = training.record
            if record is None:
                return {'record': None, 'supervised': training.supervised}
            content = {
                **vars(record),
                'bands': list(record.bands),
                'sensors': list(record.sensors),
                'name_spaces': list(record.name_spaces),
                'tiles': None if record.tiles is None else list(record.tiles),
                'patches': _shared(record.patches, seen),
            }
            return {'record': content, 'supervised': training.supervised}

        return {
            'version': _VERSION,
            'inherited': [plain(training) for training in self.inherited],
            'own': [plain(training) for training in self.own],
        }


UNKNOWN = Provenance(inherited=(Training(None, None),), own=(Training(None, None),))
"""The past of weights that don't tell."""


def from_state(state: object) -> Provenance:
    """Return what :meth:`Provenance.state` wrote.

    Args:
        state: The state, or None of a checkpoint without one.

    Returns:
        The trainings; :data:`UNKNOWN` without a state, and with a warning for one that
        another version of this package wrote in another form.
    """
    if state is None:
        return UNKNOWN
    try:
        return _parsed(state)
    except (KeyError, TypeError, ValueError, AttributeError):
        rank_zero_warn(
            'What the training of this checkpoint read is noted in a form that this '
            'version does not know, so it counts as unknown.'
        )
        return UNKNOWN


def _parsed(state: Any) -> Provenance:
    if state['version'] != _VERSION:
        raise ValueError(f'Version {state["version"]} is not {_VERSION}.')

    def training(plain: Mapping[str, Any]) -> Training:
        content = plain['record']
        if content is None:
            return Training(None, plain['supervised'])
        return Training(DataRecord(**content), plain['supervised'])

    return Provenance(
        inherited=tuple(map(training, state['inherited'])),
        own=tuple(map(training, state['own'])),
    )


def read_provenance(weights: object) -> Provenance:
    """Return what the trainings behind pretrained weights read.

    Args:
        weights: Path of a checkpoint that can be read, or anything else that weights
            come from: checkpoints of this package's tasks tell, and in part the
            weights of TorchGeo.
    """
    path = path_of(weights)
    if path is None:
        if isinstance(weights, WeightsEnum):
            return _published(weights)
        with contextlib.suppress(KeyError, ValueError):
            return read_provenance(get_weight(str(weights)))
        return UNKNOWN
    if path.endswith('.safetensors'):
        return from_state(_exported(path))
    return from_state(read_checkpoint(path).get(KEY))


def _exported(path: str) -> dict[str, Any] | None:
    """Return the state in an export's header, None where there is none."""
    header = read_header(path)
    if header is None or header['provenance'] is None:
        return None
    state: dict[str, Any] = header['provenance']
    with safe_open(path, framework='pt') as file:
        for training in state['inherited'] + state['own']:
            record = training['record']
            if record is not None and record['patches'] is not None:
                record['patches'] = file.get_tensor(record['patches'])
    return state


def _published(weights: WeightsEnum) -> Provenance:
    """What weights of TorchGeo read, by our table or as far as their entry tells."""
    seen, meta = seen_by(weights), weights.meta
    if seen is not None:
        record = DataRecord(
            dataset=seen.dataset,
            bands=seen.bands,
            sensors=seen.sensors,
            tiles=None,
            patches=None,
            labels_steered=seen.labels_steered,
        )
        return Provenance(inherited=(Training(record, seen.supervised),))
    names = [str(name).upper() for name in meta.get('bands') or ()]
    known = {
        frozenset({'VV', 'VH'}): 'Sentinel-1 GRD',
        frozenset(f'B{n}' for n in [*range(1, 13), '8A']): 'Sentinel-2 L1C',
    }
    sensor = known.get(frozenset(names), 'unknown')
    if sensor == 'Sentinel-2 L1C':
        names = [f'B{name[1:]:0>2}' for name in names]
    record = DataRecord(
        dataset=str(meta.get('dataset', 'unknown')),
        bands=tuple(names),
        sensors=(sensor,),
        tiles=None,
        patches=None,
        labels_steered=None,
    )
    supervised = False if meta.get('ssl_method') else None
    return Provenance(inherited=(Training(record, supervised),))


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)


def _shared(patches: Tensor | None, seen: list[Tensor]) -> Tensor | None:
    """Return the equal tensor that was seen before, if there is one."""
    if patches is None:
        return None
    for tensor in seen:
        if torch.equal(tensor, patches):
            return tensor
    seen.append(patches)
    return patches


def _distinct(trainings: Iterable[Training]) -> tuple[Training, ...]:
    kept: list[Training] = []
    for training in trainings:
        if training not in kept:
            kept.append(training)
    return tuple(kept)


def patch_hashes(names: npt.NDArray[np.bytes_]) -> Tensor:
    """Hash names of patches, the same on every machine.

    Args:
        names: Names (UTF-8), each of which is known.

    Returns:
        (names,) int64, in the order of the names: 64 bits of BLAKE2b.

    Raises:
        ValueError: If a name is empty: all patches without a name would be one.
    """
    listed = np.asarray(names, dtype=np.bytes_).tolist()
    if b'' in listed:
        raise ValueError(
            f'Patch {listed.index(b"")} of {len(listed)} has no name to know it again '
            f'by: name every patch, or give no patches.'
        )
    digests = [hashlib.blake2b(name, digest_size=8).digest() for name in listed]
    return torch.from_numpy(np.frombuffer(b''.join(digests), '<i8').astype(np.int64))
