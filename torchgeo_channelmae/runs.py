"""Old name of :mod:`torchgeo_channelmae.callbacks.run_folder`, until version 0.2."""

from .callbacks.run_folder import RunFolder

__all__ = ['RunFolder']
