"""What both tasks do alike before training starts: check, load weights, seed."""

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import timm
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torchvision.models import WeightsEnum

from ..config import requested_checkpoint
from ..models.channelvit import ChannelViT
from ..models.fresh import FreshBands
from ..models.peers import Peer, check_published
from ..models.peers.inputs import (
    load_own,
    load_published,
    look_at_data,
    restore_scaling,
)
from ..models.plain import check_image, load_plain
from ..models.registry import did_you_mean
from ..models.report import LoadReport
from ..models.weights import load_encoder, read_weights
from ..provenance.normalization import KEY as NORMALIZATION
from ..provenance.normalization import (
    difference,
    normalization_of,
    read_normalization,
)
from ..provenance.record import (
    KEY,
    DataRecord,
    Provenance,
    Training,
    from_state,
    read_provenance,
)
from ..randomness import derive_seed, global_seed
from .optim import apply_tuning


class ChannelTaskMixin(LightningModule):
    """Checks of a task whose encoder is a :class:`~..models.ChannelViT`.

    Its checkpoints tell what was read on the way to their weights: by the task, in
    ``trainer.datamodule.record``, and by the weights that it started from.

    LightningCLI buries an error of a constructor under pages of its parser's types.
    So a task builds its models in :meth:`build_models`, and what is wrong with its
    arguments is raised when a trainer sets the task up: before training starts, in
    one sentence, and as the last line on the terminal.
    """

    model: ChannelViT
    weights: WeightsEnum | str | None
    argument_error: ValueError | None = None
    #: Whether a batch for evaluation may be one of which all samples were skipped.
    takes_empty_batches = True

    #: Whether the task learns labels.
    supervised: bool

    #: What was read so far on the way to the weights that the task has now.
    provenance: Provenance = Provenance()

    @abstractmethod
    def build_models(self) -> None:
        """Make the encoder at ``self.model`` and what else the task trains.

        Raises:
            ValueError: If an argument does not fit.
        """

    def create_encoder(self, **kwargs: Any) -> ChannelViT:
        """Make the encoder that the hyperparameters describe.

        Args:
            **kwargs: Further arguments of the model.

        Returns:
            The encoder, untrained.

        Raises:
            ValueError: If there is no such model, or its bands or size do not fit.
        """
        known = timm.list_models('channelmae_*')
        if self.hparams['model'] not in known:
            raise ValueError(
                f'Model {self.hparams["model"]!r} is no channel-token encoder'
                f'{did_you_mean(self.hparams["model"], known)}: choose one of '
                f'{", ".join(known)}.'
            )
        encoder: ChannelViT = timm.create_model(
            self.hparams['model'],
            in_chans=self.hparams['in_channels'],
            bands=self.hparams['bands'],
            img_size=self.hparams['size'],
            embed_std=self.hparams['embed_std'],
            **kwargs,
        )
        return encoder

    def configure_models(self) -> None:
        """Initialize the models, keeping a wrong argument's error for later."""
        try:
            self.build_models()
        except ValueError as error:
            self.argument_error = error

    def setup(self, stage: str) -> None:
        """Check the arguments against each other and the data, then load weights.

        Args:
            stage: Either 'fit', 'validate', 'test' or 'predict'. Weights are loaded
                for 'fit' alone, and not if the run resumes from a checkpoint: one
                checkpoint has to be enough to evaluate or go on.

        Raises:
            ValueError: If an argument does not fit, or the weights are another model's.
            FileNotFoundError: If `weights` is neither a file nor a name.
        """
        if self.argument_error is not None:
            raise self.argument_error
        # Scores are computed alike in all processes, from the predictions of all.
        warnings.filterwarnings('ignore', message=r'It is recommended .*sync_dist=True')
        datamodule = getattr(self.trainer, 'datamodule', None)
        bands = getattr(datamodule, 'bands', None)
        if bands is not None and tuple(bands) != self.model.bands:
            raise ValueError(
                f'The model has the bands {", ".join(self.model.bands)}, but the data '
                f'has {", ".join(bands)}: name the same bands, in the same order, in '
                f'model.init_args.bands and data.init_args.bands.'
            )
        size = getattr(datamodule, 'size', None)
        if isinstance(size, int):
            if isinstance(self.model, Peer):
                self.model.check_image(size)
            else:
                check_image(self.model, size)
        starts = stage == 'fit' and requested_checkpoint(self.trainer) is None
        if starts:
            if self.weights:
                self.load_weights(self.weights)
            self.start_afresh()
        if isinstance(self.model, Peer):
            look_at_data(self.model, datamodule, starts)

    def start_afresh(self) -> None:
        """Change what a new training starts from, after weights were loaded."""

    def load_weights(self, weights: WeightsEnum | str) -> LoadReport:
        """Load pretrained weights into the encoder, log what arrived and return it."""
        policy: FreshBands = self.hparams.get('fresh_bands', 'sample')
        published = check_published(self.hparams['model'], weights)
        tensors, past = read_weights(weights), read_provenance(weights)
        if isinstance(self.model, ChannelViT):
            report = load_encoder(self.model, tensors, policy)
        elif isinstance(self.model, Peer):
            report = load_plain(self.model, self.model.named(tensors))
        elif published is not None:
            datamodule = getattr(self._trainer, 'datamodule', None)
            report = load_published(self.model, published, tensors, datamodule)
        else:
            last = past.trainings[-1].record if past.trainings else None
            report = load_own(self.model, tensors, last.bands if last else None)
        self.provenance = self.provenance.started_from(past)
        rank_zero_info(f'Weights {weights}: {report}')
        trainer = getattr(self, '_trainer', None)  # none is needed to load weights
        own = normalization_of(getattr(trainer, 'datamodule', None))
        if told := difference(read_normalization(weights), own):
            rank_zero_warn(
                f'The images of weights {weights} were normalised notably differently '
                f'in the same bands: {told}; give the datamodule the statistics of '
                f'those where they are of the same product.'
            )
        self.load_further(weights, tensors)
        return report

    def load_further(
        self, weights: WeightsEnum | str, tensors: Mapping[str, Tensor]
    ) -> None:
        """Load what a task has beside its encoder.

        Args:
            weights: The weights, for the log.
            tensors: All their tensors by name.
        """

    @property
    def data_record(self) -> DataRecord | None:
        """What training on the present data reads; None where they don't tell."""
        record = getattr(getattr(self.trainer, 'datamodule', None), 'record', None)
        return record if isinstance(record, DataRecord) else None

    def on_fit_start(self) -> None:
        """Use what a tuning callback found."""
        super().on_fit_start()
        apply_tuning(self)

    def on_train_start(self) -> None:
        """Note what this training reads, beside what a resumed one has read."""
        super().on_train_start()
        training = Training(self.data_record, self.supervised)
        self.provenance = self.provenance.trained(training)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what was read."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[KEY] = self.provenance.state()
        datamodule = getattr(self.trainer, 'datamodule', None)
        checkpoint[NORMALIZATION] = normalization_of(datamodule)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what was read, unknown where the checkpoint does not tell."""
        super().on_load_checkpoint(checkpoint)
        restore_scaling(self.model, checkpoint.get('state_dict', {}))
        self.provenance = from_state(checkpoint.get(KEY))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed what a step draws (drop path, dropout) by the step alone, log its lr."""
        address = (global_seed(), 'step', self.global_step, batch_idx, self.global_rank)
        torch.manual_seed(derive_seed(*address))
        groups = self.trainer.optimizers[0].param_groups
        self.log('lr', max(group['lr'] for group in groups))


def sample_keys(index: Tensor, *address: int | str) -> Tensor:
    """Make one random key a sample from its index.

    Args:
        index: (B,) int64, each sample's index in its dataset.
        address: What the draw is for, e.g. ``(seed, 'mask', epoch)``.

    Returns:
        (B,) int64 keys.
    """
    return index + derive_seed(*address)
