"""An LMDB written record by record: in parallel, in order, whole or not there.

Records go into a folder named ``.partial`` until all are in it. Whatever ends the
program before that, what was committed stays, and the next run makes only the records
that are still missing.
"""

import contextlib
import errno
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import lmdb
from tqdm import tqdm

from .parallel import check_workers, use_in_order
from .partial import check_space, own, partial_of, size_text

BATCH_BYTES = 32 << 20
"""Bytes of records in one transaction: what a kill can cost."""

MAP_BYTES = 1 << 30
"""Address space beyond twice what is expected; it grows where that is not enough."""

_OVERHEAD = 4096 + 256  # bytes a record: LMDB gives long values pages of their own
_MAX_KEY = 511
_FULL = (errno.ENOSPC,)


class SkipRecord(Exception):  # noqa: N818 (a choice, not a mistake)
    """Raised by ``make`` to leave a record out; its text is the reason."""


@dataclass(frozen=True)
class WriteReport:
    """What became of the records.

    Attributes:
        folder: Folder with ``data.mdb``.
        kept: Number of records that an earlier run had written.
        written: Number of records written by this one.
        skipped: Keys and reasons of the records that were left out, in order of keys.
        size: Bytes of ``data.mdb``.
    """

    folder: Path
    kept: int
    written: int
    skipped: tuple[tuple[bytes, str], ...]
    size: int


def write_lmdb(
    folder: Path,
    keys: Sequence[bytes],
    make: Callable[[int], bytes],
    *,
    workers: int = 0,
    expected_bytes: int,
    description: str,
) -> WriteReport:
    """Write records to a new LMDB, or go on where an earlier run stopped.

    Args:
        folder: Folder of the LMDB, which must not exist. Until all records are
            written, they are in :func:`~.partial.partial_of` it.
        keys: Key of each record, in any order.
        make: Returns the record of ``keys[i]`` for i. It has to be deterministic, and
            with workers that are not forked it has to be picklable. It may raise
            :class:`SkipRecord` to leave the record out; a ValueError or OSError ends
            the writing with a sentence that names the key.
        workers: Processes that make records; 0 makes them in this one.
        expected_bytes: Bytes of all records together, to see first if they fit.
        description: What is written, in a few words; it names the progress bar.

    Returns:
        What was written.

    Raises:
        FileExistsError: If the folder exists.
        ValueError: If the keys are not fit for LMDB, if the partial folder belongs to
            other records, or if a record can't be made.
        OSError: If the disk is full or refuses, if somebody else writes the same
            folder, or if a worker dies.
    """
    if folder.exists():
        raise FileExistsError(
            f'{folder} exists already: nothing is overwritten, so remove it or choose '
            f'another folder.'
        )
    report = fill_lmdb(
        partial_of(folder),
        keys,
        make,
        workers=workers,
        expected_bytes=expected_bytes,
        description=description,
    )
    report.folder.rename(folder)
    return replace(report, folder=folder)


def fill_lmdb(
    partial: Path,
    keys: Sequence[bytes],
    make: Callable[[int], bytes],
    *,
    workers: int,
    expected_bytes: int,
    description: str,
    finish: Callable[[WriteReport], None] | None = None,
) -> WriteReport:
    """Do what :func:`write_lmdb` does up to renaming, with the same arguments.

    Args:
        partial: Folder that is new or that this function filled in part.
        keys: Key of each record.
        make: Returns a record.
        workers: Processes that make records.
        expected_bytes: Bytes of all records together.
        description: What is written.
        finish: What is to be done with the whole LMDB while no other process may.

    Returns:
        What was written.

    Raises:
        ValueError: As :func:`write_lmdb`.
        OSError: As :func:`write_lmdb`.
    """
    check_workers(workers)
    order = sorted(range(len(keys)), key=keys.__getitem__)
    ordered = [keys[i] for i in order]
    _check_keys(ordered)
    needed = expected_bytes + len(keys) * _OVERHEAD
    maker = _Maker(make, keys)
    with own(partial, ordered, description, needed):
        report = _fill(partial, keys, order, maker, workers, needed, description)
        if finish is not None:
            finish(report)
    return report


def _fill(
    partial: Path,
    keys: Sequence[bytes],
    order: Sequence[int],
    maker: '_Maker',
    workers: int,
    needed: int,
    description: str,
) -> WriteReport:
    with _opened(partial, needed) as env:
        present = _present(env)
        done = [i for i in order if keys[i] in present]
        if done:
            _check_record(env, partial, keys[done[-1]], maker(done[-1]))
        todo = [i for i in order if keys[i] not in present]
        writer = _Writer(env, partial, len(keys), len(done), needed)
        check_space(partial, writer.still_needed(), spare=_spare(env, partial))
        skipped = []
        bar = tqdm(
            total=len(keys), initial=len(done), desc=description, unit=' records'
        )

        def use(i: int, made: bytes | _NotMade) -> None:
            if isinstance(made, bytes):
                writer.add(keys[i], made)
            elif made.skip:
                skipped.append((keys[i], made.reason))
            else:
                writer.commit()
                raise ValueError(
                    f'Record {_text(keys[i])} cannot be written: {made.reason}'
                )
            bar.update()

        try:
            with bar:
                use_in_order(maker, todo, use, workers)
        except ChildProcessError as error:
            raise ChildProcessError(
                f'Writing {partial} stopped: {error}; what was written is kept, so run '
                f'the same command again, with fewer workers.'
            ) from None
        writer.commit()
    return WriteReport(
        folder=partial,
        kept=len(done),
        written=len(todo) - len(skipped),
        skipped=tuple(skipped),
        size=(partial / 'data.mdb').stat().st_size,
    )


