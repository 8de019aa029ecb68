"""The table of BigEarthNet's patches, their labels and splits, and where they lie."""

import functools
import os
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torchgeo.datasets import BigEarthNet

from .pairs import check_pairs, of_version

CLASSES: tuple[str, ...] = tuple(BigEarthNet.class_sets[19])
"""The 19 classes, in TorchGeo's order."""

SPLITS = {'train': 'train', 'val': 'validation', 'test': 'test'}
"""TorchGeo's name of a split: the name in ``metadata.parquet``."""

_COLUMNS = ('patch_id', 's1_name', 'labels', 'split')
_OPTIONAL = {  # column of the table: field of PatchTable
    'country': 'countries',
    's2v1_name': 'v1_names',
    'contains_seasonal_snow': 'snow',
    'contains_cloud_or_shadow': 'cloud',
}
_FLAGS = ('contains_seasonal_snow', 'contains_cloud_or_shadow')


@dataclass(frozen=True)
class PatchTable:
    """Patches, row by row; all columns have the same length.

    Arrays rather than lists, so that forked workers share their memory.

    Attributes:
        s2_names: Names of the Sentinel-2 patches (UTF-8), the patch ids.
        s1_names: Names of the Sentinel-1 patches (UTF-8), b'' where unknown.
        split: 'train', 'val' or 'test'.
        labels: (rows, 19) int64, 1 where a patch has the class.
        countries: Names of countries, '' where unknown.
        v1_names: Names that the Sentinel-2 patches have in BigEarthNet v1 (UTF-8), b''
            where unknown.
        snow: Whether a patch has seasonal snow.
        cloud: Whether a patch has clouds or their shadows.
    """

    s2_names: npt.NDArray[np.bytes_]
    s1_names: npt.NDArray[np.bytes_]
    split: npt.NDArray[np.str_]
    labels: Tensor
    countries: npt.NDArray[np.str_] | None = None
    v1_names: npt.NDArray[np.bytes_] | None = None
    snow: npt.NDArray[np.bool_] | None = None
    cloud: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.s2_names)

    @property
    def known_names(self) -> npt.NDArray[np.bytes_]:
        """Names of the patches in v1 or, where the table lacks them, their own.

        A name in v1 can't be derived from that in v2.
        """
        if self.v1_names is None:
            return self.s2_names
        return np.where(self.v1_names == b'', self.s2_names, self.v1_names)

    def rows(self, chosen: npt.NDArray[Any]) -> 'PatchTable':
        """Return some rows, by a boolean for each or by their numbers."""
        numbers = torch.from_numpy(np.arange(len(self))[chosen])
        arrays = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name != 'labels'
        }
        picked: dict[str, Any] = {
            name: None if array is None else array[chosen]
            for name, array in arrays.items()
        }
        return PatchTable(labels=self.labels[numbers], **picked)


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


def read_table(root: Path) -> PatchTable:
    """Read ``metadata.parquet`` of a root, once a process while it does not change.

    Args:
        root: Folder of the dataset.

    Returns:
        The patches of all splits, in the order of the table.

    Raises:
        FileNotFoundError: If the table is missing.
        ValueError: If it is damaged or empty, lacks a column or holds others in it,
            has an unknown label or a flag that is neither true nor false, or pairs
            patches of two places.
    """
    path = _table_path(root)
    return _read_table(path.resolve(), path.stat().st_mtime_ns)


def table_note(root: Path) -> str | None:
    """Return what ``metadata.parquet`` says that readers of scores have to know first.

    It is the value of ``note`` in the schema's metadata.
    """
    noted = (_read_schema(_table_path(root)).metadata or {}).get(b'note')
    return None if noted is None else noted.decode()


def check_version(table: PatchTable, version: str, where: str | Path) -> None:
    """Check that all patches are of a version of BigEarthNet.

    Args:
        table: The patches.
        version: 'v1' or 'v2'.
        where: What lists them, for the error.

    Raises:
        ValueError: If the name of a Sentinel-2 patch is not of that version.
    """
    strange = ~of_version(table.s2_names, version)
    if strange.any():
        name = table.s2_names[strange.argmax()].decode()
        raise ValueError(
            f'{int(strange.sum())} of the {len(table)} patches of {where} are not '
            f'named as those of BigEarthNet {version}, the first is {name!r}: give the '
            f'other root, or leave version out.'
        )


