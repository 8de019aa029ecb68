"""One adapter to the foundation models of TorchGeo."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from timm.layers import DropPath
from torch import Tensor, nn
from torchgeo.models import get_weight
from torchvision.models import WeightsEnum

from ... import sensors
from ...facts import data_facts
from ..tokens import check_size
from .families import PEERS
from .scaling import Expected, InputScaling, scale_input

_ENDS = ('pos_embed', '_token', 'query', '_transmit', '_receive', '_orbit')


class Peer(nn.Module):
    """A foundation model that classifies images of named bands.

    Attributes:
        level: Product level of Sentinel-2.
        fitted: Whether the input was fitted to data.
        pretrained_cfg: Names of the first layer, positions, band embeddings and head.
        num_prefix_tokens: Tokens with a position that are not grid cells.
    """

    num_prefix_tokens = 1

    def __init__(
        self,
        name: str,
        bands: Sequence[str],
        num_classes: int,
        size: int,
        drop_path_rate: float = 0.0,
    ) -> None:
        """Initialize a new Peer instance.

        Args:
            name: Name of the model in :data:`~.families.PEERS`.
            bands: Names of the bands, in the order of the image's channels.
            num_classes: Outputs of the head.
            size: Side of the images in pixels.
            drop_path_rate: Stochastic depth rate of the last block.

        Raises:
            ValueError: If it cannot take these bands, size or rate.
        """
        super().__init__()
        self.model, self.bands, self.size = PEERS[name], tuple(bands), size
        self.level, self.fitted = 'L2A', False
        check_size(size, size, self.model.patch_size)
        self.input_scaling = InputScaling(len(bands))
        build, builder = self.model.build, self.model.builder
        self.encoder: Any
        self.encoder, self.channels = build(name, builder, self.bands, size)
        if drop_path_rate and not hasattr(self.encoder, 'blocks'):
            raise ValueError(f'{name} has no stochastic depth. Set drop_path to 0.')
        if drop_path_rate:
            _add_drop_path(self.encoder.blocks, drop_path_rate)
        width = getattr(self.encoder, 'encoder_dim', None)  # of CROMA
        self.head = nn.Linear(width or self.encoder.cls_token.shape[-1], num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.pretrained_cfg = {'classifier': 'head', **self.model.parts}

    def expected(self) -> Expected:
        """Return the scale on which the encoder expects the bands."""
        return self.model.expected(self.bands, self.level)

    def features(self, image: Tensor) -> Tensor:
        """Return the features (B, D) of images (B, C, H, W) on the expected scale."""
        return self.model.features(self.encoder, image, self.channels)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits (B, K) of normalized images (B, C, H, W)."""
        logits: Tensor = self.head(self.features(self.input_scaling(image)))
        return logits

    def named(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a state dict of this model or its encoder with this model's names."""
        own = any(name.startswith('encoder.') for name in state_dict)
        return {('' if own else 'encoder.') + k: v for k, v in state_dict.items()}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Group parameters by layer, one per block, for layer-wise learning rates."""
        return dict(self.model.layers)

    def no_weight_decay(self) -> set[str]:
        """Name the embeddings, which do not decay."""
        return {f'*{end}' for end in _ENDS}


def check_published(
    name: str, weights: WeightsEnum | str | os.PathLike[str]
) -> WeightsEnum | None:
    """Check and return a model's published weights, before they are downloaded.

    Args:
        name: Name of the model.
        weights: Weights of TorchGeo, their name, or a path (not checked, returns None).

    Raises:
        ValueError: If they belong to another model.
    """
    if not isinstance(weights, WeightsEnum):
        try:
            weights = get_weight(os.fspath(weights))
        except (KeyError, ValueError):
            return None
    owners = [peer for peer, model in PEERS.items() if model.weights is type(weights)]
    owner = owners[0] if owners else weights.meta.get('model')
    if owner not in (None, name.partition('.')[0]):
        raise ValueError(
            f'weights {weights} are of the model {owner}, but the model is {name}. '
            f'Give weights of {name}, or set model to {owner}.'
        )
    return weights


def fit_input(model: Peer, datamodule: Any, starts: bool) -> None:
    """Adapt the input of a foundation model to the images of a datamodule.

    Product level and pixel size default to Sentinel-2 L2A and 10 m.

    Args:
        model: The model.
        datamodule: The datamodule, or None.
        starts: Whether a training starts. Otherwise a model that has a scale, from its
            training or checkpoint, keeps it.
    """
    facts = data_facts(datamodule)
    names = facts.record.sensors if facts and facts.record else ()
    model.level = 'L1C' if any(name.endswith('L1C') for name in names) else 'L2A'
    side: Any = getattr(datamodule, 'side', None)
    resized = side and getattr(datamodule, 'size_by', None) == 'resize'
    if resized and hasattr(model.encoder, 'res'):  # of Scale-MAE, m
        model.encoder.res = sensors.RGB[0].resolution * side / model.size
    if starts or not model.fitted:
        scale_input(model.input_scaling, datamodule, model.expected())
        model.fitted = True


def _add_drop_path(blocks: Any, rate: float) -> None:
    """Add stochastic depth to blocks of timm in place, increasing with depth."""
    for number, block in enumerate(blocks):
        drop = rate * number / max(1, len(blocks) - 1)
        if drop:
            block.drop_path1, block.drop_path2 = DropPath(drop), DropPath(drop)
