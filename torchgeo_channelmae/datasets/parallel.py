"""A function of many numbers, computed by worker processes and used in order."""

import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

_CHUNK = 16  # results that a worker hands over at once


@dataclass(frozen=True)
class _Raised:
    traceback: str


class _Results(Dataset):
    def __init__(self, function: Callable[[int], Any], numbers: Sequence[int]) -> None:
        self._function = function
        self._numbers = torch.tensor(numbers, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, position: int) -> tuple[int, Any]:
        number = int(self._numbers[position])
        try:
            return number, self._function(number)
        except Exception:
            if get_worker_info() is None:
                raise
            return number, _Raised(traceback.format_exc())


def use_in_order[T](
    function: Callable[[int], T],
    numbers: Sequence[int],
    use: Callable[[int, T], None],
    workers: int,
) -> None:
    """Compute a function of each number in workers, and use the results here.

    The workers are only a few results ahead of their use, so that memory stays small.

    Args:
        function: What to compute. Where processes are not forked it has to be
            picklable, and its results always.
        numbers: What to compute it of.
        use: Called in this process with each number and its result, in the order of
            the numbers.
        workers: Processes that compute; 0 computes in this one.

    Raises:
        ValueError: If the number of workers is negative.
        ChildProcessError: If a worker dies; the message is a half-sentence.
        RuntimeError: If the function raises in a worker.
    """
    check_workers(workers)
    loader: DataLoader[Any] = DataLoader(
        _Results(function, numbers),
        batch_size=_CHUNK,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=_end_with_parent,
        generator=torch.Generator(),  # else it draws from the global one
    )
    chunks = iter(loader)
    finished = False
    try:
        for chunk in chunks:
            for number, result in chunk:
                if isinstance(result, _Raised):
                    raise RuntimeError(f'In a worker process:\n{result.traceback}')
                use(number, result)
        finished = True
    except RuntimeError as error:  # anywhere, as PyTorch raises it in a signal handler
        if 'DataLoader worker' not in str(error):
            raise
    finally:
        del chunks  # ends the workers now, not when a traceback is forgotten
    if not finished:
        raise ChildProcessError(
            f'one of {workers} worker processes died, perhaps for want of memory'
        )


def check_workers(workers: int) -> None:
    """Check a number of worker processes.

    Raises:
        ValueError: If it is negative.
    """
    if workers < 0:
        raise ValueError(f'workers is {workers}: use 0 or more.')


def _end_with_parent(_: int) -> None:
    """End this worker when its parent is killed.

    PyTorch's own workers notice, but then wait for ever to hand over what they have.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
