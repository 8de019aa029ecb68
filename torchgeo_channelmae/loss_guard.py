"""Old name of :mod:`torchgeo_channelmae.callbacks.loss_guard`, until version 0.2."""

from .callbacks.loss_guard import LossGuard

__all__ = ['LossGuard']
