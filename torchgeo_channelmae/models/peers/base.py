"""What the adapters to TorchGeo's foundation models have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torchgeo.models.scale_mae import get_2d_sincos_pos_embed_with_resolution

from ... import sensors
from .scaling import Expected, InputScaling

_RADAR = sensors.names(sensors.SENTINEL1_GRD)


class Peer(nn.Module):
    """A foundation model that classifies images of named bands.

    A subclass hands its ``encoder`` the bands as that model wants them, says in
    :meth:`expected` on which scale, and names its parts as timm's models do.

    Attributes:
        bands: Names of the bands.
        size: Side of the images in pixels.
        pretrained_cfg: Names of the first layer, positions, band embeddings and head.
        num_prefix_tokens: Tokens that have a position and are no cells.
    """

    bands: tuple[str, ...]
    pretrained_cfg: dict[str, Any]
    num_prefix_tokens = 1

    #: Whether the input was fitted to data.
    looked: bool = False

    #: Regular expressions of the layers below and of the blocks, for layer-wise decay.
    stem: str = r'^encoder\.(?:patch_embed|pos_embed|cls_token)'
    block: str = r'^encoder\.blocks\.(\d+)'

    def __init__(
        self,
        encoder: nn.Module,
        width: int,
        bands: Sequence[str],
        size: int,
        num_classes: int,
    ) -> None:
        """Initialise the adapter.

        Args:
            encoder: The foundation model.
            width: Length of its features.
            bands: Names of the bands.
            size: Side of the images in pixels.
            num_classes: Outputs of the head.
        """
        super().__init__()
        self.bands = tuple(bands)
        self.size = size
        self.input_scaling = InputScaling(len(bands))
        self.encoder: Any = encoder
        self.head = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.pretrained_cfg = {
            'first_conv': 'encoder.patch_embed',
            'positions': 'encoder.pos_embed',
            'classifier': 'head',
        }

    def expected(self) -> Expected:
        """Say on which scale the encoder wants the bands."""
        return Expected()

    def features(self, image: Tensor) -> Tensor:
        """Return the features (B, D) of images (B, C, H, W) on the expected scale."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        """Classify images.

        Args:
            image: (B, C, H, W), standardised.

        Returns:
            (B, K) logits.
        """
        logits: Tensor = self.head(self.features(self.input_scaling(image)))
        return logits

    def look_at(self, datamodule: Any) -> None:
        """Learn what the model has to know of the data; by default nothing."""

    def named(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Name tensors as this model does, be they its own or its encoder's."""
        if any(name.startswith('encoder.') for name in state_dict):
            return dict(state_dict)
        return {f'encoder.{name}': value for name, value in state_dict.items()}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Group parameters by layer, for layer-wise learning rates.

        Args:
            coarse: Not used; all parameters of a block are one layer.
        """
        blocks = [(self.block, None), (r'^encoder\.norm', (99999,))]
        return {'stem': self.stem, 'blocks': blocks}

    def no_weight_decay(self) -> set[str]:
        """Name the embeddings, which weight decay leaves alone."""
        ends = ('pos_embed', '_token', 'query', 'embed_transmit', 'embed_receive')
        return {f'*{end}' for end in (*ends, 'embed_orbit')}

    def check_image(self, size: int) -> None:
        """Check the side of the images.

        Args:
            size: Side in pixels.

        Raises:
            ValueError: If the model was made for another one.
        """
        if size != self.size:
            raise ValueError(
                f'The model takes images of {self.size} px, but those of the data have '
                f'{size} px: give model.init_args.size and data.init_args.size alike.'
            )


def check_grid(name: str, size: int, patch_size: int) -> None:
    """Check that patches fit into an image.

    Raises:
        ValueError: If they do not.
    """
    if size < patch_size or size % patch_size:
        below = max(patch_size, size // patch_size * patch_size)
        raise ValueError(
            f'{name} has patches of {patch_size} px, which do not fit into images of '
            f'{size} px: give a size (of model and data) that is a multiple, such as '
            f'{below} or {below + patch_size}.'
        )


def optics(name: str, bands: Sequence[str], radar: Sequence[float]) -> list[float]:
    """Return a number that tells each band from the others.

    Args:
        name: Name of the model, for messages.
        bands: Names of the bands.
        radar: The numbers of VV and VH.

    Returns:
        Central wavelengths in nm, and the given numbers for VV and VH.

    Raises:
        ValueError: If the wavelength of a band is not known.
    """
    found = []
    for band in bands:
        known = sensors.find(band)
        if band in _RADAR:
            found.append(radar[_RADAR.index(band)])
        elif known is not None and known.wavelength is not None:
            found.append(known.wavelength)
        else:
            raise ValueError(
                f'{name} has to know the wavelength of every band, and that of '
                f'{band!r} is not known: use bands of Sentinel-2 (B01 to B12) and '
                f'Sentinel-1 (VV, VH), by these names.'
            )
    return found


def positions_of(dim: int, grid: int) -> Tensor:
    """Return the sine-cosine positions of a square grid and a class token.

    Args:
        dim: Length D of a position.
        grid: Side of the grid in cells.

    Returns:
        (1, 1 + L, D), as in https://github.com/facebookresearch/mae.
    """
    one = torch.ones(1)
    return get_2d_sincos_pos_embed_with_resolution(dim, grid, one, cls_token=True)


def fix(module: nn.Module, name: str, value: Tensor | None = None) -> None:
    """Make a parameter that does not learn a buffer of the same name.

    Args:
        module: Its module.
        name: Its name.
        value: A new value, else that of the parameter.
    """
    kept = getattr(module, name).detach() if value is None else value
    delattr(module, name)
    module.register_buffer(name, kept.clone())


def add_drop_path(blocks: Any, rate: float) -> None:
    """Give blocks of timm stochastic depth that grows with depth, in place.

    Args:
        blocks: The blocks.
        rate: Rate of the last one.
    """
    for number, block in enumerate(blocks):
        drop = rate * number / max(1, len(blocks) - 1)
        if drop:
            block.drop_path1, block.drop_path2 = DropPath(drop), DropPath(drop)
