"""The scale on which TorchGeo's published weights expect their input."""

from collections.abc import Sequence

from torch import nn
from torchvision.models import WeightsEnum
from torchvision.transforms import v2 as T

from .scaling import Expected

WHITE = {'L2A': 2000.0, 'L1C': 3558.0}
"""Digital numbers that are 255 in the true-colour image of a Sentinel-2 product.

Source: ESA, *Sentinel-2 Products Specification Document*."""

IMAGENET = {'B04': (0.485, 0.229), 'B03': (0.456, 0.224), 'B02': (0.406, 0.225)}
"""Mean and standard deviation of red, green and blue, from 0 to 1."""

_PHYSICAL = ('SSL4EO-S12', 'CrisisLandMark', 'SSL4Eco Dataset')
_SATLAS_WHITE = WHITE['L1C']


def picture(bands: Sequence[str], level: str) -> Expected:
    """Say how reflectance becomes a picture, standardised as those of ImageNet are.

    Args:
        bands: Red, green and blue (B04, B03, B02), in any order.
        level: Product level of Sentinel-2, a key of :data:`WHITE`.
    """
    mean, std = zip(*(IMAGENET[band] for band in bands), strict=True)
    white = WHITE[level]
    return Expected(
        [white * value for value in mean],
        [white * value for value in std],
        physical=True,
        low=[-m / s for m, s in zip(mean, std, strict=True)],
        high=[(1 - m) / s for m, s in zip(mean, std, strict=True)],
    )


def expected_by(
    weights: WeightsEnum, inputs: Sequence[str], bands: Sequence[str]
) -> Expected | None:
    """Read from an entry of TorchGeo on which scale its weights expect their input.

    Args:
        weights: The weights.
        inputs: Names of the bands that they take, in order.
        bands: Names of the bands wanted, of those.

    Returns:
        The scale for the bands wanted; None where it is not known what the input's unit
        is (8-bit pictures, whose making is not told) or it is not scaled at all.
    """
    dataset = weights.meta.get('dataset')
    steps = [
        step for step in _steps(weights.transforms) if isinstance(step, T.Normalize)
    ]
    if dataset == 'fMoW Dataset' and sorted(bands) == sorted(IMAGENET):
        return picture(bands, 'L2A')
    if not steps or dataset not in (*_PHYSICAL, 'SatlasPretrain'):
        return None
    mean, std = [0.0] * len(inputs), [1.0] * len(inputs)
    for step in steps:  # ((x - mean) / std - m) / s, m and s of each band or of all
        for i in range(len(inputs)):
            m, s = (values[i % len(values)] for values in (step.mean, step.std))
            mean[i], std[i] = mean[i] + m * std[i], std[i] * s
    if dataset == 'SatlasPretrain':  # red, green and blue as in a true-colour image
        std = [
            _SATLAS_WHITE if b in IMAGENET else s
            for b, s in zip(inputs, std, strict=True)
        ]
    chosen = [inputs.index(band) for band in bands]
    limits = ((0.0,), (1.0,)) if dataset == 'SatlasPretrain' else ()
    return Expected([mean[i] for i in chosen], [std[i] for i in chosen], True, *limits)


def _steps(transforms: object) -> list[nn.Module]:
    if isinstance(transforms, nn.Sequential):
        return list(transforms)
    return [transforms] if isinstance(transforms, nn.Module) else []
