"""Register the encoders with timm and segmentation-models-pytorch."""

import difflib
from collections.abc import Iterable
from typing import Any

import timm
from segmentation_models_pytorch.encoders import encoders
from timm.layers import to_2tuple
from timm.models import build_model_with_cfg, register_model
from torch import nn

from ..sensors import default_names, find
from .channelvit import ChannelViT
from .smp import PyramidEncoder

SIZES = {
    'nano': {'embed_dim': 128, 'depth': 4, 'num_heads': 4},
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


def register_variant(name: str, model: str, dates: int = 1, **arguments: Any) -> None:
    """Register an encoder with other bands or options under a name of its own.

    Tasks that take only a name and a channel count then find its bands by the name, in
    timm and in segmentation-models-pytorch.

    Args:
        name: The new name.
        model: Name of the model that it is a variant of.
        dates: Number of images that come stacked along the channels, one date after
            the other, as in TorchGeo's ``ChangeDetection``. Each is encoded
            separately, and their maps are concatenated. With more than one, the
            encoder is for segmentation-models-pytorch only.
        **arguments: Arguments of :class:`~.channelvit.ChannelViT`, such as ``bands``.

    Raises:
        ValueError: If there is no such model, the name is in use or not an identifier,
            or `dates` is not positive.
    """
    if not name.isidentifier():  # timm reads what follows a dot as a tag of weights
        raise ValueError(f'{name!r} is not a valid name. Use letters, digits and _.')
    if model not in _MODELS:
        raise ValueError(
            f'{model!r} is not a channel-token encoder{did_you_mean(model, _MODELS)}. '
            f'Use one of {", ".join(_MODELS)}.'
        )
    if dates < 1:
        raise ValueError(f'dates is {dates}. Give the number of stacked images.')
    vit = {**_MODELS[model], **arguments}
    own = {'name': name, 'vit': vit, 'dates': dates}
    if encoders.get(name, {}).get('params') == own:
        return
    if timm.is_model(name) or name in encoders:
        raise ValueError(f'The name {name!r} is in use. Give the variant another one.')
    _register(model, name, vit, dates)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ", did you mean 'x'" for the nearest known name; '' if none is near."""
    listed = list(known)
    near = [each for each in listed if name and each.startswith(f'{name}_')]
    near = near or difflib.get_close_matches(name, listed, 1)
    return f', did you mean {near[0]!r}' if near else ''


def _register(base: str, name: str, vit: dict[str, Any], dates: int) -> None:
    """Register a model with segmentation-models-pytorch and, for one date, timm."""
    encoders[name] = {
        'encoder': PyramidEncoder,
        'pretrained_settings': {},
        'params': {'name': name, 'vit': vit, 'dates': dates},
    }
    if dates > 1:
        return

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        kwargs = {**vit, **kwargs}
        names = kwargs.get('bands') or default_names(kwargs.get('in_chans') or 12)
        bands = [find(name) for name in names]
        config = {
            'num_classes': 0,
            'input_size': (len(bands), *to_2tuple(kwargs.get('img_size', 128))),
            'mean': tuple(band.mean if band else 0.0 for band in bands),
            'std': tuple(band.std if band else 1.0 for band in bands),
            'first_conv': 'patch_embed.proj',
            'classifier': 'head',
        }
        kwargs['pretrained_cfg'] = kwargs.get('pretrained_cfg') or config
        kwargs['feature_cfg'] = {'out_indices': 3, 'feature_cls': 'getter'}
        return build_model_with_cfg(ChannelViT, base, pretrained, **kwargs)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f'ChannelViT, {base}.'
    register_model(create)


for _name, _sizes in _MODELS.items():
    _register(_name, _name, _sizes, 1)
