"""The training loader, which resumes an epoch where a checkpoint was saved."""

from collections.abc import Iterator, Mapping
from typing import Any, override

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader


class EpochLoader(DataLoader[dict[str, Any]]):
    """Loads the batches of an epoch that were not trained on yet.

    Lightning creates the iterator of a resumed run before it restores the progress. So
    samples are drawn when the first batch is requested; completed ones are not read.
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
    """Raise a ValueError if the rest of an epoch would have other samples."""
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
