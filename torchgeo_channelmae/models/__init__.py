"""Models: encoder, decoder, and weights from files."""

from .channelvit import ChannelViT
from .checkpoints import read_checkpoint
from .decoder import ChannelMAEDecoder
from .padding import pad_inputs
from .registry import register_variant
from .weights import load_encoder

__all__ = (
    'ChannelMAEDecoder',
    'ChannelViT',
    'load_encoder',
    'pad_inputs',
    'read_checkpoint',
    'register_variant',
)
