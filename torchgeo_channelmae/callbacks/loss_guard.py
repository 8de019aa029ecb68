"""Stop a training whose loss is not finite or explodes, before a bad checkpoint."""

import math
import os
from collections import deque
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, override

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from .checkpoint_io import step_of


class Batch(NamedTuple):
    """A batch that was trained on, with its loss left on the device.

    Steps count from 1, so that a checkpoint of ``step - 1`` knows nothing of the batch;
    epochs and their batches count from 0, as Lightning's do.
    """

    step: int
    epoch: int
    number: int
    samples: Any
    loss: Tensor


class LossGuard(Callback):
    """Stops on a loss that is NaN or infinite, or that explodes.

    A loss explodes where ``patience`` batches in a row each lose more than ``factor``
    times the median of the ``window`` losses before them. The median follows the
    training, and neither one odd batch nor a few move it; a sound loss does not stay an
    order of magnitude above it. A loss is the mean over all processes.

    Losses stay on the device and are read every ``every_n_batches`` batches, all at
    once, and before each checkpoint is written, so a GPU does not wait for the host
    step by step. All processes read the same losses and stop together. A checkpoint
    that would hold weights or optimizer states that are not finite is refused, and so
    is any after the loss was found bad.
    """

    def __init__(
        self,
        factor: float | None = 10.0,
        patience: int = 3,
        window: int = 100,
        every_n_batches: int = 20,
    ) -> None:
        """Initialise the guard.

        Args:
            factor: How many times the running median is an explosion; None is never.
            patience: Batches in a row that have to be above.
            window: Losses that the median is of; as long as there are fewer, none
                explodes.
            every_n_batches: How often losses are read.

        Raises:
            ValueError: If an argument makes no sense.
        """
        super().__init__()
        if factor is not None and factor <= 1:
            raise ValueError(f'factor is {factor}: give more than 1, or None for off.')
        counts = {
            'patience': patience,
            'window': window,
            'every_n_batches': every_n_batches,
        }
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f'{name} is {value}: give at least 1.')
        self.factor = factor
        self.patience = patience
        self.every_n_batches = every_n_batches
        self._losses: deque[float] = deque(maxlen=window)
        self._above: list[tuple[Batch, Tensor]] = []
        self._unread: list[Batch] = []
        self._step = 0
        self._problem: str | None = None

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start anew: what a resumed training lost before is not known."""
        self._losses.clear()
        self._above, self._unread, self._problem = [], [], None

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the step that the batch is of."""
        self._step = trainer.global_step + 1

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep a loss, and read all of them now and then.

        Raises:
            RuntimeError: If a loss is bad.
        """
        loss = outputs.get('loss') if isinstance(outputs, dict) else outputs
        if not torch.is_tensor(loss):
            return
        loss = loss.detach() * trainer.accumulate_grad_batches  # Lightning divided it
        epoch, samples = trainer.current_epoch, _samples(batch)
        self._unread.append(Batch(self._step, epoch, batch_idx, samples, loss))
        if len(self._unread) >= self.every_n_batches:
            self._read(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the losses that are left.

        Raises:
            RuntimeError: If one is bad.
        """
        self._read(trainer, pl_module)

    @override
    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let no bad checkpoint take the place of a good one.

        Raises:
            RuntimeError: If a loss was bad, or what is to be saved is not finite.
        """
        if trainer.state.fn != 'fit':
            return
        self._read(trainer, pl_module)
        states = [s for one in trainer.optimizers for s in one.state.values()]
        tensors = [*pl_module.parameters(), *(v for s in states for v in s.values())]
        finite = _all_finite(tensors)
        if not trainer.strategy.reduce_boolean_decision(finite, all=True):
            self._stop(
                trainer,
                f'Training stopped before step {trainer.global_step} was saved: '
                f'weights or optimizer states are not finite, though the losses were.',
                trainer.global_step - 1,
            )

    def _read(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read what was kept; raises if a loss is bad."""
        if self._problem is not None:
            raise RuntimeError(self._problem)
        batches, self._unread = self._unread, []
        if not batches:
            return
        kept = torch.stack([batch.loss.float() for batch in batches])
        gathered: Any = pl_module.all_gather(kept)
        losses = gathered.reshape(-1, len(batches)).cpu()
        for batch, of_ranks in zip(batches, losses.unbind(1), strict=True):
            loss = of_ranks.mean().item()
            if not math.isfinite(loss):
                self._stop_on(trainer, batch, of_ranks, 'is not finite')
            if self.factor is None:
                continue
            limit = self.factor * abs(median(self._losses)) if self._losses else 0.0
            if len(self._losses) == self._losses.maxlen and loss > limit:
                self._above.append((batch, of_ranks))
                if len(self._above) == self.patience:
                    self._stop_on(
                        trainer,
                        *self._above[0],
                        f'explodes, with the {self.patience - 1} after it: it is more '
                        f'than {self.factor:g} times the {limit / self.factor:.3g} '
                        f'that is the running median',
                    )
                continue
            self._losses.append(loss)
            self._above = []

    def _stop_on(
        self, trainer: Trainer, batch: Batch, losses: Tensor, what: str
    ) -> None:
        ranked = losses.nan_to_num(math.inf, math.inf, math.inf)
        worst = int(ranked.argmax())
        samples = trainer.strategy.broadcast(_listed(batch.samples), worst)
        where = trainer.strategy.broadcast(_write(trainer.log_dir, samples, trainer))
        shown = ', '.join(samples[:4]) + (' and others' if len(samples) > 4 else '')
        process = f' of process {worst}' if trainer.world_size > 1 else ''
        self._stop(
            trainer,
            f'Training stopped: the loss {losses[worst]:.4g} of step {batch.step} '
            f'(batch {batch.number} of epoch {batch.epoch}{process}) {what}; its '
            f'patches are {shown}{where}.',
            batch.step - 1,
        )

    def _stop(self, trainer: Trainer, what: str, step: int) -> None:
        good = trainer.strategy.broadcast(_last_before(trainer, step))
        if good is None:
            then = (
                'There is no checkpoint from before: start again with a lower '
                '--model.init_args.base_lr, or --trainer.gradient_clip_val 1.'
            )
        else:
            then = (
                f'The last good checkpoint is {good[0]} (step {good[1]}): resume from '
                f'it with --ckpt_path and --trainer.gradient_clip_val 1, or start anew '
                f'from its weights with --model.init_args.weights and a lower '
                f'--model.init_args.base_lr.'
            )
        self._problem = f'{what} {then}'
        raise RuntimeError(self._problem)


