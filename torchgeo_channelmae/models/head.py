"""Heads that keep the precision of their weights under mixed precision.

In bfloat16, logits have three digits at most: many patches tie, and rankings suffer.
"""

from typing import override

import torch
from torch import Tensor, nn

from .controls import named_layers


class _OwnPrecision(nn.Module):
    """A layer that computes in its weights' precision, whatever autocast says."""

    weight: Tensor

    @override
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = super().forward(x.to(self.weight.dtype))
        return logits


class _Linear(_OwnPrecision, nn.Linear): ...


class _Conv2d(_OwnPrecision, nn.Conv2d): ...


def keep_precision(model: nn.Module) -> None:
    """Take a model's head out of autocast, in place.

    Names and tensors of the model stay as they are. Under ``bf16-true``, where weights
    are bfloat16, so is the head.
    """
    names = named_layers(model, 'classifier')
    layers = [layer for name, layer in model.named_modules() if name in names]
    for layer in layers:
        if isinstance(layer, nn.Linear):
            layer.__class__ = _Linear
        elif isinstance(layer, nn.Conv2d):  # 1 x 1, on pooled maps
            layer.__class__ = _Conv2d
