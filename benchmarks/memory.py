"""Peak memory, each variant in a process of its own, and activations by tokens."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from .cases import Case
from .peers import make_peer
from .steps import OURS, Run, make_batch, make_steps, make_task, task_loss
from .timing import autocast, resident

#: Images of 12 bands with 192 to 12,288 tokens of 16 x 16 px.
SIDES = (64, 128, 256, 512)


def of_process(case: Case, variant: str, peer: Path | None = None) -> int:
    """Measure the peak of two steps of a variant in a process of its own, in bytes.

    Weights, gradients, optimizer and activations: the peak less what imports hold.

    Raises:
        RuntimeError: If the process fails, out of memory for example.
    """
    command = [sys.executable, '-m', 'benchmarks', '--memory-of']
    command.append(request(case, variant, peer))
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ['killed'])[-1]
        raise RuntimeError(f'Memory of {variant}, {case.name}: {last}')
    return int(done.stdout.strip().splitlines()[-1])


def request(case: Case, variant: str, peer: Path | None = None) -> str:
    """Write down for another process what to measure."""
    path = str(peer) if peer else None
    return json.dumps({'case': asdict(case), 'variant': variant, 'peer': path})


def answer(request: str) -> None:
    """Print the peak of what is asked for, in bytes, in the new process."""
    asked = json.loads(request)
    options = tuple((key, value) for key, value in asked['case'].pop('options'))
    case, peer = Case(**asked['case'], options=options), asked['peer']
    before = resident('VmRSS')
    steps = make_peer(Path(peer), case) if peer else make_steps(case)
    for _ in range(2):  # the second has the optimizer's state beside the activations
        steps.run[asked['variant']]()
    on_gpu = case.device == 'cuda'
    print(torch.cuda.max_memory_allocated() if on_gpu else resident('VmHWM') - before)


def saved_for_backward(case: Case) -> int:
    """Count the activations of our step.

    A peak shows less of them where gradients and the optimizer's state are larger.
    """
    task, _ = make_task(case)
    batch = make_batch(case)
    with autocast(case):
        return saved_by(lambda: task_loss(task, batch), task)


def saved_by(loss: Run, model: nn.Module) -> int:
    """Count bytes that a loss keeps for the backward.

    Each piece of memory counts once; weights do not.
    """
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss()
    assert value.requires_grad  # what was kept is still held here
    return sum(kept.values())


def by_tokens(case: Case, sides: tuple[int, ...] = SIDES) -> dict[str, Any]:
    """Measure a step for images of growing size and fit lines.

    Args:
        case: A row; its size is replaced, its batch is 1.
        sides: Sides of the images in pixels.

    Returns:
        ``tokens``; ``peak`` of a process and ``activations``, see :func:`fit`.
    """
    cases = [replace(case, size=side, batch=1) for side in sides]
    tokens = [one.tokens for one in cases]
    return {
        'name': replace(case, batch=1).name,
        'tokens': tokens,
        'activations': fit(tokens, [saved_for_backward(one) for one in cases]),
        'peak': fit(tokens, [of_process(one, OURS) for one in cases]),
    }


def fit(tokens: list[int], held: list[int]) -> dict[str, Any]:
    """Fit bytes by tokens with a line.

    Returns:
        ``bytes``; ``bytes_per_token`` and ``fixed_bytes`` of the line;
        ``largest_deviation`` of a measurement from the line, as a share of the line.
    """
    x, y = np.array(tokens, float), np.array(held, float)
    slope, fixed = np.polyfit(x, y, 1, w=1 / y)
    line = slope * x + fixed
    return {
        'bytes': held,
        'bytes_per_token': float(slope),
        'fixed_bytes': float(fixed),
        'largest_deviation': float(np.max(np.abs(y - line) / line)),
    }
