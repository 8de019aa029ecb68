"""Callbacks that bring this package's encoders and weights to any task."""

from collections.abc import Mapping
from typing import Any, override

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from ..config import requested_checkpoint
from ..models.channelvit import ChannelViT
from ..models.checkpoints import read_checkpoint
from ..models.fresh_bands import FreshBands
from ..models.padding import pad_inputs
from ..models.registry import register_variant
from ..models.smp import PyramidEncoder
from ..models.weights import load_encoder

__all__ = ('LoadWeights', 'RegisterModels', 'register_variant')


class RegisterModels(Callback):
    """Register the models, so that TorchGeo's own tasks find them by name.

    Naming it in a configuration imports the package, which is enough. Such a task takes
    a channel count and no band names; a variant names other bands than the default ones
    of that count::

        variants:
          rgb_nir: {model: channelmae_tiny_patch16, bands: [B04, B03, B02, B08]}

    It also adapts the task. Segmentation models take images of any size. When fitting
    starts, the pyramid of a frozen encoder stays trainable, since no weights have it,
    and the momentum encoder of TorchGeo's ``MoCo`` starts as a copy of the encoder.
    """

    def __init__(self, variants: dict[str, dict[str, Any]] | None = None) -> None:
        """Initialize a new RegisterModels instance.

        Args:
            variants: Names, each with the arguments of
                :func:`~torchgeo_channelmae.models.registry.register_variant`.
        """
        super().__init__()
        for name, arguments in (variants or {}).items():
            if not isinstance(arguments, Mapping) or 'model' not in arguments:
                raise ValueError(
                    f'Variant {name!r} has no model. Give it as '
                    f'{{model: channelmae_tiny_patch16, bands: [...]}}.'
                )
            register_variant(name, **arguments)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Adapt the task; a checkpoint to resume from is loaded after this."""
        pad_inputs(pl_module)
        if stage != 'fit':
            return
        backbone = getattr(pl_module, 'backbone', None)
        momentum = getattr(pl_module, 'backbone_momentum', None)
        if isinstance(backbone, ChannelViT) and isinstance(momentum, ChannelViT):
            momentum.load_state_dict(backbone.state_dict())
            rank_zero_info('The momentum encoder starts as a copy of the encoder.')
        for module in pl_module.modules():
            if not isinstance(module, PyramidEncoder):
                continue
            if not all(p.requires_grad for p in module.pyramid.parameters()):
                module.pyramid.requires_grad_(True)
                rank_zero_info(
                    f'Encoder {module.name} is frozen except for its pyramid, which is '
                    f'not pretrained.'
                )


class LoadWeights(Callback):
    """Load pretrained weights into every channel-token encoder of a task, by band name.

    It does for any task what ``weights`` does in the tasks of this package: bands that
    the weights lack are initialized by a policy, and a report is logged. TorchGeo's
    tasks need it where their ``weights`` cannot take a checkpoint (``model: dpt``).
    """

    def __init__(self, weights: str, fresh_bands: FreshBands = 'sample') -> None:
        """Initialize a new LoadWeights instance.

        Args:
            weights: Path of a checkpoint or ``.safetensors`` file. It is read when
                fitting starts, unless the run resumes.
            fresh_bands: Initialization of the bands that the weights lack.
        """
        super().__init__()
        self.weights = weights
        self.fresh_bands = fresh_bands

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the weights; a task without such an encoder is an error."""
        self._missing = None
        if stage != 'fit' or requested_checkpoint(trainer) is not None:
            return
        encoders = [m for m in pl_module.modules() if isinstance(m, ChannelViT)]
        if not encoders:
            raise ValueError(
                f'{type(pl_module).__name__} has no channel-token encoder. Use a '
                f'channelmae_* model, or remove LoadWeights.'
            )
        try:
            tensors = read_checkpoint(self.weights).tensors
        except FileNotFoundError as error:  # unless a checkpoint is loaded next
            self._missing = error
            return
        for encoder in encoders:
            report = load_encoder(encoder, tensors, self.fresh_bands, adopt_grid=True)
        rank_zero_info(f'Weights {self.weights}: {report}')

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Do without the weights."""
        self._missing = None

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise if the weights are missing, unless a checkpoint is loaded."""
        if self._missing is not None and trainer.ckpt_path is None:
            raise self._missing
