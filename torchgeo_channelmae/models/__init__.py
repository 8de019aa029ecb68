"""Models: the encoder, the decoder, and weights from files."""

from . import registry as registry
from .channelvit import ChannelViT
from .decoder import ChannelMAEDecoder

__all__ = ('ChannelMAEDecoder', 'ChannelViT')
