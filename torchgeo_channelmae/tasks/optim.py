"""Optimizer and learning rate schedule of both tasks."""

import math
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


def decay_groups(modules: Sequence[Any], weight_decay: float) -> list[dict[str, Any]]:
    """Group parameters by whether weight decay applies to them.

    It does not apply to biases, norms and the embeddings that a module's
    ``no_weight_decay`` names.
    """
    by_decay: dict[float, list[Any]] = {}
    for module in modules:
        for group in param_groups_weight_decay(
            module, weight_decay, no_weight_decay_list=module.no_weight_decay()
        ):
            by_decay.setdefault(group['weight_decay'], []).extend(group['params'])
    return [{'params': p, 'weight_decay': decay} for decay, p in by_decay.items()]


def layer_decay_groups(
    model: Any, lr: float, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Group trainable parameters by layer, with a smaller rate far from the head.

    timm stores a scale per group that torch's optimizers ignore; here it is multiplied
    into the learning rate.

    Args:
        model: A model with timm's ``group_matcher``.
        lr: Learning rate of the head.
        weight_decay: Weight decay of the matrices.
        layer_decay: Factor from one layer to the next below; 1 for none.
    """
    groups = param_groups_layer_decay(
        model,
        weight_decay,
        no_weight_decay_list=getattr(model, 'no_weight_decay', set)(),
        layer_decay=layer_decay,
    )
    return [
        {name: group[name] for name in ('params', 'weight_decay')}
        | {'lr': lr * group['lr_scale']}
        for group in groups
    ]


def scaled_lr(base_lr: float, trainer: Trainer) -> float:
    """Scale a base learning rate to the global batch: base_lr * batch / 256."""
    trainer.fit_loop.setup_data()  # as estimated_stepping_batches does
    loader = trainer.train_dataloader
    found = (loader, getattr(loader, 'batch_sampler', None))
    sizes = [getattr(each, 'batch_size', None) for each in found]
    batch_size = sizes[0] or sizes[1]
    if batch_size is None:
        raise ValueError(
            'The learning rate is scaled to the batch, but the training loader has no '
            'batch size. Use a DataLoader with batch_size, or a batch sampler with one.'
        )
    accumulated = trainer.accumulate_grad_batches
    return base_lr * batch_size * trainer.world_size * accumulated / 256


def apply_tuning(task: LightningModule) -> None:
    """Rebuild the optimizer for what a tuning callback found; call on_fit_start.

    Lightning's ``LearningRateFinder`` and ``BatchSizeFinder`` run after
    ``configure_optimizers``: the schedule would still be that of the old learning rate
    and number of steps.
    """
    trainer: Any = task.trainer
    finders = (LearningRateFinder, BatchSizeFinder)
    tuning = [each for each in trainer.callbacks if isinstance(each, finders)]
    for each in tuning:
        found = getattr(each, 'optimal_lr', None)
        if found is not None and (rate := found.suggestion()) is not None:
            task.hparams['base_lr'] = rate / scaled_lr(1.0, trainer)
    if tuning:
        trainer.strategy.setup_optimizers(trainer)


def warmup_cosine(step: int, warmup_steps: int, total_steps: int) -> float:
    """Return the learning rate's factor: linear warm-up, then half a cosine to 0.

    Args:
        step: Optimizer step, from 0.
        warmup_steps: Steps of the warm-up; the step after it has the full rate.
        total_steps: Steps of the whole training; each has a factor above 0.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def schedule(
    task: LightningModule, optimizer: AdamW, warmup_epochs: float
) -> OptimizerLRScheduler:
    """Pair an optimizer with warm-up and cosine decay, in optimizer steps.

    Args:
        task: The task, attached to its trainer.
        optimizer: The optimizer; each group keeps its own learning rate as the peak.
        warmup_epochs: Length of the warm-up in epochs.
    """
    total = task.trainer.estimated_stepping_batches
    if not math.isfinite(total) or total <= 0:
        raise ValueError(
            'The cosine schedule needs a last step. Set max_epochs or max_steps of the '
            'trainer.'
        )
    total = int(total)
    batches = task.trainer.num_training_batches  # set up with the count of steps
    per_epoch = math.ceil(batches / task.trainer.accumulate_grad_batches)
    warmup = min(round(warmup_epochs * per_epoch), total - 1)
    scheduler = LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup, total))
    return {
        'optimizer': optimizer,
        'lr_scheduler': {'scheduler': scheduler, 'interval': 'step'},
    }
