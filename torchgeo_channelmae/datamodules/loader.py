"""The training loader, which continues an epoch where a checkpoint was saved."""

from collections.abc import Iterator, Mapping
from typing import Any, override

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader


class EpochLoader(DataLoader[dict[str, Any]]):
    """Loads the batches of an epoch that were not trained on yet.

    Lightning asks for the iterator of a resumed run before it restores its progress
    (``trainer.estimated_stepping_batches`` loads the data), and then restores no loader
    state. So nothing is drawn before the first batch is asked for, when the epoch and
    the completed batches are known. Those are skipped without being read.
    """

    #: The trainer that the batches are for.
    trainer: Trainer | None = None

    @override
    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Iterate over the rest of the epoch; the length is that of the whole."""
        done = 0
        if self.trainer is not None and self.trainer.train_dataloader is self:
            done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        self.sampler.start = done * (self.batch_size or 1)  # type: ignore[attr-defined]
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Return no state; Lightning warns of a loader without this method."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore no state."""


def check_order(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that the rest of an epoch has the samples that it would have had.

    Args:
        before: What decided the order when the checkpoint was saved, by name.
        now: The same of this run.

    Raises:
        ValueError: If they differ.
    """
    changed = [
        f'{name} {before.get(name)}, not {value}'
        for name, value in now.items()
        if before.get(name) != value
    ]
    if changed:
        raise ValueError(
            f'The checkpoint was saved inside an epoch with {", ".join(changed)}. '
            f'Resume with the former, or from a checkpoint of the end of an epoch.'
        )
