"""Optimizer and learning rate schedule of both tasks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm import optim
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..models.registry import did_you_mean
from .muon import Muon
from .trainable import part_of

_NOT_OFFERED = ['adahessian', 'bnb*', 'fused*']  # second order; other packages


def create_optimizer(
    params: Iterable[Any], lr: float, hparams: Mapping[str, Any]
) -> Optimizer:
    """Create the optimizer that ``optimizer`` names, as timm's factory does.

    Args:
        params: Parameters, or groups of them with their weight decay.
        lr: Learning rate of parameters without one of their own.
        hparams: Hyperparameters of a task: ``optimizer``; ``betas``, used if the
            optimizer has so many; and its further arguments, ``optimizer_options``.
    """
    name, betas = hparams['optimizer'], tuple(hparams['betas'])
    info = optim.get_optimizer_info(name)
    # adamw: one pass over the parameters, also on a CPU
    given: dict[str, Any] = {'fused': True} if name == 'adamw' else {}
    if info.has_momentum:
        given['momentum'] = 0.9  # timm's default for all that have one
    if info.has_betas and info.num_betas == len(betas):
        given['betas'] = betas
    given |= hparams['optimizer_options'] or {}
    make = optim.get_optimizer_class(name, bind_defaults=False)
    if make is optim.Muon:
        make = Muon
    given = (info.defaults or {}) | given
    return make(params, lr=lr, weight_decay=0.0, **given)


def check_optimizer(hparams: Mapping[str, Any]) -> None:
    """Try the optimizer of :func:`create_optimizer` on a small matrix and a vector.

    Raises:
        ValueError: If there is no such optimizer, or it does not take its options.
    """
    name = hparams['optimizer']
    known = optim.list_optimizers(exclude_filters=_NOT_OFFERED)
    if name not in known:
        hint = did_you_mean(name.lower(), known)
        raise ValueError(
            f'Unknown optimizer {name!r}{hint}. Choose one of {", ".join(known)}.'
        )
    weights = [nn.Parameter(torch.ones(shape)) for shape in ((4, 4), (4,))]
    for each in weights:
        each.grad = torch.ones_like(each)
    try:
        create_optimizer(weights, 0.1, hparams).step()
    except (AssertionError, TypeError, ValueError) as error:
        message = f'{error}. Correct betas and optimizer_options of {name!r}.'
        raise ValueError(message) from error


def fallback_names(model: nn.Module, optimizer: str) -> list[str]:
    """Return the parameters that Muon leaves to AdamW; none for other optimizers.

    Muon trains the matrices in ``blocks``; in a model without that attribute, such as
    ``resnet50``, all matrices and kernels between the first layer and the head. Of
    kernels, timm leaves those with one input channel to AdamW.
    """
    if 'muon' not in optimizer:
        return []
    fallback = []
    for name, parameter in model.named_parameters():
        part = name.split('.')[0] if hasattr(model, 'blocks') else part_of(name, model)
        if part != 'blocks' or parameter.ndim < 2:
            fallback.append(name)
    return fallback


def decay_groups(
    modules: Sequence[Any], weight_decay: float, optimizer: str
) -> list[dict[str, Any]]:
    """Group parameters by whether weight decay, and Muon's fallback, apply to them.

    Weight decay does not apply to biases, norms and the embeddings that a module's
    ``no_weight_decay`` names; for the fallback see :func:`fallback_names`.
    """
    merged: dict[tuple[Any, ...], list[Any]] = {}
    for module in modules:
        names = module.no_weight_decay(), fallback_names(module, optimizer)
        for group in optim.param_groups_weight_decay(
            module, weight_decay, True, *names
        ):
            params = group.pop('params')
            merged.setdefault(tuple(group.items()), []).extend(params)
    return [{'params': params, **dict(kind)} for kind, params in merged.items()]


def layer_decay_groups(
    model: Any, lr: float, weight_decay: float, layer_decay: float, optimizer: str
) -> list[dict[str, Any]]:
    """Group trainable parameters by layer, with a smaller rate far from the head.

    timm stores a scale per group that torch's optimizers ignore; here it is multiplied
    into the learning rate.

    Args:
        model: A model with timm's ``group_matcher``.
        lr: Learning rate of the head.
        weight_decay: Weight decay of the matrices.
        layer_decay: Factor from one layer to the next below; 1 for none.
        optimizer: Name of the optimizer, see :func:`fallback_names`.
    """
    groups = optim.param_groups_layer_decay(
        model,
        weight_decay,
        no_weight_decay_list=getattr(model, 'no_weight_decay', set)(),
        fallback_list=fallback_names(model, optimizer),
        layer_decay=layer_decay,
    )
    return [{'lr': lr * group.pop('lr_scale'), **group} for group in groups]


def scaled_lr(base_lr: float, trainer: Trainer, optimizer: str) -> float:
    """Scale a base learning rate to the global batch: base_lr * batch / 256.

    Muon's rate grows with the square root of batch / 256, the rule for updates whose
    size does not depend on that of the gradient (https://arxiv.org/abs/2205.10287).
    """
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
    lr = base_lr * batch_size * trainer.world_size * accumulated / 256
    return math.sqrt(base_lr * lr) if 'muon' in optimizer else lr


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
            unit = scaled_lr(1.0, trainer, task.hparams['optimizer'])
            task.hparams['base_lr'] = rate / unit
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
    task: LightningModule, optimizer: Optimizer, warmup_epochs: float
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
