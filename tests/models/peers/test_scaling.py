"""From standardised bands back to physical values, and on to another scale."""

import copy

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchgeo_channelmae.models.peers.scaling import (
    Expected,
    InputScaling,
    attach_scaling,
    standardisation,
)

numbers = st.floats(-3000, 3000)
spreads = st.floats(0.5, 2000)


@given(
    st.lists(st.tuples(numbers, numbers, spreads, numbers, spreads), min_size=1),
)
def test_a_value_arrives_as_the_model_would_scale_it_itself(bands):
    physical, mean, std, center, spread = map(torch.tensor, zip(*bands, strict=True))
    scaling = InputScaling(len(bands))
    expected = Expected(center.tolist(), spread.tolist(), physical=True)
    assert scaling.match(mean, std, expected)
    image = ((physical - mean) / std)[None, :, None, None]
    wanted = (physical.double() - center) / spread
    got = scaling(image).flatten().double()
    largest = (physical.abs() + mean.abs() + center.abs()) / spread
    assert torch.all((got - wanted).abs() <= 1e-5 * largest.clamp(min=1))


def test_it_is_the_identity_at_first():
    image = torch.randn(2, 3, 4, 4)
    assert torch.equal(InputScaling(3)(image), image)


def test_values_beyond_the_limits_stop_there():
    scaling = InputScaling(2)
    scaling.match(None, None, Expected((-2.0,), (4.0,), low=(0.0,), high=(1.0,)))
    image = (
        torch.tensor([-9.0, -2.0, 0.0, 2.0, 9.0]).view(1, 1, 1, 5).repeat(1, 2, 1, 1)
    )
    assert scaling(image)[0, 1, 0].tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_physical_values_can_not_be_had_without_mean_and_std():
    scaling = InputScaling(2)
    assert not scaling.match(None, None, Expected(physical=True))
    assert scaling.factor.tolist() == [1, 1]


def test_one_mean_serves_all_bands():
    scaling = InputScaling(3)
    scaling.match(torch.tensor([10.0]), torch.tensor([2.0]), Expected(physical=True))
    assert scaling(torch.ones(1, 3, 1, 1)).flatten().tolist() == [12.0] * 3


@pytest.mark.parametrize('name', ['resnet18', 'vit_tiny_patch16_224'])
def test_a_model_of_timm_scales_its_input_and_keeps_its_names(name):
    model = timm.create_model(name, in_chans=2, num_classes=3).eval()
    before = set(model.state_dict())
    image = torch.randn(1, 2, 224, 224)
    wanted = model(3 * image + 1)
    scaling = attach_scaling(model, 2)
    scaling.match(torch.tensor([1.0]), torch.tensor([3.0]), Expected(physical=True))
    assert torch.equal(model(image), wanted)
    assert attach_scaling(model, 2) is scaling  # and not twice
    assert torch.equal(copy.deepcopy(model)(image), wanted)
    added = set(model.state_dict()) - before
    assert added == {f'input_scaling.{n}' for n in ('factor', 'offset', 'low', 'high')}


def test_bfloat16_stays_bfloat16():
    scaling = InputScaling(2).to(torch.bfloat16)
    assert (
        scaling(torch.zeros(1, 2, 1, 1, dtype=torch.bfloat16)).dtype == torch.bfloat16
    )


class Told:
    def __init__(self, **told):
        self.__dict__.update(told)


@pytest.mark.parametrize(
    ('data', 'known'),
    [
        (Told(mean=torch.zeros(2), std=torch.ones(2)), True),
        (Told(mean=torch.tensor(0), std=torch.tensor(255)), True),  # as in TorchGeo
        (Told(mean=[0.0, 1.0], std=2.0), True),
        (Told(mean=torch.zeros(3), std=torch.ones(3)), False),
        (Told(mean=torch.zeros(2)), False),
        (None, False),
    ],
)
def test_what_a_datamodule_tells_is_taken_if_it_fits_the_bands(data, known):
    assert (standardisation(data, 2) is not None) == known
