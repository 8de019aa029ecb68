"""Times that alternate between variants, and the peak memory of a process."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch

from .cases import Case

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}


def autocast(case: Case) -> AbstractContextManager[Any]:
    """Compute in the precision of a row, as Lightning does."""
    return torch.autocast(case.device, torch.bfloat16, enabled=case.precision == 'bf16')


def synchronize(device: str) -> None:
    """Wait for what the device was told to do."""
    if device == 'cuda':
        torch.cuda.synchronize()


def seconds(run: Callable[[], Any], device: str) -> float:
    """Time one run, to the end of what the device does for it."""
    synchronize(device)
    if device == 'cuda':
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def alternate(
    runs: Mapping[str, Callable[[], Any]], rounds: int, device: str, warm_up: int = 1
) -> dict[str, list[float]]:
    """Time variants in turn, so that a slow minute of the machine meets all of them.

    Args:
        runs: What to time, by name.
        rounds: Timed runs of each.
        device: ``cpu`` or ``cuda``.
        warm_up: Runs of each before, not timed.

    Returns:
        Seconds by name, a number a round.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warm_up + rounds):
        for name, run in runs.items():
            found = seconds(run, device)
            if turn >= warm_up:
                taken[name].append(found)
    return taken


def median(values: list[float]) -> float:
    """Return the median of some times."""
    return statistics.median(values)


def peak_memory(device: str) -> int:
    """Most memory that this process has held so far, in bytes."""
    if device == 'cuda':
        return int(torch.cuda.max_memory_allocated())
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == 'darwin' else held * 1024
