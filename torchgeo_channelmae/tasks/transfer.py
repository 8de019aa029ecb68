"""Transfer: fine-tune an encoder on another sensor and score it."""

from typing import Any, Literal, Self, override

import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchgeo.datasets.utils import Sample
from torchgeo.tasks import Classification
from torchmetrics import MetricCollection
from torchvision.models import WeightsEnum

from ..evaluation.scoring import EvaluationMixin
from ..models.controls import create_model
from ..models.head import keep_precision
from ..randomness import derive_seed, global_seed
from ..sensors import default_names
from .base import ChannelTaskMixin
from .optim import create_optimizer, layer_decay_groups, scaled_lr, schedule
from .trainable import (
    describe,
    find_parts,
    freeze_others,
    parts_in,
    reinitialize,
    set_frozen_eval,
)


class CrossModalClassification(EvaluationMixin, ChannelTaskMixin, Classification):
    """Multi-label classification with an encoder pretrained on another sensor.

    TorchGeo's ``Classification`` with a channel-token encoder: weights are loaded by
    band name when fitting starts, the encoder is trained with layer-wise learning rate
    decay, and scores are computed once over the whole set, each sample counted once.

    Batches need a normalized ``image`` (B, C, H, W) and ``label`` (B, K); ``patch_id``
    names the rows of predictions, otherwise they are numbered.

    Logs after validation ``val_loss``, ``val_mAP_micro``, ``val_mAP_macro``,
    ``val_F1_micro``, ``val_F1_macro`` and ``val_patches``, the number of patches; after
    a test the same scores with ``test_``, each also with ``_mean`` and ``_std`` over
    the datamodule's random subsets, F1 at thresholds tuned on validation (``_tuned``)
    and on how many patches (``test_val_patches``), and the floor of predicting the
    class frequencies of the training set (``test_floor_...``). A test writes the scores
    to ``scores.md``, ``per_class.csv`` and ``per_country.csv``.

    Logs also what the test shares with the pretraining of the weights, 1 for true, 0
    for false and NaN for unknown: ``test_sensor_free`` and ``test_overlap_free`` if
    pretraining never read the sensor of this task; ``test_place_overlap``, the fraction
    of test patches on MGRS tiles that pretraining read, and ``test_place_free`` if it
    is zero; ``test_label_free`` if pretraining used no labels; ``test_patch_overlap``,
    the fraction of test patches that pretraining read. This needs checkpoints of this
    package and the datamodule's ``facts`` and ``test_facts``. A test on patches whose
    labels were trained on is refused, or warned of if their names cannot be compared.
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
        pos_weight: list[float] | None = None,
        fresh_bands: Literal['sample', 'index', 'nearest', 'random'] = 'sample',
        trainable: str = 'all',
        reinit: list[str] | None = None,
        global_pool: Literal['avg', 'token'] = 'avg',
        drop_path: float = 0.1,
        grad_checkpointing: bool = False,
        layer_decay: float = 0.75,
        optimizer: str = 'adamw',
        optimizer_options: dict[str, Any] | None = None,
        base_lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.05,
        warmup_epochs: float = 5,
        loss: str = 'bce',
    ) -> None:
        """Initialize a new CrossModalClassification instance.

        Args:
            model: Name of the encoder: ``channelmae_{nano,tiny,small,base,large}`` with
                ``_patch8`` or ``_patch16``; or another timm model, such as
                ``resnet50``, or a foundation model of TorchGeo
                (:data:`~torchgeo_channelmae.models.peers.PEERS`), such as
                ``dofa_base_patch16_224``, which do not use `embed_std`, `fresh_bands`
                and `global_pool`.
            weights: Encoder weights to start from: a checkpoint, a ``.safetensors``
                file, or TorchGeo weights; None to train from scratch. Loaded when
                fitting starts, so evaluating a checkpoint does not need them.
            in_channels: Number of bands.
            bands: Names of the bands, in the order of the channels. Defaults to
                :func:`~torchgeo_channelmae.sensors.default_names` of `in_channels`.
            size: Side of images in pixels; pretrained positions are resampled to it.
            embed_std: Standard deviation of initial positions and band embeddings.
            num_labels: Number of classes.
            labels: Names of the classes. Defaults to BigEarthNet's if there are 19.
            pos_weight: Weight of the positives of each class.
            fresh_bands: Initialization of bands that the weights do not have, see
                :data:`~torchgeo_channelmae.models.fresh_bands.FreshBands`.
            trainable: ``all``, or the parts to train, joined by ``+``:
                ``patch_embed``, ``spectral`` (the band embeddings), ``positions``,
                ``blocks`` and ``head``. The others are frozen, in eval mode.
            reinit: Parts to initialize again after weights are loaded.
            global_pool: Feature of an image: mean over tokens, or the class token.
            drop_path: Stochastic depth rate of the last block.
            grad_checkpointing: Recompute activations in the backward pass (activation
                checkpointing): less memory, more time. Not every model can.
            layer_decay: Factor of the learning rate from one layer to the next below.
                Used only if all parts are trained; otherwise every trained part uses
                the head's rate.
            optimizer: Name of the optimizer in timm's factory, such as ``adamw`` or
                ``muon``, which trains the matrices of the blocks by Muon and the rest
                by AdamW; for models without blocks see
                :func:`~torchgeo_channelmae.tasks.optim.fallback_names`.
            optimizer_options: Further arguments of the optimizer, such as
                ``{nesterov: true, fallback_lr_scale: 0.1}`` for ``muon``.
            base_lr: Learning rate of the head at a global batch of 256; scales with it,
                for ``muon`` with its square root.
            betas: Betas of AdamW and of Muon's AdamW; others use them if they have two.
            weight_decay: Weight decay, not for norms, biases and embeddings.
            warmup_epochs: Epochs of linear warm-up before the cosine.
            loss: Deprecated, ignored.
        """
        super().__init__(weights=weights, task='multilabel', loss='bce')

    @override
    def build_models(self) -> None:
        """Create the encoder with its head."""
        hparams, num_labels = self.hparams, self.hparams['num_labels']
        if num_labels < 1:
            raise ValueError(f'num_labels is {num_labels}. Give at least 1.')
        for name in ('labels', 'pos_weight'):
            if hparams[name] is not None and len(hparams[name]) != num_labels:
                raise ValueError(
                    f'{name} has {len(hparams[name])} entries, num_labels is '
                    f'{num_labels}. Give one entry per class.'
                )
        if not 0 <= hparams['drop_path'] < 1:
            raise ValueError(f'drop_path {hparams["drop_path"]} is outside [0, 1).')
        self.start_evaluation(num_labels)
        self.model = self._create_model()
        keep_precision(self.model)
        self.parts = find_parts(hparams['trainable'], self.model, 'trainable')
        find_parts(hparams['reinit'] or (), self.model, 'reinit')
        if hparams['grad_checkpointing']:
            try:
                self.model.set_grad_checkpointing(True)
            except (AttributeError, AssertionError) as error:  # timm raises either
                raise ValueError(
                    f'Model {hparams["model"]!r} does not support grad_checkpointing. '
                    f'Set it to false.'
                ) from error

    def _create_model(self) -> Any:
        hparams = self.hparams
        name, count = hparams['model'], hparams['in_channels']
        head = {
            'num_classes': hparams['num_labels'],
            'drop_path_rate': hparams['drop_path'],
        }
        if name.startswith('channelmae_'):
            return self.create_encoder(global_pool=hparams['global_pool'], **head)
        bands = hparams['bands'] or default_names(count)
        if len(bands) != count:
            raise ValueError(
                f'in_channels is {count}, but bands names {len(bands)} '
                f'({", ".join(bands)}). Make them agree.'
            )
        return create_model(name, bands, size=hparams['size'], **head)

    @override
    def reinitialize(self) -> None:
        """Initialize the parts of `reinit` again."""
        if parts := self.hparams['reinit']:
            seed = derive_seed(global_seed(), 'reinit')
            names = reinitialize(self.model, self._create_model, parts, seed)
            rank_zero_info(f'Initialized again (reinit): {", ".join(names)}.')

    @override
    def setup(self, stage: str) -> None:
        """Check the model against the data; for a fit, load weights and freeze."""
        super().setup(stage)
        if stage == 'fit':
            freeze_others(self.model, self.parts)
            rank_zero_info(describe(self.model, self.parts))

    @override
    def on_train_epoch_start(self) -> None:
        """Keep frozen parts in eval mode."""
        super().on_train_epoch_start()
        set_frozen_eval(self.model, self.parts)

    @override
    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for frozen parts."""
        super().train(mode)
        if mode and hasattr(self, 'parts'):
            set_frozen_eval(self.model, self.parts)
        return self

    @override
    def configure_losses(self) -> None:
        """Create the binary cross-entropy."""
        weight = self.hparams['pos_weight']
        weight = None if weight is None else torch.tensor(weight)
        self.criterion = nn.BCEWithLogitsLoss(pos_weight=weight)

    @override
    def configure_metrics(self) -> None:
        """Score whole sets at the end of an epoch instead of batch by batch."""
        self.train_metrics = MetricCollection({})

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create the optimizer with layer-wise learning rates for the global batch."""
        hparams, name = self.hparams, self.hparams['optimizer']
        lr = scaled_lr(hparams['base_lr'], self.trainer, name)
        learn_all = set(self.parts) == set(parts_in(self.model))
        layer_decay = hparams['layer_decay'] if learn_all else 1.0
        decays = hparams['weight_decay'], layer_decay
        groups = layer_decay_groups(self.model, lr, *decays, name)
        optimizer = create_optimizer(groups, lr, hparams)
        return schedule(self, optimizer, hparams['warmup_epochs'])

    def compute(self, image: Tensor) -> Tensor:
        """Return the logits (B, K) of a training batch (B, C, H, W)."""
        logits: Tensor = self(image)
        return logits

    @override
    def training_step(
        self, batch: Sample, batch_idx: int, dataloader_idx: int = 0
    ) -> Tensor:
        """Compute and log the training loss."""
        logits = self.compute(batch['image'])
        loss: Tensor = self.criterion(logits, batch['label'].to(logits.dtype))
        self.log_means({'train_loss': loss}, len(logits))
        return loss
