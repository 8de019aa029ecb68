"""Learning rates that AdamW can start with."""

import math

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer

from .optim import scaled_lr

#: Highest learning rate of a published recipe: MAE's 1.5e-4 at a batch of 4,096.
PUBLISHED = 2.4e-3

#: Learning rate that is refused, some four times the highest published.
REFUSED = 1e-2

#: Rise of the learning rate per step of the warm-up from which there is a warning.
#: AdamW's first steps move all weights by the full rate, mostly the same way: in 20
#: steps of this rise by 0.004, while matrices start with a deviation of 0.02.
STEEP = 2e-5


def check_rate(task: LightningModule, optimizer: Optimizer) -> None:
    """Refuse a learning rate out of scale; warn of one that rises too fast.

    Both make the residual stream grow, to 60 times in 100 steps for instance, and the
    encoder then transfers badly. Other optimizers than AdamW are not checked: their
    rates mean something else.

    Args:
        task: The task, attached to its trainer.
        optimizer: Its optimizer, with its schedule made: rates are those of the first
            step.

    Raises:
        ValueError: If the learning rate is above :data:`REFUSED`.
    """
    if task.hparams['optimizer'] != 'adamw':
        return
    first = max(group['lr'] for group in optimizer.param_groups)
    peak = max(group['initial_lr'] for group in optimizer.param_groups)
    if peak > REFUSED:
        base_lr, batch = task.hparams['base_lr'], scaled_lr(256, task.trainer, 'adamw')
        raise ValueError(
            f'base_lr {base_lr:g} at a global batch of {batch:,.0f} is a learning rate '
            f'of {peak:.2g}, far above published ones (at most {PUBLISHED}). Lower '
            f'base_lr, to {PUBLISHED * 256 / batch:.1g} or less.'
        )
    if first > STEEP:
        steps = math.ceil(peak / STEEP)
        batches = task.trainer.num_training_batches
        epochs = steps * task.trainer.accumulate_grad_batches / batches
        rank_zero_warn(
            f'The warm-up is short for a learning rate of {peak:.2g}; transfer may '
            f'suffer. Set warmup_epochs to {epochs:.3g} ({steps} steps) or more.'
        )
