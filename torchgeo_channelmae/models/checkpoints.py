"""Read pretrained weights, and what their file says about them, in one go."""

import os
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torchvision.models import WeightsEnum

from ..provenance.normalization import read_normalization
from ..provenance.record import Provenance, read_provenance
from .weights import read_weights


@dataclass(frozen=True)
class Checkpoint:
    """Pretrained weights with what is known about them.

    Attributes:
        tensors: Tensors by name; an encoder under ``model.`` or ``backbone.`` has lost
            that prefix, a decoder stands under ``decoder.``.
        provenance: What the trainings behind the weights read.
        normalization: ``bands``, ``mean`` and ``std`` of the images of the last
            training; None where unknown.
    """

    tensors: dict[str, Tensor]
    provenance: Provenance
    normalization: dict[str, Any] | None


def read_checkpoint(weights: WeightsEnum | str | os.PathLike[str]) -> Checkpoint:
    """Read pretrained weights once.

    Args:
        weights: Path of a Lightning checkpoint, an export or another file of tensors,
            a weights enum of TorchGeo, or the name of one. No code in a file is run.

    Raises:
        FileNotFoundError: If `weights` is neither a file nor the name of an enum.
        ValueError: If the file holds no tensors by name.
    """
    if isinstance(weights, os.PathLike):
        weights = os.fspath(weights)
    return Checkpoint(
        read_weights(weights), read_provenance(weights), read_normalization(weights)
    )
