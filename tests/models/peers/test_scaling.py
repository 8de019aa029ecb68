"""Normalized bands arrive on the scale that weights expect."""

import copy
from types import SimpleNamespace

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchgeo.models import get_weight
from torchvision.transforms import v2 as T

from torchgeo_channelmae.models.peers.scaling import (
    WHITE,
    Expected,
    InputScaling,
    attach_scaling,
    expected_by,
    picture,
    scale_input,
)
from torchgeo_channelmae.provenance.published import input_bands

numbers, spreads = st.floats(-3000, 3000), st.floats(0.5, 2000)


@given(st.lists(st.tuples(numbers, numbers, spreads, numbers, spreads), min_size=1))
def test_a_value_arrives_as_the_model_would_scale_it_itself(bands):
    physical, mean, std, center, spread = map(torch.tensor, zip(*bands, strict=True))
    scaling = InputScaling(len(bands))
    expected = Expected(center.tolist(), spread.tolist(), physical=True)
    scaling.match(mean, std, expected)
    got = scaling(((physical - mean) / std)[None, :, None, None]).flatten().double()
    largest = (physical.abs() + mean.abs() + center.abs()) / spread
    wanted = (physical.double() - center) / spread
    assert torch.all((got - wanted).abs() <= 1e-5 * largest.clamp(min=1))


@pytest.mark.parametrize('name', ['resnet18', 'vit_tiny_patch16_224'])
def test_a_model_of_timm_scales_its_input_once(name):
    model = timm.create_model(name, in_chans=2, num_classes=3).eval()
    image = torch.randn(1, 2, 224, 224)
    wanted = model(3 * image + 1)
    scaling = attach_scaling(model, 2)
    scaling.match(torch.tensor([1.0]), torch.tensor([3.0]), Expected(physical=True))
    assert attach_scaling(model, 2) is scaling
    assert torch.equal(copy.deepcopy(model)(image), wanted)


@pytest.mark.parametrize(
    ('mean', 'std', 'factor'),
    [
        (torch.zeros(2), torch.full((2,), 3.0), 3),
        (torch.tensor(0), torch.tensor(255), 255),  # as in TorchGeo
    ],
)
def test_the_mean_and_std_of_any_datamodule_are_undone(mean, std, factor):
    scaling, data = InputScaling(2), SimpleNamespace(mean=mean, std=std)
    scale_input(scaling, data, Expected(physical=True))
    assert scaling.factor.tolist() == [factor, factor]


def test_data_without_mean_and_std_of_the_bands_warn():
    scaling = InputScaling(2)
    data = SimpleNamespace(mean=torch.zeros(3), std=torch.ones(3))
    with pytest.warns(UserWarning, match='mean and std'):
        scale_input(scaling, data, Expected((1.0,), (2.0,), physical=True))
    assert scaling.factor.tolist() == [1, 1]


# Published weights


def scaled(expected, physical):
    """Scale physical values (C,), normalized in between by odd numbers."""
    scaling = InputScaling(len(physical))
    mean, std = torch.full_like(physical, 7), torch.full_like(physical, 300)
    scaling.match(mean, std, expected)
    return scaling(((physical - mean) / std)[None, :, None, None]).flatten()


@pytest.mark.parametrize(
    'name',
    [
        'ResNet50_Weights.SENTINEL2_ALL_MOCO',
        'ResNet50_Weights.SENTINEL2_ALL_SECO_ECO',
        'ViTSmall16_Weights.SENTINEL1_GRD_MAE',
        'ViTSmall14_DINOv2_Weights.SENTINEL1_GRD_SOFTCON',
    ],
)
def test_bands_arrive_as_the_transforms_of_the_entry_make_them(name):
    weights = get_weight(name)
    inputs = input_bands(weights)
    draw = torch.Generator().manual_seed(0)
    physical = torch.rand(len(inputs), generator=draw) * 3000
    steps = [s for s in weights.transforms if isinstance(s, T.Normalize)]
    wanted = T.Compose(steps)(physical[:, None, None].clone()).flatten()
    got = scaled(expected_by(weights, inputs, inputs), physical)
    assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-5)
    backwards = expected_by(weights, inputs, inputs[::-1])
    assert torch.allclose(scaled(backwards, physical.flip(0)).flip(0), got, atol=1e-4)


def test_satlas_sees_a_true_color_image_and_the_other_bands_as_they_are():
    weights = get_weight('ResNet50_Weights.SENTINEL2_SI_MS_SATLAS')
    expected = expected_by(weights, input_bands(weights), ('B08', 'B04'))
    got = scaled(expected, torch.tensor([4080.0, 1779.0]))
    assert got.tolist() == pytest.approx([0.5, 0.5], abs=1e-4)
    assert scaled(expected, torch.tensor([9000.0, 9000.0])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize('name', ['SENTINEL2_RGB_SECO', 'SENTINEL1_GRD_CLOSP'])
def test_an_unknown_scale_is_none(name):
    weights = get_weight(f'ResNet50_Weights.{name}')
    inputs = input_bands(weights)
    assert expected_by(weights, inputs, inputs) is None


@pytest.mark.parametrize('level', WHITE)
def test_a_picture_is_as_white_as_a_true_color_image_and_no_whiter(level):
    gassl = get_weight('ResNet50_Weights.FMOW_RGB_GASSL')
    bands = input_bands(gassl)
    expected = picture(bands, level)
    assert expected_by(gassl, bands, bands) == picture(bands, 'L2A')
    imagenet = T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    for value, gray in ((-50.0, 0.0), (WHITE[level], 1.0), (99_999.0, 1.0)):
        wanted = imagenet(torch.full((3, 1, 1), gray)).flatten()
        got = scaled(expected, torch.full((3,), value))
        assert torch.allclose(got, wanted, atol=1e-4)
