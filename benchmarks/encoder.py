"""What encoding a quarter of the tokens costs beside encoding all of them.

    uv run python -m benchmarks.encoder

Forward and backward of ViT-B, 12 bands, 128 px, patch 16, batch 8 (768 tokens). Times
alternate between the two, in one process, and their medians are compared. Memory is the
peak of a process of its own, less what it held with weights and gradients in place
(Linux only).
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import timm
import torch
from torch import Tensor

import torchgeo_channelmae  # noqa: F401

from .timing import resident

BATCH, BANDS, SIZE, TOKENS = 8, 12, 128, 768


def make() -> tuple[torch.nn.Module, Tensor]:
    """Make the encoder, its gradients in place, and a batch."""
    model = timm.create_model('channelmae_base_patch16', in_chans=BANDS)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return model, torch.randn(BATCH, BANDS, SIZE, SIZE)


def step(model: torch.nn.Module, image: Tensor, visible: int) -> float:
    """Run forward and backward over some tokens; return the seconds it took."""
    noise = torch.rand(BATCH, TOKENS)
    tokens = noise.argsort(1)[:, :visible].sort(1).values
    start = time.perf_counter()
    model.encode(image, tokens).square().mean().backward()
    return time.perf_counter() - start


def activation_memory(visible: int) -> int:
    """Peak of a step in a process of its own, less weights and gradients, in bytes."""
    command = [sys.executable, '-m', 'benchmarks.encoder', '--memory-of', str(visible)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--runs', type=int, default=5, help='timed steps of each')
    parser.add_argument('--memory-of', type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    model, image = make()
    if options.memory_of:
        before = resident('VmRSS')
        step(model, image, options.memory_of)
        print(json.dumps(resident('VmHWM') - before))
        return
    sizes = (TOKENS // 4, TOKENS)
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for run in range(options.runs + 1):
        for size in sizes:
            seconds = step(model, image, size)
            if run:  # the first warms up
                times[size].append(seconds)
    medians = [statistics.median(times[size]) for size in sizes]
    memory = [activation_memory(size) for size in sizes]
    print(f'torch {torch.__version__}, {torch.get_num_threads()} threads, fp32')
    print('| tokens | forward + backward, s | activation memory, MiB |')
    print('| --: | --: | --: |')
    for size, median, peak in zip(sizes, medians, memory, strict=True):
        print(f'| {size} of {TOKENS} | {median:.2f} | {peak / 2**20:.0f} |')
    ratios = f'{medians[0] / medians[1]:.3f} | {memory[0] / memory[1]:.3f}'
    print(f'| ratio | {ratios} |')


if __name__ == '__main__':
    main()
