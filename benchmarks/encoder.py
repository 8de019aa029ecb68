"""What encoding a quarter of the tokens costs beside encoding all of them.

    uv run python -m benchmarks.encoder

Forward and backward of ViT-B, 12 bands, 128 px, patch 16, batch 8 (768 tokens). Times
alternate between the two, in one process, and their medians are compared. Memory is
that of activations: what the forward pass keeps for the backward.
"""

import argparse
import statistics

import timm
import torch
from torch import Tensor

import torchgeo_channelmae  # noqa: F401

from .cases import positive
from .memory import saved_by
from .timing import alternate

BANDS, SIZE, TOKENS = 12, 128, 768


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--runs', type=positive, default=5, help='timed steps of each')
    parser.add_argument('--batch', type=positive, default=8)
    parser.add_argument('--model', default='channelmae_base_patch16')
    options = parser.parse_args()
    model = timm.create_model(options.model, in_chans=BANDS)
    image = torch.randn(options.batch, BANDS, SIZE, SIZE)

    def forward(visible: int) -> Tensor:
        noise = torch.rand(options.batch, TOKENS)
        tokens = noise.argsort(1)[:, :visible].sort(1).values
        return model.encode(image, tokens).square().mean()

    runs = {n: lambda n=n: forward(n).backward() for n in (TOKENS // 4, TOKENS)}
    times = alternate({str(n): run for n, run in runs.items()}, options.runs, 'cpu')
    medians = [statistics.median(found) for found in times.values()]
    memory = [saved_by(lambda n=n: forward(n), model) for n in runs]
    print(f'torch {torch.__version__}, {torch.get_num_threads()} threads, fp32')
    print('| tokens | forward + backward, s | activation memory, MiB |')
    print('| --: | --: | --: |')
    for n, median, held in zip(runs, medians, memory, strict=True):
        print(f'| {n} of {TOKENS} | {median:.2f} | {held / 2**20:.0f} |')
    ratios = f'{medians[0] / medians[1]:.3f} | {memory[0] / memory[1]:.3f}'
    print(f'| ratio | {ratios} |')


if __name__ == '__main__':
    main()
