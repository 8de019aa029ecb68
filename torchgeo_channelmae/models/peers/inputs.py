"""The scale of a model's input: that of published weights, from that of the data."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from ...provenance.published import input_bands
from ..plain import load_plain
from ..weights import LoadReport
from . import (
    Expected,
    InputScaling,
    Peer,
    attach_scaling,
    expected_by,
    standardisation,
)
from .scaling import SCALING


def look_at_data(model: Peer, datamodule: Any, starts: bool) -> None:
    """Fit the input of a foundation model to what a datamodule hands it.

    Args:
        model: The model.
        datamodule: The datamodule, or None.
        starts: Whether a training starts. A model that was scaled before, by a
            training or its checkpoint, keeps its scale otherwise.
    """
    model.look_at(datamodule)
    if starts or not model.looked:
        _scale(model.input_scaling, datamodule, model.expected(), type(model).__name__)
        model.looked = True


def load_published(
    model: nn.Module,
    weights: WeightsEnum,
    tensors: Mapping[str, Tensor],
    datamodule: Any,
) -> LoadReport:
    """Load published weights into a model of timm and scale its input as they expect.

    Args:
        model: The model.
        weights: The published weights.
        tensors: Their tensors by name.
        datamodule: The datamodule, or None.

    Returns:
        What was loaded. Where the first layer is fresh, the input stays standardised.
    """
    inputs = input_bands(weights)
    report = load_plain(model, tensors, inputs)
    if not report.kept_bands or inputs is None:
        return report
    expected = expected_by(weights, inputs, report.kept_bands)
    if expected is None:
        rank_zero_info(
            f'On which scale {weights} expect their input is not known: the bands come '
            f'standardised.'
        )
        return report
    scaling = attach_scaling(model, len(report.kept_bands))
    _scale(scaling, datamodule, expected, str(weights))
    return report


def load_own(
    model: nn.Module, tensors: Mapping[str, Tensor], bands: Sequence[str] | None
) -> LoadReport:
    """Load weights of a model of timm that a task trained, with their input's scale.

    Args:
        model: The model.
        tensors: Tensors by name.
        bands: Names of the bands that the tensors are for, None where not known.
    """
    if f'{SCALING}.factor' in tensors:
        own: Any = model.bands
        attach_scaling(model, len(own))
    return load_plain(model, tensors, bands)


def restore_scaling(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Make room for the scale of the input that a checkpoint has, if it has one.

    Args:
        model: The task's model.
        state_dict: The task's tensors.
    """
    factor = state_dict.get(f'model.{SCALING}.factor')
    if factor is not None and not isinstance(model, Peer):
        attach_scaling(model, len(factor))


def _scale(
    scaling: InputScaling, datamodule: Any, expected: Expected, whose: str
) -> None:
    mean, std = standardisation(datamodule, len(scaling.factor)) or (None, None)
    if not scaling.match(mean, std, expected):
        rank_zero_warn(
            f'The data do not tell by which mean and std they standardise each of the '
            f'{len(scaling.factor)} bands, so that {whose} gets them as they come, and '
            f'not on the scale that it expects.'
        )
