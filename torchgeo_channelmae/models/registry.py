"""The names under which timm and segmentation-models-pytorch know the encoders."""

import difflib
from collections.abc import Iterable
from typing import Any

import timm
from segmentation_models_pytorch.encoders import encoders
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from ..sensors import SENTINEL2_L2A
from .channelvit import ChannelViT
from .padding import take_any_size
from .smp import PyramidEncoder
from .tags import arguments_of

SIZES = {
    'tiny': {'embed_dim': 192, 'depth': 12, 'num_heads': 3},
    'small': {'embed_dim': 384, 'depth': 12, 'num_heads': 6},
    'base': {'embed_dim': 768, 'depth': 12, 'num_heads': 12},
    'large': {'embed_dim': 1024, 'depth': 24, 'num_heads': 16},
}
"""Width, blocks and heads of each size."""

_MODELS: dict[str, dict[str, Any]] = {
    f'channelmae_{size}_patch{patch_size}': {'patch_size': patch_size, **arguments}
    for size, arguments in SIZES.items()
    for patch_size in (8, 16)
}
_VARIANTS: dict[str, tuple[str, int, dict[str, Any]]] = {}

default_cfgs = generate_default_cfgs(
    {
        name: {
            'num_classes': 0,
            'input_size': (len(SENTINEL2_L2A), 128, 128),
            'mean': tuple(band.mean for band in SENTINEL2_L2A),  # digital numbers
            'std': tuple(band.std for band in SENTINEL2_L2A),
            'fixed_input_size': False,
            'first_conv': 'patch_embed.proj',
            'classifier': 'head',
        }
        for name in _MODELS
    }
)


def register_variant(name: str, model: str, dates: int = 1, **arguments: Any) -> None:
    """Give an encoder with other bands or options a name of its own.

    Where a task takes a name and a channel count only, the name then stands for the
    bands too: in timm, and in segmentation-models-pytorch.

    Args:
        name: The new name.
        model: Name of the model that it is a variant of.
        dates: Images of as many dates that come stacked along the channels, one date
            after the other, as TorchGeo's ``ChangeDetection`` makes them. Each is
            encoded by itself, and their maps are concatenated. More than one makes an
            encoder for segmentation-models-pytorch alone.
        **arguments: Arguments of :class:`~.channelvit.ChannelViT`, such as ``bands``.

    Raises:
        ValueError: If there is no such model, the name is taken or none that timm can
            have, or `dates` is not positive.
    """
    if not name.isidentifier():  # timm takes what follows a dot for a tag of weights
        raise ValueError(
            f'The name {name!r} of a variant has to be of letters, digits and '
            f'underscores, such as rgb_nir.'
        )
    if model not in _MODELS:
        raise ValueError(
            f'Model {model!r} is no channel-token encoder{did_you_mean(model, _MODELS)}'
            f': choose one of {", ".join(_MODELS)}.'
        )
    if dates < 1:
        raise ValueError(f'dates is {dates}: give the number of stacked images, 1 up.')
    if _VARIANTS.get(name) == (model, dates, arguments):
        return
    if timm.is_model(name) or name in encoders:
        raise ValueError(f'The name {name!r} is taken: give the variant another one.')
    _VARIANTS[name] = model, dates, arguments
    _register_encoder(name, {**_MODELS[model], **arguments}, dates)
    if dates == 1:
        _register_model(name, model, {**_MODELS[model], **arguments})


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Say which known name is nearest, as a part of a sentence; empty if none is.

    One that goes on where `name` ends is nearer than one that is spelled alike.

    Args:
        name: The name that is not known.
        known: Those that are.
        cutoff: How alike it has to be, from 0 to 1; short names want less.
    """
    listed = list(known)
    near = [each for each in listed if name and each.startswith(f'{name}_')]
    near = near or difflib.get_close_matches(name, listed, 1, cutoff)
    return f', did you mean {near[0]!r}' if near else ''


def _register_model(name: str, base: str, arguments: dict[str, Any]) -> None:
    """Register a model with timm."""

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        kwargs = {**arguments, **kwargs}
        tag = kwargs.get('pretrained_cfg')
        if isinstance(tag, str):
            kwargs = {**arguments_of(f'{base}.{tag}', kwargs), **kwargs}
        if kwargs.get('bands') is not None:  # else timm fills in the default's count
            kwargs.setdefault('in_chans', len(kwargs['bands']))
        layers = kwargs.pop('out_indices', 3)
        model: nn.Module = build_model_with_cfg(
            ChannelViT,
            base,
            pretrained,
            feature_cfg={'out_indices': layers, 'feature_cls': 'getter'},
            **kwargs,
        )
        return model

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f'ChannelViT, {base}.'
    register_model(create)


def _register_encoder(name: str, vit: dict[str, Any], dates: int = 1) -> None:
    """Register an encoder with segmentation-models-pytorch."""
    encoders[name] = {
        'encoder': PyramidEncoder,
        'pretrained_settings': {},
        'params': {'name': name, 'vit': vit, 'dates': dates},
    }


for _name, _arguments in _MODELS.items():
    _register_model(_name, _name, _arguments)
    _register_encoder(_name, _arguments)

register_module_module_registration_hook(take_any_size)
