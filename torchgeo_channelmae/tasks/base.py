"""The life cycle of both tasks before training: check, load weights, seed."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import timm
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torchvision.models import WeightsEnum

from ..config import deferred_errors, raise_deferred, requested_checkpoint
from ..facts import DataFacts, data_facts
from ..models.channelvit import ChannelViT
from ..models.checkpoints import read_checkpoint
from ..models.controls import check_image, load_weights, restore_scaling
from ..models.peers import Peer, check_published, fit_input
from ..models.registry import did_you_mean
from ..models.stream import watched_stream
from ..models.weights import LoadReport
from ..provenance.normalization import KEY as NORMALIZATION
from ..provenance.normalization import difference, normalization_of
from ..provenance.record import KEY, DataRecord, Provenance, Training, from_state
from ..randomness import derive_seed, global_seed
from .optim import apply_tuning, check_optimizer

_MAYBE = (None, 'last', 'hpc')  # a resume only if there is such a checkpoint


class ChannelTaskMixin(LightningModule):
    """A task that starts from pretrained weights and records what it was trained on.

    Weights are loaded when a fit is set up, unless it resumes from a checkpoint, so
    that a checkpoint is all that a resume or an evaluation needs. Checkpoints contain
    the provenance of their weights: the datamodule's record and, before it, the
    records of the weights that training started from.

    Attributes:
        model: The encoder that is trained.
        weights: Pretrained weights to start from, or None.
        supervised: Whether the task learns labels.
        provenance: Trainings behind the current weights.
    """

    model: Any
    weights: WeightsEnum | str | None
    supervised: bool
    provenance: Provenance = Provenance()
    argument_error: ValueError | None = None
    _missing: FileNotFoundError | None = None

    @abstractmethod
    def build_models(self) -> None:
        """Create ``self.model`` and other trained modules from the hyperparameters."""

    def create_encoder(self, **kwargs: Any) -> ChannelViT:
        """Create the channel-token encoder that the hyperparameters describe.

        Args:
            **kwargs: Further arguments of the model.
        """
        name, known = self.hparams['model'], timm.list_models('channelmae_*')
        if name not in known:
            raise ValueError(
                f'Unknown channel-token encoder {name!r}{did_you_mean(name, known)}. '
                f'Choose one of {", ".join(known)}.'
            )
        encoder: ChannelViT = timm.create_model(
            name,
            in_chans=self.hparams['in_channels'],
            bands=self.hparams['bands'],
            img_size=self.hparams['size'],
            embed_std=self.hparams['embed_std'],
            **kwargs,
        )
        return encoder

    def configure_models(self) -> None:
        """Check the optimizer and build the models."""
        with deferred_errors(self):
            if 'optimizer' in self.hparams:
                check_optimizer(self.hparams)
            self.build_models()

    @property
    def datamodule(self) -> Any:
        """The trainer's datamodule; None without a trainer or a datamodule."""
        try:
            return getattr(self.trainer, 'datamodule', None)
        except RuntimeError:  # not attached to a trainer
            return None

    @property
    def data_record(self) -> DataRecord | None:
        """What training on the present data reads; None if unknown."""
        facts = data_facts(self.datamodule)
        return facts.record if facts else None

    def setup(self, stage: str) -> None:
        """Check the model against the data; for a new fit, load weights."""
        raise_deferred(self)
        if facts := data_facts(self.datamodule):
            self._check_data(facts)
        cuts = isinstance(self.trainer.strategy, FSDPStrategy | DeepSpeedStrategy)
        if cuts and stage == 'fit' and 'muon' in self.hparams['optimizer']:
            raise ValueError(  # it would take the flat pieces for biases
                'Muon needs whole matrices, but this strategy cuts them. Use '
                '--trainer.strategy ddp or --model.init_args.optimizer adamw.'
            )
        starts = stage == 'fit' and requested_checkpoint(self.trainer) in _MAYBE
        self._missing = None
        if starts:
            try:
                if self.weights:
                    self.load_weights(self.weights)
            except FileNotFoundError as error:  # unless a checkpoint is loaded next
                self._missing = error
            self.reinitialize()
        if isinstance(self.model, Peer):
            fit_input(self.model, self.datamodule, starts)

    def _check_data(self, facts: DataFacts) -> None:
        if facts.bands != tuple(self.model.bands):
            raise ValueError(
                f'The model has the bands {", ".join(self.model.bands)}, but the data '
                f'have {", ".join(facts.bands)}. Give model.init_args.bands and '
                f'data.init_args.bands the same names in the same order.'
            )
        check_image(self.model, facts.size)

    def on_fit_start(self) -> None:
        """Stop a fit without its weights; use what a tuning callback found."""
        super().on_fit_start()
        if self._missing is not None and self.trainer.ckpt_path is None:
            raise self._missing
        apply_tuning(self)

    def reinitialize(self) -> None:
        """Change what a new training starts from, after weights were loaded."""

    def load_weights(self, weights: WeightsEnum | str) -> LoadReport:
        """Load pretrained weights into the model and log the report."""
        published = check_published(self.hparams['model'], weights)
        checkpoint = read_checkpoint(weights)
        policy = self.hparams.get('fresh_bands', 'sample')
        with watched_stream(self.model, f'weights {weights}'):
            report = load_weights(
                self.model, checkpoint, policy, published, self.datamodule
            )
        self.provenance = self.provenance.started_from(checkpoint.provenance)
        rank_zero_info(f'Weights {weights}: {report}')
        self.compare_normalization(f'weights {weights}', checkpoint.normalization)
        self.load_further(weights, checkpoint.tensors)
        return report

    def compare_normalization(
        self, source: str, normalization: Mapping[str, Any] | None
    ) -> None:
        """Warn if the data are normalized differently than those of ``source``."""
        own = normalization_of(data_facts(self.datamodule))
        if message := difference(normalization, own):
            rank_zero_warn(
                f'The images of {source} were normalized differently in the same '
                f'bands: {message}. If they are of the same product, give the '
                f'datamodule their statistics and their clip_pixels.'
            )

    def load_further(
        self, weights: WeightsEnum | str, tensors: Mapping[str, Tensor]
    ) -> None:
        """Load the task's modules beside its encoder, if the weights have any."""

    def on_train_start(self) -> None:
        """Add this training to the provenance."""
        super().on_train_start()
        training = Training(self.data_record, self.supervised)
        self.provenance = self.provenance.trained(training)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store provenance and normalization."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[KEY] = self.provenance.state()
        checkpoint[NORMALIZATION] = normalization_of(data_facts(self.datamodule))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the provenance; without one it is unknown."""
        super().on_load_checkpoint(checkpoint)
        self._missing = None
        restore_scaling(self.model, checkpoint.get('state_dict', {}))
        self.provenance = from_state(checkpoint.get(KEY))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the draws of a step (drop path, dropout); log rate and clipping."""
        address = (global_seed(), 'step', self.global_step, batch_idx, self.global_rank)
        torch.manual_seed(derive_seed(*address))
        groups = self.trainer.optimizers[0].param_groups
        self.log('lr', max(group['lr'] for group in groups))
        if (clipped := batch.get('clipped')) is not None:
            self.log_means({'train_clipped_pixels': clipped.mean()}, len(clipped))

    def log_means(self, values: dict[str, Tensor], batch_size: int) -> None:
        """Log means over the samples of an epoch."""
        options: dict[str, Any] = {'on_step': False, 'on_epoch': True}
        self.log_dict(values, sync_dist=True, batch_size=batch_size, **options)


def sample_keys(index: Tensor, *address: int | str) -> Tensor:
    """Derive one random int64 key per sample, (B,), from its index.

    Args:
        index: (B,) int64, index of each sample in its dataset.
        address: What the draw is for, e.g. ``(seed, 'mask', epoch)``.
    """
    return index + derive_seed(*address)
