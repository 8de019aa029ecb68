"""What is timed: steps of the tasks, their parts, and the references beside them."""

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from torchgeo_channelmae.callbacks.compile_step import CompileStep
from torchgeo_channelmae.randomness import global_seed
from torchgeo_channelmae.tasks import ChannelMAE, CrossModalClassification
from torchgeo_channelmae.tasks.base import sample_keys

from . import flops, reference
from .cases import STEPS, Case
from .timing import autocast, make_trainer

LABELS = 19
OURS, EAGER, FUSED = 'ours', 'eager reference', 'fused reference'
FUSED_OF = {EAGER: False, FUSED: True}
Run = Callable[[], Tensor]


@dataclass
class Steps:
    """The variants of one row.

    Attributes:
        run: By name, what is timed; returns what the step computed.
        loss: By name, the loss alone, without a change to the weights; the same of all.
        flops: Operations of one run that a loss needs; None where none are counted.
        facts: What to tell about the row.
    """

    run: dict[str, Run]
    loss: dict[str, Run] = field(default_factory=dict)
    flops: int | None = None
    facts: list[str] = field(default_factory=list)


def make_batch(case: Case) -> dict[str, Tensor]:
    """Draw images, labels and indices, the same for every variant and peer."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch, case.bands, case.size, case.size)
    batch = {
        'image': torch.randn(shape, generator=generator),
        'label': torch.rand(case.batch, LABELS, generator=generator).round(),
        'index': torch.arange(case.batch),
    }
    return {name: value.to(case.device) for name, value in batch.items()}


def make_task(case: Case) -> tuple[Any, Any]:
    """Make the task of a row and its own optimizer, on the device.

    Lightning sets both up in one step of a tiny image, as in a training.

    Raises:
        ValueError: If the task has no argument of an option's name.
    """
    torch.manual_seed(0)
    kind: Any = ChannelMAE
    own: dict[str, Any] = {
        'mask_ratio': case.mask,
        'decoder_dim': case.decoder_dim,
        'decoder_depth': case.decoder_depth,
        'decoder_num_heads': case.decoder_heads,
    }
    if case.part == 'finetuning':
        kind, own = CrossModalClassification, {'num_labels': LABELS, 'drop_path': 0.0}
    options = dict(case.options)
    for name in options.keys() - inspect.signature(kind).parameters.keys():
        raise ValueError(
            f'--option {name}: {kind.__name__} has no such argument; give rows of '
            f'another task with --only, or another name.'
        )
    model = f'channelmae_{case.model}_patch{case.patch}'
    shared = {'model': model, 'in_channels': case.bands, 'size': case.size}
    task = kind(**shared | own | options)
    image = torch.zeros(case.bands, 2 * case.patch, 2 * case.patch)
    sample = {'image': image, 'label': torch.zeros(LABELS), 'index': 0}
    with quiet():
        trainer = make_trainer(max_steps=1)
        trainer.fit(task, DataLoader([sample], batch_size=case.batch))
    optimizer = trainer.optimizers[0]
    optimizer.state.clear()  # it starts anew, on the device
    for group in optimizer.param_groups:  # the cosine of one step ends at 0
        group['lr'] = group['initial_lr']
    task.trainer = None  # so that log() does nothing
    if case.compile:
        CompileStep().on_fit_start(trainer, task)
    return task.to(case.device).train(), optimizer


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what Lightning says about trainers, loaders and logging."""
    logger = logging.getLogger('lightning.pytorch')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)


def train_with(loss: Run, optimizer: Any, case: Case) -> Run:
    """Make a step: forward, backward and the optimizer's."""

    def step() -> Tensor:
        with autocast(case):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value.detach()

    return step


def learn(loss: Run, tensors: list[Tensor], case: Case) -> Run:
    """Make forward and backward, without a step of the optimizer."""

    def step() -> Tensor:
        with autocast(case):
            value = loss()
        torch.autograd.grad(value, tensors, allow_unused=True)
        return value.detach()

    return step


def make_steps(case: Case, made: tuple[Any, Any] | None = None) -> Steps:
    """Make ours and the references of a row (but for the part `data`).

    Args:
        case: The row.
        made: Its task and optimizer, see :func:`make_task`; by default new ones.
    """
    task, optimizer = made or make_task(case)
    batch = make_batch(case)
    if case.part not in STEPS:
        return part_steps(case, task, batch)
    return whole_steps(case, task, optimizer, batch)


