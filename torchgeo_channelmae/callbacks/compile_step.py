"""Compile what a training step computes."""

from typing import Any, override

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

#: The method that a task calls in training to get from tensors to parts of the loss.
STEP = 'compute'


class CompileStep(Callback):
    """Compiles the training step of this package's tasks with ``torch.compile``.

    Masking, encoder, decoder and losses are one graph, compiled in the first step;
    validation stays eager. Checkpoints do not change.
    """

    def __init__(
        self,
        mode: str | None = None,
        fullgraph: bool = True,
        dynamic: bool | None = False,
        backend: str = 'inductor',
    ) -> None:
        """Initialize a new CompileStep instance.

        Args:
            mode: As in ``torch.compile``, such as ``max-autotune``.
            fullgraph: Fail instead of splitting the step into several graphs.
            dynamic: Whether shapes may change; with ``SampleBands``, false compiles
                once per number of bands.
            backend: As in ``torch.compile``.
        """
        super().__init__()
        self.options: dict[str, Any] = {
            'mode': mode,
            'fullgraph': fullgraph,
            'dynamic': dynamic,
            'backend': backend,
        }

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compile the step at its first call; refuse tasks of other packages."""
        step = getattr(pl_module, STEP, None)
        if step is None:
            raise ValueError(
                f'CompileStep does not support {type(pl_module).__name__}. Remove the '
                f'callback.'
            )
        setattr(pl_module, STEP, torch.compile(step, **self.options))

    @override
    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Leave the task as it was."""
        vars(pl_module).pop(STEP, None)
