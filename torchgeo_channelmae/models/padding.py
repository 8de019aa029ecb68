"""Images of any size in models of segmentation-models-pytorch.

The maps of an encoder have to fit each other in a decoder, so an image is padded before
the encoder, and what the whole model makes of it is cropped. An encoder does not know
its model, so this happens where a model is given its encoder.
"""

from typing import Any

import torch.nn.functional as F
from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor, nn

from .channelvit import ChannelViT

#: Pixels that the sides of an image are padded to a multiple of.
STRIDE = 32


def pad(image: Tensor, stride: int = STRIDE) -> Tensor:
    """Pad the bottom and right of an image to multiples of a stride.

    Args:
        image: (B, C, H, W).
        stride: In pixels.

    Returns:
        (B, C, H', W'), mirrored at the edge where there are enough pixels, else
        repeated.
    """
    down, right = -image.shape[-2] % stride, -image.shape[-1] % stride
    if not down and not right:
        return image
    small = down >= image.shape[-2] or right >= image.shape[-1]
    return F.pad(image, (0, right, 0, down), 'replicate' if small else 'reflect')


def _pad_first(
    encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Pad the image that an encoder is given."""
    if args:
        return (pad(args[0]), *args[1:]), kwargs
    return args, kwargs | {'x': pad(kwargs['x'])}


def _crop(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> Any:
    """Crop the masks that a model makes to the size of its image."""
    height, width = (args[0] if args else kwargs['x']).shape[-2:]
    if isinstance(output, tuple):  # masks and labels
        return _crop(model, args, kwargs, output[0]), *output[1:]
    return output[..., :height, :width].contiguous()


def take_any_size(model: nn.Module, name: str, child: nn.Module | None) -> None:
    """Let a model that is given a channel-token encoder take images of any size.

    A hook for torch to call whenever a module is given another one
    (``register_module_module_registration_hook``). Any other module stays as it is.

    Args:
        model: The module that is given another one.
        name: The name that it gets there.
        child: The other module.
    """
    if not isinstance(model, SegmentationModel) or child is None or name != 'encoder':
        return
    if isinstance(getattr(child, 'model', child), ChannelViT):  # a `tu-` encoder's, too
        model.requires_divisible_input_shape = False
        child.register_forward_pre_hook(_pad_first, with_kwargs=True)
        model.register_forward_hook(_crop, with_kwargs=True)
