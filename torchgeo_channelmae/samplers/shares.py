"""How much of each class every sample of a dataset has, and the file that says so."""

import json
from collections.abc import Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from torch.utils.data import Subset

from ..datasets.metadata import PatchTable

Values = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_KEY = b'channelmae_landcover'
_OWN = ('index', 'patch_id')  # columns that are no class


@dataclass(frozen=True)
class ClassShares:
    """Shares of land-cover classes, a row a sample.

    Attributes:
        values: (N, K) float32. A row sums to 1; it is NaN for a sample of which the
            land cover is unknown, and 0 for one that is not to be used.
        classes: K names.
        source: What the shares are from, such as 'labels'.
        dataset: Name of the dataset's class.
        uses_labels: Whether they are from the dataset's own labels.
        patch_ids: (N,) names of the samples, if they have any.
    """

    values: Values
    classes: tuple[str, ...]
    source: str
    dataset: str
    uses_labels: bool
    patch_ids: npt.NDArray[np.str_] | None = None

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.values)

    def rows(self, chosen: Rows) -> 'ClassShares':
        """Return some samples, by their numbers."""
        ids = None if self.patch_ids is None else self.patch_ids[chosen]
        return replace(self, values=self.values[chosen], patch_ids=ids)


def label_shares(labels: npt.NDArray[Any]) -> Values:
    """Divide labels by their number: what a patch is known to consist of.

    Args:
        labels: (N, K), 1 where a patch has a class and 0 elsewhere.

    Returns:
        (N, K) shares, NaN for a patch without a label.
    """
    counts = labels.sum(axis=1, keepdims=True, dtype=np.float32)
    counts[counts == 0] = np.nan
    return (labels / counts).astype(np.float32)


def check_shares(values: npt.NDArray[Any], what: str) -> Values:
    """Return shares as float32, checked.

    Args:
        values: (N, K).
        what: Where they are from, to name them.

    Raises:
        ValueError: If they are no shares.
    """
    if values.ndim != 2:
        raise ValueError(
            f'{what} has the shape {values.shape}: give a row a sample with the share '
            f'of each class.'
        )
    values = np.asarray(values, dtype=np.float32)
    sums = values.sum(axis=1, dtype=np.float64)
    bad = (values < 0).any(axis=1) | ~(
        (np.abs(sums - 1) < 1e-3) | (sums == 0) | np.isnan(values).all(axis=1)
    )
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f'Row {row} of {what} has the sum {sums[row]:g} and the least value '
            f'{values[row].min():g}: class shares are not negative and have the sum 1 '
            f'(all 0 leaves a sample out, all NaN is unknown land cover).'
        )
    return values


def write_shares(path: Path, shares: ClassShares) -> None:
    """Write shares as Parquet: ``index``, ``patch_id`` and a column a class.

    Args:
        path: The file, which must not exist.
        shares: The shares; NaN is written as null.

    Raises:
        FileExistsError: If the file exists.
        ValueError: If a class is called as a column that is none.
    """
    for name in shares.classes:
        if name in _OWN or shares.classes.count(name) > 1:
            raise ValueError(
                f'The class name {name!r} would be a column twice: give each class a '
                f'name of its own, other than {" and ".join(_OWN)}.'
            )
    columns: dict[str, Any] = {'index': np.arange(len(shares))}
    if shares.patch_ids is not None:
        columns['patch_id'] = shares.patch_ids.tolist()
    for name, column in zip(shares.classes, shares.values.T, strict=True):
        columns[name] = pa.array(column, from_pandas=True)
    described = {
        'version': 1,
        'samples': len(shares),
        'classes': shares.classes,
        'source': shares.source,
        'dataset': shares.dataset,
        'uses_labels': shares.uses_labels,
    }
    table = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(described)})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    with path.open('xb') as file:
        file.write(buffer.getvalue())


def read_shares(path: str | Path | None) -> ClassShares:
    """Read a file of :func:`write_shares`.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is not given, or another or a damaged file.
    """
    if path is None:
        raise ValueError(
            'shares is not given: give shares, the Parquet file of `channelmae '
            'landcover`.'
        )
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'There is no file {path} of land-cover shares: make one with `channelmae '
            f'landcover`.'
        )
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'{path} is not a Parquet file: {reason}') from None
    described = json.loads((table.schema.metadata or {}).get(_KEY, b'{}'))
    classes = tuple(described.get('classes', ()))
    if (
        not classes
        or not set(classes) <= set(table.column_names)
        or len(table) != described['samples']
    ):
        raise ValueError(
            f'{path} is no whole file of land-cover shares: make one with `channelmae '
            f'landcover`.'
        )
    values = np.stack([table[name].to_numpy() for name in classes], axis=1)
    named = 'patch_id' in table.column_names
    return ClassShares(
        values=check_shares(values, str(path)),
        classes=classes,
        source=described['source'],
        dataset=described['dataset'],
        uses_labels=described['uses_labels'],
        patch_ids=np.array(table['patch_id'].to_pylist(), 'U') if named else None,
    )


def rows_of(dataset: Sized, shares: ClassShares) -> Rows:
    """Find the row of each sample of a dataset.

    By names, where both have them, so that the shares of a whole archive serve for any
    part of it, and those of other samples don't; else by position.

    Args:
        dataset: The dataset. Names are its ``names`` or those of its ``table``. A part
            of another dataset has the positions ``indices`` (a ``Subset``) or ``rows``
            there.
        shares: The shares.

    Returns:
        (len(dataset),) numbers of rows.

    Raises:
        ValueError: If the shares are those of another dataset.
    """
    if isinstance(dataset, Subset):
        whole: Any = dataset.dataset
        return rows_of(whole, shares)[np.asarray(dataset.indices, dtype=np.int64)]
    names = _names(dataset)
    if names is not None and shares.patch_ids is not None:
        return _rows_by_name(names, shares)
    rows = getattr(dataset, 'rows', None)
    if rows is not None:
        return rows_of(dataset.source.dataset, shares)[rows]  # type: ignore[attr-defined]
    if len(dataset) != len(shares):
        raise ValueError(
            f'The land-cover shares are those of {len(shares)} samples of '
            f'{shares.dataset}, but the dataset to sample from has {len(dataset)}: '
            f'compute its own with `channelmae landcover`.'
        )
    return np.arange(len(shares))


def _names(dataset: Any) -> npt.NDArray[np.bytes_] | None:
    table = getattr(dataset, 'table', None)
    if isinstance(table, PatchTable):
        return table.s2_names
    names = getattr(dataset, 'names', None)
    return None if names is None else np.char.encode(names, 'utf-8')


def _rows_by_name(names: npt.NDArray[np.bytes_], shares: ClassShares) -> Rows:
    assert shares.patch_ids is not None
    known = np.char.encode(shares.patch_ids, 'utf-8')
    order = np.argsort(known)
    at = np.searchsorted(known[order], names).clip(max=len(known) - 1)
    rows = order[at].astype(np.int64)
    unknown = known[rows] != names
    if unknown.any():
        raise ValueError(
            f'{int(unknown.sum())} of {len(names)} samples, such as '
            f'{names[unknown.argmax()].decode()!r}, have no row in the land-cover '
            f'shares of {len(shares)} samples of {shares.dataset}: compute those of '
            f'this dataset with `channelmae landcover`.'
        )
    return rows
