import pytest
import timm
import torch
from segmentation_models_pytorch.encoders import encoders

from torchgeo_channelmae.models.registry import did_you_mean, register_variant

RGB_NIR = ['B04', 'B03', 'B02', 'B08']


@pytest.fixture(scope='module', autouse=True)
def variant():
    register_variant(
        'registry_rgb_nir', 'channelmae_tiny_patch16', bands=RGB_NIR, depth=2
    )


@torch.no_grad()
def test_a_variant_stands_for_its_bands_where_a_task_gives_a_count_only():
    model = timm.create_model('registry_rgb_nir', in_chans=4, num_classes=3)
    assert model.bands == tuple(RGB_NIR)
    assert model(torch.randn(1, 4, 32, 48)).shape == (1, 3)
    assert timm.create_model('registry_rgb_nir').bands == tuple(RGB_NIR)


def test_what_a_variant_says_can_be_said_otherwise_where_it_is_made():
    model = timm.create_model('registry_rgb_nir', bands=['VV'], depth=1)
    assert model.bands == ('VV',)
    assert len(model.blocks) == 1


def test_a_variant_is_listed_by_timm_and_segmentation_models():
    assert timm.list_models('registry_*') == ['registry_rgb_nir']
    assert 'registry_rgb_nir' in encoders


def test_a_count_that_contradicts_a_variant_is_refused():
    with pytest.raises(ValueError, match=r'^in_channels is 3, but bands names 4 '):
        timm.create_model('registry_rgb_nir', in_chans=3)


def test_the_same_variant_may_be_registered_again_and_another_may_not():
    arguments = {'bands': RGB_NIR, 'depth': 2}
    register_variant('registry_rgb_nir', 'channelmae_tiny_patch16', **arguments)
    for name, model in (
        ('registry_rgb_nir', 'channelmae_small_patch16'),
        ('resnet18', 'channelmae_tiny_patch16'),
        ('mit_b0', 'channelmae_tiny_patch16'),
    ):
        with pytest.raises(ValueError, match=f'^The name {name!r} is taken: [^\n]*$'):
            register_variant(name, model, **arguments)


def test_a_variant_of_no_model_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'channelmae_base_patch16'"):
        register_variant('registry_x', 'channelmae_bass_patch16', bands=['VV'])
    with pytest.raises(ValueError, match=r'^dates is 0: [^\n]*$'):
        register_variant('registry_x', 'channelmae_tiny_patch16', dates=0)


@pytest.mark.parametrize('name', ['rgb.nir', 'rgb-nir', 'tu-x', ''])
def test_a_name_that_timm_would_read_otherwise_is_refused(name):
    with pytest.raises(ValueError, match=r'^The name .* letters, digits [^\n]*$'):
        register_variant(name, 'channelmae_tiny_patch16', bands=['VV'])


def test_a_variant_may_have_any_name_that_is_free():
    register_variant('encoders', 'channelmae_tiny_patch16', bands=['VV'], depth=1)
    register_variant('nn', 'channelmae_tiny_patch16', bands=['VH'], depth=1)
    assert timm.create_model('encoders').bands == ('VV',)


def test_stacked_dates_are_for_segmentation_alone():
    register_variant('registry_twice', 'channelmae_tiny_patch16', dates=2)
    assert 'registry_twice' in encoders
    assert not timm.is_model('registry_twice')


def test_a_name_near_none_has_no_nearest():
    assert did_you_mean('vv', ['channelmae_tiny_patch16']) == ''
    assert did_you_mean('VVV', ['VV', 'VH']) == ", did you mean 'VV'"
