"""The encoders to compare: that of a configuration, untrained and with weights."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torchgeo.datamodules import BaseDataModule

from ...facts import data_facts
from ...models import ChannelViT
from ...models.checkpoints import read_checkpoint
from ...models.fresh_bands import FreshBands
from ...models.tokens import SPECTRAL, spectral_parameters
from ...models.weights import LoadReport, load_encoder
from ..configuration import configured, read_task

UNTRAINED = 'untrained'


def build_encoder(
    config: Sequence[str | Path], bands: Sequence[str] | None = None
) -> tuple[nn.Module, int]:
    """Build the untrained, frozen encoder of configurations; return it and the seed.

    They are for ``torchgeo fit`` of a task with its encoder at ``model``. Without names
    of bands, those of the configuration are used.
    """
    changes = {'bands': list(bands), 'in_channels': len(bands)} if bands else {}
    task, seed = read_task(config, changes)
    model = getattr(task, 'model', None)
    if not isinstance(model, nn.Module) or not hasattr(model, 'forward_features'):
        raise ValueError(
            f'{type(task).__name__} has no timm encoder as its model. Give a '
            f'configuration of ChannelMAE, CrossModalClassification or Classification.'
        )
    return model.requires_grad_(False).eval(), seed


def check_bands(model: nn.Module, datamodule: BaseDataModule) -> None:
    """Check that an encoder and the data name the same bands, if both name any."""
    own: Any = getattr(model, 'bands', None)
    facts = data_facts(datamodule)
    if own and facts and tuple(own) != facts.bands:
        raise ValueError(
            f'The model has the bands {", ".join(own)}, but the data have '
            f'{", ".join(facts.bands)}. Set the same bands in both.'
        )


def weights_to_probe(
    config: Sequence[str | Path], weights: Sequence[str] | None
) -> list[str]:
    """Return the given weights, each once, else those of the configuration."""
    if weights is None:
        found = configured(config, 'model', 'weights')
        return [found] if isinstance(found, str) else []
    return list(dict.fromkeys(weights))


def with_known_bands(
    paths: Sequence[str],
) -> list[tuple[dict[str, Tensor], dict[str, str]]]:
    """Read weights, adding to each the missing band embeddings of earlier ones.

    Fine-tuning on other bands does not change the embeddings of the pretraining's bands
    and leaves them out. So with weights in the order of training, each knows all bands
    that it ever trained on. Returns, for each, tensors by name, and by added band the
    weights that it is from.
    """
    known: dict[str, tuple[Tensor, str]] = {}
    results = []
    for path in paths:
        tensors = read_checkpoint(path).tensors
        added = {k: known[k] for k in known if k not in tensors}
        sources = {k.removeprefix(SPECTRAL): path for k, (_, path) in added.items()}
        results.append((tensors | {k: row for k, (row, _) in added.items()}, sources))
        known |= {k: (v, path) for k, v in tensors.items() if k.startswith(SPECTRAL)}
    return results


def with_bands(
    model: ChannelViT,
    bands: Sequence[str],
    tensors: Mapping[str, Tensor] | None = None,
    policy: FreshBands = 'sample',
) -> tuple[ChannelViT, LoadReport]:
    """Copy an encoder for other bands, frozen and in evaluation mode.

    The copy loads ``tensors``, or the encoder's weights if None. ``policy`` says how
    bands missing from them are initialized. Also returns the report of the load.
    """
    clone = copy.deepcopy(model)
    with isolate_rng():
        clone.spectral_embed = spectral_parameters(
            bands, model.embed_dim, model.embed_std
        )
    device = model.pos_embed.device
    report = load_encoder(clone, tensors or model.state_dict(), policy)
    return clone.to(device).requires_grad_(False).eval(), report
