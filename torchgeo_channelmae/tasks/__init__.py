"""Tasks: pretraining and transfer."""

from .pretraining import ChannelMAE
from .transfer import CrossModalClassification
from .zero_shot import UnchangedHead, ZeroShotBands

__all__ = ('ChannelMAE', 'CrossModalClassification', 'UnchangedHead', 'ZeroShotBands')
