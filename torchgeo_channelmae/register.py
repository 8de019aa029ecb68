"""Old name of :mod:`torchgeo_channelmae.callbacks.register`, until version 0.2."""

from .callbacks.register import LoadWeights, RegisterModels

__all__ = ['LoadWeights', 'RegisterModels']
