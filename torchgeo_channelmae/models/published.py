"""Weights by name: timm's tags and TorchGeo's model registry.

This is the one place that reaches into their registries. TorchGeo means to hand its
registry over to timm and segmentation-models-pytorch; then :func:`register_torchgeo`
can go.
"""

import os
from typing import Any

import timm
from timm.models import PretrainedCfg
from timm.models import _registry as registry
from torchgeo.models import api
from torchvision.models import Weights, WeightsEnum

from .exported import read_header


class ChannelMAE_Weights(WeightsEnum):  # noqa: N801
    """Published weights of channel-token encoders. There are none yet.

    A project with weights of its own derives an enum with entries that
    :func:`weights_entry` makes; TorchGeo's tasks and those of this package take its
    members, and after :func:`register_torchgeo` their names.
    """


def weights_entry(url: str, export: str, **meta: Any) -> Weights:
    """Make an entry of a weights enum from an export.

    Args:
        url: Where the export can be downloaded.
        export: A copy of it, whose header is read.
        **meta: What else is to be told, such as ``publication`` and ``repo``.

    Returns:
        The entry, with what TorchGeo's entries tell: ``dataset``, ``in_chans``,
        ``model``, ``publication``, ``repo``, ``ssl_method`` and ``bands``.

    Raises:
        ValueError: If the file is no export.
    """
    header = read_header(export)
    if header is None:
        raise ValueError(f'{export!r} is no export: make one with channelmae export.')
    provenance = header['provenance'] or {'inherited': [], 'own': []}
    trainings = provenance['inherited'] + provenance['own']
    records = [each['record'] for each in trainings if each['record'] is not None]
    supervised = any(each['supervised'] is not False for each in trainings)
    told = {
        'dataset': ', '.join(dict.fromkeys(record['dataset'] for record in records)),
        'in_chans': len(header['bands']),
        'model': header['model'],
        'publication': None,
        'repo': None,
        'ssl_method': None if supervised else 'channelmae',
        'bands': header['bands'],
    }
    return Weights(url=url, transforms=None, meta=told | meta)  # type: ignore[arg-type]


def register_weights(
    tag: str, file: str | None = None, hf_hub_id: str | None = None
) -> None:
    """Register weights as a pretrained tag of timm.

    Then ``timm.create_model(tag, pretrained=True)``, TorchGeo's tasks with ``model:
    TAG`` and ``weights: true``, and ``weights: TAG`` of this package's find them.

    Args:
        tag: A model's name, a dot and a name of your own, such as
            ``channelmae_base_patch16.mine``.
        file: Path of a checkpoint or an export.
        hf_hub_id: Or the id of a repository on the Hugging Face hub with a
            ``model.safetensors``, an export.

    Raises:
        ValueError: If the model is not known, both or no source is given, or the file
            is of another model.
        FileNotFoundError: If the file is missing.
    """
    model, _, name = tag.partition('.')
    if model not in timm.list_models('channelmae_*') or not name:
        raise ValueError(
            f'Tag {tag!r} has to be the name of a model, a dot and a name: the models '
            f'are {", ".join(timm.list_models("channelmae_*"))}.'
        )
    if (file is None) == (hf_hub_id is None):
        raise ValueError(f'Tag {tag!r} needs either a file or a hub id: give one.')
    if file is not None:
        file = os.path.abspath(file)
        if not os.path.isfile(file):
            raise FileNotFoundError(
                f'The file {file!r} of tag {tag!r} is missing: give its path.'
            )
        _check_model(tag, model, file)
    default = timm.get_pretrained_cfg(model).to_dict()
    config = PretrainedCfg(
        **{
            **default,
            'file': file,
            'hf_hub_id': hf_hub_id,
            'hf_hub_filename': None if hf_hub_id is None else 'model.safetensors',
            'custom_load': True if file is not None else 'hf',
            'architecture': model,
            'tag': name,
        }
    )
    registry._model_pretrained_cfgs[tag] = config
    registry._model_has_pretrained.add(tag)
    if tag not in registry._model_with_tags[model]:
        registry._model_with_tags[model].append(tag)


def _check_model(tag: str, model: str, file: str) -> None:
    """Check that a file is of the model that its tag names, where the file tells."""
    header = read_header(file) if file.endswith('.safetensors') else None
    if header is not None and header['model'] != model:
        raise ValueError(
            f'Tag {tag!r} is of {model}, but the file {file!r} has weights of '
            f'{header["model"]}: name the tag after that.'
        )


def file_of(tag: str) -> str | None:
    """Return the file of registered weights, downloaded if need be.

    Args:
        tag: As in :func:`register_weights`.

    Returns:
        Its path, None where there is no such tag.
    """
    config = registry._model_pretrained_cfgs.get(tag)
    if config is None or not tag.startswith('channelmae_'):
        return None
    if config.file is not None:
        return str(config.file)
    if config.hf_hub_id is None:
        return None
    from huggingface_hub import hf_hub_download

    return hf_hub_download(config.hf_hub_id, str(config.hf_hub_filename))


def register_torchgeo(weights: type[WeightsEnum] = ChannelMAE_Weights) -> None:
    """Tell TorchGeo's registry of the models and of an enum of their weights.

    ``torchgeo.models.get_model``, ``list_models``, ``get_model_weights`` and
    ``get_weight`` find them then. Where TorchGeo has no such registry, this does
    nothing: its models are timm's then.

    Args:
        weights: The enum.
    """
    models = getattr(api, '_model', None)
    known = getattr(api, '_model_weights', None)
    if not isinstance(models, dict) or not isinstance(known, dict):
        return
    for name in timm.list_models('channelmae_*'):
        models[name] = timm.model_entrypoint(name)
        known[name] = known[models[name]] = weights
