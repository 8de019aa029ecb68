"""Models: the encoder, the decoder, and weights from files."""

from . import registry as registry
from .channelvit import ChannelViT
from .decoder import ChannelMAEDecoder
from .published import (
    ChannelMAE_Weights,
    register_torchgeo,
    register_weights,
    weights_entry,
)

register_torchgeo()

__all__ = (
    'ChannelMAEDecoder',
    'ChannelMAE_Weights',
    'ChannelViT',
    'register_torchgeo',
    'register_weights',
    'weights_entry',
)
