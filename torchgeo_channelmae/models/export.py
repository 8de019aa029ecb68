"""``channelmae export``: the weights of a run as one file, with a model card."""

import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import timm
import torch
from torch import Tensor

from ..files import refuse_existing, whole
from ..provenance.record import Provenance
from ..sensors import find
from .checkpoints import Checkpoint, bands_of, read_checkpoint, save_export

_DECODER = ('decoder_dim', 'decoder_depth', 'decoder_num_heads')
_PACKAGES = ('torchgeo-channelmae', 'torch', 'timm', 'torchgeo')
_CARD = Path(__file__).with_name('card.md.jinja')


def export(checkpoint: Path, out: Path, decoder: bool = False) -> None:
    """Write the encoder of a run to a .safetensors file, with a model card beside it.

    The file's header has the model's name, its bands, patch side and image size, the
    normalization, the data that its trainings read, and versions. A head is not
    exported. Existing files are not overwritten.

    Args:
        checkpoint: A checkpoint of a pretraining or fine-tuning of this package, or an
            export.
        out: The file to write, such as encoder.safetensors; the card is encoder.md.
        decoder: Whether to include the decoder of a pretraining, to continue it.

    Raises:
        ValueError: If the checkpoint is not of this package, has no decoder where one
            is requested, or `out` has another suffix.
        OSError: If the checkpoint is missing, the output exists, or writing fails.
    """
    if out.suffix != '.safetensors':
        raise ValueError(f'out is {str(out)!r}. Give a file that ends in .safetensors.')
    card = refuse_existing(refuse_existing(out).with_suffix('.md'))
    found = read_checkpoint(checkpoint)
    tensors = _encoder_of(found, checkpoint)
    if decoder:
        tensors |= _decoder_of(found, checkpoint)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(
                f'{str(checkpoint)!r} contains NaN or infinite values in {name}. The '
                f'training diverged; use an earlier checkpoint.'
            )
    header = _header(found, tensors, decoder)
    with whole(out) as path:
        header = save_export(path, header, tensors, found.provenance)
    with whole(card) as path:
        path.write_text(model_card(header, found.provenance, out.name))
    extra = ' and a decoder' if decoder else ''
    print(f'{out}: {header["model"]}, {len(header["bands"])} bands{extra}; {card}')


def model_card(header: Mapping[str, Any], provenance: Provenance, name: str) -> str:
    """Return the Markdown card of an export file, with front matter for model hubs."""
    bands = header['bands']
    known = header['normalization'] or {}
    mean, std = (
        [f'{value:.6g}' for value in known[key]]
        if known.get('bands') == bands
        else ['-'] * len(bands)
        for key in ('mean', 'std')
    )
    sensors = [
        'unknown' if (band := find(name)) is None else band.sensor.rpartition(' ')[0]
        for name in bands
    ]
    options: dict[str, Any] = {'trim_blocks': True, 'keep_trailing_newline': True}
    return jinja2.Template(_CARD.read_text(), **options).render(
        header,
        name=name,
        rows=list(zip(bands, sensors, mean, std, strict=True)),
        trainings=provenance.inherited + provenance.own,
    )


def _encoder_of(found: Checkpoint, path: Path) -> dict[str, Tensor]:
    """Return the encoder's tensors, checked against the model of that name."""
    name = found.hyper_parameters.get('model')
    if name not in timm.list_models('channelmae_*') or 'pos_embed' not in found.tensors:
        raise ValueError(
            f'{str(path)!r} is not a checkpoint of a channelmae_* model, but of '
            f'{name!r}. Give one of this package, or an export.'
        )
    with torch.device('meta'):  # allocates and draws nothing
        model = timm.create_model(name, bands=bands_of(found.tensors), num_classes=0)
    own = {k: v for k, v in found.tensors.items() if k in model.state_dict()}
    model.load_state_dict(own, assign=True)  # raises if names or shapes differ
    return {f'model.{name}': tensor for name, tensor in own.items()}


def _decoder_of(found: Checkpoint, path: Path) -> dict[str, Tensor]:
    tensors = {k: v for k, v in found.tensors.items() if k.startswith('decoder.')}
    if not tensors or any(found.hyper_parameters.get(k) is None for k in _DECODER):
        raise ValueError(
            f'{str(path)!r} has no decoder. Leave out --decoder, or give a checkpoint '
            f'of a pretraining.'
        )
    return tensors


def _header(
    found: Checkpoint, tensors: Mapping[str, Tensor], decoder: bool
) -> dict[str, Any]:
    """Return the description of the model for the header of an export."""
    hparams = found.hyper_parameters
    dim, _, _, side = tensors['model.patch_embed.proj.weight'].shape
    size = hparams.get('size')
    if not isinstance(size, int):  # that of the positions
        size = math.isqrt(tensors['model.pos_embed'].shape[1]) * side
    return {
        'model': hparams['model'],
        'bands': bands_of(found.tensors),
        'patch_size': side,
        'size': size,
        'embed_dim': dim,
        'embed_std': hparams.get('embed_std'),
        'normalization': found.normalization,
        'decoder': {name: hparams[name] for name in _DECODER} if decoder else None,
        'versions': {name: version(name) for name in _PACKAGES},
    }
