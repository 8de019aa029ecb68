"""Steps of other codebases, read from a checkout that `--peer` names.

Nothing of them is in this repository. What has to be changed for them to run here is
changed from outside, and the report says so.
"""

import importlib
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgeo_channelmae.models.registry import SIZES

from .cases import Case
from .steps import LABELS, Run, Steps, make_batch, train_with

Made = tuple[nn.Module, Run, list[str]]


def _spectralgpt(root: Path, case: Case) -> Made:
    """Make SpectralGPT's masked autoencoder with tokens of one band."""
    facts = [
        _stub('simplejson', {}),
        _stub('iopath.common.file_io', {'g_pathmgr': None}),
    ]
    module = _import('models_mae_spectral', root)
    module.print = lambda *_: None  # in every step
    model = module.MaskedAutoencoderViT(
        img_size=case.size,
        patch_size=case.patch,
        in_chans=1,
        num_frames=case.bands,
        pred_t_dim=case.bands,
        t_patch_size=1,
        decoder_embed_dim=case.decoder_dim,
        decoder_depth=case.decoder_depth,
        decoder_num_heads=case.decoder_heads,
        **SIZES[case.model],
    ).to(case.device)
    facts.append(_pixels_of_a_token(model, case.patch**2))
    sized = agree(
        **_encoder_sizes(model, case),
        decoder_width=(model.decoder_norm.normalized_shape[0], case.decoder_dim),
        decoder_depth=(len(model.decoder_blocks), case.decoder_depth),
        decoder_heads=(model.decoder_blocks[0].attn.num_heads, case.decoder_heads),
    )
    seen = int(case.tokens * (1 - case.mask))  # as its random_masking rounds
    facts.append(f'{sized}, mask ratio {case.mask:g} ({seen} tokens encoded)')
    image = make_batch(case)['image']
    forward = torch.compile(model) if case.compile else model

    def loss() -> Tensor:
        return forward(image, mask_ratio=case.mask)[0]

    return model.train(), loss, facts


def _channelvit(root: Path, case: Case) -> Made:
    """Make ChannelViT with a linear head."""
    for package in ('channelvit', 'channelvit.backbone'):
        shell = types.ModuleType(package)  # its own imports models that are not needed
        shell.__path__ = [str(root / package.replace('.', '/'))]
        sys.modules[package] = shell
    module = _import('channelvit.backbone.channel_vit', root)
    encoder = module.ChannelVisionTransformer(
        img_size=[case.size],
        patch_size=case.patch,
        in_chans=case.bands,
        qkv_bias=True,
        **SIZES[case.model],
    )
    head = nn.Linear(encoder.embed_dim, LABELS)
    model = nn.ModuleList([encoder, head]).to(case.device).train()
    batch = make_batch(case)
    channels = torch.arange(case.bands, device=case.device)
    extra = {'channels': channels.expand(case.batch, -1)}
    forward = torch.compile(encoder) if case.compile else encoder

    def loss() -> Tensor:
        logits = head(forward(batch['image'], extra))
        return F.binary_cross_entropy_with_logits(logits.float(), batch['label'])

    facts = [
        agree(**_encoder_sizes(encoder, case)),
        "the packages' __init__ are left out (they import models that need old timm)",
        'binary cross-entropy of 19 labels in place of its cross-entropy',
    ]
    return model, loss, facts


@dataclass(frozen=True)
class Peer:
    """A codebase: a file that its checkout is known by, the step that it has."""

    mark: str
    part: str
    make: Callable[[Path, Case], Made]


PEERS = {
    'SpectralGPT': Peer('models_mae_spectral.py', 'pretraining', _spectralgpt),
    'ChannelViT': Peer('channelvit/backbone/channel_vit.py', 'finetuning', _channelvit),
}


def recognise(path: Path) -> tuple[str, Path]:
    """Return which peer a checkout is, and the folder that its imports start from.

    Raises:
        ValueError: If it is neither.
    """
    for root in (path, path / 'channelvit'):
        for name, peer in PEERS.items():
            if (root / peer.mark).is_file():
                return name, root
    raise ValueError(
        f'--peer {path} is no checkout of {" or ".join(PEERS)}: give a folder with '
        f'{" or ".join(peer.mark for peer in PEERS.values())} in it.'
    )


def make_peer(path: Path, case: Case) -> Steps:
    """Make the step of a peer with the sizes of a row: one variant, by its name.

    Args:
        path: The checkout.
        case: A row of the part that the peer has.

    Raises:
        ValueError: If its tokens, width, depth or heads are not those of the row.
    """
    name, root = recognise(path)
    torch.manual_seed(0)
    model, loss, facts = PEERS[name].make(root, case)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-4, betas=(0.9, 0.95))
    facts.append('torch.optim.AdamW with its defaults, as its code makes it')
    run = {name: train_with(loss, optimizer, case)}
    return Steps(run, facts=[f'{name}: {fact}' for fact in facts if fact])


def agree(**pairs: tuple[int, int]) -> str:
    """Check that the peer's sizes are the row's and return them in words.

    Args:
        **pairs: By name, the peer's and the row's.

    Raises:
        ValueError: If two differ.
    """
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise ValueError(
                f'The peer has {name} {theirs}, the row {ours}: their times cannot be '
                f'compared.'
            )
    return 'equal ' + ', '.join(f'{name} {ours}' for name, (_, ours) in pairs.items())


def _encoder_sizes(model: Any, case: Case) -> dict[str, tuple[int, int]]:
    sizes: dict[str, Any] = SIZES[case.model]
    return {
        'tokens': (model.patch_embed.num_patches, case.tokens),
        'width': (model.norm.normalized_shape[0], sizes['embed_dim']),
        'depth': (len(model.blocks), sizes['depth']),
        'heads': (model.blocks[0].attn.num_heads, sizes['num_heads']),
    }


def _pixels_of_a_token(model: Any, pixels: int) -> str:
    """Let SpectralGPT's loss accept tokens that are not of 3 bands of 8 x 8 pixels."""
    method = type(model).forward_loss
    constants = method.__code__.co_consts
    if 192 not in constants:
        return ''
    code = method.__code__.replace(
        co_consts=tuple(pixels if value == 192 else value for value in constants)
    )
    changed = types.FunctionType(code, method.__globals__)
    model.forward_loss = types.MethodType(changed, model)
    return f'its loss reshapes to 192 pixels per token, here to {pixels}'


def _import(name: str, root: Path) -> Any:
    """Import a module of a checkout."""
    sys.path.insert(0, str(root))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(root))


def _stub(name: str, attributes: dict[str, Any]) -> str:
    """Put an empty module where one is not installed; return that as a fact."""
    try:
        importlib.import_module(name)
    except ImportError:
        parts = name.split('.')
        for end in range(1, len(parts) + 1):
            package = types.ModuleType('.'.join(parts[:end]))
            package.__path__ = []
            sys.modules[package.__name__] = package
        vars(sys.modules[name]).update(attributes)
        return f'{name} is not installed and stands empty'
    return ''
