"""``channelmae export``: the weights of a run as one file that says what they are."""

import math
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from ..provenance.normalization import noted
from ..provenance.record import KEY as PROVENANCE
from ..provenance.record import from_state
from ..sensors import default_names
from .exported import VERSION, content_hash, read_file, write_file
from .model_card import model_card

_DECODER = ('decoder_dim', 'decoder_depth', 'decoder_num_heads')
_PACKAGES = ('torchgeo-channelmae', 'torch', 'timm', 'torchgeo')


def export(checkpoint: Path, out: Path, decoder: bool = False) -> None:
    """Write the encoder of a run to a .safetensors file, with a model card beside it.

    The file's header has the model's name, its bands, patch side and image size, the
    normalisation, what its trainings read, and versions. A head is not exported. What
    exists already is not overwritten.

    Args:
        checkpoint: A checkpoint of a pretraining or fine-tuning of this package, or an
            export.
        out: The file to write, such as encoder.safetensors; the card is encoder.md.
        decoder: Whether the decoder of a pretraining is written too, to go on with it.

    Raises:
        ValueError: If the checkpoint is not of this package, has no decoder where one
            is asked for, or the output has another ending.
        OSError: If the checkpoint is missing, the output exists, or the disk refuses.
    """
    if out.suffix != '.safetensors':
        raise ValueError(f'out is {str(out)!r}: give a file that ends in .safetensors.')
    if not checkpoint.is_file():
        raise FileNotFoundError(
            f'There is no file {str(checkpoint)!r}: give a checkpoint, such as '
            f'runs/pretrain/last.ckpt.'
        )
    card = out.with_suffix('.md')
    for path in (out, card):
        if path.exists():
            raise FileExistsError(
                f'{str(path)!r} exists and is not overwritten: give another name, or '
                f'remove it.'
            )
    header, tensors = read_run(checkpoint)
    if not decoder:
        header = {**header, 'decoder': None}
        tensors = {k: v for k, v in tensors.items() if not k.startswith('decoder.')}
    elif header['decoder'] is None:
        raise ValueError(
            f'{str(checkpoint)!r} has no decoder: leave out --decoder, or give a '
            f'checkpoint of a pretraining.'
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, header, tensors)
    told = {**header, 'hash': content_hash(header, tensors)}
    card.write_text(model_card(told, tensors, out.name), encoding='utf-8')
    count = sum(v.numel() for k, v in tensors.items() if k.startswith('model.'))
    print(
        f'{out}: {header["model"]}, {len(header["bands"])} bands, {count:,} parameters'
        f'{" and a decoder" if decoder else ""}; its card is {card}'
    )


