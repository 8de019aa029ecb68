"""Checkpoints that are written whole and resume training exactly."""

import os
import shutil
import warnings
from pathlib import Path
from typing import Any, override

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from ..files import whole


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ``ModelCheckpoint``, resumable wherever training stops.

    If training stops inside an epoch, Lightning counts the epoch as completed before it
    calls ``ModelCheckpoint``, and resuming skips the rest. This callback saves earlier:
    after the last batch or, to monitor a metric, after the validation that follows it.

    Checkpoints do not contain gradients, so with ``accumulate_grad_batches`` saving and
    stopping wait for the optimizer step.

    The defaults write ``last.ckpt`` after each epoch; ``filename: best`` and a
    ``monitor`` keep the best epoch.
    """

    def __init__(
        self,
        filename: str = 'last',
        save_on_train_epoch_end: bool = True,
        enable_version_counter: bool = False,
        **kwargs: Any,
    ) -> None:
        """Initialize a new RunCheckpoint instance.

        Args:
            filename: Name of the file, without its suffix.
            save_on_train_epoch_end: Save after the epoch, not after its validation, so
                that a resumed run starts with the next epoch.
            enable_version_counter: Number the files instead of overwriting them.
            **kwargs: Other arguments of ``ModelCheckpoint``.
        """
        super().__init__(
            filename=filename,
            save_on_train_epoch_end=save_on_train_epoch_end,
            enable_version_counter=enable_version_counter,
            **kwargs,
        )
        self._stop = False
        self._initial = self.state_dict()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Resolve the folder, without a warning that it contains files."""
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='Checkpoint directory .* exists')
            super().setup(trainer, pl_module, stage)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score, if its checkpoint is in this run's folder."""
        best = Path(state_dict['best_model_path'])
        if best.is_file() and str(best.parent) == str(self.dirpath):
            super().load_state_dict(state_dict)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget a best score whose checkpoint was moved aside with an earlier run."""
        super().on_train_start(trainer, pl_module)
        if self.best_model_path and not Path(self.best_model_path).is_file():
            super().load_state_dict(
                {**self._initial, 'dirpath': self.dirpath, 'best_k_models': {}}
            )

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Save if it is time to, or if training stops here."""
        batches = trainer.fit_loop.epoch_loop.batch_progress
        if not batches.is_last_batch:
            if batches.current.ready % trainer.accumulate_grad_batches:
                self._stop |= trainer.should_stop
                trainer.should_stop = False
                return
            trainer.should_stop |= self._stop
            self._stop = False
        super().on_train_batch_end(trainer, pl_module, *args, **kwargs)
        if self.monitor is None and _stops_inside_epoch(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if it is time to, or if training stops here."""
        super().on_validation_end(trainer, pl_module)
        if _stops_inside_epoch(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, unless the epoch was cut short."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            super().on_train_epoch_end(trainer, pl_module)


def _stops_inside_epoch(trainer: Trainer) -> bool:
    epoch, step = trainer.current_epoch, trainer.global_step
    may_stop = epoch >= (trainer.min_epochs or 0) and step >= (trainer.min_steps or 0)
    stops = (trainer.should_stop and may_stop) or 0 <= trainer.max_steps <= step
    return stops and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a local checkpoint whole or not at all, beside its final place."""

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None
    ) -> None:
        """Save a checkpoint, and delete the remains of a killed write."""
        if storage_options is not None or '://' in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        for partial in target.parent.glob(f'.{target.name}.*'):
            shutil.rmtree(partial, ignore_errors=True)
        with whole(target) as part, part.open('wb') as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
