"""Tasks: pretraining and transfer."""

from .pretraining import ChannelMAE
from .transfer import CrossModalClassification
from .unchanged import UnchangedHead

__all__ = ('ChannelMAE', 'CrossModalClassification', 'UnchangedHead')
