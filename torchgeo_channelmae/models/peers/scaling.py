"""From the standardised bands of a datamodule to what published weights expect."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Expected:
    """Input of a model: ``(value - mean) / std``, then limited to ``low`` to ``high``.

    Attributes:
        mean: C values, or one for all bands.
        std: C values, or one for all bands.
        physical: Whether they are of physical values (digital numbers of reflectance,
            decibels); otherwise of standardised bands.
        low: Lower limits, C or one.
        high: Upper limits, C or one.
    """

    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    physical: bool = False
    low: Sequence[float] = (-torch.inf,)
    high: Sequence[float] = (torch.inf,)


class InputScaling(nn.Module):
    """Brings standardised bands to another scale; its numbers are in the state dict.

    It starts as the identity.
    """

    factor: Tensor
    offset: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, num_bands: int) -> None:
        """Initialise the scaling.

        Args:
            num_bands: Number of bands.
        """
        super().__init__()
        self.register_buffer('factor', torch.ones(num_bands))
        self.register_buffer('offset', torch.zeros(num_bands))
        self.register_buffer('low', torch.full((num_bands,), -torch.inf))
        self.register_buffer('high', torch.full((num_bands,), torch.inf))

    def match(
        self, mean: Tensor | None, std: Tensor | None, expected: Expected
    ) -> bool:
        """Set the scale, undoing a standardisation where the values are physical.

        Args:
            mean: (C,) or one value: what was subtracted from the bands; None is
                unknown.
            std: (C,) or one value: what they were divided by then; None is unknown.
            expected: What the model expects.

        Returns:
            Whether it was set: not where it needs a mean or std that is unknown.
        """
        if not expected.physical:
            mean, std = torch.zeros(1), torch.ones(1)
        if mean is None or std is None:
            return False
        center = torch.tensor(expected.mean, dtype=torch.float64)
        spread = torch.tensor(expected.std, dtype=torch.float64)
        self.factor.copy_(std.double().cpu() / spread)
        self.offset.copy_((mean.double().cpu() - center) / spread)
        self.low.copy_(torch.tensor(expected.low))
        self.high.copy_(torch.tensor(expected.high))
        return True

    def forward(self, image: Tensor) -> Tensor:
        """Scale images.

        Args:
            image: (B, C, H, W), standardised.

        Returns:
            (B, C, H, W), as the model expects them.
        """
        factor, offset, low, high = (
            value[:, None, None]
            for value in (self.factor, self.offset, self.low, self.high)
        )
        return torch.clamp(image * factor + offset, low, high)


SCALING = 'input_scaling'
"""Name of the module that scales a model's input."""


def attach_scaling(model: nn.Module, num_bands: int) -> InputScaling:
    """Scale the input of a model of timm, in place, before its own forward pass.

    Args:
        model: The model.
        num_bands: Number of bands.

    Returns:
        Its scaling: that which it has, or a new one, the identity.
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


def standardisation(datamodule: Any, num_bands: int) -> tuple[Tensor, Tensor] | None:
    """Return the mean and standard deviation that a datamodule normalises with.

    Args:
        datamodule: Any datamodule, or None.
        num_bands: Number of bands.

    Returns:
        Two tensors of (C,) or (1,), or None where it does not tell.
    """
    values = []
    for name in ('mean', 'std'):
        value = getattr(datamodule, name, None)
        if value is None:
            return None
        tensor = torch.as_tensor(value).flatten()
        if tensor.numel() not in (1, num_bands):
            return None
        values.append(tensor)
    return values[0], values[1]
