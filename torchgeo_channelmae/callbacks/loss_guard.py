"""Stop a training whose loss is not finite or explodes, before a bad checkpoint."""

import math
import os
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, override

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor


class Batch(NamedTuple):
    """A batch that was trained on, with its loss left on the device."""

    time: float
    where: str
    samples: Any
    loss: Tensor


class LossGuard(Callback):
    """Stops on a loss that is NaN or infinite, or that explodes.

    A loss, the mean over all processes, explodes if ``patience`` batches in a row each
    exceed ``factor`` times the median of the ``window`` losses before them. A few odd
    batches do not stop the training.

    Losses stay on the device and are read every ``every_n_batches`` batches and before
    each checkpoint, so that a GPU rarely waits for the host. After a bad loss, or with
    weights that are not finite, no checkpoint is saved.
    """

    def __init__(
        self,
        factor: float | None = 10.0,
        patience: int = 3,
        window: int = 100,
        every_n_batches: int = 20,
    ) -> None:
        """Initialize a new LossGuard instance.

        Args:
            factor: Multiple of the running median that is an explosion; None for never.
            patience: Number of batches in a row that have to exceed it.
            window: Number of losses behind the median; before there are as many,
                nothing explodes.
            every_n_batches: How often losses are read.
        """
        super().__init__()
        if (factor or math.inf) <= 1 or min(patience, window, every_n_batches) < 1:
            raise ValueError(
                f'factor is {factor}, patience {patience}, window {window} and '
                f'every_n_batches {every_n_batches}. Use a factor above 1, or null for '
                f'never, and at least 1 for the others.'
            )
        self.factor = factor
        self.patience = patience
        self.every_n_batches = every_n_batches
        self._losses: deque[float] = deque(maxlen=window)
        self._above: list[tuple[Batch, Tensor]] = []
        self._unread: list[Batch] = []
        self._problem: str | None = None

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier training."""
        self._losses.clear()
        self._above, self._unread, self._problem = [], [], None

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep the loss and, now and then, read all that were kept; stop if bad."""
        loss = outputs.get('loss') if isinstance(outputs, Mapping) else outputs
        if not torch.is_tensor(loss):
            return
        loss = loss.detach().float() * trainer.accumulate_grad_batches
        known: Mapping[str, Any] = batch if isinstance(batch, Mapping) else {}
        names = known.get('patch_id', known.get('visit', known.get('index', ())))
        step, epoch = trainer.global_step, trainer.current_epoch
        where = f'step {step} (batch {batch_idx} of epoch {epoch})'
        self._unread.append(Batch(time.time(), where, names, loss))
        if len(self._unread) >= self.every_n_batches:
            self._read(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the remaining losses."""
        self._read(trainer, pl_module)

    @override
    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse to save after a bad loss, or weights that are not finite."""
        if trainer.state.fn != 'fit':
            return
        self._read(trainer, pl_module)
        flags = [weight.isfinite().all() for weight in pl_module.parameters()]
        finite = bool(torch.stack(flags).all()) if flags else True
        if not trainer.strategy.reduce_boolean_decision(finite, all=True):
            step = trainer.global_step
            problem = f'weights are not finite after step {step}, though its loss was.'
            self._stop(trainer, problem, math.inf)

    def _read(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the losses that were kept, in order."""
        if self._problem is not None:
            raise RuntimeError(self._problem)
        batches, self._unread = self._unread, []
        if not batches:
            return
        gathered: Any = pl_module.all_gather(torch.stack([b.loss for b in batches]))
        by_batch = gathered.reshape(-1, len(batches)).cpu().unbind(1)
        for batch, losses in zip(batches, by_batch, strict=True):
            loss = losses.mean().item()
            if not math.isfinite(loss):
                self._stop_on(trainer, batch, losses, 'is not finite')
            if not self._is_above(loss):
                self._losses.append(loss)
                self._above.clear()
                continue
            self._above.append((batch, losses))
            if len(self._above) == self.patience:
                usual = f'{self.factor:g} x the median, {median(self._losses):.3g}'
                reason = f'and {self.patience - 1} more in a row are above {usual}'
                self._stop_on(trainer, *self._above[0], reason)

    def _is_above(self, loss: float) -> bool:
        if self.factor is None or len(self._losses) < (self._losses.maxlen or 0):
            return False
        return loss > self.factor * abs(median(self._losses))

    def _stop_on(
        self, trainer: Trainer, batch: Batch, losses: Tensor, reason: str
    ) -> None:
        """Stop, and name the samples of the process with the worst loss."""
        worst = int(losses.nan_to_num(math.inf, math.inf, math.inf).argmax())
        samples = batch.samples
        samples = samples.tolist() if torch.is_tensor(samples) else list(samples)
        names = [str(name) for name in trainer.strategy.broadcast(samples, worst)]
        path = Path(trainer.log_dir or '.') / 'bad_batch.txt'
        if trainer.is_global_zero:
            path.write_text('\n'.join([*names, '']))
        shown = ', '.join(names[:4]) + (' and others' if len(names) > 4 else '')
        problem = (
            f'the loss {losses[worst]:.4g} of {batch.where} {reason}. Its patches are '
            f'{shown or "unknown"} (all in {os.path.relpath(path)}).'
        )
        self._stop(trainer, problem, batch.time)

    def _stop(self, trainer: Trainer, problem: str, before: float) -> None:
        """Raise the problem, with the newest checkpoint from before a time."""
        good = trainer.strategy.broadcast(_newest_checkpoint(trainer, before))
        self._problem = (
            f'Training stopped: {problem} Last good checkpoint: {good or "none"}. '
            f'Resume from it with --ckpt_path and --trainer.gradient_clip_val 1, or '
            f'start again with a lower --model.init_args.base_lr.'
        )
        raise RuntimeError(self._problem)


def _newest_checkpoint(trainer: Trainer, before: float) -> str | None:
    folders = {getattr(each, 'dirpath', None) for each in trainer.checkpoint_callbacks}
    paths = [path for each in folders if each for path in Path(each).glob('*.ckpt')]
    paths += [Path(trainer.ckpt_path)] if trainer.ckpt_path else []
    ages = [(path.stat().st_mtime, os.path.relpath(path)) for path in paths]
    return max((age for age in ages if age[0] < before), default=(0, None))[1]
