"""Records of an LMDB of safetensors, the layout that rico-hdl writes.

A key is the name of a patch, its value a safetensors file with one array per band.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import numpy.typing as npt
import safetensors.numpy

Pixels = npt.NDArray[Any]

COMMIT_BYTES = 32 << 20
"""Bytes of records per transaction: what a killed writer loses at most."""

_DTYPES = {'U8': '<u1', 'I16': '<i2', 'U16': '<u2', 'I32': '<i4', 'F32': '<f4'}
"""Name of a type in safetensors: its name in NumPy."""

_PREFIX = 8  # bytes that hold the length of a safetensors header
_environments: dict[str, lmdb.Environment] = {}
_owner = os.getpid()


def environment(path: str | Path) -> lmdb.Environment:
    """Open an LMDB (the folder with ``data.mdb``) for reading, once per process.

    LMDB refuses to open a path twice in a process, and an environment must not be used
    after a fork: a forked process closes what it inherited and opens its own. No lock
    file is written, so the folder may be read-only. A damaged LMDB is a ValueError.
    """
    global _owner
    if _owner != os.getpid():
        for inherited in _environments.values():
            inherited.close()
        _environments.clear()
        _owner = os.getpid()
    if found := _environments.get(str(path)):
        return found
    real = os.path.realpath(path)
    if real not in _environments:
        _environments[real] = _open(real)
    return _environments[real]


def close(path: str | Path) -> None:
    """Close an LMDB that this process reads, before its folder is renamed."""
    if found := _environments.pop(os.path.realpath(path), None):
        found.close()


def missing_keys(path: str | Path, keys: Iterable[bytes]) -> list[bytes]:
    """Return the keys that an LMDB lacks, sorted; values are not read."""
    with _reading(path) as transaction:
        cursor = transaction.cursor()
        # LMDB raises at an empty key
        return [key for key in sorted(keys) if not key or not cursor.set_key(key)]


def read_bands(path: str | Path, key: bytes, bands: Sequence[str]) -> dict[str, Pixels]:
    """Read some bands of a record, (height, width) each, and no bytes of others."""
    name = f'Record {key.decode()} of the LMDB {path}'
    with _reading(path) as transaction:
        found = transaction.get(key) if key else None  # LMDB raises at an empty key
        if found is None:
            raise ValueError(f'{name} is missing. Encode the archive again.')
        record = memoryview(found)
        try:
            start = _PREFIX + int.from_bytes(record[:_PREFIX], 'little')
            header = json.loads(bytes(record[_PREFIX:start]))
            lacking = [band for band in bands if band not in header]
            if lacking:
                raise ValueError(f'it has no band {lacking[0]}')
            return {band: _array(record[start:], header[band]) for band in bands}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f'{name} cannot be read: {error}. Encode the archive again.'
            ) from error


def pack(bands: Mapping[str, Pixels]) -> bytes:
    """Return the bands of a patch as a safetensors file."""
    contiguous = {band: np.ascontiguousarray(a) for band, a in bands.items()}
    return safetensors.numpy.save(contiguous)


def write_lmdb(
    path: str | Path, records: Iterable[tuple[str, Mapping[str, Pixels] | bytes]]
) -> None:
    """Write records to an LMDB, which may have others already.

    They are committed every :data:`COMMIT_BYTES`, so that a kill loses the last only.

    Args:
        path: The folder for ``data.mdb``, created if missing.
        records: Name and bands (height, width) of each patch, or its packed record.
    """
    Path(path).mkdir(parents=True, exist_ok=True)
    batch: list[tuple[bytes, bytes]] = []
    with lmdb.open(str(path), map_size=1 << 30, lock=False) as env:
        for name, record in records:
            packed = record if isinstance(record, bytes) else pack(record)
            batch.append((name.encode(), packed))
            if sum(len(value) for _, value in batch) >= COMMIT_BYTES:
                _commit(env, batch)
                batch = []
        _commit(env, batch)


def _commit(env: lmdb.Environment, batch: Sequence[tuple[bytes, bytes]]) -> None:
    while True:
        try:
            with env.begin(write=True) as transaction:
                for key, value in batch:
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:  # the map is address space, not bytes on disk
            env.set_mapsize(2 * env.info()['map_size'])


def _open(path: str) -> lmdb.Environment:
    try:
        opened = lmdb.open(path, readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise ValueError(f'LMDB {path} cannot be opened: {error}') from error
    # reading beyond the end of a mapped file kills the process
    needed = (opened.info()['last_pgno'] + 1) * opened.stat()['psize']
    if os.path.getsize(os.path.join(path, 'data.mdb')) < needed:
        opened.close()
        raise ValueError(f'LMDB {path} is truncated. Copy or encode it again.')
    return opened


@contextmanager
def _reading(path: str | Path) -> Iterator[lmdb.Transaction]:
    env = environment(path)
    try:
        with env.begin(buffers=True) as transaction:
            yield transaction
    except lmdb.Error as error:
        raise ValueError(f'LMDB {path} is damaged: {error}') from error


def _array(data: memoryview, entry: dict[str, Any]) -> Pixels:
    """Copy an array out of a record, because the memory is LMDB's."""
    begin, end = entry['data_offsets']
    flat = np.frombuffer(data[begin:end], _DTYPES[entry['dtype']])
    return flat.reshape(entry['shape']).copy()
