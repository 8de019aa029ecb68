"""Fully sharded training that computes what training with copies computes."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, override

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import FSDPPrecision
from lightning.pytorch.strategies import FSDPStrategy
from timm.models.vision_transformer import Block
from torch import nn
from torch.distributed.fsdp import (
    FullOptimStateDictConfig,
    FullStateDictConfig,
    FullyShardedDataParallel,
    MixedPrecision,
    OptimStateKeyType,
    StateDictType,
)
from torchmetrics import Metric


class ShardedStrategy(FSDPStrategy):
    """Lightning's FSDP strategy, with the losses and checkpoints of DDP.

    Parameters, gradients and the optimizer's state are shared out among the processes;
    a block is whole only while it computes. Beside Lightning's class:

    * timm's ``Block`` is the unit that is shared out, unless ``auto_wrap_policy`` says
      otherwise;
    * optimizers are made while parameters have their shapes. A share is flat, so that
      timm would take every matrix for a bias and leave it without weight decay;
    * all processes start from the parameters of the first, as in DDP (on GPUs; on CPUs
      the seed that they share has to do);
    * mixed precision is autocast, as without sharding: parameters and gradients travel
      as float32, and images stay float32 up to the first layer;
    * gradients are clipped by the norm over all shares;
    * it runs on CPUs too.

    ``last.ckpt`` is one file with whole tensors, as any other strategy writes it, and
    checkpoints of other strategies can be resumed; Lightning's class numbers the
    optimizer's state in another order than torch, so that moments would reach other
    parameters.

    Example::

        trainer:
          strategy:
            class_path: torchgeo_channelmae.strategies.ShardedStrategy
    """

    def __init__(
        self,
        auto_wrap_policy: set[type[nn.Module]] | None = None,
        sharding_strategy: Literal[
            'FULL_SHARD', 'SHARD_GRAD_OP', 'HYBRID_SHARD'
        ] = 'FULL_SHARD',
        cpu_offload: bool = False,
    ) -> None:
        """Initialize a new ShardedStrategy instance.

        Args:
            auto_wrap_policy: Classes of the layers to share out one by one. Defaults to
                timm's ``Block``.
            sharding_strategy: Share out everything (``FULL_SHARD``), all but the
                parameters (``SHARD_GRAD_OP``), or everything within each machine
                (``HYBRID_SHARD``).
            cpu_offload: Keep the shares in the memory of the CPU.
        """
        super().__init__(
            auto_wrap_policy=auto_wrap_policy or {Block},
            sharding_strategy=sharding_strategy,
            cpu_offload=cpu_offload,
        )

    @property
    def sharded(self) -> FullyShardedDataParallel:
        """The task, shared out; there once the strategy is set up."""
        assert isinstance(self.model, FullyShardedDataParallel)
        return self.model

    @property
    @override
    def precision_plugin(self) -> FSDPPrecision:
        """Precision of this strategy, in place of the one that Lightning would make."""
        found = super().precision_plugin
        if not isinstance(found, _ShardedPrecision):
            found = self._precision_plugin = _ShardedPrecision(found.precision, self)
        return found

    @precision_plugin.setter
    def precision_plugin(self, precision_plugin: Any) -> None:
        self._precision_plugin = precision_plugin

    @override
    def _setup_model(self, model: nn.Module) -> nn.Module:
        device = self.root_device
        sharded = FullyShardedDataParallel(
            model,
            cpu_offload=self.cpu_offload,
            mixed_precision=self.mixed_precision_config,
            sharding_strategy=self.sharding_strategy,
            device_id=device,
            sync_module_states=device.type != 'cpu',  # gloo can't
            **self.kwargs,
        )
        for module in sharded.modules():  # FSDP leaves those without parameters
            if isinstance(module, Metric):
                module.to(device)
        return sharded

    @override
    def setup_optimizers(self, trainer: Trainer) -> None:
        """Make the optimizers while every parameter has its shape.

        Args:
            trainer: The trainer.
        """
        with FullyShardedDataParallel.summon_full_params(self.sharded, writeback=False):
            super().setup_optimizers(trainer)

    @override
    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Bring the state of an optimizer together, numbered as torch numbers it.

        Args:
            optimizer: The optimizer.

        Returns:
            Its state, as one process has it, on the first; nothing on the others.
        """
        optimizer = getattr(optimizer, 'optimizer', optimizer)  # Lightning's is a shell
        with self._whole(rank0_only=True):
            state = FullyShardedDataParallel.optim_state_dict(self.sharded, optimizer)
            return self._renamed(state, OptimStateKeyType.PARAM_ID, optimizer)

    @override
    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint of any strategy, one file with whole tensors."""
        path = self.broadcast(checkpoint_path)
        return self.checkpoint_io.load_checkpoint(path, weights_only=weights_only)

    @override
    def load_model_state_dict(
        self, checkpoint: Mapping[str, Any], strict: bool = True
    ) -> None:
        """Share out the parameters of a checkpoint."""
        with self._whole(rank0_only=False):
            self.sharded.load_state_dict(checkpoint['state_dict'], strict=strict)

    @property
    @override
    def lightning_restore_optimizer(self) -> bool:
        """Optimizers are restored as with any other strategy."""
        return True

    @override
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Share out the state of the optimizers of a checkpoint."""
        states = checkpoint['optimizer_states']
        for optimizer, whole in zip(self.optimizers, states, strict=True):
            with self._whole(rank0_only=False):
                named = self._renamed(whole, OptimStateKeyType.PARAM_NAME, optimizer)
                state = FullyShardedDataParallel.optim_state_dict_to_load(
                    self.sharded, optimizer, named
                )
            optimizer.load_state_dict(state)

    def _whole(self, rank0_only: bool) -> AbstractContextManager[Any]:
        """A context in which state dicts have whole tensors."""
        # What is on the CPU already is copied only where it is not to be moved there:
        # without a copy, all moments would share the memory they were gathered in.
        offload = self.root_device.type != 'cpu'
        return FullyShardedDataParallel.state_dict_type(
            self.sharded,
            StateDictType.FULL_STATE_DICT,
            FullStateDictConfig(offload_to_cpu=True, rank0_only=rank0_only),
            FullOptimStateDictConfig(offload_to_cpu=offload, rank0_only=rank0_only),
        )

    def _renamed(
        self, state: dict[str, Any], keys: OptimStateKeyType, optimizer: Any
    ) -> dict[str, Any]:
        """Name parameters in a state by their number in the optimizer, or back."""
        if not state:  # on processes that save nothing
            return state
        return FullyShardedDataParallel.rekey_optim_state_dict(
            state, keys, self.sharded, optim=optimizer
        )


class _ShardedPrecision(FSDPPrecision):
    """Autocast on any device, and clipping by the norm over all shares."""

    def __init__(self, precision: Any, strategy: ShardedStrategy) -> None:
        super().__init__(precision)
        self._strategy = strategy

    @property
    @override
    def mixed_precision_config(self) -> MixedPrecision | None:  # type: ignore[override]
        if 'mixed' in self.precision:
            return None
        return super().mixed_precision_config

    @override
    def forward_context(self) -> AbstractContextManager[Any]:
        if 'mixed' not in self.precision:
            return super().forward_context()
        dtype = torch.bfloat16 if self.precision == 'bf16-mixed' else torch.float16
        return torch.autocast(self._strategy.root_device.type, dtype=dtype)

    @override
    def clip_grad_by_norm(self, optimizer: Any, clip_val: float) -> None:
        self._strategy.sharded.clip_grad_norm_(clip_val)
