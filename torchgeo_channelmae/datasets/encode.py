"""``channelmae encode``: BigEarthNet's GeoTIFF archives to an LMDB of safetensors."""

import csv
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, override

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..files import refuse_existing
from .archives import Archive, open_archive
from .metadata import PatchTable, read_table, write_table
from .records import close, missing_keys, pack, read_bands, write_lmdb

FOLDER = 'Encoded-BigEarthNet'
"""Name of the LMDB in the output folder."""

_LOCK_TIMEOUT = 10  # s: workers of a killed run hold its lock for up to 5


def encode(
    root: Path,
    out: Path,
    sensors: Literal['all', 's1', 's2'] = 'all',
    workers: int | None = None,
    on_error: Literal['raise', 'skip'] = 'raise',
    verify: bool = False,
) -> None:
    """Convert BigEarthNet's GeoTIFF archives to an LMDB that is read much faster.

    Writes the folder Encoded-BigEarthNet in the layout of BigEarthNet's own converter,
    rico-hdl: one record per patch, under its name, with each band at its native size
    and type. metadata.parquet beside it has the pairs, labels and splits, so that
    BigEarthNetLMDB reads the folder at once. If the command is stopped at any moment,
    give it again to continue. Nothing that exists is overwritten.

    Args:
        root: Folder of an unpacked archive, as TorchGeo lays it out: BigEarthNet v1 or
            v2, or Copernicus-Bench's BigEarthNet.
        out: Folder to write. A pair of patches takes 283 KB, all of v2 136 GB.
        sensors: 'all', 's1' (Sentinel-1 only) or 's2' (Sentinel-2 only).
        workers: Processes that read the archive. None is one per core.
        on_error: What to do with a patch that cannot be read: 'raise' ends the
            command, 'skip' leaves its pair out of metadata.parquet and lists it in
            skipped.csv.
        verify: Compare every record with the pixels of the archive, bit by bit; also
            those of an output that is finished.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    archive = open_archive(root, sensors)
    if (out / 'metadata.parquet').is_file() and (out / FOLDER).is_dir():
        table = _finished_table(archive, out)
        if verify:
            _verify(archive, out, workers)
        close(out / FOLDER)
        print(f'{out} is finished, with {len(table)} of {len(archive.table)} patches.')
        return
    if not (out.is_dir() and not any(out.iterdir())):
        refuse_existing(out)
    staging = out.with_name(f'{out.name}.partial')
    staging.mkdir(parents=True, exist_ok=True)
    lock = Path(f'{staging}.lock')
    with FileLock(lock, timeout=_LOCK_TIMEOUT):
        job = _begin(archive, staging)
        skipped = _write_records(archive, staging / FOLDER, workers, on_error)
        table = _write_tables(archive, staging, skipped)
        if verify:
            _verify(archive, staging, workers)
        close(staging / FOLDER)
        job.unlink()
        os.replace(staging, out)
        lock.unlink(missing_ok=True)
    count = len(archive.keys) - len(skipped)
    print(f'{out} has {len(table)} patches of {archive.name}: {count} records.')
    if skipped:
        print(
            f'{len(archive.table) - len(table)} of {len(archive.table)} patches were '
            f'skipped, see {out / "skipped.csv"}. The first: {skipped[0][1]}'
        )


@dataclass
class _Results(Dataset[Any]):
    """The result of a function for each name, or why it failed."""

    function: Callable[[str], Tensor | str]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    @override
    def __getitem__(self, index: int) -> Tensor | str:
        try:
            return self.function(self.names[index])
        except ValueError as error:
            return str(error)

    def items(self, workers: int, what: str) -> Iterator[tuple[str, Any]]:
        """Yield each name with its result, which other processes compute ahead."""
        loader = DataLoader(self, batch_size=None, num_workers=workers)
        yield from zip(self.names, tqdm(loader, what, unit=' records'), strict=True)


def _packed(archive: Archive, name: str) -> Tensor:
    """Return a record as uint8, a tensor to go through shared memory.

    Bytes would fill the pipe to the main process; a worker hangs there if that dies.
    """
    return torch.frombuffer(bytearray(pack(archive.read(name))), dtype=torch.uint8)


def _difference(archive: Archive, lmdb: Path, name: str) -> str:
    """Return how a record differs from the archive, '' if it does not."""
    expected = archive.read(name)
    found = read_bands(lmdb, name.encode(), list(expected))
    for band, pixels in expected.items():
        same = found[band].dtype == pixels.dtype
        if not same or found[band].tobytes() != pixels.tobytes():
            return f'{band} has other pixels'
    return ''


def _begin(archive: Archive, staging: Path) -> Path:
    """Check that a staging folder is of this archive, and mark it so."""
    job = staging / 'job.txt'
    digest = hashlib.blake2b('\n'.join(archive.keys).encode(), digest_size=16)
    text = f'{archive.name}: {len(archive.keys)} records, {digest.hexdigest()}'
    found = job.read_text() if job.exists() else ''
    if found not in ('', text):
        raise ValueError(
            f'{staging} has a part of something else ({found}). Finish or delete that.'
        )
    job.write_text(text)
    return job


def _write_records(
    archive: Archive, lmdb: Path, workers: int, on_error: str
) -> list[tuple[str, str]]:
    """Write the missing records; returns names and reasons of those skipped."""
    write_lmdb(lmdb, [])  # whatever a killed run left is an LMDB now
    todo = _missing(lmdb, archive.keys)
    close(lmdb)
    skipped = []

    def records() -> Iterator[tuple[str, bytes]]:
        results = _Results(partial(_packed, archive), todo)
        for name, read in results.items(workers, 'Encoding'):
            if isinstance(read, Tensor):
                yield name, read.numpy().tobytes()
            elif on_error == 'skip':
                skipped.append((name, read))
            else:
                raise ValueError(f'{read} (patch {name})')

    write_lmdb(lmdb, records())
    return skipped


def _missing(lmdb: Path, names: Sequence[str]) -> list[str]:
    return [key.decode() for key in missing_keys(lmdb, map(str.encode, names))]


def _write_tables(
    archive: Archive, staging: Path, skipped: Sequence[tuple[str, str]]
) -> PatchTable:
    """Write the patches of which all records are there, and list the others."""
    lacking = [name.encode() for name, _ in skipped]
    names = (archive.table.s1_names, archive.table.s2_names)
    rows = np.flatnonzero(~np.isin(names, np.array(lacking, dtype='S')).any(axis=0))
    if not len(rows):
        raise ValueError(f'No patch of {archive.root} can be read: {skipped[0][1]}')
    table = archive.labelled(rows)
    write_table(staging / 'metadata.parquet', table, archive.note)
    listed = staging / 'skipped.csv'
    listed.unlink(missing_ok=True)  # of a stopped run
    if skipped:
        with listed.open('w', newline='') as file:
            csv.writer(file).writerows([('record', 'reason'), *skipped])
    return table


def _finished_table(archive: Archive, out: Path) -> PatchTable:
    """Return the table of a finished output, if it is of this archive."""
    table = read_table(out)
    strange = ~np.isin(table.s2_names, archive.table.s2_names)
    if strange.any() or _missing(out / FOLDER, archive.names(table)):
        raise FileExistsError(
            f'{out} is a finished encoding of other patches or sensors than those of '
            f'{archive.root}. Choose another folder.'
        )
    return table


def _verify(archive: Archive, folder: Path, workers: int) -> None:
    """Check that labels, splits and pixels are those of the archive."""
    table = read_table(folder)
    kept = np.flatnonzero(np.isin(archive.table.s2_names, table.s2_names))
    expected = archive.labelled(kept)
    for field in fields(expected):
        one, other = getattr(expected, field.name), getattr(table, field.name)
        if one is not None and not np.array_equal(one, other):
            raise ValueError(
                f'metadata.parquet of {folder} differs from {archive.root} in '
                f'{field.name}. Delete {folder} and encode again.'
            )
    names = archive.names(table)
    results = _Results(partial(_difference, archive, folder / FOLDER), names)
    compared = results.items(workers, 'Comparing')
    differing = [(name, reason) for name, reason in compared if reason]
    if differing:
        raise ValueError(
            f'{len(differing)} of {len(names)} records in {folder} differ from '
            f'{archive.root}, the first is {differing[0][0]}: {differing[0][1]}. '
            f'Delete {folder} and encode again.'
        )
    print(f'{len(names)} of {len(names)} records agree with the archive, bit by bit.')
