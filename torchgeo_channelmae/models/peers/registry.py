"""TorchGeo's foundation models by name, and which published weights are whose."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torchgeo.models import (
    CopernicusFM_Base_Weights,
    CROMABase_Weights,
    CROMALarge_Weights,
    DOFABase16_Weights,
    DOFALarge16_Weights,
    Panopticon_Weights,
    ScaleMAELarge16_Weights,
    croma_base,
    croma_large,
    dofa_base_patch16_224,
    dofa_huge_patch14_224,
    dofa_large_patch16_224,
    dofa_small_patch16_224,
    get_weight,
)
from torchvision.models import WeightsEnum

from .base import Peer
from .copernicusfm import CopernicusFMPeer
from .croma import CROMAPeer
from .dofa import DOFAPeer
from .panopticon import PanopticonPeer
from .scalemae import ScaleMAEPeer


@dataclass(frozen=True)
class Entry:
    """A model that can be made by name.

    Attributes:
        build: Makes it of name, bands, number of classes, size and drop path rate.
        weights: Its published weights, if there are any.
    """

    build: Callable[..., Peer]
    weights: type[WeightsEnum] | None = None


def _dofa(builder: Any, weights: type[WeightsEnum] | None = None) -> Entry:
    return Entry(partial(DOFAPeer, builder=builder), weights)


PEERS: dict[str, Entry] = {
    'dofa_small_patch16_224': _dofa(dofa_small_patch16_224),
    'dofa_base_patch16_224': _dofa(dofa_base_patch16_224, DOFABase16_Weights),
    'dofa_large_patch16_224': _dofa(dofa_large_patch16_224, DOFALarge16_Weights),
    'dofa_huge_patch14_224': _dofa(dofa_huge_patch14_224),
    'croma_base': Entry(partial(CROMAPeer, builder=croma_base), CROMABase_Weights),
    'croma_large': Entry(partial(CROMAPeer, builder=croma_large), CROMALarge_Weights),
    'copernicusfm_base': Entry(CopernicusFMPeer, CopernicusFM_Base_Weights),
    'panopticon_vitb14': Entry(PanopticonPeer, Panopticon_Weights),
    'scalemae_large_patch16': Entry(ScaleMAEPeer, ScaleMAELarge16_Weights),
}
"""The models by TorchGeo's own names."""


def is_peer(name: str) -> bool:
    """Whether a name is that of a foundation model here."""
    return name in PEERS


def create_peer(
    name: str, bands: Sequence[str], num_classes: int, size: int, **kwargs: Any
) -> Peer:
    """Make a foundation model of TorchGeo for some bands.

    Args:
        name: Its name, one of :data:`PEERS`.
        bands: Names of the bands, in the order of the image's channels.
        num_classes: Outputs of the head.
        size: Side of the image in pixels.
        **kwargs: ``drop_path_rate``.

    Returns:
        The model, untrained.

    Raises:
        ValueError: If it can not take these bands or this size.
    """
    build = PEERS[name].build
    return build(
        name=name, bands=tuple(bands), num_classes=num_classes, size=size, **kwargs
    )


def check_published(name: str, weights: WeightsEnum | str) -> WeightsEnum | None:
    """Check that published weights are those of a model, before they are downloaded.

    Args:
        name: Name of the model.
        weights: Weights of TorchGeo or their name; a path passes.

    Returns:
        The published weights, or None of a path.

    Raises:
        ValueError: If they are another model's.
    """
    if isinstance(weights, str):
        try:
            weights = get_weight(weights)
        except (KeyError, ValueError):
            return None
    owners = [
        peer for peer, entry in PEERS.items() if _belongs(weights, entry.weights)
    ] or [weights.meta.get('model')]
    if owners[0] is not None and name.partition('.')[0] not in owners:
        raise ValueError(
            f'weights {weights} are of the model {owners[0]}, and the model here is '
            f'{name}: give the weights of that model, or set model to {owners[0]}.'
        )
    return weights


def _belongs(weights: WeightsEnum, kind: type[WeightsEnum] | None) -> bool:
    return kind is not None and isinstance(weights, kind)