def read_run(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what an export holds from a checkpoint, or from an export.

    Args:
        path: The file.

    Returns:
        The header without its hash, and the tensors of encoder and decoder.

    Raises:
        ValueError: If it is not of this package.
    """
    if path.suffix == '.safetensors':
        told, tensors = read_file(path)
        if told is None:
            raise _foreign(path, 'has no header of an export')
        return {name: told[name] for name in told if name != 'hash'}, tensors
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # an unpickler of wrong bytes may raise anything
        raise _foreign(path, 'can not be read as one') from error
    hparams = content.get('hyper_parameters') if isinstance(content, Mapping) else None
    state = content.get('state_dict') if isinstance(content, Mapping) else None
    if not isinstance(hparams, Mapping) or not isinstance(state, Mapping):
        raise _foreign(path, 'holds no task')
    state = {
        name: value
        for name, value in state.items()
        if isinstance(name, str) and torch.is_tensor(value)
    }
    model = str(hparams.get('model')).partition('.')[0]  # what follows names weights
    shapes = {'model.pos_embed': 3, 'model.patch_embed.proj.weight': 4}
    has_encoder = all(n in state and state[n].ndim == d for n, d in shapes.items())
    if not model.startswith('channelmae_') or not has_encoder:
        raise _foreign(path, f'holds the model {model!r}')
    header, tensors = _from_checkpoint(content, {**hparams, 'model': model}, state)
    _check(path, header, tensors)
    return header, tensors


def _check(
    path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Check that an encoder has the tensors of the model that it is said to be.

    Raises:
        ValueError: If there is no such model, a tensor is missing, has another shape or
            numbers that are none, or there are others.
    """
    if not timm.is_model(header['model']):
        raise _foreign(path, f'holds the unknown model {header["model"]!r}')
    cells = math.isqrt(tensors['model.pos_embed'].shape[1])
    with torch.device('meta'):  # nothing is allocated or drawn
        model = timm.create_model(
            header['model'],
            bands=header['bands'],
            img_size=cells * header['patch_size'],
            num_classes=0,
        )
    expected = {f'model.{k}': list(v.shape) for k, v in model.state_dict().items()}
    found = {k: list(v.shape) for k, v in tensors.items() if k.startswith('model.')}
    for name in (*expected, *found):
        here, there = found.get(name, 'missing'), expected.get(name, 'none')
        if here != there:
            raise ValueError(
                f'{os.fspath(path)!r} does not hold the {header["model"]} that it '
                f'names: {name.removeprefix("model.")} is {here} instead of {there}; '
                f'give another checkpoint.'
            )
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(
                f'{os.fspath(path)!r} holds numbers that are none (NaN or infinite) in '
                f'{name}: its training had broken; give an earlier checkpoint.'
            )


def _from_checkpoint(
    content: Mapping[str, Any], hparams: Mapping[str, Any], state: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors = {
        name: value
        for name, value in state.items()
        if name.startswith(('model.', 'decoder.'))
        and not name.startswith('model.head.')
    }
    past = content.get(PROVENANCE)
    told = None if past is None else from_state(past).state()
    provenance, patches = _without_tensors(told)
    decoder: dict[str, Any] | None = {name: hparams.get(name) for name in _DECODER}
    has_decoder = any(name.startswith('decoder.') for name in tensors)
    if not has_decoder or any(hparams.get(name) is None for name in _DECODER):
        tensors = {k: v for k, v in tensors.items() if k.startswith('model.')}
        decoder = None
    weight = tensors['model.patch_embed.proj.weight']
    start = 'model.spectral_embed.'
    found = [name.removeprefix(start) for name in tensors if name.startswith(start)]
    positions = tensors['model.pos_embed']
    size = hparams.get('size')
    side = math.isqrt(positions.shape[1]) * weight.shape[-1]
    header = {
        'version': VERSION,
        'model': hparams['model'],
        'bands': list(hparams.get('bands') or found or default_names(12)),
        'patch_size': weight.shape[-1],
        'size': size if isinstance(size, int) else side,
        'embed_dim': weight.shape[0],
        'embed_std': hparams.get('embed_std'),
        'normalization': noted(content),
        'decoder': decoder,
        'provenance': provenance,
        'versions': {name: version(name) for name in _PACKAGES},
    }
    return header, {**tensors, **patches}


def _without_tensors(
    state: Mapping[str, Any] | None,
) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """Take the hashes of patches out of a provenance; numbers stand in their place."""
    if state is None:
        return None, {}
    patches: dict[str, Tensor] = {}

    def plain(training: Mapping[str, Any]) -> dict[str, Any]:
        record = training['record']
        if record is None or record.get('patches') is None:
            return dict(training)
        for name, known in patches.items():
            if torch.equal(known, record['patches']):
                return {**training, 'record': {**record, 'patches': name}}
        name = f'patches.{len(patches)}'
        patches[name] = record['patches']
        return {**training, 'record': {**record, 'patches': name}}

    parts = {part: [plain(one) for one in state[part]] for part in ('inherited', 'own')}
    return {**state, **parts}, patches


def _foreign(path: Path, why: str) -> ValueError:
    return ValueError(
        f'{os.fspath(path)!r} is no checkpoint of ChannelMAE or '
        f'CrossModalClassification with a model named channelmae_*, as it {why}: give '
        f'one of those, or an export.'
    )
