"""Channel-token masked autoencoders for TorchGeo.

Importing the package registers its models with timm, so that every TorchGeo task finds
them by name; nothing else happens.
"""

from . import models as models

__version__ = '0.1.0'
