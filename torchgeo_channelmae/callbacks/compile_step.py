"""Compile what a training step computes."""

from typing import Any, override

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

#: What a task calls, in training only, to get from tensors to what the loss is made of.
STEP = 'compute'


class CompileStep(Callback):
    """Compiles the training step of the tasks of this package with ``torch.compile``.

    Masking, patches, encoder, decoder and losses are one graph. Training batches have
    one shape, so it is compiled once, in the first step; validation stays eager. The
    names of weights and what a checkpoint holds do not change.
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
            fullgraph: Refuse to fall apart into several graphs.
            dynamic: Whether shapes may change; with ``SampleBands``, false compiles
                once a number of bands.
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
        """Compile the step; nothing is done before its first call.

        Raises:
            ValueError: If the task is not of this package.
        """
        step = getattr(pl_module, STEP, None)
        if step is None:
            raise ValueError(
                f'CompileStep knows the tasks of torchgeo_channelmae, not '
                f'{type(pl_module).__name__}: take the callback out.'
            )
        setattr(pl_module, STEP, torch.compile(step, **self.options))

    @override
    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Leave the task as it was."""
        vars(pl_module).pop(STEP, None)
