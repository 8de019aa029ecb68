"""Foundation models of TorchGeo for named bands."""

from .adapter import Peer, check_published, fit_input
from .families import PEERS

__all__ = ('PEERS', 'Peer', 'check_published', 'fit_input')