def task_loss(task: Any, batch: dict[str, Tensor]) -> Tensor:
    """Compute the loss of the task's own training step."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='You are trying to `self.log')
        loss: Tensor = task.training_step(batch, 0)
    return loss


def whole_steps(
    case: Case, task: Any, optimizer: Any, batch: dict[str, Tensor]
) -> Steps:
    """Make a pretraining or fine-tuning step."""
    dense = getattr(reference, f'{case.part}_loss')
    loss: dict[str, Run] = {OURS: partial(task_loss, task, batch)}
    for name, fused in FUSED_OF.items():
        loss[name] = partial(dense, task, batch, fused, case.compile)
    run = {name: train_with(one, optimizer, case) for name, one in loss.items()}
    if case.part == 'finetuning':
        count = flops.encoder(task.model, case.tokens, case.tokens)
        count += flops.head(task.model)
        return Steps(run, loss, case.batch * count, ['drop path 0 in all variants'])
    with torch.no_grad():
        result = task.reconstruct(batch['image'], keys_of(batch))
    visible, produced, hidden = (
        part.shape[1]
        for part in (result.mask.visible, result.produced, result.mask.hidden)
    )
    facts = [f'{visible} of {case.tokens} tokens encoded, {produced} produced']
    if task.hparams['decode_share'] < 1:
        facts.append('decode_share estimates the loss, which is not compared therefore')
        del loss[OURS]
        hidden = min(hidden, produced)
    encoded = visible + task.model.num_prefix_tokens
    count = flops.encoder(task.model, visible, encoded)
    count += flops.decoder(task.decoder, encoded, hidden, produced)
    return Steps(run, loss, case.batch * count, facts)


def keys_of(batch: dict[str, Tensor]) -> Tensor:
    """Address the masks as the task's first epoch does."""
    return sample_keys(batch['index'], global_seed(), 'mask', 0)


def part_steps(case: Case, task: Any, batch: dict[str, Tensor]) -> Steps:
    """Make a part of a pretraining step."""
    keys = keys_of(batch)
    draw = partial(task.masking, keys, 0, case.bands, case.cells)
    if case.part == 'masking':
        return Steps({OURS: lambda: draw().visible, EAGER: partial(shuffle, case)})
    with torch.no_grad():
        result = task.reconstruct(batch['image'], keys)
    visible = result.mask.visible
    if case.part == 'losses':
        return losses(case, task, result)
    image, model, count = batch['image'], task.model, visible.shape[1]
    compiled = torch.compile if case.compile else lambda function: function
    if case.part == 'encoder':
        ours = partial(compiled(model.encode), image, visible)
        dense = partial(reference.encode, model, image, visible)
        tensors = list(model.parameters())
        flop = flops.encoder(model, count, count + model.num_prefix_tokens)
    else:
        grid = model.patch_embed.grid_size
        with torch.no_grad():
            encoded = model.encode(image, visible).requires_grad_()
        hidden, everything = result.mask.hidden, torch.arange(case.tokens)
        everything = everything.to(case.device).expand(case.batch, -1)
        decoder = compiled(task.decoder)
        ours = partial(decoder, encoded, visible, hidden, grid, everything)
        dense = partial(reference.decode, task.decoder, encoded, visible)
        tensors = [encoded, *task.decoder.parameters()]
        flop = flops.decoder(
            task.decoder, encoded.shape[1], hidden.shape[1], case.tokens
        )
    loss: dict[str, Run] = {OURS: lambda: score(ours())}
    for name, fused in FUSED_OF.items():
        loss[name] = lambda fused=fused: score(dense(fused, case.compile))
    run = {name: learn(one, tensors, case) for name, one in loss.items()}
    return Steps(run, loss, case.batch * flop)


def score(tokens: Tensor) -> Tensor:
    """Make a loss of tokens that depends on each of them."""
    return tokens.float().square().mean()


def shuffle(case: Case) -> Tensor:
    """Draw a mask as MAE does: the order of noise, and the order of that."""
    order = torch.rand(case.batch, case.tokens, device=case.device).argsort(1)
    restore = order.argsort(1)
    mask = torch.ones(case.batch, case.tokens, device=case.device)
    mask[:, : round(case.tokens * (1 - case.mask))] = 0
    return mask.gather(1, restore)


def losses(case: Case, task: Any, result: Any) -> Steps:
    """Make both losses, forward and backward to the prediction."""
    prediction = result.prediction.float().requires_grad_()
    weight = task.hparams['spectral_weight']

    def ours() -> Tensor:
        token, spectral = task.losses(result._replace(prediction=prediction))
        return token.mean() + weight * spectral.mean()

    def dense() -> Tensor:
        hidden = reference.hidden_ones(result.mask, case.tokens)
        token, spectral = reference.mask_losses(
            prediction, result.target, hidden, case.bands, task.hparams['spectral_loss']
        )
        return token + weight * spectral

    loss: dict[str, Run] = {OURS: ours}
    if prediction.shape == result.target.shape:
        loss[EAGER] = dense
    run = {name: learn(one, [prediction], case) for name, one in loss.items()}
    return Steps(run, loss)
