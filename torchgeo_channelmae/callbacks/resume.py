"""What Lightning leaves out when it resumes inside an epoch.

Lightning stores how many batches of the epoch are done. It does not store the gradients
of a step of which only some batches are accumulated, nor the sums behind the epoch's
mean losses, and it passes over the validation that was due where the checkpoint came
after the last batch of an epoch.
"""

from typing import Any, override

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

KEY = 'sums_of_processes'
"""Where a checkpoint holds each process's sums, {name: (sum of the samples, samples)}.

Not added up: sums that go on apart are added in another order, and round otherwise.
"""

Sums = dict[str, tuple[float, float]]
Parts = dict[str, tuple[Tensor, Tensor]]


class ResumeInsideEpoch(Callback):
    """Makes a resume inside an epoch go on as if it had not been stopped.

    Batches whose step was not complete are repeated, epoch means are those of the whole
    epoch, and an epoch without its validation gets it. Our tasks bring this callback.
    """

    def __init__(self) -> None:
        """Initialise the callback, with nothing to restore."""
        self._before: Sums = {}  # before the training was stopped
        self._whole: Parts = {}  # up to the last complete step
        self._done = 0  # batches of the epoch that is resumed inside

    @override
    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the sums of each process since the epoch began."""
        parts = self._whole if _left_over(trainer) else _parts(_means(trainer))
        sums = {name: (float(value), float(n)) for name, (value, n) in parts.items()}
        checkpoint[KEY] = _of_all(trainer, _added(sums, self._before))

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Read the sums, and put the progress back to the last complete step."""
        if trainer.state.fn != 'fit' or 'loops' not in checkpoint:
            return
        progress = checkpoint['loops']['fit_loop']
        epochs = progress['epoch_progress']['total']
        if epochs['processed'] == epochs['started']:
            return  # saved at the end of an epoch
        self._before = _share(checkpoint.get(KEY, []), trainer)
        if progress['epoch_loop.batch_progress']['is_last_batch']:
            finish_epoch(progress, _validates_in(trainer, progress))
        else:
            repeat_incomplete_step(progress, trainer.accumulate_grad_batches)
        self._done = progress['epoch_loop.batch_progress']['current']['ready']

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the datamodule check what is left of the epoch.

        It does so as it loads the next batch, too, but is not asked for one where
        the epoch now has no more batches than are done.
        """
        check = getattr(getattr(trainer, 'datamodule', None), 'check_resume', None)
        if check is not None:
            check(self._done)
        self._done = 0

    @override
    def on_train_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Forget the epoch before; not called where one is resumed inside."""
        self._before, self._whole = {}, {}

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count what was before, as the first batch has made its metrics."""
        before, self._before = self._before, {}
        means = _means(trainer)
        if before:
            self._whole = {
                name: (torch.tensor(value), torch.tensor(count))
                for name, (value, count) in before.items()
            }
            for name in means.keys() & before.keys():
                mean, (value, count) = means[name], before[name]
                mean.value = mean.value + value
                mean.cumulated_batch_size = mean.cumulated_batch_size + int(count)
        if trainer.accumulate_grad_batches > 1 and not _left_over(trainer):
            self._whole = {
                name: (value.clone(), count.clone())
                for name, (value, count) in _parts(means).items()
            }

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what was before, where no batch was left."""
        before, self._before = self._before, {}
        of_all = _of_all(trainer, before)
        for name in before:
            # In float32, in which the processes add up theirs.
            value = torch.tensor([sums[name][0] for sums in of_all]).sum()
            count = sum(sums[name][1] for sums in of_all)
            pl_module.log(name.partition('.')[2], value / count)


def repeat_incomplete_step(progress: dict[str, Any], accumulated: int) -> None:
    """Take back the batches of a step of which only some were accumulated.

    Args:
        progress: State of Lightning's fit loop, changed in place.
        accumulated: Batches of a step.
    """
    batches = progress['epoch_loop.batch_progress']
    left_over = batches['current']['processed'] % accumulated
    if not left_over:
        return
    total = batches['total']
    for counts in (total, batches['current']):
        for name in counts:
            counts[name] -= left_over
    if total['completed'] < total['ready']:  # Lightning will count the step again
        progress['epoch_loop.state_dict']['_batches_that_stepped'] -= 1


def finish_epoch(progress: dict[str, Any], validates: bool) -> None:
    """Go on with the end of an epoch that was saved after its last batch.

    Args:
        progress: State of Lightning's fit loop, changed in place.
        validates: Whether the epoch ends with a validation.
    """
    batches = progress['epoch_loop.batch_progress']
    if batches['total']['completed'] == batches['total']['ready']:
        return  # saved in the validation, which Lightning goes on with
    for counts in (batches['total'], batches['current']):
        counts['completed'] += 1
    if validates:  # it looks to Lightning as stopped in its first batch
        validation = progress['epoch_loop.val_loop.batch_progress']
        for counts in validation['current'], validation['total']:
            counts.update(dict.fromkeys(counts, 0))
        validation['total'].update(ready=1, started=1)
    else:
        progress['epoch_loop.state_dict']['_batches_that_stepped'] += 1


def _validates_in(trainer: Trainer, progress: dict[str, Any]) -> bool:
    epoch = progress['epoch_progress']['current']['processed'] + 1
    every = trainer.check_val_every_n_epoch
    return bool(trainer.enable_validation and (every is None or epoch % every == 0))


def _left_over(trainer: Trainer) -> int:
    """Number of batches since the last complete step."""
    batches = trainer.fit_loop.epoch_loop.batch_progress
    if batches.is_last_batch:
        return 0
    return int(batches.current.ready % trainer.accumulate_grad_batches)


def _means(trainer: Trainer) -> dict[str, Any]:
    """Lightning's means of this epoch so far, by the step and name that logged them."""
    return {
        name: result
        for name, result in trainer.fit_loop.epoch_loop._results.items()
        if result.is_tensor
        and result.meta.is_mean_reduction
        and result.meta.on_epoch
        and name.startswith('training_step.')
    }


def _added(sums: Sums, others: Sums) -> Sums:
    added = dict(sums)
    for name, (value, count) in others.items():
        old = sums.get(name, (0.0, 0.0))
        added[name] = (old[0] + value, old[1] + count)
    return added


def _of_all(trainer: Trainer, sums: Sums) -> list[Sums]:
    """Each process's sums, by rank; they have the same names."""
    if trainer.world_size == 1 or not sums:
        return [sums] * trainer.world_size
    device = trainer.strategy.root_device
    own = torch.tensor(list(sums.values()), dtype=torch.float64, device=device)
    gathered = trainer.strategy.all_gather(own).tolist()
    return [
        {name: (value, count) for name, (value, count) in zip(sums, one, strict=True)}
        for one in gathered
    ]


def _share(of_all: list[Sums], trainer: Trainer) -> Sums:
    """What this process goes on from: its own sums, or the first from the total."""
    if len(of_all) == trainer.world_size:
        return dict(of_all[trainer.global_rank])
    total: Sums = {}
    for sums in of_all:
        total = _added(total, sums)
    if trainer.is_global_zero:
        return total
    return dict.fromkeys(total, (0.0, 0.0))


def _parts(means: dict[str, Any]) -> Parts:
    """Sum and number of samples of each mean, left on the device."""
    return {
        name: (torch.as_tensor(mean.value), torch.as_tensor(mean.cumulated_batch_size))
        for name, mean in means.items()
    }