def write_table(path: Path, table: PatchTable, note: str | None = None) -> None:
    """Write patches as a ``metadata.parquet``.

    Args:
        path: The file, which must not exist.
        table: The patches; columns that are None are left out.
        note: What readers of scores have to know first, see :func:`table_note`.

    Raises:
        FileExistsError: If the file exists.
    """
    columns: dict[str, Any] = {
        'patch_id': [name.decode() for name in table.s2_names],
        's1_name': [name.decode() for name in table.s1_names],
        'labels': [
            [CLASSES[column] for column in row.nonzero().flatten().tolist()]
            for row in table.labels
        ],
        'split': [SPLITS[split] for split in table.split.tolist()],
    }
    for column, name in _OPTIONAL.items():
        values = getattr(table, name)
        if values is not None:
            columns[column] = [
                value.decode() if isinstance(value, bytes) else value
                for value in values.tolist()
            ]
    schema = {b'note': note.encode()} if note else {}
    content = pa.table(columns).replace_schema_metadata(schema)
    with path.open('xb') as file:
        pq.write_table(content, file)
        file.flush()
        os.fsync(file.fileno())


def _table_path(root: Path) -> Path:
    path = root / 'metadata.parquet'
    if not path.is_file():
        raise FileNotFoundError(
            f'BigEarthNet root {root} has no metadata.parquet, the table of patches, '
            f'labels and splits: get it from https://bigearth.net.'
        )
    return path


def _read_schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, 'is no readable parquet file', error) from None


def _damaged(path: Path, what: str, error: Exception) -> ValueError:
    reason = str(error).splitlines()[0].rstrip('.') or type(error).__name__
    return ValueError(
        f'{path} {what} ({reason}): copy it again, or get it from https://bigearth.net.'
    )


@functools.lru_cache(maxsize=2)
def _read_table(path: Path, mtime: int) -> PatchTable:
    present = _read_schema(path).names
    missing = [column for column in _COLUMNS if column not in present]
    if missing:
        raise ValueError(
            f'{path} lacks the column {", ".join(missing)}: it must have '
            f'{", ".join(_COLUMNS)}.'
        )
    optional = [column for column in _OPTIONAL if column in present]
    try:
        table = pq.read_table(path, columns=[*_COLUMNS, *optional]).combine_chunks()
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, 'is damaged', error) from None
    _check_columns(table, path)
    _check_rows(table, path)
    given = {_OPTIONAL[column]: table[column].to_pylist() for column in optional}
    kinds = {'countries': np.str_, 'snow': np.bool_, 'cloud': np.bool_}
    codes = table['split'].combine_chunks().dictionary_encode()
    official = {name: key for key, name in SPLITS.items()}
    patches = PatchTable(
        s2_names=_names(table['patch_id'].to_pylist()),
        s1_names=_names(table['s1_name'].to_pylist()),
        split=np.array([official[name] for name in codes.dictionary.to_pylist()], 'U5')[
            codes.indices.to_numpy()
        ],
        labels=_multi_hot(table, path),
        v1_names=_names(given['v1_names']) if 'v1_names' in given else None,
        **{
            name: np.array([value or '' for value in column], dtype=kinds[name])
            for name, column in given.items()
            if name in kinds
        },
    )
    check_pairs(patches.s1_names, patches.s2_names, path)
    for field in fields(patches):  # shared by all who read the table
        values = getattr(patches, field.name)
        if isinstance(values, np.ndarray):
            values.flags.writeable = False
    return patches


def _names(texts: list[str | None]) -> npt.NDArray[np.bytes_]:
    return np.array([(text or '').encode() for text in texts], dtype='S')


def _check_columns(table: pa.Table, path: Path) -> None:
    """Check that there are rows, and that columns hold what their names say."""
    if not len(table):
        raise ValueError(f'{path} lists no patch: get it from https://bigearth.net.')
    for column in table.schema:
        kind = column.type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if column.name in _FLAGS:
            expected, is_right = 'true or false', pa.types.is_boolean(kind)
        elif column.name == 'labels':
            continue
        else:
            is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
            expected, is_right = 'text', is_text or pa.types.is_string_view(kind)
        is_needed = column.name in (*_FLAGS, 'patch_id')
        empty = table[column.name].null_count if is_needed else 0
        if pa.types.is_null(kind) and not is_needed:
            continue  # unknown in all rows
        if not is_right or empty:
            found = f'nothing in {empty} rows' if empty else str(column.type)
            advice = ', or leave the column out' if column.name in _OPTIONAL else ''
            raise ValueError(
                f'Column {column.name} of {path} holds {found}, expected {expected}: '
                f'write it so{advice}.'
            )


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
