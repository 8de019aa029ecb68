"""Create models other than channel-token encoders, and load weights into any model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import timm
from lightning.pytorch.utilities import rank_zero_info
from timm.models import get_pretrained_cfg
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from ..provenance.published import input_bands
from .channelvit import ChannelViT
from .checkpoints import Checkpoint
from .fresh_bands import FreshBands
from .peers import PEERS, Peer
from .peers.scaling import SCALING, attach_scaling, expected_by, scale_input
from .registry import did_you_mean
from .tokens import check_size, resample_positions
from .weights import LoadReport, load_encoder


def create_model(
    name: str, bands: Sequence[str], num_classes: int, size: int, **kwargs: Any
) -> nn.Module:
    """Create an untrained model with the attribute ``bands``.

    Args:
        name: Name of a foundation model of TorchGeo or a model of timm.
        bands: Names of the bands.
        num_classes: Outputs of the head.
        size: Side of the image in pixels, for models that need it.
        **kwargs: Further arguments of the model.

    Raises:
        ValueError: If there is no such model, or it does not take these arguments.
    """
    if name in PEERS:
        return Peer(name, bands, num_classes, size, **kwargs)
    if not timm.is_model(name):
        hint = did_you_mean(name, [*PEERS, *timm.list_models()])
        raise ValueError(
            f'Unknown model {name!r}{hint}. Choose a channel-token encoder '
            f'({", ".join(timm.list_models("channelmae_*"))}), a foundation model '
            f'({", ".join(PEERS)}) or a model of timm.list_models().'
        )
    arguments = {'in_chans': len(bands), 'num_classes': num_classes, **kwargs}
    config = get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        arguments['img_size'] = size
    if not arguments.get('drop_path_rate'):  # some models have none
        arguments.pop('drop_path_rate', None)
    try:
        model: Any = timm.create_model(name, **arguments)
    except TypeError as error:
        raise ValueError(f'{name}: {error}. Maybe drop_path must be 0.') from error
    model.bands = tuple(bands)
    return model  # type: ignore[no-any-return]


def named_layers(model: nn.Module, entry: str) -> tuple[str, ...]:
    """Return the names that a model's timm configuration has for an entry.

    Entries are ``first_conv`` and ``classifier``, of a :class:`Peer` also ``positions``
    and ``spectral``. Some models have two heads, some name none.
    """
    config: Any = getattr(model, 'pretrained_cfg', None) or {}
    names = config.get(entry) or ()
    return (names,) if isinstance(names, str) else tuple(names)


def check_image(model: nn.Module, size: int) -> None:
    """Check that a model takes square images of `size` px."""
    embed: Any = getattr(model, 'patch_embed', None)
    made = model.size if isinstance(model, Peer) else size
    if isinstance(getattr(embed, 'patch_size', None), tuple):
        check_size(size, size, embed.patch_size[0])
        if getattr(embed, 'strict_img_size', False):
            made = embed.img_size[0]
    if made != size:
        raise ValueError(
            f'The model takes images of {made} px, but those of the data have {size} '
            f'px. Give model.init_args.size and data.init_args.size the same value.'
        )


def load_weights(
    model: nn.Module,
    checkpoint: Checkpoint,
    policy: FreshBands = 'sample',
    published: WeightsEnum | None = None,
    datamodule: Any = None,
) -> LoadReport:
    """Load weights into a model of any kind, without its head, in place.

    The input of a model of timm is scaled as its weights expect: those that a task
    trained, or published ones with a known scale and the model's bands.

    Args:
        model: The model.
        checkpoint: The weights.
        policy: Initialization of band embeddings that the weights lack.
        published: The entry of TorchGeo that the weights are from, if any.
        datamodule: The datamodule with the statistics of the bands, if any.

    Raises:
        ValueError: If the weights belong to another model.
    """
    tensors = checkpoint.tensors
    if isinstance(model, ChannelViT):
        return load_encoder(model, tensors, policy)
    if isinstance(model, Peer):
        return load_plain(model, model.named(tensors))
    if published is None:
        past = checkpoint.provenance.trainings
        last = past[-1].record if past else None
        if f'{SCALING}.factor' in tensors:
            attach_scaling(model, len(tensors[f'{SCALING}.factor']))
        return load_plain(model, tensors, last.bands if last else None)
    inputs = input_bands(published)
    report = load_plain(model, tensors, inputs)
    if not report.kept_bands or inputs is None:
        return report
    expected = expected_by(published, inputs, report.kept_bands)
    if expected is None:
        rank_zero_info(f'{published} have no known input scale: bands stay normalized.')
    else:
        scaling = attach_scaling(model, len(report.kept_bands))
        scale_input(scaling, datamodule, expected)
    return report


def load_plain(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    bands: Sequence[str] | None = None,
) -> LoadReport:
    """Load pretrained tensors of the same model for other bands or another size.

    The head is never loaded. Positions are resampled if the grids differ. The first
    layer gets its bands by name if the weights have all of them; other bands of the
    weights are left over, as if they were 0. Otherwise it is not loaded.

    Args:
        model: The model.
        state_dict: Tensors by name.
        bands: Names of the bands of the tensors; None if unknown.

    Raises:
        ValueError: If fewer than half of the tensors have a counterpart.
    """
    head = tuple(f'{name}.' for name in named_layers(model, 'classifier'))
    first = {f'{name}.weight' for name in named_layers(model, 'first_conv')}
    positions = {'pos_embed', *named_layers(model, 'positions')}
    own = {k: v for k, v in model.state_dict().items() if not k.startswith(head)}
    own_bands: Any = getattr(model, 'bands', ())
    known = bands is not None and set(own_bands) <= set(bands)
    bands = tuple(bands or own_bands)
    order = [bands.index(band) for band in own_bands if known]
    values, fresh = {}, {}
    for name, tensor in own.items():
        stored = value = state_dict.get(name)
        why = 'not in the weights'
        if stored is not None and stored.shape != tensor.shape:
            shapes = ['x'.join(map(str, t.shape)) for t in (stored, tensor)]
            why = f'{shapes[0]} in the weights, {shapes[1]} here'
            value = _resample(model, stored, tensor) if name in positions else stored
        by_band = name in first or name.startswith(f'{SCALING}.')
        if stored is not None and by_band and bands != own_bands:
            why = f'of the bands {", ".join(bands)} in the weights'
            value = stored[:, order] if name in first else stored[order]
        if value is None or value.shape != tensor.shape:
            fresh[name] = why
        else:
            values[name] = value
    if 2 * len(values) < len(own):
        raise ValueError(
            f'The weights match {len(values)} of the {len(own)} tensors of the model, '
            f'so they belong to another model. Give weights of this model.'
        )
    model.load_state_dict(values, strict=False)
    resampled = {k for k in positions & {*values} if values[k] is not state_dict[k]}
    rest = ' and '.join(band for band in bands if band not in own_bands)
    left_over = [name for name in state_dict if name not in values]
    left_over += [f'{name} of {rest}' for name in values if name in first and rest]
    return LoadReport(
        loaded=tuple(name for name in values if name not in resampled),
        resampled=tuple(resampled),
        kept_bands=own_bands if known and first.isdisjoint(fresh) else (),
        fresh_bands={},
        fresh=fresh,
        left_over=tuple(left_over),
    )


def restore_scaling(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Add the input scaling of a task's checkpoint to its model, if it has one."""
    if (factor := state_dict.get(f'model.{SCALING}.factor')) is not None:
        attach_scaling(model, len(factor))


def _resample(model: Any, stored: Tensor, tensor: Tensor) -> Tensor | None:
    """Resample stored positions to a model's square grid; None if they are no grid."""
    if tensor.ndim != 3:
        return None
    no_class = getattr(model, 'no_embed_class', False)
    prefix = 0 if no_class else getattr(model, 'num_prefix_tokens', 0)
    side = math.isqrt(tensor.shape[1] - prefix)
    return resample_positions(stored, tensor.shape[-1], (side, side), prefix)
