"""Segmentation models take images of any size by padding and cropping."""

import copy

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from torchgeo_channelmae.models import pad_inputs, register_variant
from torchgeo_channelmae.models.padding import pad


@pytest.fixture(scope='module', autouse=True)
def small():
    small = {'embed_dim': 32, 'depth': 2, 'num_heads': 2}
    register_variant('padded', 'channelmae_tiny_patch16', bands=['VV', 'VH'], **small)


def unet(**kwargs):
    torch.manual_seed(0)
    channels = (16, 16, 8, 8, 8)
    arguments = {'encoder_weights': None, 'in_channels': 2, 'classes': 3}
    return smp.Unet('padded', decoder_channels=channels, **arguments, **kwargs).eval()


def test_an_image_is_reflected_at_its_bottom_and_right():
    image = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]]])
    expected = [[1, 2, 3, 2], [4, 5, 6, 5], [7, 8, 9, 8], [4, 5, 6, 5]]
    assert pad(image, 4)[0, 0].tolist() == expected


def test_an_image_smaller_than_the_padding_repeats_its_edge():
    padded = pad(torch.tensor([[[[1.0, 2.0]]]]), 4)
    assert padded.tolist() == [[[[1.0, 2.0, 2.0, 2.0]] * 4]]


@torch.no_grad()
def test_masks_are_those_of_an_image_that_was_padded_before():
    plain, image = unet(), torch.randn(2, 2, 120, 120)
    expected = plain(pad(image, 32))[..., :120, :120]
    model = copy.deepcopy(plain)
    pad_inputs(nn.ModuleDict({'model': model}))
    pad_inputs(model)  # changes nothing
    assert torch.equal(model(image), expected)
    assert torch.equal(copy.deepcopy(model)(x=image), expected)
    fits = torch.randn(2, 2, 64, 96)
    assert torch.equal(model(fits), plain(fits))


def test_without_padding_an_image_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='pad_inputs'):
        unet()(torch.randn(1, 2, 120, 120))


def test_class_scores_are_kept_beside_cropped_masks():
    model = unet(aux_params={'classes': 4})
    pad_inputs(model)
    masks, labels = model(torch.randn(2, 2, 120, 120))
    assert masks.shape == (2, 3, 120, 120)
    assert labels.shape == (2, 4)


def test_models_with_other_encoders_are_unchanged():
    model = smp.FPN('resnet18', encoder_weights=None)
    pad_inputs(model)
    with pytest.raises(RuntimeError, match='Wrong input shape'):
        model(torch.randn(1, 3, 120, 120))
