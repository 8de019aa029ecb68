"""Watch a training from inside: token norms, gradient norm and lost updates."""

from contextlib import ExitStack
from functools import partial
from typing import Any, override

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer


class StreamMonitor(Callback):
    """Logs, every few optimizer steps, what a loss does not show.

    * ``stream/model.blocks.3``: mean norm of a token of the residual stream after this
      block, in the last batch of the step. Blocks are those of any transformer of the
      task whose ``blocks`` return tokens, (B, N, D).
    * ``grad_norm``: norm of all gradients of the step, before clipping and without the
      scale of mixed precision.
    * ``dead_updates``: fraction of the trainable numbers that the step left unchanged:
      they had no gradient, or the update was lost in rounding. Also 1 if mixed
      precision skipped the step.

    All are means over processes. Other steps cost nothing. A logged step holds a copy
    of the trainable weights and, with :class:`~.compile_step.CompileStep`, runs without
    the compiler.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        """Initialize a new StreamMonitor instance.

        Args:
            every_n_steps: Optimizer steps from one logged step to the next; the first
                of a training is logged.
        """
        super().__init__()
        if every_n_steps < 1:
            raise ValueError(f'every_n_steps is {every_n_steps}. Give at least 1.')
        self.every_n_steps = every_n_steps
        self._watch = ExitStack()
        self._values: dict[str, Tensor] = {}
        self._trained: list[tuple[nn.Parameter, Tensor]] = []

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any
    ) -> None:
        """Watch the blocks in the batches of a step that is logged."""
        if trainer.global_step % self.every_n_steps:
            return
        # A compiled step has no hooks that were added later.
        self._watch.enter_context(torch.compiler.set_stance('force_eager'))
        for name, module in pl_module.named_modules():
            if name.split('.')[-2:-1] == ['blocks']:
                hook = partial(self._keep_norm, f'stream/{name}')
                self._watch.enter_context(module.register_forward_hook(hook))

    def _keep_norm(self, name: str, block: nn.Module, args: Any, output: Any) -> None:
        if torch.is_tensor(output) and output.ndim == 3:
            self._values[name] = output.detach().float().norm(dim=-1).mean()

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure the gradients and copy the weights of a step that is logged."""
        if trainer.global_step % self.every_n_steps:
            return
        trained = [each for each in pl_module.parameters() if each.requires_grad]
        norm = get_total_norm([p.grad for p in trained if p.grad is not None])
        scaler = getattr(trainer.precision_plugin, 'scaler', None)
        if scaler is not None and optimizer.defaults.get('fused'):
            norm = norm / scaler.get_scale()  # else Lightning has divided by it
        self._values['grad_norm'] = norm
        self._trained = [(each, each.detach().clone()) for each in trained]

    @override
    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Log the step, unless its gradients are still accumulated."""
        self._watch.close()
        if not self._trained:
            return
        same = torch.cat([(now == old).flatten() for now, old in self._trained])
        self._values['dead_updates'] = same.count_nonzero() / len(same)
        mean = partial(trainer.strategy.reduce, reduce_op='mean')
        values = {name: mean(value).item() for name, value in self._values.items()}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step - 1)
        self._values, self._trained = {}, []

    @override
    def on_exception(self, *args: Any) -> None:
        """Watch no longer."""
        self._watch.close()
