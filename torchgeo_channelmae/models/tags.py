"""Weights by name: timm's tags and TorchGeo's model registry.

This is the one place that reaches into their registries. TorchGeo means to hand its
registry over to timm and segmentation-models-pytorch; then :func:`register_torchgeo`
can go.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, override
from urllib.parse import urlsplit
from urllib.request import url2pathname

import timm
import torch
from huggingface_hub import hf_hub_download
from timm.models import PretrainedCfg
from timm.models import _registry as registry
from torchgeo.models import api
from torchvision.models import Weights, WeightsEnum

from .exported import read_file, read_header

_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_-]*')


class ChannelMAE_Weights(WeightsEnum):  # noqa: N801
    """Published weights of channel-token encoders. There are none yet.

    A project with weights of its own derives an enum with entries that
    :func:`weights_entry` makes; TorchGeo's tasks and those of this package take its
    members, and after :func:`register_torchgeo` their names.
    """

    def path(self) -> str:
        """Return the path of the file, downloading it if it is not here.

        Raises:
            OSError: If it can't be downloaded.
        """
        return file_of(str(self)) or _downloaded(self.url)

    @override
    def get_state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read the encoder's tensors, as TorchGeo's tasks ask for them.

        Args:
            *args: Not used, as are the others: an export is always checked, and no
                code in a file is ever run.
            **kwargs: What TorchGeo's tasks give.

        Returns:
            Tensors by name.
        """
        from .weights import read_weights

        tensors = read_weights(self.path())
        return {k: v for k, v in tensors.items() if not k.startswith('decoder.')}


def _downloaded(url: str) -> str:
    """Return the path of a file at a URL; one with ``file:`` is not copied."""
    parts = urlsplit(url)
    if parts.scheme == 'file':
        return url2pathname(parts.path)
    path = Path(torch.hub.get_dir()) / 'checkpoints' / Path(parts.path).name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path))
    return str(path)


def weights_entry(url: str, export: str, **meta: Any) -> Weights:
    """Make an entry of a weights enum from an export.

    Args:
        url: Where the export can be downloaded.
        export: A copy of it, which is checked and whose header is read.
        **meta: What else is to be told, such as ``publication`` and ``repo``.

    Returns:
        The entry, with what TorchGeo's entries tell: ``dataset``, ``in_chans``,
        ``model``, ``publication``, ``repo``, ``ssl_method`` and ``bands``.

    Raises:
        ValueError: If the file is no export, or not as it was exported.
    """
    header = read_file(export)[0] if export.endswith('.safetensors') else None
    if header is None:
        raise ValueError(f'{export!r} is no export: make one with channelmae export.')
    return _entry(url, _meta(header) | meta)


def _meta(header: Mapping[str, Any]) -> dict[str, Any]:
    provenance = header['provenance'] or {'inherited': [], 'own': []}
    trainings = provenance['inherited'] + provenance['own']
    records = [each['record'] for each in trainings if each['record'] is not None]
    supervised = any(each['supervised'] is not False for each in trainings)
    return {
        'dataset': ', '.join(dict.fromkeys(record['dataset'] for record in records)),
        'in_chans': len(header['bands']),
        'model': header['model'],
        'publication': None,
        'repo': None,
        'ssl_method': None if supervised else 'channelmae',
        'bands': header['bands'],
    }


def _entry(url: str, meta: dict[str, Any]) -> Weights:
    return Weights(url=url, transforms=None, meta=meta)  # type: ignore[arg-type]


def register_weights(
    tag: str, file: str | None = None, hf_hub_id: str | None = None
) -> None:
    """Register weights as a pretrained tag of timm.

    Then ``timm.create_model(tag, pretrained=True)`` makes the model with the bands of a
    file, unless others are given, and its image size; TorchGeo's tasks find them with
    ``model: TAG`` and ``weights: true``, which is the same, or with ``weights: TAG``;
    and so do those of this package with ``weights: TAG``.

    Args:
        tag: A model's name, a dot and a name of your own, such as
            ``channelmae_base_patch16.mine``.
        file: Path of a checkpoint or an export.
        hf_hub_id: Or the id of a repository on the Hugging Face hub with a
            ``model.safetensors``, an export.

    Raises:
        ValueError: If the model is not known, the tag can't be one or has another
            source, both or no source is given, or the file is damaged or of another
            model.
        FileNotFoundError: If the file is missing.
    """
    model, _, name = tag.partition('.')
    if model not in timm.list_models('channelmae_*') or not name:
        raise ValueError(
            f'Tag {tag!r} has to be the name of a model, a dot and a name: the models '
            f'are {", ".join(timm.list_models("channelmae_*"))}.'
        )
    if not _NAME.fullmatch(name) or name == 'mro' or hasattr(WeightsEnum, name):
        raise ValueError(
            f'Tag {tag!r} has to have letters, digits, _ or - after {model}. and no '
            f'name of an attribute in Python, such as {model}.mine.'
        )
    if (file is None) == (hf_hub_id is None):
        raise ValueError(f'Tag {tag!r} needs either a file or a hub id: give one.')
    if file is not None:
        file = os.path.abspath(file)
        if not os.path.isfile(file):
            raise FileNotFoundError(
                f'The file {file!r} of tag {tag!r} is missing: give its path.'
            )
    known = registry._model_pretrained_cfgs.get(tag)
    if known is not None and (known.file, known.hf_hub_id) != (file, hf_hub_id):
        raise ValueError(
            f'Tag {tag!r} stands for {known.file or known.hf_hub_id!r} already: choose '
            f'another one for {file or hf_hub_id!r}.'
        )
    told: dict[str, Any] = {}
    meta: dict[str, Any] = {'model': model}
    if file is not None:
        from .export import read_run

        header, _ = read_run(Path(file))
        if header['model'] != model:
            raise ValueError(
                f'Tag {tag!r} is of {model}, but the file {file!r} has weights of '
                f'{header["model"]}: name the tag after that.'
            )
        told, meta = _config(header), _meta(header)
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
            **told,
        }
    )
    registry._model_pretrained_cfgs[tag] = config
    registry._model_has_pretrained.add(tag)
    if tag not in registry._model_with_tags[model]:
        registry._model_with_tags[model].append(tag)
    url = f'hf-hub:{hf_hub_id}' if file is None else Path(file).as_uri()
    members = {name: _entry(url, meta)}
    weights = getattr(api, '_model_weights', None)
    if isinstance(weights, dict):  # its name is that of the model: str(member) is tag
        weights[tag] = ChannelMAE_Weights(model, members, module=__name__)


