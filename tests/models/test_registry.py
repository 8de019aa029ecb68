"""The encoders are found by name in timm and segmentation-models-pytorch."""

import pytest
import timm
import torch
from segmentation_models_pytorch.encoders import encoders

from torchgeo_channelmae.models.registry import register_variant

RGB_NIR = ['B04', 'B03', 'B02', 'B08']
NAMES = [
    f'channelmae_{size}_patch{side}'
    for size in ('tiny', 'small', 'base', 'large')
    for side in (8, 16)
]


@pytest.fixture(scope='module', autouse=True)
def variant():
    register_variant(
        'registry_rgb_nir', 'channelmae_tiny_patch16', bands=RGB_NIR, depth=2
    )


@pytest.mark.parametrize('name', NAMES)
def test_a_name_gives_the_patch_size_and_the_width(name):
    model = timm.create_model(name, depth=1, img_size=16)
    widths = {'tiny': 192, 'small': 384, 'base': 768, 'large': 1024}
    _, size, patch = name.split('_')
    assert model.embed_dim == widths[size]
    assert model.patch_embed.proj.weight.shape[1:] == (1, *[int(patch[5:])] * 2)
    assert model.embed_dim // model.blocks[0].attn.num_heads == 64
    assert name in encoders


@torch.no_grad()
def test_a_variant_has_its_bands_where_a_task_gives_only_a_count():
    model = timm.create_model('registry_rgb_nir', in_chans=4, num_classes=3)
    assert model.bands == tuple(RGB_NIR)
    assert model(torch.randn(1, 4, 32, 48)).shape == (1, 3)
    assert timm.list_models('registry_*') == ['registry_rgb_nir']
    config = timm.data.resolve_model_data_config(model)
    assert config['mean'] == (588.41, 614.06, 438.37, 2193.29)
    with pytest.raises(ValueError, match='in_channels is 3'):
        timm.create_model('registry_rgb_nir', in_chans=3)
    assert timm.create_model('registry_rgb_nir', bands=['VV']).bands == ('VV',)


def test_only_the_same_variant_may_be_registered_again():
    arguments = {'bands': RGB_NIR, 'depth': 2}
    register_variant('registry_rgb_nir', 'channelmae_tiny_patch16', **arguments)
    for name, model in (
        ('registry_rgb_nir', 'channelmae_small_patch16'),
        ('resnet18', 'channelmae_tiny_patch16'),
        ('mit_b0', 'channelmae_tiny_patch16'),
    ):
        with pytest.raises(ValueError, match=name):
            register_variant(name, model, **arguments)


@pytest.mark.parametrize(
    ('name', 'model', 'dates', 'named'),
    [
        ('registry_x', 'channelmae_bass_patch16', 1, "mean 'channelmae_base_patch16'"),
        ('registry_x', 'channelmae_tiny_patch16', 0, 'dates'),
        ('rgb.nir', 'channelmae_tiny_patch16', 1, 'rgb.nir'),
    ],
)
def test_a_variant_that_cannot_be_is_refused(name, model, dates, named):
    with pytest.raises(ValueError, match=named):
        register_variant(name, model, dates)
