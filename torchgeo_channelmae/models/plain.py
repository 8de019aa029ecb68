"""Image models of timm that take all bands at once, as controls beside channel tokens.

A residual network or a plain vision transformer has one input layer for all bands, so
weights for other bands lose it: it starts afresh, as is usual in this field.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import timm
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from .weights import LoadReport


def create_plain(
    name: str, bands: Sequence[str], num_classes: int, size: int, **kwargs: Any
) -> nn.Module:
    """Make a model of timm for some bands.

    Args:
        name: Its name in timm.
        bands: Names of the bands; the model has them as ``bands``.
        num_classes: Outputs of the head.
        size: Side of the image in pixels, where the model has to know it.
        **kwargs: Further arguments of the model.

    Returns:
        The model, untrained.

    Raises:
        ValueError: If timm has no such model.
    """
    if not timm.is_model(name):
        raise ValueError(
            f'Model {name!r} is not known to timm: choose a channel-token encoder '
            f'({", ".join(timm.list_models("channelmae_*"))}) or a model of '
            f'timm.list_models().'
        )
    arguments = {'in_chans': len(bands), 'num_classes': num_classes, **kwargs}
    if 'vision_transformer' in inspect.getmodule(timm.model_entrypoint(name)).__name__:  # type: ignore[union-attr]
        arguments['img_size'] = size
    model: nn.Module = timm.create_model(name, **arguments)
    model.bands = tuple(bands)  # type: ignore[assignment]
    return model


def load_plain(model: nn.Module, state_dict: Mapping[str, Tensor]) -> LoadReport:
    """Load pretrained tensors of the same model for other bands or another size.

    The head is never loaded. Positions are resampled if the grids differ.

    Args:
        model: The model.
        state_dict: Tensors by name.

    Returns:
        What was done.

    Raises:
        ValueError: If fewer than half of the tensors find their counterpart.
    """
    config: Any = model.pretrained_cfg
    head = f'{config["classifier"]}.'
    own = {k: v for k, v in model.state_dict().items() if not k.startswith(head)}
    values: dict[str, Tensor] = {}
    resampled, fresh = [], {}
    for name, tensor in own.items():
        stored = state_dict.get(name)
        if stored is None:
            fresh[name] = 'not in the weights'
        elif stored.shape == tensor.shape:
            values[name] = stored
        elif name == 'pos_embed' and _is_square_grid(stored, tensor):
            embed: Any = model.patch_embed
            values[name] = resample_abs_pos_embed(
                stored, list(embed.grid_size), num_prefix_tokens=1
            )
            resampled.append(name)
        else:
            shapes = ['x'.join(map(str, t.shape)) for t in (stored, tensor)]
            fresh[name] = f'{shapes[0]} in the weights, {shapes[1]} here'
    if 2 * len(values) < len(own):
        raise ValueError(
            f'The weights match {len(values)} of the {len(own)} tensors of the model: '
            f'they are of another model.'
        )
    model.load_state_dict(values, strict=False)
    return LoadReport(
        loaded=tuple(name for name in values if name not in resampled),
        resampled=tuple(resampled),
        kept_bands=(),
        fresh_bands={},
        fresh=fresh,
        left_over=tuple(name for name in state_dict if name not in values),
    )


def _is_square_grid(stored: Tensor, tensor: Tensor) -> bool:
    """Whether these are positions of a class token and a square grid."""
    cells = stored.shape[1] - 1
    return stored.shape[2] == tensor.shape[2] and math.isqrt(cells) ** 2 == cells
