"""The table of BigEarthNet's patches with their labels and splits."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torchgeo.datasets import BigEarthNet

from .names import Names, check_pairs, version_of

CLASSES: tuple[str, ...] = tuple(BigEarthNet.class_sets[19])
"""The 19 classes, in TorchGeo's order."""

SPLITS = {'train': 'train', 'val': 'validation', 'test': 'test'}
"""TorchGeo's name of a split: the name in ``metadata.parquet``."""

_TEXT = {'patch_id': 's2_names', 's1_name': 's1_names', 's2v1_name': 'v1_names'}
_FLAGS = {'contains_seasonal_snow': 'snow', 'contains_cloud_or_shadow': 'cloud'}
_REQUIRED = ('patch_id', 's1_name', 'labels', 'split')


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
        v1_names: Names in BigEarthNet v1 (UTF-8), b'' where unknown.
        snow: Whether a patch has seasonal snow.
        cloud: Whether a patch has clouds or cloud shadows.
    """

    s2_names: Names
    s1_names: Names
    split: npt.NDArray[np.str_]
    labels: Tensor
    countries: npt.NDArray[np.str_] | None = None
    v1_names: Names | None = None
    snow: npt.NDArray[np.bool_] | None = None
    cloud: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.s2_names)

    @property
    def known_names(self) -> Names:
        """Names in v1 or, where the table lacks them, the patches' own."""
        if self.v1_names is None:
            return self.s2_names
        return np.where(self.v1_names == b'', self.s2_names, self.v1_names)

    def rows(self, chosen: npt.NDArray[Any]) -> 'PatchTable':
        """Return some rows, chosen by a boolean mask or by their numbers."""
        numbers = np.arange(len(self))[chosen]
        columns = {name: c[numbers] for name, c in vars(self).items() if c is not None}
        return replace(self, **columns)


def find_lmdb(root: str | Path, lmdb: str | Path | None = None) -> Path:
    """Return the folder of an LMDB: ``lmdb``, or ``root`` itself or its only one."""
    root = Path(root)
    chosen = root if lmdb is None else root / lmdb
    if (chosen / 'data.mdb').is_file():
        return chosen
    found = sorted(path.parent for path in root.glob('*/data.mdb'))
    if lmdb is not None or not found:
        raise FileNotFoundError(
            f'{chosen} has no LMDB (a folder with data.mdb). Write one with '
            f'`channelmae encode` or rico-hdl, or give the right root and lmdb.'
        )
    if len(found) > 1:
        raise ValueError(
            f'{root} has several LMDBs ({", ".join(path.name for path in found)}). '
            f'Choose one with lmdb.'
        )
    return found[0]


def read_table(root: str | Path) -> PatchTable:
    """Read ``metadata.parquet``, all splits, once per process unless it changes.

    Raises:
        FileNotFoundError: If the table is missing.
        ValueError: If a column, patch, split, label or pair in it is wrong.
    """
    path = (Path(root) / 'metadata.parquet').resolve()
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} is missing, the table of patches, labels and splits. Copy it from '
            f'https://bigearth.net, or give the right root.'
        )
    return _read_table(path, path.stat().st_mtime_ns)


def table_note(root: str | Path) -> str | None:
    """Return the ``note`` in the metadata of ``metadata.parquet``, for scores on it."""
    schema = pq.read_schema(Path(root) / 'metadata.parquet')
    note = (schema.metadata or {}).get(b'note')
    return None if note is None else note.decode()


def check_version(table: PatchTable, version: str, where: str | Path) -> None:
    """Raise ValueError if a patch in ``where`` has a name of another version."""
    names = [name.decode() for name in table.s2_names.tolist()]
    others = [name for name in names if version_of(name) != version]
    if others:
        raise ValueError(
            f'{len(others)} of the {len(names)} patches in {where} do not have a name '
            f'of BigEarthNet {version}, the first is {others[0]!r}. Give another root '
            f'or version.'
        )


def write_table(path: str | Path, table: PatchTable, note: str | None = None) -> None:
    """Write patches, and a note for scores on them, as ``metadata.parquet``."""
    columns: dict[str, Any] = {
        column: np.char.decode(getattr(table, field), 'utf-8').tolist()
        for column, field in _TEXT.items()
        if getattr(table, field) is not None
    }
    columns['labels'] = [
        [CLASSES[column] for column in row.nonzero().flatten().tolist()]
        for row in table.labels
    ]
    columns['split'] = [SPLITS[split] for split in table.split.tolist()]
    for column, field in ({'country': 'countries'} | _FLAGS).items():
        if getattr(table, field) is not None:
            columns[column] = getattr(table, field).tolist()
    content = pa.table(columns).replace_schema_metadata({'note': note} if note else {})
    pq.write_table(content, path)


@functools.lru_cache(maxsize=2)
def _read_table(path: Path, mtime: int) -> PatchTable:
    frame = pd.read_parquet(path)
    missing = [column for column in _REQUIRED if column not in frame]
    if missing:
        raise ValueError(
            f'{path} lacks the column {missing[0]}. It needs {", ".join(_REQUIRED)}.'
        )
    twice = frame['patch_id'].duplicated()
    if twice.any():
        name = frame['patch_id'].iloc[twice.argmax()]
        raise ValueError(f'{path} lists the patch {name} twice. List each once.')
    official = {name: split for split, name in SPLITS.items()}
    columns: dict[str, Any] = {
        field: np.char.encode(_text(frame[column]), 'utf-8')
        for column, field in _TEXT.items()
        if column in frame
    }
    columns['split'] = _mapped(frame['split'].to_numpy(object), official, 'split', path)
    if 'country' in frame:
        columns['countries'] = _text(frame['country'])
    for column, field in _FLAGS.items():
        if column in frame:
            if frame[column].dtype != bool:
                raise ValueError(f'{column} of {path} needs true or false in all rows.')
            columns[field] = frame[column].to_numpy()
    table = PatchTable(labels=_multi_hot(frame['labels'], path), **columns)
    check_pairs(table.s1_names, table.s2_names, path)
    return table


def _text(column: 'pd.Series[Any]') -> npt.NDArray[np.str_]:
    return np.array(column.astype(object).fillna('').tolist(), dtype=np.str_)


def _multi_hot(column: 'pd.Series[Any]', path: Path) -> Tensor:
    """Return lists of class names as (rows, 19) int64."""
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f'Row {missing.argmax()} of {path} has no labels. Give an empty list if it '
            f'has none of the classes, or delete the row.'
        )
    names = np.concatenate([[], *column])
    rows = np.repeat(np.arange(len(column)), [len(labels) for labels in column])
    columns = {name: number for number, name in enumerate(CLASSES)}
    labels = torch.zeros(len(column), len(CLASSES), dtype=torch.int64)
    labels[rows, _mapped(names, columns, 'label', path)] = 1
    return labels


def _mapped(
    values: npt.NDArray[Any], known: dict[str, Any], what: str, path: Path
) -> npt.NDArray[Any]:
    """Translate values by a dictionary that has to have all of them."""
    codes, found = pd.factorize(values, use_na_sentinel=False)
    unknown = [value for value in found if value not in known]
    if unknown:
        raise ValueError(
            f'{path} has the {what} {unknown[0]!r}. Use {"; ".join(known)}.'
        )
    return np.array([known[value] for value in found])[codes]
