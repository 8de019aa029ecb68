"""Times that alternate between variants, memory of a process, peak of the machine."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from .cases import Case

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}
SIDES = (1024, 2048, 4096, 8192)


def make_trainer(**options: Any) -> Trainer:
    """Make a trainer, by default on CPUs, that logs, saves and shows nothing."""
    return Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{'accelerator': 'cpu', **options},
    )


def autocast(case: Case) -> AbstractContextManager[Any]:
    """Compute in the precision of a row, as Lightning does."""
    return torch.autocast(case.device, torch.bfloat16, enabled=case.precision == 'bf16')


def seconds(run: Callable[[], Any], device: str) -> float:
    """Time one run, to the end of what the device does for it."""
    if device == 'cuda':
        torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def alternate(
    runs: Mapping[str, Callable[[], Any]], rounds: int, device: str, warm_up: int = 2
) -> dict[str, list[float]]:
    """Time variants in turn, so that a slow minute of the machine affects all of them.

    Each round begins with another one: what a variant leaves in the caches and in the
    allocator affects all of them, too.

    Args:
        runs: What to time, by name.
        rounds: Timed runs of each.
        device: ``cpu`` or ``cuda``.
        warm_up: Runs of each before, not timed.

    Returns:
        Seconds by name, one number per round.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warm_up + rounds):
        names = deque(runs)
        names.rotate(-turn)
        for name in names:
            found = seconds(runs[name], device)
            if turn >= warm_up:
                times[name].append(found)
    return times


def resident(field: str) -> int:
    """Read a memory figure of this process, in bytes (Linux only).

    Not ``ru_maxrss``, which a process inherits from the one that starts it.

    Args:
        field: ``VmRSS``, what is held now, or ``VmHWM``, the most so far.
    """
    status = Path('/proc/self/status').read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def best_product(precision: str, device: str, sides: tuple[int, ...] = SIDES) -> float:
    """Measure operations per second of the best square product, a + b counting two."""
    best, dtype = 0.0, DTYPES[precision]
    for side in sides:
        one, other = torch.randn(2, side, side, device=device, dtype=dtype)
        runs = {'product': lambda one=one, other=other: one @ other}
        least = min(alternate(runs, 3, device)['product'])
        best = max(best, 2 * side**3 / least)
    return best
