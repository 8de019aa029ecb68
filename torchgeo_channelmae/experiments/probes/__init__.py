"""Frozen features: what they tell of labels, and of another sensor's view."""

from .callback import FrozenProbe

__all__ = ('FrozenProbe',)
