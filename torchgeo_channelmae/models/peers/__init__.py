"""Foundation models of TorchGeo, which take the same bands in the same protocol."""

from .adapter import Peer, check_published, create_peer, fit_input, is_peer
from .families import PEERS

__all__ = ('PEERS', 'Peer', 'check_published', 'create_peer', 'fit_input', 'is_peer')
