"""Tasks: pretraining and transfer."""

from .pretraining import ChannelMAE
from .transfer import CrossModalClassification

__all__ = ('ChannelMAE', 'CrossModalClassification')
