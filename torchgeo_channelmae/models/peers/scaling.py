"""From the normalized bands of a datamodule to the scale that weights expect."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.transforms import v2 as T

SCALING = 'input_scaling'
"""Name of the module that scales a model's input."""

WHITE = {'L2A': 2000.0, 'L1C': 3558.0}
"""Digital numbers that are 255 in the true-color image of a Sentinel-2 product.

Source: ESA, *Sentinel-2 Products Specification Document*."""

IMAGENET = {'B04': (0.485, 0.229), 'B03': (0.456, 0.224), 'B02': (0.406, 0.225)}
"""Mean and standard deviation of red, green and blue, from 0 to 1."""

_PHYSICAL = ('SSL4EO-S12', 'CrisisLandMark', 'SSL4Eco Dataset', 'SatlasPretrain')


@dataclass(frozen=True)
class Expected:
    """Input of a model: ``(value - mean) / std``, then limited to ``low`` to ``high``.

    Attributes:
        mean: C values, or one for all bands.
        std: C values, or one for all bands.
        physical: Whether they apply to physical values (digital numbers of
            reflectance, decibels) instead of normalized bands.
        low: Lower limits, C or one.
        high: Upper limits, C or one.
    """

    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    physical: bool = False
    low: Sequence[float] = (-torch.inf,)
    high: Sequence[float] = (torch.inf,)


class InputScaling(nn.Module):
    """Change the scale of normalized bands, buffers (C,); at first, the identity."""

    factor: Tensor
    offset: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, num_bands: int) -> None:
        """Initialize the scaling of `num_bands` bands."""
        super().__init__()
        start = {'factor': 1.0, 'offset': 0.0, 'low': -torch.inf, 'high': torch.inf}
        for name, value in start.items():
            self.register_buffer(name, torch.full((num_bands,), value))

    def match(self, mean: Tensor, std: Tensor, expected: Expected) -> None:
        """Set the scale; undo the normalization if the model expects physical values.

        Args:
            mean: (C,) or (1,), subtracted from the bands by the datamodule.
            std: (C,) or (1,), by which it then divided them.
            expected: What the model expects.
        """
        if not expected.physical:
            mean, std = torch.zeros(1), torch.ones(1)
        scale = (expected.mean, expected.std)
        center, spread = (torch.tensor(v, dtype=torch.float64) for v in scale)
        self.factor.copy_(std.double().cpu() / spread)
        self.offset.copy_((mean.double().cpu() - center) / spread)
        self.low.copy_(torch.tensor(expected.low))
        self.high.copy_(torch.tensor(expected.high))

    def forward(self, image: Tensor) -> Tensor:
        """Scale images (B, C, H, W)."""
        scaled = image * self.factor[:, None, None] + self.offset[:, None, None]
        return torch.clamp(scaled, self.low[:, None, None], self.high[:, None, None])


def scale_input(scaling: InputScaling, datamodule: Any, expected: Expected) -> None:
    """Scale the bands of a datamodule as a model expects them, or warn.

    Args:
        scaling: The model's scaling, changed in place.
        datamodule: Any datamodule of TorchGeo with ``mean`` and ``std``, or None.
        expected: What the model expects.
    """
    found = [getattr(datamodule, name, None) for name in ('mean', 'std')]
    values = [torch.as_tensor(value).flatten() for value in found if value is not None]
    count = len(scaling.factor)
    if [len(value) in (1, count) for value in values] == [True, True]:
        mean, std = values
        scaling.match(mean, std, expected)
    elif not expected.physical:
        scaling.match(torch.zeros(1), torch.ones(1), expected)
    else:
        rank_zero_warn(
            f'The datamodule does not have mean and std of the {count} bands, so the '
            f'model gets the bands unscaled. Give the datamodule their statistics.'
        )


def attach_scaling(model: nn.Module, num_bands: int) -> InputScaling:
    """Scale the input of a timm model from now on; return its scaling, new or old."""
    found = getattr(model, SCALING, None)
    if isinstance(found, InputScaling):
        return found
    scaling = InputScaling(num_bands)
    model.add_module(SCALING, scaling)
    model.register_forward_pre_hook(_scale)
    return scaling


def _scale(model: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (model.input_scaling(inputs[0]), *inputs[1:])


def picture(bands: Sequence[str], level: str) -> Expected:
    """Return how reflectance becomes a picture that is normalized as on ImageNet.

    Args:
        bands: Red, green and blue (B04, B03, B02), in any order.
        level: Product level of Sentinel-2, a key of :data:`WHITE`.
    """
    mean, std = torch.tensor([IMAGENET[band] for band in bands], dtype=torch.float64).T
    return Expected(
        (WHITE[level] * mean).tolist(),
        (WHITE[level] * std).tolist(),
        physical=True,
        low=(-mean / std).tolist(),
        high=((1 - mean) / std).tolist(),
    )


def expected_by(
    weights: WeightsEnum, inputs: Sequence[str], bands: Sequence[str]
) -> Expected | None:
    """Return the input scale of published weights, from their entry in TorchGeo.

    Args:
        weights: The weights.
        inputs: Names of their bands, in order.
        bands: Names of the wanted bands.

    Returns:
        The scale of the wanted bands; None if the input is not scaled or has no known
        unit (8-bit pictures of an unpublished recipe).
    """
    dataset = weights.meta.get('dataset')
    if dataset == 'fMoW Dataset' and sorted(bands) == sorted(IMAGENET):
        return picture(bands, 'L2A')
    transforms: Any = weights.transforms
    steps = transforms if isinstance(transforms, nn.Sequential) else [transforms]
    steps = [step for step in steps if isinstance(step, T.Normalize)]
    if not steps or dataset not in _PHYSICAL:
        return None
    mean, std = torch.zeros(len(inputs)).double(), torch.ones(len(inputs)).double()
    for step in steps:  # ((x - mean) / std - m) / s, m and s of each band or of all
        mean = mean + torch.tensor(step.mean).double() * std
        std = std * torch.tensor(step.std).double()
    limits = ((-torch.inf,), (torch.inf,))
    if dataset == 'SatlasPretrain':  # red, green and blue as in a true-color image
        std[[band in IMAGENET for band in inputs]] = WHITE['L1C']
        limits = ((0.0,), (1.0,))
    chosen = [inputs.index(band) for band in bands]
    return Expected(mean[chosen].tolist(), std[chosen].tolist(), True, *limits)
