"""A callback that writes down what happens at each training step, a file a process."""

import json
from pathlib import Path

from lightning.pytorch import Callback


class WriteLosses(Callback):
    """Writes ``losses-RANK.json``: losses and bands of batches, decay of parameters."""

    def on_train_start(self, trainer, task):
        self.losses, self.bands = [], []

    def on_after_backward(self, trainer, task):
        self.bands.append(task.model.chosen)

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        self.losses.append(outputs['loss'].item())

    def on_train_end(self, trainer, task):
        groups = trainer.optimizers[0].param_groups
        decay = {id(p): g['weight_decay'] for g in groups for p in g['params']}
        told = {
            'losses': self.losses,
            'bands': self.bands,
            'decay': {
                name.replace('_fsdp_wrapped_module.', ''): decay.get(id(p))
                for name, p in task.named_parameters()
            },
        }
        file = Path(trainer.default_root_dir) / f'losses-{trainer.global_rank}.json'
        file.write_text(json.dumps(told))
