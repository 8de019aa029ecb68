"""Callbacks that write what happens at each training step, or spoil one."""

import json
from pathlib import Path

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint


class WriteLosses(Callback):
    """Writes ``losses-RANK.json``: losses and bands of batches."""

    def on_train_start(self, trainer, task):
        self.losses, self.bands = [], []

    def on_after_backward(self, trainer, task):
        self.bands.append(task.model.chosen)

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        self.losses.append(outputs['loss'].item())

    def on_train_end(self, trainer, task):
        told = {'losses': self.losses, 'bands': self.bands}
        file = Path(trainer.default_root_dir) / f'losses-{trainer.global_rank}.json'
        file.write_text(json.dumps(told))


class WriteMasks(Callback):
    """Writes ``masks-RANK.json``: what a pretraining's encoder saw of each sample."""

    def on_train_start(self, trainer, task):
        self.seen = []
        masking = getattr(task, 'masking', None)

        def watched(keys, *rest):
            mask = masking(keys, *rest)
            if self.seen:  # validation comes after a batch's own, or before any
                self.seen[-1].setdefault('visible', mask.visible.tolist())
            return mask

        if masking is not None:
            task.__dict__['masking'] = watched

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        address = {'epoch': trainer.current_epoch, 'step': trainer.global_step}
        self.seen.append(address | {'index': batch['index'].tolist()})

    def on_train_end(self, trainer, task):
        file = Path(trainer.default_root_dir) / f'masks-{trainer.global_rank}.json'
        file.write_text(json.dumps(self.seen))


class SaveEachBatch(Checkpoint):
    """Saves where a kill could find any checkpoint: after each batch."""

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        trainer.save_checkpoint(Path(trainer.default_root_dir) / f'{done}.ckpt')


class FailInStep(Callback):
    """Raises in the second step."""

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        if trainer.global_step == 2:
            raise RuntimeError('failed in step 2')
