"""Callbacks that write what happens at each training step, or spoil one."""

import json
from pathlib import Path

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint


class WriteSteps(Callback):
    """Writes ``steps-RANK.json``: losses, masks and gradients, last weights."""

    def on_train_start(self, trainer, task):
        self.steps, masking = [], getattr(task, 'masking', None)

        def watched(keys, *rest):
            mask = masking(keys, *rest)
            if self.steps:  # validation comes after a batch's own, or before any
                self.steps[-1].setdefault('visible', mask.visible.tolist())
            return mask

        if masking is not None:
            task.__dict__['masking'] = watched

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        index = batch['index'].tolist()
        self.steps.append({'epoch': trainer.current_epoch, 'index': index})

    def on_after_backward(self, trainer, task):
        trained = [(n, p) for n, p in task.named_parameters() if p.requires_grad]
        self.steps[-1]['without_gradient'] = [n for n, p in trained if p.grad is None]

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        self.steps[-1]['loss'] = outputs['loss'].item()

    def on_train_end(self, trainer, task):
        sums = [each.double().abs().sum().item() for each in task.parameters()]
        self.steps[-1]['weights'] = sums
        file = Path(trainer.default_root_dir) / f'steps-{trainer.global_rank}.json'
        file.write_text(json.dumps(self.steps))


class SaveEachBatch(Checkpoint):
    """Saves where a kill could find any checkpoint: after each batch."""

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        trainer.save_checkpoint(Path(trainer.default_root_dir) / f'{done}.ckpt')
