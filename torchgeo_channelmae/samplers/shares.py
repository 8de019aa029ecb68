"""Class shares of the samples of a dataset, and the Parquet file that holds them."""

import json
from collections.abc import Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from torch.utils.data import Subset

from ..files import whole

Values = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_KEY = b'channelmae_landcover'


@dataclass(frozen=True)
class ClassShares:
    """Shares of land-cover classes, one row per sample.

    Attributes:
        values: (N, K) float32. A row sums to 1; it is NaN for a sample of unknown land
            cover and 0 for a sample that is not used.
        classes: K names.
        source: Where the shares come from, such as 'labels'.
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
    """Return class shares (N, K) of labels (N, K), 0 or 1; NaN for a row of zeros."""
    counts = labels.sum(axis=1, keepdims=True, dtype=np.float32)
    counts[counts == 0] = np.nan
    return (labels / counts).astype(np.float32)


def check_shares(values: npt.NDArray[Any], what: str) -> Values:
    """Return shares (N, K) as float32; raise ValueError, naming ``what``, if wrong."""
    if values.ndim != 2:
        raise ValueError(
            f'{what} has the shape {values.shape}. Use (samples, classes).'
        )
    values = np.asarray(values, dtype=np.float32)
    sums = values.sum(axis=1, dtype=np.float64)
    fine = (np.abs(sums - 1) < 1e-3) | (sums == 0) | np.isnan(values).all(axis=1)
    bad = (values < 0).any(axis=1) | ~fine
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f'Row {row} of {what} sums to {sums[row]:g}, with a least value of '
            f'{values[row].min():g}. Class shares must be >= 0 and sum to 1 (all '
            f'zeros: sample not used; all NaN: unknown).'
        )
    return values


def write_shares(path: Path, shares: ClassShares) -> None:
    """Write shares as Parquet: ``index``, ``patch_id`` and a column per class.

    NaN is written as null.
    """
    columns: dict[str, Any] = {'index': np.arange(len(shares))}
    if shares.patch_ids is not None:
        columns['patch_id'] = shares.patch_ids.tolist()
    for name, column in zip(shares.classes, shares.values.T, strict=True):
        columns[name] = pa.array(column, from_pandas=True)
    described = {
        'classes': shares.classes,
        'source': shares.source,
        'dataset': shares.dataset,
        'uses_labels': shares.uses_labels,
    }
    table = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(described)})
    with whole(path) as partial:
        pq.write_table(table, partial)


def read_shares(path: str | Path | None) -> ClassShares:
    """Read a file of :func:`write_shares`.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is not given, or another file.
    """
    if path is None or not Path(path).is_file():
        raise FileNotFoundError(
            f'There is no file {path} of land-cover shares. Set shares to a file of '
            f'`channelmae landcover`.'
        )
    table = pq.read_table(path)
    described = json.loads((table.schema.metadata or {}).get(_KEY, b'{}'))
    if not described:
        raise ValueError(f'{path} was not written by `channelmae landcover`.')
    classes = tuple(described['classes'])
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
    """Return the row of each sample of a dataset, (len(dataset),).

    Samples are found by name if both have names, so that the shares of a whole archive
    serve for any part of it; otherwise by position.

    Args:
        dataset: The dataset, with ``names`` or ``patch_ids`` if its samples have them.
            A part of another has the positions ``indices`` (a ``Subset``) or ``rows``
            there.
        shares: The shares.

    Raises:
        ValueError: If the shares are those of another dataset.
    """
    if isinstance(dataset, Subset):
        parent: Any = dataset.dataset
        return rows_of(parent, shares)[np.asarray(dataset.indices, dtype=np.int64)]
    names = getattr(dataset, 'names', getattr(dataset, 'patch_ids', None))
    if names is not None and shares.patch_ids is not None:
        rows = pd.Index(shares.patch_ids).get_indexer(pd.Index(np.asarray(names, 'U')))
        if (rows < 0).any():
            raise ValueError(
                f'{(rows < 0).sum()} of {len(names)} samples, such as '
                f'{names[(rows < 0).argmax()]!r}, are not in the land-cover shares of '
                f'{shares.dataset}. Compute theirs with `channelmae landcover`.'
            )
        return rows.astype(np.int64)
    if (part := getattr(dataset, 'rows', None)) is not None:
        return rows_of(dataset.source.dataset, shares)[part]  # type: ignore[attr-defined]
    if len(dataset) != len(shares):
        raise ValueError(
            f'The land-cover shares are those of {len(shares)} samples of '
            f'{shares.dataset}, but the dataset has {len(dataset)}. Compute its own '
            f'with `channelmae landcover`.'
        )
    return np.arange(len(shares))
