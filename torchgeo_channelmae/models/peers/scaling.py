"""From the standardised bands of a datamodule to the scale that weights expect."""

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
"""Digital numbers that are 255 in the true-colour image of a Sentinel-2 product.

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
        physical: Whether they are of physical values (digital numbers of reflectance,
            decibels) instead of standardised bands.
        low: Lower limits, C or one.
        high: Upper limits, C or one.
    """

    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    physical: bool = False
    low: Sequence[float] = (-torch.inf,)
    high: Sequence[float] = (torch.inf,)


class InputScaling(nn.Module):
    """Brings standardised bands to another scale; at first, the identity.

    Its numbers are in the state dict, (C,) each.
    """

    factor: Tensor
    offset: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, num_bands: int) -> None:
        """Initialise the scaling of `num_bands` bands."""
        super().__init__()
        start = {'factor': 1.0, 'offset': 0.0, 'low': -torch.inf, 'high': torch.inf}
        for name, value in start.items():
            self.register_buffer(name, torch.full((num_bands,), value))

    def match(self, mean: Tensor, std: Tensor, expected: Expected) -> None:
        """Set the scale, undoing a standardisation where the values are physical.

        Args:
            mean: (C,) or (1,), what was subtracted from the bands.
            std: (C,) or (1,), what they were divided by then.
            expected: What the model expects.
        """
        if not expected.physical:
            mean, std = torch.zeros(1), torch.ones(1)
        center, spread = (
            torch.tensor(values, dtype=torch.float64)
            for values in (expected.mean, expected.std)
        )
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
        datamodule: Any datamodule of TorchGeo, by its ``mean`` and ``std``; or None.
        expected: What the model expects.
    """
    known = [getattr(datamodule, name, None) for name in ('mean', 'std')]
    values = [torch.as_tensor(v).flatten() for v in known if v is not None]
    fit = [len(value) in (1, len(scaling.factor)) for value in values]
    if fit == [True, True]:
        mean, std = values
        scaling.match(mean, std, expected)
    elif not expected.physical:
        scaling.match(torch.zeros(1), torch.ones(1), expected)
    else:
        rank_zero_warn(
            f'The datamodule has no mean and std of each of the {len(scaling.factor)} '
            f'bands: the model gets the bands as they come, and not on the scale that '
            f'it expects.'
        )


def attach_scaling(model: nn.Module, num_bands: int) -> InputScaling:
    """Scale the input of a model of timm before its own forward pass, in place.

    Args:
        model: The model.
        num_bands: Number of bands.

    Returns:
        Its scaling: the one that it has, or a new one.
    """
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
    """Return how reflectance becomes a picture, standardised as those of ImageNet are.

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
    """Read from an entry of TorchGeo on which scale its weights expect their input.

    Args:
        weights: The weights.
        inputs: Names of the bands that they take, in order.
        bands: Names of the wanted ones of them.

    Returns:
        The scale of the wanted bands; None if the input is not scaled, or has no known
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
    if dataset == 'SatlasPretrain':  # red, green and blue as in a true-colour image
        std[[band in IMAGENET for band in inputs]] = WHITE['L1C']
        limits = ((0.0,), (1.0,))
    chosen = [inputs.index(band) for band in bands]
    return Expected(mean[chosen].tolist(), std[chosen].tolist(), True, *limits)
