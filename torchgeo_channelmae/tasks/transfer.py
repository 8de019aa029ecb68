"""Transfer: fine-tune an encoder on another sensor and score it."""

from typing import Any, Literal, override

import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW
from torchgeo.datasets import BigEarthNet
from torchgeo.datasets.utils import Sample
from torchgeo.tasks import Classification
from torchmetrics import MetricCollection
from torchvision.models import WeightsEnum

from ..gather import PredictionStore
from ..metrics import evaluate, multilabel_scores, per_class, tune_thresholds
from ..overlap import Verdict, check_not_trained_on, judge
from .mixins import ChannelTaskMixin
from .optim import layer_decay_groups, scaled_lr, schedule
from .reports import overlap_line, score_report, write_predictions, write_report


class CrossModalClassification(ChannelTaskMixin, Classification):
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
    package and datamodules with ``record`` and, for a test, ``test_tiles`` and
    ``test_patches``; weights that are put into the model by hand go unnoticed. A test
    on patches whose labels were trained on is refused.
    """

    ignore = ('weights',)
    supervised = True

    #: Per-class thresholds tuned on validation, (K,), saved with the checkpoint; NaN
    #: before the first validation.
    thresholds: Tensor

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
        global_pool: Literal['avg', 'token'] = 'avg',
        drop_path: float = 0.1,
        layer_decay: float = 0.75,
        base_lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.05,
        warmup_epochs: float = 5,
    ) -> None:
        """Initialize a new CrossModalClassification instance.

        Args:
            model: Name of the encoder: ``channelmae_{tiny,small,base,large}`` with
                ``_patch8`` or ``_patch16``.
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
            global_pool: Feature of an image: mean over tokens, or the class token.
            drop_path: Stochastic depth rate of the last block.
            layer_decay: Factor of the learning rate from one layer to the next below.
            base_lr: Learning rate of the head at a global batch of 256; it grows with
                the batch.
            betas: AdamW's betas.
            weight_decay: AdamW's weight decay, not on norms, biases and embeddings.
            warmup_epochs: Epochs of linear warm-up before the cosine.
        """
        super().__init__(weights=weights)
        self.predictions = PredictionStore()
        num = num_labels if num_labels > 0 else 1
        self.register_buffer('thresholds', torch.full((num,), torch.nan))

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
        self.model = self.create_encoder(
            num_classes=hparams['num_labels'],
            global_pool=hparams['global_pool'],
            drop_path_rate=hparams['drop_path'],
        )

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
        groups = layer_decay_groups(
            self.model, lr, hparams['weight_decay'], hparams['layer_decay']
        )
        optimizer = AdamW(groups, lr=lr, betas=tuple(hparams['betas']))
        return schedule(self, optimizer, hparams['warmup_epochs'])

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the outputs."""
        if self.hparams['labels']:
            return list(self.hparams['labels'])
        if self.hparams['num_labels'] == 19:
            return list(BigEarthNet.class_sets[19])
        return [str(number) for number in range(self.hparams['num_labels'])]

    @property
    def _datamodule(self) -> Any:
        return getattr(self.trainer, 'datamodule', None)

    def _verdict(self) -> Verdict:
        """Compare what the datamodule tells with what pretraining read."""
        return judge(
            self.provenance,
            self.data_record,
            getattr(self._datamodule, 'test_tiles', None),
            getattr(self._datamodule, 'test_patches', None),
        )

    @override
    def on_train_start(self) -> None:
        """Say what the weights that training starts from have read."""
        super().on_train_start()
        rank_zero_info(overlap_line(self._verdict()))

    @override
    def on_test_start(self) -> None:
        """Refuse to score patches that were trained on.

        Raises:
            ValueError: If there are such.
        """
        super().on_test_start()
        check_not_trained_on(
            self.provenance,
            getattr(self._datamodule, 'test_patches', None),
            getattr(self._datamodule, 'test_patch_names', None),
        )

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
        logits = self(batch['image'])
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

    @override
    def validation_step(
        self, batch: Sample, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep each sample's probabilities and loss.

        Args:
            batch: The output of your DataLoader.
            batch_idx: Integer displaying index of this batch.
            dataloader_idx: Index of the current dataloader.
        """
        self._keep(batch)

    @override
    def test_step(self, batch: Sample, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep each sample's probabilities and loss.

        Args:
            batch: The output of your DataLoader.
            batch_idx: Integer displaying index of this batch.
            dataloader_idx: Index of the current dataloader.
        """
        self._keep(batch)

    @override
    def predict_step(
        self, batch: Sample, batch_idx: int, dataloader_idx: int = 0
    ) -> Tensor:
        """Compute the probability of every class.

        Args:
            batch: The output of your DataLoader.
            batch_idx: Integer displaying index of this batch.
            dataloader_idx: Index of the current dataloader.

        Returns:
            (B, K) probabilities.
        """
        if 'image' not in batch:  # all samples were skipped
            return torch.empty(0, len(self.class_names))
        probabilities: Tensor = self(batch['image']).float().sigmoid()
        index = batch['index']
        names = batch.get('patch_id', [str(number) for number in index.tolist()])
        self.predictions.update(index, probabilities=probabilities, patch_id=names)
        return probabilities

    def _keep(self, batch: Sample) -> None:
        if 'image' not in batch:  # all samples were skipped
            return
        logits = self(batch['image']).float()
        labels = batch['label']
        losses = nn.functional.binary_cross_entropy_with_logits(
            logits,
            labels.to(logits.dtype),
            pos_weight=self.criterion.pos_weight,
            reduction='none',
        )
        self.predictions.update(
            batch['index'],
            probabilities=logits.sigmoid(),
            labels=labels,
            loss=losses.mean(dim=1),
        )

    def _collect(self) -> dict[str, Any]:
        rows = self.predictions.gather()
        self.predictions.reset()
        return rows

    @override
    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation set and tune thresholds on it."""
        rows = self._collect()
        if self.trainer.sanity_checking:
            return
        probabilities, labels = rows['probabilities'], rows['labels']
        scores = multilabel_scores(probabilities, labels)
        self.log('val_loss', rows['loss'].double().mean().float(), prog_bar=True)
        self.log_dict({f'val_{name}': value for name, value in scores.items()})
        self.thresholds.copy_(tune_thresholds(probabilities, labels))

    @override
    def on_test_epoch_end(self) -> None:
        """Log the scores of the test set and write its reports."""
        rows = self._collect()
        datamodule = self._datamodule
        groups = getattr(datamodule, 'test_groups', 5)
        seeds = list(getattr(datamodule, 'test_group_seeds', (0, 1, 2)))
        thresholds = self.thresholds.cpu()
        tuned = bool(thresholds.isfinite().all())
        probabilities, labels = rows['probabilities'], rows['labels']
        scores = evaluate(
            probabilities,
            labels,
            thresholds if tuned else None,
            groups,
            seeds,
            getattr(datamodule, 'train_class_frequencies', None),
        )
        self.log('test_loss', rows['loss'].double().mean().float())
        self.log_dict({f'test_{name}': value for name, value in scores.items()})
        verdict = self._verdict()
        self.log_dict({f'test_{k}': value for k, value in verdict.numbers().items()})
        classes = per_class(
            probabilities, labels, thresholds if tuned else None, self.class_names
        )
        note = getattr(datamodule, 'note', None)
        report = score_report(scores, classes, groups, seeds, note, verdict)
        rank_zero_info(f'\n{report}')
        folder = self.trainer.log_dir  # all processes have to ask for it
        if self.trainer.is_global_zero:
            write_report(folder, report, classes)

    @override
    def on_predict_epoch_end(self) -> None:
        """Write ``predictions.csv``: patch id and one probability a class."""
        rows = self._collect()
        folder = self.trainer.log_dir  # all processes have to ask for it
        if self.trainer.is_global_zero:
            path = write_predictions(
                folder,
                rows['patch_id'],
                rows['probabilities'],
                self.class_names,
            )
            rank_zero_info(f'Predictions of {len(rows["index"])} patches: {path}')
