"""A loader that goes on where training was when it was stopped inside an epoch."""

from collections.abc import Callable, Iterator
from typing import Any, override

from torch.utils.data import DataLoader


class EpochLoader(DataLoader[dict[str, Any]]):
    """Loads the batches of an epoch that were not trained on yet.

    Lightning asks for a resumed run's iterator before it has restored how far the run
    was, and workers draw numbers as soon as there is one. So nothing is drawn before
    the first batch is asked for; then the epoch and the batches done are known.
    Skipped batches are not read.
    """

    #: Number of batches of the epoch that are done, asked for as an epoch begins.
    batches_done: Callable[[], int] = int

    @override
    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Iterate over the rest of the epoch; the length is that of the whole."""
        start = self.batches_done() * (self.batch_size or 1)
        self.sampler.start = start  # type: ignore[attr-defined]
        yield from super().__iter__()

    # Lightning warns of a loader without these two. It stores itself how many batches
    # are done, and restores nothing into a loader that a task asked for when it made
    # its optimizer.

    def state_dict(self) -> dict[str, Any]:
        """Return what to store: nothing, see :attr:`batches_done`."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what was stored: nothing."""
