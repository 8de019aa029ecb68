"""The table of BigEarthNet's patches, their labels and splits, and where they lie."""

import functools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torchgeo.datasets import BigEarthNet

CLASSES: tuple[str, ...] = tuple(BigEarthNet.class_sets[19])
"""The 19 classes, in TorchGeo's order."""

SPLITS = {'train': 'train', 'val': 'validation', 'test': 'test'}
"""TorchGeo's name of a split: the name in ``metadata.parquet``."""

_COLUMNS = ('patch_id', 's1_name', 'labels', 'split')


@dataclass(frozen=True)
class Patches:
    """The patches of one split: names (UTF-8) and labels, row by row."""

    s2_names: npt.NDArray[np.bytes_]
    s1_names: npt.NDArray[np.bytes_]
    labels: Tensor


def find_lmdb(root: Path, lmdb: str | Path | None = None) -> Path:
    """Return the folder of the LMDB that belongs to a root.

    Args:
        root: Folder of the dataset.
        lmdb: The choice where there are several, in ``root`` or anywhere.

    Returns:
        ``lmdb``, or ``root`` if it is an LMDB itself, or its only LMDB folder.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If there are several and none is chosen.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f'BigEarthNet root {root} is not a folder: give the one with '
            f'metadata.parquet and the LMDB, or no root for the bundled sample.'
        )
    chosen = root if lmdb is None else root / lmdb
    if (chosen / 'data.mdb').is_file():
        return chosen
    if lmdb is not None:
        raise FileNotFoundError(
            f'LMDB {chosen} is not a folder with data.mdb: give the right lmdb.'
        )
    found = sorted(path.parent for path in root.glob('*/data.mdb'))
    if not found:
        raise FileNotFoundError(
            f'BigEarthNet root {root} has no LMDB, that is no folder with data.mdb: '
            f'convert the archive with rico-hdl or give the right root.'
        )
    if len(found) > 1:
        raise ValueError(
            f'BigEarthNet root {root} has several LMDBs '
            f'({", ".join(path.name for path in found)}): choose one with lmdb.'
        )
    return found[0]


def read_metadata(root: Path) -> dict[str, Patches]:
    """Read ``metadata.parquet`` of a root, once a process while it does not change.

    Args:
        root: Folder of the dataset.

    Returns:
        The patches of 'train', 'val' and 'test', in the order of the table.

    Raises:
        FileNotFoundError: If the table is missing.
        ValueError: If it is damaged, lacks a column or has an unknown label.
    """
    path = root / 'metadata.parquet'
    if not path.is_file():
        raise FileNotFoundError(
            f'BigEarthNet root {root} has no metadata.parquet, the table of patches, '
            f'labels and splits: get it from https://bigearth.net.'
        )
    return _read_metadata(path.resolve(), path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _read_metadata(path: Path, mtime: int) -> dict[str, Patches]:
    try:
        present = pq.read_schema(path).names
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'{path} is not a parquet file: {reason}') from None
    missing = [column for column in _COLUMNS if column not in present]
    if missing:
        raise ValueError(
            f'{path} lacks the column {", ".join(missing)}: it must have '
            f'{", ".join(_COLUMNS)}.'
        )
    table = pq.read_table(path, columns=list(_COLUMNS)).combine_chunks()
    names = {
        column: np.array(
            [(name or '').encode() for name in table[column].to_pylist()], dtype='S'
        )
        for column in ('patch_id', 's1_name')
    }
    _check_rows(table, path)
    labels = _multi_hot(table, path)
    split = np.array(table['split'].to_pylist(), dtype=object)
    return {
        key: Patches(
            names['patch_id'][split == value],
            names['s1_name'][split == value],
            labels[torch.from_numpy(split == value)],
        )
        for key, value in SPLITS.items()
    }


def _check_rows(table: pa.Table, path: Path) -> None:
    """Check that no patch would be lost, counted twice or taken to have no class."""
    patches = table['patch_id'].to_pylist()
    unknown = set(table['split'].to_pylist()) - set(SPLITS.values())
    if unknown:
        raise ValueError(
            f'{path} has the split {min(map(str, unknown))!r}: use '
            f'{", ".join(SPLITS.values())}.'
        )
    if len(set(patches)) < len(patches):
        twice = Counter(patches).most_common(1)[0][0]
        raise ValueError(f'{path} lists the patch {twice!r} twice: list each once.')
    if table['labels'].null_count:
        row = table['labels'].to_pylist().index(None)
        raise ValueError(
            f'Patch {patches[row]!r} in {path} has no labels: take it out, or give an '
            f'empty list if it has none of the classes.'
        )


def _multi_hot(table: pa.Table, path: Path) -> Tensor:
    """Return the labels of the table as an int64 tensor (rows, 19)."""
    column = table['labels'].combine_chunks()
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise ValueError(f'Column labels of {path} must hold lists of class names.')
    rows = column.value_parent_indices().to_numpy().astype(np.int64)
    flat = column.flatten().dictionary_encode()
    columns = {name: number for number, name in enumerate(CLASSES)}
    known = np.array(
        [columns.get(name, -1) for name in flat.dictionary.to_pylist()], dtype=np.int64
    )
    hot = known[flat.indices.to_numpy(zero_copy_only=False)]
    if (hot < 0).any():
        first = int(np.argmax(hot < 0))
        raise ValueError(
            f'Label {flat[first].as_py()!r} of patch '
            f'{table["patch_id"][int(rows[first])].as_py()} in {path} is none of the '
            f'19 classes of BigEarthNet: use the 19-class metadata.parquet.'
        )
    labels = torch.zeros(len(table), len(columns), dtype=torch.int64)
    labels[torch.from_numpy(rows), torch.from_numpy(hot)] = 1
    return labels
