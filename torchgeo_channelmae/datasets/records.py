"""Bands out of an LMDB of safetensors records, the layout that rico-hdl writes.

A key is the name of a patch, its value a safetensors file of one array a band.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import numpy.typing as npt

_DTYPES = {  # what safetensors calls a type: what NumPy does
    'U8': '<u1',
    'I16': '<i2',
    'U16': '<u2',
    'I32': '<i4',
    'F16': '<f2',
    'F32': '<f4',
    'F64': '<f8',
}
_PREFIX = 8  # bytes that hold the length of a safetensors header
_environments: dict[str, lmdb.Environment] = {}
_owner = os.getpid()


def environment(path: str | Path) -> lmdb.Environment:
    """Open an LMDB for reading, once a process.

    LMDB refuses to open one path twice in a process, and what was opened before a
    fork must not be used after it: a forked process closes what it inherited and
    opens its own. No lock file is written, so a read-only folder will do.

    Args:
        path: The folder with ``data.mdb``.

    Returns:
        The environment, shared by everybody in this process who asks for that path.

    Raises:
        ValueError: If the file is no LMDB, is cut short or is opened elsewhere.
    """
    global _owner
    if _owner == os.getpid() and (known := _environments.get(str(path))):
        return known
    if _owner != os.getpid():
        for inherited in set(_environments.values()):
            inherited.close()
        _environments.clear()
        _owner = os.getpid()
    key = os.path.realpath(path)
    if key not in _environments:
        _environments[key] = _open(key)
    if os.path.isabs(path):  # spares looking links up at every read
        _environments[str(path)] = _environments[key]
    return _environments[key]


def _open(path: str) -> lmdb.Environment:
    try:
        opened = lmdb.open(path, readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'LMDB {path} cannot be opened: {reason}') from None
    # reading beyond the end of a mapped file kills the process, so look first
    needed = (opened.info()['last_pgno'] + 1) * opened.stat()['psize']
    found = os.path.getsize(os.path.join(path, 'data.mdb'))
    if found < needed:
        opened.close()
        raise ValueError(
            f'LMDB {path} is cut short: data.mdb has {found} of {needed} bytes. '
            f'Copy or convert it again.'
        )
    return opened


def missing_keys(path: str | Path, keys: Iterable[bytes]) -> list[bytes]:
    """List the keys that an LMDB lacks, in sorted order.

    No value is read; LMDB itself looks at one page (4 KB) of each.

    Args:
        path: The folder with ``data.mdb``.
        keys: The keys to look for.

    Returns:
        The keys that are not there.

    Raises:
        ValueError: If a page of the LMDB is damaged.
    """
    try:
        with environment(path).begin(buffers=True) as transaction:
            cursor = transaction.cursor()
            # LMDB takes no empty key
            return [key for key in sorted(keys) if not key or not cursor.set_key(key)]
    except lmdb.Error as error:
        raise ValueError(
            f'LMDB {path} is damaged ({error}): copy or convert it again.'
        ) from None


def first_key(path: str | Path, prefix: bytes) -> bytes | None:
    """Return the first key of an LMDB that starts with a prefix, if any.

    Args:
        path: The folder with ``data.mdb``.
        prefix: How the key starts.
    """
    try:
        with environment(path).begin(buffers=True) as transaction:
            cursor = transaction.cursor()
            key = bytes(cursor.key()) if cursor.set_range(prefix) else b''
    except lmdb.Error:  # whoever reads the records says what is wrong
        return None
    return key if key.startswith(prefix) else None


def read_bands(
    path: str | Path, key: bytes, bands: Sequence[str]
) -> dict[str, npt.NDArray[Any]]:
    """Read some bands of one record.

    Args:
        path: The folder with ``data.mdb``.
        key: The record's key.
        bands: Names of the bands to read; the bytes of others are not looked at.

    Returns:
        For each band a (height, width) array of its own, of the type stored.

    Raises:
        ValueError: If the record is missing, damaged or lacks a band.
    """
    with environment(path).begin(buffers=True) as transaction:
        try:
            record = transaction.get(key)
        except lmdb.Error as error:
            raise ValueError(
                f'Record {key.decode()} of the LMDB {path} cannot be read ({error}): '
                f'copy or convert it again.'
            ) from None
        if record is None:
            raise ValueError(f'Record {key.decode()} is not in the LMDB {path}.')
        try:
            header, start = _read_header(record)
        except ValueError as error:
            raise ValueError(
                f'Record {key.decode()} of the LMDB {path} has no readable '
                f'safetensors header ({error}): convert the patch again.'
            ) from None
        arrays = {}
        for band in bands:
            if band not in header:
                raise ValueError(
                    f'Record {key.decode()} of the LMDB {path} lacks the band {band}: '
                    f'it has {", ".join(sorted(header)) or "none"}.'
                )
            try:
                arrays[band] = _read_array(record, header[band], start)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f'Band {band} of the record {key.decode()} in the LMDB {path} is '
                    f'damaged ({error}): convert the patch again.'
                ) from None
        return arrays


def _read_header(record: memoryview) -> tuple[dict[str, Any], int]:
    """Return the header of a record and where its data start."""
    length = int.from_bytes(record[:_PREFIX], 'little')
    start = _PREFIX + length
    if len(record) < start or length == 0:
        raise ValueError(f'{start} bytes expected, {len(record)} found')
    try:
        header = json.loads(bytes(record[_PREFIX:start]))
    except ValueError:  # covers text that is no UTF-8 or no JSON
        raise ValueError('it is not JSON') from None
    if not isinstance(header, dict):
        raise ValueError('it is not a JSON object')
    header.pop('__metadata__', None)
    return header, start


def _read_array(
    record: memoryview, entry: dict[str, Any], start: int
) -> npt.NDArray[Any]:
    """Copy one array out of a record, whose memory is LMDB's."""
    if entry['dtype'] not in _DTYPES:
        raise ValueError(f'type {entry["dtype"]} is none of {", ".join(_DTYPES)}')
    shape = entry['shape']
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f'shape {shape} is not (height, width)')
    dtype = np.dtype(_DTYPES[entry['dtype']])
    begin, end = (start + offset for offset in entry['data_offsets'])
    size = shape[0] * shape[1] * dtype.itemsize
    if end - begin != size or begin < start:
        raise ValueError(f'{end - begin} bytes for a shape of {size}')
    if end > len(record):
        raise ValueError(f'it ends at byte {end} of {len(record)}')
    flat = np.frombuffer(record, dtype, count=shape[0] * shape[1], offset=begin)
    return flat.reshape(shape).copy()
