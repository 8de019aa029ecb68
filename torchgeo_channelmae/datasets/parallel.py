"""A function of many numbers, computed by worker processes and used in order."""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from ..processes import end_with

_CHUNK = 16  # results that a worker hands over at once
_AHEAD = 2  # chunks that a worker may have begun


@dataclass(frozen=True)
class _Raised:
    traceback: str


def use_in_order[T](
    function: Callable[[int], T],
    numbers: Sequence[int],
    use: Callable[[int, T], None],
    workers: int,
) -> None:
    """Compute a function of each number in workers, and use the results here.

    The workers are only a few results ahead of their use, so that memory stays small.
    Each worker hands its results over through a pipe of its own, which its death
    closes: a queue that all share can be left locked, or holding half a message, by a
    worker that is killed, and is then waited for without end.

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
    if workers == 0:
        for number in numbers:
            use(number, function(number))
        return
    chunks = [numbers[i : i + _CHUNK] for i in range(0, len(numbers), _CHUNK)]
    workers = min(workers, len(chunks))
    with ExitStack() as stack:
        pipes = [stack.enter_context(_worker(function)) for _ in range(workers)]

        def ask(i: int) -> None:
            if i < len(chunks):
                with _told_if_dead(workers):
                    pipes[i % workers].send(chunks[i])

        for i in range(_AHEAD * workers):
            ask(i)
        for i, chunk in enumerate(chunks):
            with _told_if_dead(workers):
                results = pipes[i % workers].recv()
            ask(i + _AHEAD * workers)
            for number, result in zip(chunk, results, strict=False):
                if isinstance(result, _Raised):
                    raise RuntimeError(f'In a worker process:\n{result.traceback}')
                use(number, result)


def check_workers(workers: int) -> None:
    """Check a number of worker processes.

    Raises:
        ValueError: If it is negative.
    """
    if workers < 0:
        raise ValueError(f'workers is {workers}: use 0 or more.')


@contextmanager
def _told_if_dead(workers: int) -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise ChildProcessError(
            f'one of {workers} worker processes died, perhaps for want of memory'
        ) from error


@contextmanager
def _worker(function: Callable[[int], Any]) -> Iterator[Connection]:
    """A process that answers chunks of numbers with their results, while this lasts."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(
        target=_work, args=(function, here, there, os.getpid()), daemon=True
    )
    process.start()
    there.close()  # so that only the worker holds it
    try:
        yield here
    finally:
        here.close()
        process.kill()  # it has handed over all that is used
        process.join()


def _work(
    function: Callable[[int], Any], theirs: Connection, mine: Connection, parent: int
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    theirs.close()
    torch.set_num_threads(1)
    end_with(parent)
    while True:
        try:
            numbers = mine.recv()
        except EOFError:
            return
        results: list[Any] = []
        for number in numbers:
            try:
                results.append(function(number))
            except Exception:
                results.append(_Raised(traceback.format_exc()))
                break  # nothing after it is used
        try:
            mine.send(results)
        except (EOFError, ConnectionError):
            return
        except Exception:  # they cannot be pickled
            mine.send([_Raised(traceback.format_exc())])
