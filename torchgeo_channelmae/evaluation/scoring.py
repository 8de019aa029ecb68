"""Scoring a multi-label task: whole sets at once, each sample counted once."""

from typing import Any, override

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torchgeo.datasets import BigEarthNet
from torchgeo.datasets.utils import Sample

from ..provenance.overlap import Verdict, check_not_trained_on, judge
from ..provenance.record import DataRecord, Provenance
from .breakdown import patch_table, per_country
from .metrics import evaluate, multilabel_scores, per_class, tune_thresholds
from .predictions import PredictionStore
from .report import overlap_line, score_report, write_predictions, write_report


class EvaluationMixin(LightningModule):
    """Validation, test and prediction of a multi-label task.

    See :class:`~torchgeo_channelmae.tasks.CrossModalClassification` for what is logged
    and written.
    """

    criterion: nn.BCEWithLogitsLoss
    provenance: Provenance
    data_record: DataRecord | None

    #: Per-class thresholds tuned on validation, (K,), saved with the checkpoint; NaN
    #: before the first validation.
    thresholds: Tensor

    def start_evaluation(self, num_labels: int) -> None:
        """Make room for predictions and thresholds.

        Args:
            num_labels: Number of classes.
        """
        self.predictions = PredictionStore()
        start = torch.full((max(num_labels, 1),), torch.nan)
        self.register_buffer('thresholds', start)

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
            getattr(self._datamodule, 'test_name_spaces', ()),
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
            getattr(self._datamodule, 'test_name_spaces', ()),
        )

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
        self.predictions.update(
            batch['index'], probabilities=probabilities, patch_id=_names(batch)
        )
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
            patch_id=_names(batch),
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
        patches = patch_table(
            rows['patch_id'],
            labels,
            self.class_names,
            getattr(datamodule, 'test_frame', None),
        )
        countries = per_country(
            probabilities,
            labels,
            thresholds if tuned else None,
            patches['country'].tolist(),
        )
        note = getattr(datamodule, 'note', None)
        report = score_report(scores, classes, groups, seeds, note, verdict, countries)
        rank_zero_info(f'\n{report}')
        folder = self.trainer.log_dir  # all processes have to ask for it
        if self.trainer.is_global_zero:
            write_report(folder, report, classes, countries, patches)
            write_predictions(folder, rows['patch_id'], probabilities, self.class_names)

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


def _names(batch: Sample) -> list[str]:
    """Names of a batch's patches, else their numbers."""
    names: list[str] | None = batch.get('patch_id')
    return [str(n) for n in batch['index'].tolist()] if names is None else list(names)
