"""ChannelMAE in TorchGeo's own tasks: callbacks that a configuration names."""

from collections.abc import Mapping
from typing import Any, override

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from ..config import requested_checkpoint
from ..models import ChannelViT, register_weights
from ..models.fresh import FreshBands
from ..models.registry import register_variant
from ..models.smp import PyramidEncoder
from ..models.weights import load_encoder, read_weights

_HUB = 'hf-hub:'

__all__ = ('LoadWeights', 'RegisterModels', 'register_variant')


class RegisterModels(Callback):
    """Naming it imports the package, which registers the models.

    With this, TorchGeo's own tasks find ``channelmae_*`` by name::

        trainer:
          callbacks:
            - class_path: torchgeo_channelmae.callbacks.register.RegisterModels
        model:
          class_path: torchgeo.tasks.Classification
          init_args:
            model: channelmae_tiny_patch16
            in_channels: 12
            weights: runs/pretrain/last.ckpt

    Such a task takes a channel count and no names of bands. Where the count does not
    stand for the right ones, a variant brings them::

        trainer:
          callbacks:
            - class_path: torchgeo_channelmae.callbacks.register.RegisterModels
              init_args:
                variants:
                  rgb_nir: {model: channelmae_tiny_patch16, bands: [B04, B03, B02, B08]}

    Beside that it mends two things when fitting starts, and says so in a line. Where a
    task freezes an encoder of segmentation-models-pytorch, the layers of its pyramid,
    which no weights have, go on learning. The momentum encoder of TorchGeo's ``MoCo``
    starts as a copy of the encoder, as in the paper, and not from random weights.
    """

    def __init__(
        self,
        variants: dict[str, dict[str, Any]] | None = None,
        weights: dict[str, str] | None = None,
    ) -> None:
        """Initialize a new RegisterModels instance.

        Args:
            variants: Names, each with the arguments of
                :func:`~.models.registry.register_variant`.
            weights: Files of weights by their tags, such as
                ``channelmae_base_patch16.mine: encoder.safetensors``, or repositories
                of the Hugging Face hub, ``hf-hub:OWNER/NAME``, see
                :func:`~.models.tags.register_weights`. What is wrong with them stops
                fitting and is a warning elsewhere: a test does not need them.

        Raises:
            ValueError: If a variant names no model, or one that there is not, or its
                name is taken.
        """
        super().__init__()
        self.weights_error: Exception | None = None
        for tag, where in (weights or {}).items():
            hub = where.removeprefix(_HUB) if where.startswith(_HUB) else None
            try:
                register_weights(tag, None if hub else where, hub)
            except (OSError, ValueError) as error:
                rank_zero_warn(str(error))
                self.weights_error = self.weights_error or error
        for name, arguments in (variants or {}).items():
            if not isinstance(arguments, Mapping) or 'model' not in arguments:
                raise ValueError(
                    f'Variant {name!r} names no model: give it as '
                    f'{{model: channelmae_tiny_patch16, bands: [...]}}.'
                )
            register_variant(name, **arguments)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let pyramids of frozen encoders learn, and momentum encoders start as copies.

        A checkpoint to resume from is loaded after this.

        Raises:
            FileNotFoundError: If a file of weights is missing.
            ValueError: If a tag can't be one, or its file is of another model.
        """
        if stage != 'fit':
            return
        if self.weights_error is not None:
            raise self.weights_error
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
                    f'Encoder {module.name} is frozen but for its pyramid, whose '
                    f'layers no weights have.'
                )


class LoadWeights(Callback):
    """Load pretrained weights into every channel-token encoder of a task, by band name.

    It does what ``weights`` of this project's own tasks does, for any task: bands that
    the weights do not know start by a policy, and one line tells what arrived. A task
    whose own ``weights`` can't take a checkpoint of this project, such as TorchGeo's
    with ``model: dpt``, needs it::

        trainer:
          callbacks:
            - class_path: torchgeo_channelmae.callbacks.register.LoadWeights
              init_args:
                weights: runs/pretrain/last.ckpt
    """

    def __init__(self, weights: str, fresh_bands: FreshBands = 'sample') -> None:
        """Initialize a new LoadWeights instance.

        Args:
            weights: Path of a checkpoint or ``.safetensors`` file, or the name of a
                weights enum. It is read when fitting starts, unless that resumes.
            fresh_bands: How the embedding of a band starts that the weights do not
                know.
        """
        super().__init__()
        self.weights = weights
        self.fresh_bands = fresh_bands
        self._missing: FileNotFoundError | None = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the weights.

        Raises:
            ValueError: If the task has no such encoder, the weights are another
                model's, or the policy is unknown.
        """
        self._missing = None
        if stage != 'fit' or requested_checkpoint(trainer) is not None:
            return
        encoders = [m for m in pl_module.modules() if isinstance(m, ChannelViT)]
        if not encoders:
            raise ValueError(
                f'{type(pl_module).__name__} has no channel-token encoder to load '
                f'{self.weights!r} into: name a channelmae_* model, or leave '
                f'LoadWeights out.'
            )
        try:
            tensors = read_weights(self.weights)
        except FileNotFoundError as error:  # a resume in Python is not known here yet
            self._missing = error
            return
        for encoder in encoders:
            report = load_encoder(encoder, tensors, self.fresh_bands, takes_grid=True)
        rank_zero_info(f'Weights {self.weights}: {report}')

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise if the weights are missing, unless a checkpoint was loaded.

        Raises:
            FileNotFoundError: If `weights` is neither a file nor a name.
        """
        if self._missing is not None and trainer.ckpt_path is None:
            raise self._missing
