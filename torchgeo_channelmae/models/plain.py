"""Image models of timm that take all bands at once, as controls beside channel tokens.

A residual network or a plain vision transformer has one input layer for all bands, so
weights for other bands lose it: it starts afresh, as is usual in this field.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from .peers.registry import PEERS
from .peers.scaling import SCALING
from .registry import did_you_mean
from .tokens import check_size, resample_positions
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
        ValueError: If there is no such model, or it does not take these arguments.
    """
    if not timm.is_model(name):
        hint = did_you_mean(name, [*PEERS, *timm.list_models()])
        raise ValueError(
            f'Model {name!r} is not known{hint}: choose a channel-token encoder '
            f'({", ".join(timm.list_models("channelmae_*"))}), a foundation model '
            f'({", ".join(PEERS)}) or a model of timm.list_models().'
        )
    arguments = {'in_chans': len(bands), 'num_classes': num_classes, **kwargs}
    config = get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        arguments['img_size'] = size
    if not arguments.get('drop_path_rate'):  # some models know none
        arguments.pop('drop_path_rate', None)
    try:
        model: nn.Module = timm.create_model(name, **arguments)
    except TypeError as error:
        hint = '; set drop_path to 0' if 'drop_path_rate' in str(error) else ''
        raise ValueError(
            f'Model {name!r} can not be made with {", ".join(arguments)} '
            f'({error}){hint}.'
        ) from None
    model.bands = tuple(bands)  # type: ignore[assignment]
    return model


def named_layers(model: nn.Module, entry: str) -> tuple[str, ...]:
    """Names that a model's configuration in timm gives its first layer or its heads.

    Args:
        model: The model.
        entry: ``first_conv`` or ``classifier``; models of ours name ``positions`` and
            ``spectral`` as well.

    Returns:
        The names; some models have two heads, and some models tell none.
    """
    config: Any = getattr(model, 'pretrained_cfg', None) or {}
    names = config.get(entry) or ()
    return (names,) if isinstance(names, str) else tuple(names)


def check_image(model: nn.Module, size: int) -> None:
    """Check that a model takes square images of a size.

    Args:
        model: A model of timm.
        size: Their side in pixels.

    Raises:
        ValueError: If the model was made for another one, or its patches do not fit.
    """
    embed: Any = getattr(model, 'patch_embed', None)
    side = getattr(embed, 'patch_size', None)
    if not isinstance(side, tuple):
        return
    check_size(size, size, side[0])
    made: Any = getattr(embed, 'img_size', None)
    if getattr(embed, 'strict_img_size', False) and made != (size, size):
        raise ValueError(
            f'The model takes images of {made[0]} px, but those of the data have '
            f'{size} px: give model.init_args.size and data.init_args.size alike.'
        )


def load_plain(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    bands: Sequence[str] | None = None,
) -> LoadReport:
    """Load pretrained tensors of the same model for other bands or another size.

    The head is never loaded. Positions are resampled if the grids differ. The first
    layer takes its bands by name, where the weights know all of them: what they know of
    others is left over, as if those were 0. Otherwise it starts afresh.

    Args:
        model: The model.
        state_dict: Tensors by name.
        bands: Names of the bands that the tensors are for, None where not known.

    Returns:
        What was done.

    Raises:
        ValueError: If fewer than half of the tensors find their counterpart.
    """
    head = tuple(f'{name}.' for name in named_layers(model, 'classifier'))
    first = tuple(f'{name}.weight' for name in named_layers(model, 'first_conv'))
    positions = ('pos_embed', *named_layers(model, 'positions'))
    own = {k: v for k, v in model.state_dict().items() if not k.startswith(head)}
    own_bands: Any = getattr(model, 'bands', ())
    known = bands is not None and set(own_bands) <= set(bands)
    values: dict[str, Tensor] = {}
    resampled, fresh = [], {}
    prefix = _prefix_tokens(model)
    for name, tensor in own.items():
        stored = state_dict.get(name)
        by_band = name in first or name.startswith(f'{SCALING}.')
        if stored is None:
            fresh[name] = 'not in the weights'
        elif by_band and bands and tuple(bands) != own_bands:
            picked = _pick(stored, bands, own_bands, name) if known else None
            if picked is not None and picked.shape == tensor.shape:
                values[name] = picked
            else:
                fresh[name] = f'of the bands {", ".join(bands)} in the weights'
        elif stored.shape == tensor.shape:
            values[name] = stored
        elif (
            name in positions
            and (moved := _resampled(stored, tensor, prefix)) is not None
        ):
            values[name] = moved
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
        kept_bands=own_bands if known and fresh.keys().isdisjoint(first) else (),
        fresh_bands={},
        fresh=fresh,
        left_over=tuple(name for name in state_dict if name not in values)
        + _left_bands(first, values, bands or (), own_bands),
    )


def _pick(
    stored: Tensor, bands: Sequence[str], wanted: Sequence[str], name: str
) -> Tensor | None:
    """Return the wanted bands of a first layer (O, C, ...) or of a scaling (C,)."""
    axis = 0 if name.startswith(f'{SCALING}.') else 1
    if stored.ndim <= axis or stored.shape[axis] != len(bands):
        return None
    order = torch.tensor([bands.index(band) for band in wanted])
    return stored.index_select(axis, order.to(stored.device))


def _left_bands(
    first: Sequence[str],
    values: Mapping[str, Tensor],
    bands: Sequence[str],
    wanted: Sequence[str],
) -> tuple[str, ...]:
    rest = ' and '.join(band for band in bands if band not in wanted)
    return tuple(f'{name} of {rest}' for name in first if name in values and rest)


def _prefix_tokens(model: nn.Module) -> int:
    """Number of tokens with a position that are no cells, such as the class token."""
    if getattr(model, 'no_embed_class', False):
        return 0
    return int(getattr(model, 'num_prefix_tokens', 0))


def _resampled(stored: Tensor, tensor: Tensor, prefix: int) -> Tensor | None:
    """Return stored positions for the square grid of a model's, if they can be."""
    side = math.isqrt(tensor.shape[1] - prefix) if tensor.ndim == 3 else 0
    return resample_positions(stored, tensor.shape[-1], (side, side), prefix)
