"""Pad images for models of segmentation-models-pytorch, and crop their output."""

from typing import Any

import torch.nn.functional as F
from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor, nn

from .channelvit import ChannelViT

#: Pixels that the sides of an image are padded to a multiple of.
STRIDE = 32


def pad(image: Tensor, stride: int = STRIDE) -> Tensor:
    """Pad the bottom and right of an image (B, C, H, W) to multiples of a stride in px.

    The image is reflected at its edges, or repeated if it is smaller than the padding.
    """
    down, right = -image.shape[-2] % stride, -image.shape[-1] % stride
    if not down and not right:
        return image
    small = down >= image.shape[-2] or right >= image.shape[-1]
    return F.pad(image, (0, right, 0, down), 'replicate' if small else 'reflect')


def pad_inputs(module: nn.Module) -> None:
    """Let segmentation models with a channel-token encoder take images of any size.

    Args:
        module: A model of segmentation-models-pytorch, or a module that contains some,
            such as a task. Other models, and a second call, change nothing.
    """
    for model in module.modules():
        if not isinstance(model, SegmentationModel) or hasattr(model, 'pads_inputs'):
            continue
        encoder = model.encoder
        if isinstance(getattr(encoder, 'model', encoder), ChannelViT):  # or a `tu-` one
            model.pads_inputs = True
            model.requires_divisible_input_shape = False
            encoder.register_forward_pre_hook(_pad_first)
            model.register_forward_hook(_crop, with_kwargs=True)


def _pad_first(encoder: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pad the image that an encoder is called with."""
    return pad(args[0]), *args[1:]


def _crop(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> Any:
    """Crop the masks of a model to the size of its image."""
    height, width = (args[0] if args else kwargs['x']).shape[-2:]
    if isinstance(output, tuple):  # masks and labels
        return _crop(model, args, kwargs, output[0]), *output[1:]
    return output[..., :height, :width].contiguous()
