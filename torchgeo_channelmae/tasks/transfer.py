"""Transfer: fine-tune an encoder on another sensor and score it."""

from typing import Any, Literal, Self, override

import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW
from torchgeo.datasets.utils import Sample
from torchgeo.tasks import Classification
from torchmetrics import MetricCollection
from torchvision.models import WeightsEnum

from ..evaluation.scoring import EvaluationMixin
from ..models.controls import create_plain
from ..models.peers import create_peer, is_peer
from ..randomness import derive_seed, global_seed
from ..sensors import default_names
from .base import ChannelTaskMixin
from .optim import layer_decay_groups, scaled_lr, schedule
from .trainable import (
    check_parts,
    describe,
    freeze_others,
    fresh_copy,
    parts_in,
    rest_others,
    restart,
    trainable_parts,
)


class CrossModalClassification(EvaluationMixin, ChannelTaskMixin, Classification):
    """Multi-label classification with an encoder pretrained on another sensor.

    TorchGeo's ``Classification`` with a channel-token encoder: weights are loaded by
    band name when fitting starts, the encoder learns with layer-wise decay, and scores
    are computed once over the whole set, each sample counted once.

    Batches need ``image`` (B, C, H, W), normalised, ``label`` (B, K) and ``index``
    (B,), each sample's number in its dataset; ``patch_id`` names rows of predictions.

    Logged after validation: ``val_loss``, ``val_mAP_micro``, ``val_mAP_macro``,
    ``val_F1_micro``, ``val_F1_macro``. After a test the same with ``test_``, each also
    with ``_mean`` and ``_std`` over random subsets (how many is the datamodule's
    choice), F1 at thresholds tuned on validation (``_tuned``), and the floor of
    predicting the training set's class frequencies (``test_floor_...``); the scores of
    each class go to ``per_class.csv`` and a summary to ``scores.md``.

    What the test shares with the pretraining of the weights is logged as well, 1 for
    true, 0 for false and NaN for what is not known: ``test_sensor_free``, whether
    pretraining never read the sensor of this task; ``test_place_overlap``, the share of
    test patches on MGRS tiles that pretraining read, and ``test_place_free``, whether
    that is none; ``test_label_free``, whether labels had no part in it;
    ``test_overlap_free``, which is as to the sensor alone; ``test_patch_overlap``, the
    share of test patches that pretraining read. It is known from checkpoints of this
    package and datamodules with ``record`` and, for a test, ``test_tiles``,
    ``test_patches`` and ``test_name_spaces``; weights that are put into the model by
    hand go unnoticed. A test on patches whose labels were trained on is refused; where
    names of other kinds do not tell, it warns.
    """

    ignore = ('weights',)
    supervised = True

    def __init__(
        self,
        model: str = 'channelmae_base_patch16',
        weights: WeightsEnum | str | None = None,
        in_channels: int = 2,
        bands: list[str] | None = None,
        size: int = 128,
        embed_std: float = 0.02,
        num_labels: int = 19,
        labels: list[str] | None = None,
        loss: Literal['bce'] = 'bce',
        pos_weight: list[float] | None = None,
        fresh_bands: Literal['sample', 'index', 'nearest', 'random'] = 'sample',
        trainable: str = 'all',
        reinit: list[str] | None = None,
        global_pool: Literal['avg', 'token'] = 'avg',
        drop_path: float = 0.1,
        grad_checkpointing: bool = False,
        layer_decay: float = 0.75,
        base_lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.05,
        warmup_epochs: float = 5,
    ) -> None:
        """Initialize a new CrossModalClassification instance.

        Args:
            model: Name of the encoder: ``channelmae_{tiny,small,base,large}`` with
                ``_patch8`` or ``_patch16``. Or another of timm, which takes all bands
                at once, such as ``resnet50``, or a foundation model of TorchGeo
                (:data:`~torchgeo_channelmae.models.peers.PEERS`), such as
                ``dofa_base_patch16_224``; `embed_std`, `fresh_bands` and `global_pool`
                are not used there.
            weights: Encoder weights to start from: a checkpoint, a ``.safetensors``
                file, or TorchGeo weights. None to train from scratch. Read when fitting
                starts, so that evaluating a fine-tuned checkpoint does not need them.
            in_channels: Number of bands.
            bands: Their names, in the order of the image's channels. Defaults to those
                that `in_channels` stands for, see
                :func:`~torchgeo_channelmae.sensors.default_names`.
            size: Side of the image in pixels that positions are learned for; pretrained
                ones are resampled to it.
            embed_std: Standard deviation that positions and band embeddings start
                with where no weights are loaded.
            num_labels: Number of classes.
            labels: Names of the classes. Defaults to BigEarthNet's where there are 19.
            loss: Binary cross-entropy of every class.
            pos_weight: Weight of the positives of each class.
            fresh_bands: How bands start that the weights do not know, see
                :data:`~torchgeo_channelmae.models.weights.FreshBands`.
            trainable: What learns: ``all``, or parts with ``+`` between them, of
                ``patch_embed``, ``spectral`` (the band embeddings), ``positions``,
                ``blocks`` and ``head``. The others are as in evaluation.
            reinit: Parts that start afresh, after weights are loaded.
            global_pool: Feature of an image: mean over tokens, or the class token.
            drop_path: Stochastic depth rate of the last block.
            grad_checkpointing: Compute what a block kept for its gradient anew, where
                the model can: less memory, more time.
            layer_decay: Factor of the learning rate from one layer to the next below,
                where all parts learn; parts that learn alone learn like the head.
            base_lr: Learning rate of the head at a global batch of 256; it grows with
                the batch.
            betas: AdamW's betas.
            weight_decay: AdamW's weight decay, not on norms, biases and embeddings.
            warmup_epochs: Epochs of linear warm-up before the cosine.
        """
        super().__init__(weights=weights)
        self.start_evaluation(num_labels)

    @override
    def build_models(self) -> None:
        """Make the encoder with its head."""
        hparams = self.hparams
        if hparams['num_labels'] < 1:
            raise ValueError(
                f'num_labels {hparams["num_labels"]} is too few: give at least 1.'
            )
        for name in ('labels', 'pos_weight'):
            given = hparams[name]
            if given is not None and len(given) != hparams['num_labels']:
                raise ValueError(
                    f'{name} has {len(given)} entries for {hparams["num_labels"]} '
                    f'classes (num_labels): give one a class.'
                )
        if not 0 <= hparams['drop_path'] < 1:
            raise ValueError(f'drop_path {hparams["drop_path"]} is outside [0, 1).')
        self.model = self._create_model()
        self.parts = trainable_parts(hparams['trainable'], self.model)
        check_parts(hparams['reinit'] or (), self.model, 'reinit')
        if hparams['grad_checkpointing']:
            self._checkpoint_blocks()

    def _checkpoint_blocks(self) -> None:
        try:
            self.model.set_grad_checkpointing(True)
        except (AttributeError, AssertionError):  # none, or timm's that refuses
            raise ValueError(
                f'Model {self.hparams["model"]!r} has no gradient checkpointing: leave '
                f'grad_checkpointing false.'
            ) from None

    def _create_model(self) -> Any:
        hparams = self.hparams
        shared = {
            'num_classes': hparams['num_labels'],
            'drop_path_rate': hparams['drop_path'],
        }
        if hparams['model'].startswith('channelmae_'):
            return self.create_encoder(global_pool=hparams['global_pool'], **shared)
        bands = hparams['bands'] or default_names(hparams['in_channels'])
        if len(bands) != hparams['in_channels']:
            raise ValueError(
                f'in_channels is {hparams["in_channels"]}, but bands names '
                f'{len(bands)} ({", ".join(bands)}): make them agree.'
            )
        create = create_peer if is_peer(hparams['model']) else create_plain
        return create(hparams['model'], bands, size=hparams['size'], **shared)

    @override
    def start_afresh(self) -> None:
        """Start the parts of `reinit` anew."""
        parts = self.hparams['reinit']
        if parts:
            seed = derive_seed(global_seed(), 'reinit')
            names = restart(self.model, fresh_copy(self._create_model, seed), parts)
            rank_zero_info(f'Started afresh (reinit): {", ".join(names)}.')

    @override
    def setup(self, stage: str) -> None:
        """Check the arguments, load weights and freeze what does not learn.

        Args:
            stage: Either 'fit', 'validate', 'test' or 'predict'.
        """
        super().setup(stage)
        if stage == 'fit':
            freeze_others(self.model, self.parts)
            rank_zero_info(describe(self.model, self.parts))

    @override
    def on_train_epoch_start(self) -> None:
        """Put what is frozen into eval mode: modules are made in training mode."""
        super().on_train_epoch_start()
        rest_others(self.model, self.parts)

    @override
    def train(self, mode: bool = True) -> Self:
        """Set training mode for what learns alone, whoever asks for it and when."""
        super().train(mode)
        if mode and hasattr(self, 'parts'):
            rest_others(self.model, self.parts)
        return self

    @override
    def configure_losses(self) -> None:
        """Initialize binary cross-entropy."""
        weight = self.hparams['pos_weight']
        self.criterion = nn.BCEWithLogitsLoss(
            pos_weight=None if weight is None else torch.tensor(weight)
        )

    @override
    def configure_metrics(self) -> None:
        """Score whole sets at the end of an epoch instead of batch by batch."""
        self.train_metrics = MetricCollection({})

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Initialize AdamW with layer-wise learning rates for the global batch."""
        hparams = self.hparams
        lr = scaled_lr(hparams['base_lr'], self.trainer)
        learn_all = set(self.parts) == set(parts_in(self.model))
        decay = hparams['layer_decay'] if learn_all else 1.0
        groups = layer_decay_groups(self.model, lr, hparams['weight_decay'], decay)
        optimizer = AdamW(groups, lr=lr, betas=tuple(hparams['betas']), fused=True)
        return schedule(self, optimizer, hparams['warmup_epochs'])

    def compute(self, image: Tensor) -> Tensor:
        """Compute the logits of a training batch, (B, C, H, W) to (B, K)."""
        logits: Tensor = self(image)
        return logits

    @override
    def training_step(
        self, batch: Sample, batch_idx: int, dataloader_idx: int = 0
    ) -> Tensor:
        """Compute the training loss.

        Args:
            batch: The output of your DataLoader.
            batch_idx: Integer displaying index of this batch.
            dataloader_idx: Index of the current dataloader.

        Returns:
            The loss tensor.
        """
        logits = self.compute(batch['image'])
        loss: Tensor = self.criterion(logits, batch['label'].to(logits.dtype))
        self.log(
            'train_loss',
            loss,
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=len(logits),
        )
        return loss
