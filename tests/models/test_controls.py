import pytest
import torch
from timm.layers import resample_abs_pos_embed

from torchgeo_channelmae.models.controls import check_image, create_model, load_plain

BANDS = ('VV', 'VH')


@pytest.mark.parametrize('name', ['resnet18', 'vit_tiny_patch16_224'])
def test_a_model_takes_the_bands_and_the_size(name):
    model = create_model(name, BANDS, num_classes=19, size=64, drop_path_rate=0.0)
    assert model.bands == BANDS
    assert model(torch.randn(2, 2, 64, 64)).shape == (2, 19)


def test_names_and_arguments_that_no_model_has_are_refused():
    with pytest.raises(ValueError, match=r'did you mean .channelmae_tiny_patch16'):
        create_model('channelmea_tiny_patch16', BANDS, 19, 64)
    with pytest.raises(ValueError, match='drop_path'):
        create_model('vgg11', BANDS, 19, 64, drop_path_rate=0.1)
    model = create_model('vit_tiny_patch16_224', BANDS, 19, 64)
    with pytest.raises(ValueError, match=r'64 px.*80 px'):
        check_image(model, 80)


def test_weights_for_other_bands_and_sizes_arrive_but_for_the_first_layer():
    optical = create_model('vit_tiny_patch16_224', [f'B{i}' for i in range(13)], 0, 224)
    radar = create_model('vit_tiny_patch16_224', BANDS, 19, 64)
    before = {name: value.clone() for name, value in radar.state_dict().items()}
    report = load_plain(radar, optical.state_dict())
    after = radar.state_dict()
    assert report.resampled == ('pos_embed',)
    assert list(report.fresh) == ['patch_embed.proj.weight']
    assert report.left_over == ('patch_embed.proj.weight',)
    assert torch.equal(after['head.weight'], before['head.weight'])
    for name in report.loaded:
        assert torch.equal(after[name], optical.state_dict()[name])
    assert len(report.loaded) == len(after) - 4  # positions, first weights, the head
    # The class token's position is none of the grid.
    assert torch.equal(after['pos_embed'][:, 0], optical.pos_embed[:, 0])


def test_bands_that_the_weights_know_are_loaded_by_name_into_the_first_layer():
    bands = ('B02', 'B03', 'B04', 'B10')
    stored = create_model('resnet18', bands, 0, 64)
    model = create_model('resnet18', ('B04', 'B02', 'B03'), 19, 64)
    report = load_plain(model, stored.state_dict(), bands)
    assert torch.equal(model.conv1.weight, stored.conv1.weight[:, [2, 0, 1]])
    assert report.kept_bands == ('B04', 'B02', 'B03')
    assert report.left_over == ('conv1.weight of B10',)


@pytest.mark.parametrize(
    ('name', 'side'),
    [('vit_small_patch14_reg4_dinov2', 28), ('vit_base_patch16_siglip_224', 32)],
)
def test_positions_without_a_class_token_are_resampled_too(name, side):
    large = create_model(name, BANDS, 0, 2 * side, depth=1)
    small = create_model(name, BANDS, 0, side, depth=1)
    assert load_plain(small, large.state_dict()).resampled == ('pos_embed',)
    wanted = resample_abs_pos_embed(large.pos_embed, [2, 2], num_prefix_tokens=0)
    assert torch.equal(small.pos_embed, wanted)


def test_weights_of_another_model_are_refused():
    vit = create_model('vit_tiny_patch16_224', BANDS, 19, 64)
    resnet = create_model('resnet18', BANDS, 19, 64)
    with pytest.raises(ValueError, match='another model'):
        load_plain(resnet, vit.state_dict())
