"""What the augmentations of bands cost, beside a pretraining step.

    uv run python -m benchmarks.augmentation

Each on 64 x 12 x 128 x 128 float32 (speckle on radar bands), and the default set,
against a pretraining step of ViT-S with the same batch (patch 16, mask 0.75, decoder
512 wide, 4 deep). Times alternate in one process; medians and the best of the runs in
milliseconds.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from torchgeo_channelmae.sensors import SENTINEL1_GRD, SENTINEL2_L2A, names
from torchgeo_channelmae.tasks import ChannelMAE
from torchgeo_channelmae.transforms import (
    BandAugmentation,
    RandomBandDropout,
    RandomBandGain,
    RandomBandNoise,
    RandomHaze,
    RandomSpeckle,
    RandomSpectralShift,
    spectral_augmentations,
)

SHAPE = (64, 12, 128, 128)


def known(kind: str) -> dict[str, list[float] | list[str]]:
    """Twelve bands: those of Sentinel-2, or as many of radar."""
    if kind == 'radar':
        bands = (SENTINEL1_GRD * 6)[:12]
        labels = ['VV', 'VH', 'HH', 'HV', *(f'B{i}' for i in range(8))]
        return {
            'bands': labels,
            'mean': [b.mean for b in bands],
            'std': [b.std for b in bands],
        }
    return {
        'bands': list(names(SENTINEL2_L2A)),
        'mean': [band.mean for band in SENTINEL2_L2A],
        'std': [band.std for band in SENTINEL2_L2A],
    }


def pretraining_step(images: torch.Tensor) -> Callable[[], None]:
    """Make the step of ViT-S that the default set is compared with."""
    task = ChannelMAE('channelmae_small_patch16', in_channels=12, size=128)
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-4, fused=True)
    keys = torch.arange(len(images))

    def step() -> None:
        token, spectral = task.losses(task.reconstruct(images, keys, 0))
        (token.mean() + spectral.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--repeats', type=int, default=9)
    parser.add_argument('--step', action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    images = torch.randn(SHAPE)
    optical, radar = known('optical'), known('radar')
    single: list[BandAugmentation] = [
        RandomBandDropout((1, 6), **optical),
        RandomBandGain(**optical),
        RandomSpectralShift(**optical),
        RandomBandNoise(**optical),
        RandomHaze(**optical),
        RandomSpeckle(**radar),
    ]
    default = spectral_augmentations()
    for augmentation in default:
        if isinstance(augmentation, BandAugmentation):
            augmentation.bind(optical['bands'], optical['mean'], optical['std'])

    def whole() -> None:
        augmented = images
        for augmentation in default:
            augmented = augmentation(augmented)

    cases: dict[str, Callable[[], object]] = {
        type(each).__name__: lambda each=each: each(images) for each in single
    }
    cases['default set'] = whole
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(50):  # tables of all looks
        single[-1](images[:1])
    for run in range(options.repeats + 1):  # the first warms up
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            if run:
                times[name].append(1000 * (time.perf_counter() - start))
    for name, taken in times.items():
        print(f'{name:20} {statistics.median(taken):7.1f} ms, best {min(taken):.1f}')
    if options.step:
        step = pretraining_step(images)
        step()
        start = time.perf_counter()
        step()
        taken = 1000 * (time.perf_counter() - start)
        share = statistics.median(times['default set']) / taken
        print(
            f'a step of ViT-S {taken:.0f} ms: the default set takes {share:.3f} of it'
        )


if __name__ == '__main__':
    main()
