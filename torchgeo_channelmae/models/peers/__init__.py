"""Foundation models of TorchGeo, which take the same bands in the same protocol."""

from .base import Peer
from .registry import PEERS, check_published, create_peer, is_peer
from .scaling import Expected, InputScaling, attach_scaling, standardisation
from .transforms import expected_by

__all__ = (
    'PEERS',
    'Expected',
    'InputScaling',
    'Peer',
    'attach_scaling',
    'check_published',
    'create_peer',
    'expected_by',
    'is_peer',
    'standardisation',
)
