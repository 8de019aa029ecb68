"""Bring the predictions of all processes together, each sample once."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Column = Tensor | list[str]


class PredictionStore:
    """Collects what was predicted for each sample, batch by batch, on the CPU.

    Distributed samplers repeat samples to give every process as many; the index of
    the sample in its dataset tells the repeats, so that none counts twice.

    Example:
        >>> store = PredictionStore()
        >>> store.update(torch.tensor([1, 0]), score=torch.tensor([0.2, 0.7]))
        >>> store.update(torch.tensor([1]), score=torch.tensor([0.2]))
        >>> store.gather()['score']
        tensor([0.7000, 0.2000])
    """

    def __init__(self) -> None:
        """Start empty."""
        self._batches: list[dict[str, Column]] = []

    def __len__(self) -> int:
        """Return the number of rows stored by this process, repeats included."""
        return sum(len(batch['index']) for batch in self._batches)

    def reset(self) -> None:
        """Forget all predictions."""
        self._batches = []

    def update(self, index: Tensor, **columns: Tensor | Sequence[str]) -> None:
        """Store a batch.

        Args:
            index: Index of each sample in its dataset, integer (B,).
            columns: What to keep of each sample: tensors (B, ...) or B strings, such
                as ``probabilities`` (B, K), ``labels`` (B, K) and ``patch_id``.

        Raises:
            ValueError: If a column has another length than the index, or the columns
                are not those of the batches before.
        """
        batch: dict[str, Column] = {'index': index.detach().cpu().long().flatten()}
        for name, values in columns.items():
            if len(values) != len(index):
                raise ValueError(
                    f'Column {name!r} has {len(values)} rows for {len(index)} samples.'
                )
            if isinstance(values, Tensor):
                # A copy, as the batch's own memory may be used again.
                batch[name] = values.detach().to('cpu', copy=True)
            else:
                batch[name] = list(values)
        if self._batches and batch.keys() != self._batches[0].keys():
            raise ValueError(
                f'Columns {sorted(batch)} differ from those stored before, '
                f'{sorted(self._batches[0])}.'
            )
        self._batches.append(batch)

    def gather(self) -> dict[str, Any]:
        """Return the predictions of all processes, sorted by index, each sample once.

        All processes must call it, and all get the same.

        Returns:
            ``index`` (S,) and every column: tensors (S, ...) or lists of S strings.

        Raises:
            ValueError: If nothing was stored, or two samples with unlike labels or
                names have the same index.
        """
        parts = self._batches
        if dist.is_available() and dist.is_initialized():
            gathered: list[dict[str, Column]] = [{}] * dist.get_world_size()
            dist.all_gather_object(gathered, _join(parts))
            parts = [part for part in gathered if part]
        rows = _join(parts)
        if not rows:
            raise ValueError('No predictions were stored: the data set is empty.')
        return _distinct(rows)


def _join(parts: Sequence[dict[str, Column]]) -> dict[str, Column]:
    """Append the rows of the parts; no parts give no columns."""
    joined: dict[str, Column] = {}
    for name in parts[0] if parts else ():
        columns = [part[name] for part in parts]
        tensors = [column for column in columns if isinstance(column, Tensor)]
        joined[name] = (
            torch.cat(tensors)
            if tensors
            else [text for column in columns for text in column]
        )
    return joined


def _distinct(rows: dict[str, Column]) -> dict[str, Column]:
    """Sort rows by index and keep the first row of each."""
    index = rows['index']
    assert isinstance(index, Tensor)
    unique, inverse = index.unique(sorted=True, return_inverse=True)
    first = torch.full_like(unique, len(index))
    first.scatter_reduce_(0, inverse, torch.arange(len(index)), reduce='amin')
    source = first[inverse]  # for each row, the row that stands for its sample
    for name, column in rows.items():
        _check_repeats(name, column, source, index)
    return {name: _take(column, first) for name, column in rows.items()}


def _check_repeats(name: str, column: Column, source: Tensor, index: Tensor) -> None:
    """Check that rows of one index agree; floats may differ by rounding."""
    if isinstance(column, Tensor):
        if column.is_floating_point():
            return
        unlike = (column != column[source]).reshape(len(column), -1).any(dim=1)
        rows = unlike.nonzero().flatten().tolist()
    else:
        pairs = enumerate(source.tolist())
        rows = [row for row, kept in pairs if column[row] != column[kept]]
    if rows:
        raise ValueError(
            f'Two samples have index {int(index[rows[0]])} but unlike {name!r}: the '
            'index of a sample must be its own.'
        )


def _take(column: Column, rows: Tensor) -> Column:
    if isinstance(column, Tensor):
        return column[rows]
    return [column[row] for row in rows.tolist()]