def put_all(env: lmdb.Environment, batch: Sequence[tuple[bytes, bytes]]) -> None:
    """Write sorted records in one transaction.

    Args:
        env: An LMDB opened for writing.
        batch: Keys and values, sorted by key; none may be in the LMDB.
    """
    with env.begin(write=True) as transaction:
        cursor = transaction.cursor()
        last = cursor.key() if cursor.last() else b''
        for key, value in batch:
            # pages of keys that only grow are filled to the brim
            if not cursor.put(key, value, overwrite=False, append=key > last):
                raise lmdb.KeyExistsError(f'{_text(key)} is there already')
            last = max(last, key)


class _Writer:
    """Commits records in batches."""

    def __init__(
        self, env: lmdb.Environment, partial: Path, total: int, done: int, needed: int
    ) -> None:
        self._env, self._partial = env, partial
        self._total, self._done, self._needed = total, done, needed
        self._batch: list[tuple[bytes, bytes]] = []
        self._bytes = 0

    def still_needed(self) -> int:
        """Return the bytes that the records not written need."""
        return self._needed * (self._total - self._done) // max(self._total, 1)

    def add(self, key: bytes, value: bytes) -> None:
        self._batch.append((key, value))
        self._bytes += len(value)
        if self._bytes >= BATCH_BYTES:
            self.commit()

    def commit(self) -> None:
        """Write what was added to the disk, all of it or none."""
        while self._batch:
            try:
                put_all(self._env, self._batch)
            except lmdb.MapFullError:  # not the disk: more came than was expected
                self._env.set_mapsize(2 * self._env.info()['map_size'])
                continue
            except lmdb.Error as error:
                raise self._refusal(_reason(error)) from None
            self._done += len(self._batch)
            self._batch, self._bytes = [], 0

    def _refusal(self, reason: str) -> OSError:
        left, free = self.still_needed(), shutil.disk_usage(self._partial).free
        # LMDB calls the last bytes before the end of a disk an input/output error
        full = free < left or any(os.strerror(code) in reason for code in _FULL)
        advice = 'make room' if full else 'lift the quota or limit that is in the way'
        return OSError(
            f'The disk {"is full" if full else "refuses to write"} ({reason}): '
            f'{self._done} of {self._total} records are written and kept in '
            f'{self._partial}, the others need about {size_text(left)} and '
            f'{size_text(free)} are free; {advice} and run the same command again.'
        )


@dataclass(frozen=True)
class _NotMade:
    """Why there is no record."""

    reason: str
    skip: bool


class _Maker:
    """Makes a record or says why not."""

    def __init__(self, make: Callable[[int], bytes], keys: Sequence[bytes]) -> None:
        self._make, self._keys = make, keys

    def __call__(self, i: int) -> bytes | _NotMade:
        try:
            made = self._make(i)
        except SkipRecord as skip:
            return _NotMade(str(skip), skip=True)
        except (ValueError, OSError) as error:
            return _NotMade(str(error), skip=False)
        except Exception as error:
            error.add_note(f'while making the record {_text(self._keys[i])}')
            raise
        if not isinstance(made, bytes):
            return _NotMade(f'it is {type(made).__name__}, not bytes.', skip=False)
        return made


@contextlib.contextmanager
def _opened(partial: Path, needed: int) -> Iterator[lmdb.Environment]:
    try:
        # no lock file: one process owns the folder, and nobody reads it. The map is
        # address space, the file grows with what is written
        env = lmdb.open(str(partial), map_size=2 * needed + MAP_BYTES, lock=False)
    except lmdb.Error as error:
        raise OSError(
            f'The LMDB in {partial} cannot be opened for writing ({_reason(error)}): '
            f'remove that folder to begin again.'
        ) from None
    with env:
        yield env


def _present(env: lmdb.Environment) -> set[bytes]:
    with env.begin() as transaction:
        return set(transaction.cursor().iternext(keys=True, values=False))


def _spare(env: lmdb.Environment, partial: Path) -> int:
    """Return the bytes of a file that a failed transaction left behind."""
    used = (env.info()['last_pgno'] + 1) * env.stat()['psize']
    return max((partial / 'data.mdb').stat().st_size - used, 0)


def _check_keys(keys: Sequence[bytes]) -> None:
    for key in keys:
        if not 0 < len(key) <= _MAX_KEY:
            raise ValueError(
                f'Key {_text(key)!r} has {len(key)} bytes: LMDB takes 1 to {_MAX_KEY}.'
            )
    for key, following in itertools.pairwise(keys):
        if key == following:
            raise ValueError(f'Key {_text(key)} occurs twice: list it once.')


def _check_record(
    env: lmdb.Environment, partial: Path, key: bytes, made: bytes | _NotMade
) -> None:
    """Check that a record is what would be written now."""
    with env.begin() as transaction:
        same = transaction.get(key) == made
    if not same:
        reason = f' ({made.reason})' if isinstance(made, _NotMade) else ''
        raise ValueError(
            f'{partial} was begun from other data: its record {_text(key)} is not what '
            f'would be written now{reason}; go on with the data that it was begun '
            f'from, or remove that folder.'
        )


def _text(key: bytes) -> str:
    return key.decode(errors='backslashreplace')


def _reason(error: lmdb.Error) -> str:
    return str(error).splitlines()[0]
