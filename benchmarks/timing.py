"""Times that alternate between variants, and the peak memory of a process."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
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
    runs: Mapping[str, Callable[[], Any]], rounds: int, device: str, warm_up: int = 2
) -> dict[str, list[float]]:
    """Time variants in turn, so that a slow minute of the machine meets all of them.

    Each round begins with another one: what a variant leaves in the caches and in the
    allocator meets all of them, too.

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
        names = deque(runs)
        names.rotate(-turn)
        for name in names:
            found = seconds(runs[name], device)
            if turn >= warm_up:
                taken[name].append(found)
    return taken


def resident(field: str) -> int:
    """Read a memory figure of this process, in bytes.

    Not ``ru_maxrss``, which a process inherits from the one that starts it.

    Args:
        field: ``VmRSS``, what is held now, or ``VmHWM``, the most so far.

    Raises:
        OSError: If the system is not Linux.
    """
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f'{field} is not in /proc/self/status: memory needs Linux.')


def held_memory(device: str) -> int:
    """Memory that this process holds, in bytes."""
    if device == 'cuda':
        return int(torch.cuda.memory_allocated())
    return resident('VmRSS')


def peak_memory(device: str) -> int:
    """Most memory that this process has held so far, in bytes."""
    if device == 'cuda':
        return int(torch.cuda.max_memory_allocated())
    return resident('VmHWM')