def _samples(batch: Any) -> Any:
    """What names the samples of a batch, left where it is."""
    if not isinstance(batch, dict):
        return ()
    return batch.get('patch_id', batch.get('visit', batch.get('index', ())))


def _listed(samples: Any) -> list[str]:
    values = samples.tolist() if torch.is_tensor(samples) else samples
    return [str(value) for value in values] or ['not known']


def _write(folder: str | None, samples: list[str], trainer: Trainer) -> str:
    """Write the names of all samples beside the logs, if that is possible."""
    if folder is None or not trainer.is_global_zero:
        return ''
    path = Path(folder) / 'bad_batch.txt'
    try:
        path.write_text('\n'.join([*samples, '']))
    except OSError:
        return ''
    return f' (all in {os.path.relpath(path)})'


def _all_finite(tensors: list[Any]) -> bool:
    """Whether all floating-point numbers are finite; waits for the device once."""
    floats = [
        value.detach()
        for value in tensors
        if torch.is_tensor(value) and value.is_floating_point()
    ]
    if not floats:
        return True
    flags = [value.isfinite().all() for value in floats]
    device = flags[0].device
    return bool(torch.stack([flag.to(device) for flag in flags]).all())


def _last_before(trainer: Trainer, step: int) -> tuple[str, int] | None:
    """Find the newest checkpoint of this training with at most so many steps."""
    if not trainer.is_global_zero:
        return None
    paths = {str(trainer.ckpt_path)} if trainer.ckpt_path else set()
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            paths |= {callback.best_model_path, callback.last_model_path}
            # The best one may be that which is refused, named before it is written.
            paths.add(callback._last_checkpoint_saved)
            paths |= set(callback.best_k_models)
    steps = {path: step_of(path) for path in paths if path}
    good = [(n, path) for path, n in steps.items() if n is not None and n <= step]
    if not good:
        return None
    number, path = max(good)
    return os.path.relpath(path), number
