"""Models: encoder, decoder, and weights from files."""

from .channelvit import ChannelViT
from .checkpoints import Checkpoint, read_checkpoint
from .decoder import ChannelMAEDecoder
from .padding import pad_inputs
from .registry import register_variant
from .weights import LoadReport, load_decoder, load_encoder

__all__ = (
    'ChannelMAEDecoder',
    'ChannelViT',
    'Checkpoint',
    'LoadReport',
    'load_decoder',
    'load_encoder',
    'pad_inputs',
    'read_checkpoint',
    'register_variant',
)
