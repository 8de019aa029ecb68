"""The scale that a published entry tells is what its own transforms compute."""

import pytest
import torch
from torchgeo.models import get_weight
from torchvision.transforms import v2 as T

from torchgeo_channelmae.models.peers.scaling import InputScaling
from torchgeo_channelmae.models.peers.transforms import WHITE, expected_by, picture
from torchgeo_channelmae.provenance.published import input_bands


def scaled(expected, physical):
    """Scale physical values (C,), standardised in between by odd numbers."""
    scaling = InputScaling(len(physical))
    mean, std = torch.full_like(physical, 7), torch.full_like(physical, 300)
    assert scaling.match(mean, std, expected)
    return scaling(((physical - mean) / std)[None, :, None, None]).flatten()


@pytest.mark.parametrize(
    'name',
    [
        'ResNet50_Weights.SENTINEL2_ALL_MOCO',
        'ResNet50_Weights.SENTINEL1_ALL_MOCO',
        'ResNet50_Weights.SENTINEL2_ALL_SOFTCON',
        'ResNet50_Weights.SENTINEL2_ALL_SECO_ECO',
        'ViTSmall16_Weights.SENTINEL2_ALL_MAE',
        'ViTSmall16_Weights.SENTINEL1_GRD_MAE',
        'ViTLarge16_Weights.SENTINEL2_ALL_CLOSP',
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


def test_satlas_sees_a_true_colour_image_and_the_other_bands_as_they_are():
    weights = get_weight('ResNet50_Weights.SENTINEL2_SI_MS_SATLAS')
    inputs = input_bands(weights)
    expected = expected_by(weights, inputs, ('B08', 'B04'))
    assert scaled(expected, torch.tensor([4080.0, 1779.0])).tolist() == pytest.approx(
        [0.5, 0.5], abs=1e-4
    )
    assert scaled(expected, torch.tensor([9000.0, 9000.0])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    'name',
    [
        'ResNet50_Weights.SENTINEL2_RGB_SECO',  # a rendering that is not told
        'ResNet50_Weights.SENTINEL1_GRD_CLOSP',  # not scaled
    ],
)
def test_a_scale_that_is_not_told_is_not_made_up(name):
    weights = get_weight(name)
    inputs = input_bands(weights)
    assert expected_by(weights, inputs, inputs) is None


@pytest.mark.parametrize('level', WHITE)
def test_a_picture_is_as_white_as_a_true_colour_image_and_no_whiter(level):
    bands = ('B02', 'B04', 'B03')
    ends = torch.tensor([-50.0, 0.0, WHITE[level], 99_999.0])
    got = torch.stack([scaled(picture(bands, level), v.expand(3)) for v in ends])
    to_tensor = T.Normalize([0.406, 0.485, 0.456], [0.225, 0.229, 0.224])
    for row, value in zip(got, (0.0, 0.0, 1.0, 1.0), strict=True):
        wanted = to_tensor(torch.full((3, 1, 1), value)).flatten()
        assert torch.allclose(row, wanted, atol=1e-4)


def test_gassl_sees_a_picture_as_well():
    weights = get_weight('ResNet50_Weights.FMOW_RGB_GASSL')
    bands = ('B04', 'B03', 'B02')
    assert input_bands(weights) == bands
    assert expected_by(weights, bands, bands) == picture(bands, 'L2A')
