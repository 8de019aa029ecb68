"""Patches of a GeoTIFF archive as the records that an LMDB has of them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError
from tqdm import tqdm

from .. import sensors
from .layout import (
    DIRECTORIES,
    archive_table,
    archive_version,
    check_folders,
    read_band,
    read_label,
    read_labels,
)
from .metadata import PatchTable
from .parallel import use_in_order
from .patches import check_radar_names
from .records import environment

_SENSORS = {'s1': sensors.SENTINEL1_GRD, 's2': sensors.SENTINEL2_L2A}
_PIXEL_BYTES = {'s1': 4, 's2': 2}
_HEADER = 1024  # bytes of a safetensors header, at most


@dataclass(frozen=True)
class ArchiveRecords:
    """The records that an archive should have in an LMDB.

    Called with i, it returns the record of ``keys[i]``: a safetensors file of the
    patch's bands, as stored in the archive except that pixels which a file declares to
    hold no data are NaN or 0, as the datasets read them.

    Attributes:
        root: Folder of the unpacked archives.
        version: 'v1' or 'v2'.
        table: The patches; those of v1 have no labels yet.
        parts: 's1', 's2' or both.
    """

    root: Path
    version: str
    table: PatchTable
    parts: tuple[str, ...]

    @cached_property
    def keys(self) -> list[bytes]:
        """Names of the patches: all of the first part, then of the second."""
        return [key for part in self.parts for key in names(part, self.table).tolist()]

    def record_bytes(self) -> int:
        """Return the bytes of all records together, at most."""
        sizes = {
            part: _HEADER
            + sum(round(1200 / band.resolution) ** 2 for band in bands)
            * _PIXEL_BYTES[part]
            for part, bands in _SENSORS.items()
        }
        return len(self.table) * sum(sizes[part] for part in self.parts)

    def pixels(self, i: int) -> dict[str, npt.NDArray[Any]]:
        """Read the bands of the patch ``keys[i]``.

        Raises:
            ValueError: If a band, or in v1 the file of labels, is damaged.
            OSError: If one is missing or can't be read.
        """
        part, name = self.parts[i // len(self.table)], self.keys[i].decode()
        if self.version == 'v1' and part == self.parts[-1]:
            read_label(self.root, name)  # now rather than after hours
        return {
            band: read_band(self.root, self.version, name, band)
            for band in sensors.names(_SENSORS[part])
        }

    def __call__(self, i: int) -> bytes:
        """Return the record of ``keys[i]``, see :meth:`pixels` for errors."""
        return safetensors.numpy.save(self.pixels(i))

    def check_folders(self) -> None:
        """Check that all patches have folders.

        Raises:
            FileNotFoundError: If one lacks its folder.
        """
        for part in self.parts:
            check_folders(
                self.root, self.version, part, names(part, self.table), str(self.root)
            )

    def labelled(self, rows: npt.NDArray[Any]) -> PatchTable:
        """Return some patches with their labels."""
        table = self.table.rows(rows)
        if self.version == 'v2':
            return table
        patches = names(self.parts[-1], table).tolist()
        labels = read_labels(self.root, [name.decode() for name in patches])
        return replace(table, labels=labels)


def names(part: str, table: PatchTable) -> npt.NDArray[np.bytes_]:
    """Return the names of the patches that a part of an archive has, row by row."""
    return table.s1_names if part == 's1' else table.s2_names


def open_archive(root: Path, parts: tuple[str, ...]) -> ArchiveRecords:
    """List the records of an archive.

    Args:
        root: Folder of the unpacked archives of BigEarthNet v1 or v2.
        parts: 's1', 's2' or both.

    Raises:
        FileNotFoundError: If there is no archive, or not of these parts.
        ValueError: If its table is damaged, empty or lacks names.
    """
    version = archive_version(root)
    for part in parts:
        folder = root / DIRECTORIES[version][part]
        if not folder.is_dir():
            raise FileNotFoundError(
                f'{folder} is missing, the part {part} of BigEarthNet {version}: '
                f'unpack it, or encode the other part alone with sensors.'
            )
    table = archive_table(root, version, labels=False)
    if not len(table):
        raise ValueError(f'The table of {root} lists no patch: get it again.')
    if 's1' in parts:
        check_radar_names(table)
    return ArchiveRecords(root, version, table, parts)


@dataclass(frozen=True)
class Comparison:
    """How an LMDB agrees with an archive.

    Attributes:
        agreed: Number of records that are as they should be.
        differing: Keys and reasons of those that are not, in order of keys.
        others: Number of records of the sensor that was not compared.
    """

    agreed: int
    differing: tuple[tuple[bytes, str], ...]
    others: int = 0


def compare(
    lmdb: Path, archive: ArchiveRecords, wanted: Sequence[bytes], workers: int
) -> Comparison:
    """Compare all records of an LMDB with the pixels of an archive, bit by bit.

    Only other processes open the LMDB, so that this one may have it open or rename it.

    Args:
        lmdb: The folder with ``data.mdb``.
        archive: What should be in it.
        wanted: Keys of the archive that have to be in it.
        workers: Processes that compare, at least one.
    """
    found: set[bytes] = set()
    use_in_order(partial(_list_keys, lmdb), [0], lambda _, keys: found.update(keys), 1)
    own = set(archive.table.s1_names.tolist()) | set(archive.table.s2_names.tolist())
    differing = [(key, 'it is missing') for key in set(wanted) - found]
    differing += [(key, 'the archive has no such patch') for key in found - own]
    chosen = [i for i, key in enumerate(archive.keys) if key in found]
    bar = tqdm(total=len(chosen), desc='comparing', unit=' records')

    def use(i: int, reason: str | None) -> None:
        if reason is not None:
            differing.append((archive.keys[i], reason))
        bar.update()

    with bar:
        use_in_order(partial(_difference, lmdb, archive), chosen, use, max(workers, 1))
    wrong = {key for key, _ in differing}
    agreed = sum(archive.keys[i] not in wrong for i in chosen)
    others = len((found & own) - set(archive.keys))
    return Comparison(agreed, tuple(sorted(differing)), others)


def compare_tables(table: PatchTable, archive: ArchiveRecords) -> str | None:
    """Compare what a table says of its patches with what their archive says.

    Args:
        table: The table, all of whose patches the archive has.
        archive: The archive.

    Returns:
        The first difference in half a sentence, None if there is none.
    """
    order = np.argsort(archive.table.s2_names)
    place = np.searchsorted(archive.table.s2_names[order], table.s2_names)
    expected = archive.labelled(order[place])
    for field in fields(table):
        ours, theirs = getattr(table, field.name), getattr(expected, field.name)
        if theirs is None:
            continue
        if ours is None:
            return f'it lacks {field.name}'
        unlike = np.asarray(ours) != np.asarray(theirs)
        rows = unlike.reshape(len(table), -1).any(axis=1)
        if rows.any():
            patch = table.s2_names[rows.argmax()].decode()
            return f'{int(rows.sum())} patches have other {field.name}, such as {patch}'
    return None


def _list_keys(lmdb: Path, _: int) -> list[bytes]:
    with environment(lmdb).begin() as transaction:
        return list(transaction.cursor().iternext(keys=True, values=False))


def _difference(lmdb: Path, archive: ArchiveRecords, i: int) -> str | None:
    """Say how a record differs from the archive, None if it does not."""
    try:
        expected = archive.pixels(i)
    except (ValueError, OSError) as error:
        return f'its archive cannot be read: {error}'
    with environment(lmdb).begin(buffers=True) as transaction:
        record = bytes(transaction.get(archive.keys[i], b''))
    try:
        stored = safetensors.numpy.load(record)
    except SafetensorError as error:
        return f'it is no safetensors file ({str(error).splitlines()[0]})'
    if stored.keys() != expected.keys():
        return f'it has the bands {", ".join(sorted(stored)) or "none"}'
    for band, pixels in expected.items():
        if stored[band].dtype != pixels.dtype or stored[band].shape != pixels.shape:
            return f'{band} is {stored[band].shape} {stored[band].dtype}'
        if stored[band].tobytes() != pixels.tobytes():
            return f'{band} has other pixels'
    return None
