"""Score a multi-label task over whole sets, each sample counted once."""

from typing import Any, override

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchgeo.datasets import BigEarthNet
from torchgeo.datasets.utils import Sample

from ..facts import data_facts, test_facts
from ..provenance.overlap import Verdict, check_not_trained_on, judge
from ..provenance.record import DataRecord, Provenance
from . import report
from .metrics import evaluate, multilabel_scores, per_class, tune_thresholds
from .predictions import PredictionStore, sample_names, sample_numbers


class EvaluationMixin(LightningModule):
    """Validation, test and prediction of a multi-label task.

    See :class:`~torchgeo_channelmae.tasks.CrossModalClassification` for what is logged
    and written.

    Attributes:
        thresholds: (K,) thresholds per class, tuned on validation and saved with the
            checkpoint; NaN before the first validation.
        val_patches: Number of patches that they were tuned on, saved as well; 0 if
            unknown.
    """

    criterion: nn.BCEWithLogitsLoss
    provenance: Provenance
    data_record: DataRecord | None
    datamodule: Any
    thresholds: Tensor
    val_patches: Tensor

    def start_evaluation(self, num_labels: int) -> None:
        """Create empty predictions and thresholds for ``num_labels`` classes."""
        self.predictions = PredictionStore()
        self.register_buffer('thresholds', torch.full((num_labels,), torch.nan))
        self.register_buffer('val_patches', torch.tensor(0))

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read a checkpoint that does not have ``val_patches``, too."""
        super().on_load_checkpoint(checkpoint)
        checkpoint.get('state_dict', {}).setdefault('val_patches', torch.tensor(0))

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the outputs."""
        count = self.hparams['num_labels']
        known = BigEarthNet.class_sets[19] if count == 19 else map(str, range(count))
        return list(self.hparams['labels'] or known)

    def _verdict(self) -> Verdict:
        """Compare the data with what pretraining read."""
        facts = test_facts(self.datamodule)
        tested = facts.tiles, facts.patches, facts.name_spaces
        return judge(self.provenance, self.data_record, *tested)

    @override
    def on_train_start(self) -> None:
        """Log what the pretraining of the weights read."""
        super().on_train_start()
        rank_zero_info(report.overlap_line(self._verdict()))

    @override
    def on_test_start(self) -> None:
        """Refuse to score patches whose labels were learned."""
        super().on_test_start()
        facts = test_facts(self.datamodule)
        tested = facts.patches, facts.patch_names, facts.name_spaces
        check_not_trained_on(self.provenance, *tested)

    @override
    def validation_step(
        self, batch: Sample, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Store probabilities, labels and loss of each sample."""
        if 'image' not in batch:  # all samples were skipped
            return
        logits, labels = self(batch['image']).float(), batch['label']
        options: Any = {'pos_weight': self.criterion.pos_weight, 'reduction': 'none'}
        losses = binary_cross_entropy_with_logits(logits, labels.float(), **options)
        rows = {'labels': labels, 'loss': losses.mean(dim=1)}
        place = batch, batch_idx, dataloader_idx
        self._store(*place, probabilities=logits.sigmoid(), **rows)

    test_step = validation_step

    @override
    def predict_step(
        self, batch: Sample, batch_idx: int, dataloader_idx: int = 0
    ) -> Tensor:
        """Return the probability of every class, (B, K)."""
        if 'image' not in batch:  # all samples were skipped
            return torch.empty(0, self.hparams['num_labels'])
        probabilities: Tensor = self(batch['image']).float().sigmoid()
        self._store(batch, batch_idx, dataloader_idx, probabilities=probabilities)
        return probabilities

    def _store(
        self, batch: Sample, batch_idx: int, dataloader_idx: int, **columns: Tensor
    ) -> None:
        numbers = sample_numbers(self.trainer, batch, batch_idx, dataloader_idx)
        names = sample_names(batch, numbers)
        self.predictions.update(numbers, patch_id=names, **columns)

    @override
    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation set and tune thresholds on it."""
        rows = self.predictions.gather()
        if self.trainer.sanity_checking:
            return
        probabilities, labels = rows['probabilities'], rows['labels']
        scores = multilabel_scores(probabilities, labels)
        self._log_scores('val', rows['loss'], scores | {'patches': float(len(labels))})
        self.val_patches.fill_(len(labels))
        self.thresholds.copy_(tune_thresholds(probabilities, labels))

    @override
    def on_test_epoch_end(self) -> None:
        """Log the scores of the test set and write its reports."""
        rows, names = self.predictions.gather(), self.class_names
        data, facts = data_facts(self.datamodule), test_facts(self.datamodule)
        tuned = self.thresholds.cpu() if self.thresholds.isfinite().all() else None
        scored = rows['probabilities'], rows['labels'], tuned
        split = facts.groups, list(facts.group_seeds)
        scores = evaluate(*scored, *split, facts.frequencies)
        if tuned is not None and self.val_patches:
            scores['val_patches'] = float(self.val_patches)
        verdict = self._verdict()
        self._log_scores('test', rows['loss'], scores | verdict.numbers())

        classes = per_class(*scored, names)
        ids = rows['patch_id']
        patches = report.patch_table(ids, rows['labels'], names, facts.frame)
        countries = report.per_country(*scored, patches['country'].tolist())
        note = data.note if data else None
        page = report.score_report(scores, classes, *split, note, verdict, countries)
        rank_zero_info(f'\n{page}')
        files = {
            'scores.md': page,
            'per_class.csv': classes.to_csv(),
            'patches.csv': patches.to_csv(index=False),
            'predictions.csv': report.predictions_csv(ids, scored[0], names),
        }
        if len(countries):
            files['per_country.csv'] = countries.to_csv()
        self._write(files)

    @override
    def on_predict_epoch_end(self) -> None:
        """Write ``predictions.csv``."""
        rows = self.predictions.gather()
        ids, probabilities = rows['patch_id'], rows['probabilities']
        table = report.predictions_csv(ids, probabilities, self.class_names)
        self._write({'predictions.csv': table})
        rank_zero_info(f'Wrote predictions.csv for {len(ids)} patches.')

    def _log_scores(self, stage: str, losses: Tensor, scores: dict[str, float]) -> None:
        """Log the mean loss and the scores, which are the same on all ranks."""
        loss, shown = losses.double().mean().float(), stage == 'val'
        self.log(f'{stage}_loss', loss, prog_bar=shown, sync_dist=True)
        named = {f'{stage}_{name}': value for name, value in scores.items()}
        self.log_dict(named, sync_dist=True)

    def _write(self, files: dict[str, str]) -> None:
        folder = self.trainer.log_dir  # a collective call
        if self.trainer.is_global_zero:
            report.write_files(folder, files)
