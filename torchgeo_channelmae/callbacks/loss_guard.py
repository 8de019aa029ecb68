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
    exceed ``factor`` times the median of the ``window`` losses before them, so that a
    few odd batches are no reason to stop.

    Losses stay on the device and are read every ``every_n_batches`` batches and before
    each checkpoint, so that a GPU does not wait for the host at each step. Checkpoints
    with weights or optimizer states that are not finite are refused, and so are all
    after a bad loss. (Lightning's ``SpikeDetection`` synchronises at each batch and
    ignores the first batches of an epoch.)
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

        Raises:
            ValueError: If ``factor`` is not above 1 or another argument below 1.
        """
        super().__init__()
        if factor is not None and factor <= 1:
            raise ValueError(f'factor is {factor}. Use more than 1, or null for never.')
        if min(patience, window, every_n_batches) < 1:
            raise ValueError(
                f'patience is {patience}, window {window} and every_n_batches '
                f'{every_n_batches}. Use at least 1 for each.'
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
        """Keep the loss and, now and then, read all that were kept.

        Raises:
            RuntimeError: If one is bad.
        """
        loss = outputs.get('loss') if isinstance(outputs, Mapping) else outputs
        if not torch.is_tensor(loss):
            return
        loss = loss.detach() * trainer.accumulate_grad_batches  # Lightning divided it
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
        """Refuse a bad checkpoint.

        Raises:
            RuntimeError: If a loss was bad, or what is to be saved is not finite.
        """
        if trainer.state.fn != 'fit':
            return
        self._read(trainer, pl_module)
        states = [s for one in trainer.optimizers for s in one.state.values()]
        moments = [value for state in states for value in state.values()]
        finite = _all_finite([*pl_module.parameters(), *moments])
        if not trainer.strategy.reduce_boolean_decision(finite, all=True):
            self._stop(
                trainer,
                f'Training stopped before step {trainer.global_step} was saved: '
                f'weights or optimizer states are not finite, though the losses were.',
            )

    def _read(self, trainer: Trainer, pl_module: LightningModule) -> None:
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
            full = len(self._losses) == self._losses.maxlen
            usual = abs(median(self._losses)) if self._losses else 0.0
            if self.factor is None or not full or loss <= self.factor * usual:
                self._losses.append(loss)
                self._above = []
                continue
            self._above.append((batch, of_ranks))
            if len(self._above) == self.patience:
                self._stop_on(
                    trainer,
                    *self._above[0],
                    f'and the {self.patience - 1} after it are more than '
                    f'{self.factor:g} times the running median of {usual:.3g}',
                )

    def _stop_on(
        self, trainer: Trainer, batch: Batch, losses: Tensor, reason: str
    ) -> None:
        worst = int(losses.nan_to_num(math.inf, math.inf, math.inf).argmax())
        samples = batch.samples
        samples = samples.tolist() if torch.is_tensor(samples) else list(samples)
        names = [str(name) for name in trainer.strategy.broadcast(samples, worst)]
        path = Path(trainer.log_dir or '.') / 'bad_batch.txt'
        if trainer.is_global_zero:
            path.write_text('\n'.join([*names, '']))
        shown = ', '.join(names[:4]) + (' and others' if len(names) > 4 else '')
        self._stop(
            trainer,
            f'Training stopped: the loss {losses[worst]:.4g} of {batch.where} {reason}.'
            f' Its patches are {shown or "unknown"} (all in {os.path.relpath(path)}).',
            batch.time,
        )

    def _stop(self, trainer: Trainer, problem: str, before: float = math.inf) -> None:
        good = trainer.strategy.broadcast(_newest_checkpoint(trainer, before))
        advice = (
            'There is no checkpoint from before. Start again with a lower '
            '--model.init_args.base_lr, or --trainer.gradient_clip_val 1.'
        )
        if good is not None:
            advice = (
                f'The last good checkpoint is {good}. Resume from it with --ckpt_path '
                f'and --trainer.gradient_clip_val 1, or start again from its weights '
                f'with --model.init_args.weights and a lower --model.init_args.base_lr.'
            )
        self._problem = f'{problem} {advice}'
        raise RuntimeError(self._problem)


def _all_finite(values: list[Any]) -> bool:
    """Return whether all floating-point tensors are finite; waits for them once."""
    floats = [v for v in values if torch.is_tensor(v) and v.is_floating_point()]
    flags = [value.isfinite().all() for value in floats]
    return not flags or bool(torch.stack([f.to(flags[0].device) for f in flags]).all())


def _newest_checkpoint(trainer: Trainer, before: float) -> str | None:
    """Return the run's newest checkpoint from before a time; each was found good."""
    folders = {getattr(each, 'dirpath', None) for each in trainer.checkpoint_callbacks}
    paths = {
        path for folder in folders if folder for path in Path(folder).glob('*.ckpt')
    }
    paths |= {Path(trainer.ckpt_path)} if trainer.ckpt_path else set()
    ages = [(path.stat().st_mtime, os.path.relpath(path)) for path in paths]
    return max((age for age in ages if age[0] < before), default=(0, None))[1]
