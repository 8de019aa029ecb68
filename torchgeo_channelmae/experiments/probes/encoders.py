"""The encoders to compare: of a configuration, with weights and without any."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from ...models import ChannelViT
from ...models.controls import load_plain
from ...models.fresh import FreshBands
from ...models.report import LoadReport
from ...models.tokens import spectral_parameters
from ...models.weights import load_encoder, read_weights
from ..configuration import configured, read_task

UNTRAINED = 'untrained'

_POLICIES = get_args(FreshBands)
_SPECTRAL = 'spectral_embed.'


def build_encoder(
    config: Sequence[str | Path], bands: Sequence[str] | None = None
) -> tuple[nn.Module, int]:
    """Build the untrained encoder of a configuration, from its seed.

    Args:
        config: Configurations of ``torchgeo fit``; of a task with its encoder at
            ``model``, which ours and TorchGeo's have.
        bands: Names of other bands. None is those of the configuration.

    Returns:
        The encoder and the seed.

    Raises:
        FileNotFoundError: If a configuration is missing.
        ValueError: If there is no such task, or its arguments do not fit.
    """
    changes: dict[str, Any] = {}
    if bands is not None:
        changes = {'bands': list(bands), 'in_channels': len(bands)}
    task, seed = read_task(config, changes)
    error = getattr(task, 'argument_error', None)
    if error is not None:
        raise error
    model = getattr(task, 'model', None)
    if not isinstance(model, nn.Module) or not hasattr(model, 'forward_features'):
        raise ValueError(
            f'{type(task).__name__} has no encoder of timm at model: give a '
            f'configuration of ChannelMAE, CrossModalClassification or Classification.'
        )
    return model.requires_grad_(False).eval(), seed


def weights_to_probe(
    config: Sequence[str | Path], weights: Sequence[str] | None
) -> list[str]:
    """Return the weights to probe: those given, else that of the configuration."""
    if weights is not None:
        given = list(weights)
    else:
        found = configured(config, 'model', 'weights')
        given = [found] if isinstance(found, str) else []
    if len(set(given)) < len(given):
        raise ValueError(f'weights names {", ".join(given)}: give each once.')
    return given


def short_names(weights: Sequence[str]) -> list[str]:
    """Name weights by the ends of their paths, as short as tells them apart."""
    parts = [Path(path).parts for path in weights]
    for length in range(2, max(map(len, parts), default=0) + 1):
        names = ['/'.join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(weights)


def check_policy(policy: str) -> None:
    """Check the name of a policy.

    Raises:
        ValueError: If there is none of that name.
    """
    if policy not in _POLICIES:
        raise ValueError(
            f'fresh_bands is {policy!r}: use one of {", ".join(_POLICIES)}.'
        )


def load(
    model: nn.Module, tensors: Mapping[str, Tensor], policy: FreshBands, path: str
) -> LoadReport:
    """Load weights into an encoder, in place.

    Raises:
        ValueError: If they are of another model.
    """
    try:
        if isinstance(model, ChannelViT):
            return load_encoder(model, tensors, policy)
        return load_plain(model, tensors)
    except ValueError as error:
        raise ValueError(f'weights {path}: {error}') from None


def with_known_bands(
    paths: Sequence[str],
) -> list[tuple[dict[str, Tensor], dict[str, str]]]:
    """Read weights, each with the band embeddings of those before it that it lacks.

    A fine-tuning on other bands leaves the embeddings of the pretraining's bands out,
    which it does not change. So given in the order in which they were trained, weights
    know all bands that they have ever seen.

    Args:
        paths: Weights, the pretrained first.

    Returns:
        Of each, tensors by name, and by band the weights whose embedding was added.
    """
    known: dict[str, tuple[Tensor, str]] = {}
    results = []
    for path in paths:
        tensors = read_weights(path)
        own = {k: v for k, v in tensors.items() if k.startswith(_SPECTRAL)}
        width = {value.shape for value in own.values()}
        added = {
            name: (value, source)
            for name, (value, source) in known.items()
            if name not in own and value.shape in width
        }
        known |= {name: (value, path) for name, value in own.items()}
        results.append(
            (
                tensors | {name: value for name, (value, _) in added.items()},
                {
                    name.removeprefix(_SPECTRAL): source
                    for name, (_, source) in added.items()
                },
            )
        )
    return results


def with_bands(
    model: ChannelViT,
    bands: Sequence[str],
    tensors: Mapping[str, Tensor] | None = None,
    policy: FreshBands = 'sample',
) -> tuple[ChannelViT, LoadReport]:
    """Copy an encoder for other bands.

    Args:
        model: The encoder, which stays as it is.
        bands: Names of the bands of the copy.
        tensors: Weights of the copy. None is those of the encoder.
        policy: How bands start that the weights do not know.

    Returns:
        The copy, in evaluation mode, and what was done.

    Raises:
        ValueError: If the weights are of another model.
    """
    clone = copy.deepcopy(model)
    with isolate_rng():
        clone.spectral_embed = spectral_parameters(
            bands, model.embed_dim, model.embed_std
        )
    device = model.pos_embed.device
    report = load_encoder(clone, tensors or model.state_dict(), policy)
    return clone.to(device).requires_grad_(False).eval(), report