def _config(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return what timm is told of weights."""
    side = header['size']
    told: dict[str, Any] = {'input_size': (len(header['bands']), side, side)}
    statistics = header['normalization']
    if statistics is not None:
        told |= {name: tuple(statistics[name]) for name in ('mean', 'std')}
    return told


def _described(file: str) -> dict[str, Any]:
    """Return the header of an export, or the one that a checkpoint would have."""
    header = read_header(file) if file.endswith('.safetensors') else None
    if header is None:
        from .export import read_run

        header, _ = read_run(Path(file))
    return header


def arguments_of(tag: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bands and image size that a model for registered weights is to have.

    Args:
        tag: As in :func:`register_weights`.
        given: Arguments that were given. Other bands, or another count of them, are
            left as they are.

    Returns:
        Arguments of the model; none where there is no such tag.
    """
    if given.get('bands') is not None or tag not in registry._model_has_pretrained:
        return {}
    path = file_of(tag)
    found = None if path is None else _described(path)
    if found is None or given.get('in_chans') not in (None, len(found['bands'])):
        return {}
    return {'bands': found['bands'], 'img_size': found['size']}


def file_of(tag: str) -> str | None:
    """Return the file of registered weights, downloaded if need be.

    Args:
        tag: As in :func:`register_weights`.

    Returns:
        Its path, None where there is no such tag.

    Raises:
        OSError: If it can't be downloaded.
    """
    config = registry._model_pretrained_cfgs.get(tag)
    if config is None or not tag.startswith('channelmae_'):
        return None
    if config.file is not None:
        return str(config.file)
    if config.hf_hub_id is None:
        return None
    repository, _, revision = str(config.hf_hub_id).partition('@')
    name = str(config.hf_hub_filename)
    try:
        return hf_hub_download(repository, name, revision=revision or None)
    except (OSError, ValueError) as error:
        raise OSError(
            f'Tag {tag!r} stands for {name} of {config.hf_hub_id!r} on the Hugging '
            f'Face hub, which could not be fetched: {" ".join(str(error).split())}'
        ) from error


def path_of(weights: object) -> str | None:
    """Return the file that weights are in, downloaded if need be.

    Args:
        weights: A path, a tag, a member of :class:`ChannelMAE_Weights`, or others.

    Returns:
        Its path, None of weights that are no file or are not known here.

    Raises:
        OSError: If it can't be downloaded.
    """
    if isinstance(weights, ChannelMAE_Weights):
        return weights.path()
    if not isinstance(weights, str):
        return None
    return weights if os.path.exists(weights) else file_of(weights)


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
        if name not in models:
            models[name] = _builder(name)
        known[name] = known[models[name]] = weights


def _builder(name: str) -> Callable[..., Any]:
    """Return a function that makes a model, called as those of TorchGeo are."""

    def build(weights: WeightsEnum | str | None = None, **kwargs: Any) -> Any:
        """Make the model, with weights if some are given.

        Args:
            weights: See :func:`~.weights.read_weights`. The model has their bands,
                unless others are given.
            **kwargs: Arguments of ``timm.create_model``. The grid of positions is
                that of the weights anyway; any image size is taken.
        """
        from .weights import bands_of, read_weights

        if weights is None:
            return timm.create_model(name, **kwargs)
        tensors = read_weights(weights)
        bands = bands_of(tensors)
        if kwargs.get('bands') is None and kwargs.get('in_chans') in (None, len(bands)):
            kwargs['bands'] = bands
        model: Any = timm.create_model(name, **kwargs)
        model.take_weights(tensors)
        return model

    build.__name__ = build.__qualname__ = name
    return build
