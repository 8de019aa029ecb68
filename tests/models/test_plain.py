import pytest
import torch
from timm.layers import resample_abs_pos_embed

from torchgeo_channelmae.models.plain import create_plain, load_plain

BANDS = ('VV', 'VH')


@pytest.mark.parametrize(
    'name', ['resnet18', 'vit_tiny_patch16_224', 'deit_tiny_patch16_224', 'vgg11']
)
def test_a_model_takes_the_bands_and_the_size(name):
    model = create_plain(name, BANDS, num_classes=19, size=64, drop_path_rate=0.0)
    assert model.bands == BANDS
    assert model(torch.randn(2, 2, 64, 64)).shape == (2, 19)


def test_an_unknown_model_is_named_beside_what_there_is():
    with pytest.raises(
        ValueError, match=r"'resnet51' is not known.*channelmae_base"
    ) as e:
        create_plain('resnet51', BANDS, 19, 64)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize(
    ('name', 'nearest'),
    [('channelmea_tiny_patch16', 'channelmae_tiny_patch16'), ('resnet5O', 'resnet50')],
)
def test_an_unknown_model_is_named_beside_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f'known, did you mean {nearest!r}: choose'):
        create_plain(name, BANDS, 19, 64)


def test_weights_for_other_bands_and_sizes_arrive_but_for_the_first_layer():
    optical = create_plain('vit_tiny_patch16_224', [f'B{i}' for i in range(13)], 0, 224)
    radar = create_plain('vit_tiny_patch16_224', BANDS, 19, 64)
    before = {name: value.clone() for name, value in radar.state_dict().items()}
    report = load_plain(radar, optical.state_dict())
    after = radar.state_dict()
    assert report.resampled == ('pos_embed',)
    assert report.fresh == {
        'patch_embed.proj.weight': '192x13x16x16 in the weights, 192x2x16x16 here'
    }
    assert report.left_over == ('patch_embed.proj.weight',)
    assert torch.equal(after['head.weight'], before['head.weight'])
    for name in report.loaded:
        assert torch.equal(after[name], optical.state_dict()[name])
    assert len(report.loaded) == len(after) - 4  # positions, first weights, the head
    # The class token's position is none of the grid.
    assert torch.equal(
        after['pos_embed'][:, 0], optical.state_dict()['pos_embed'][:, 0]
    )


@pytest.mark.parametrize(
    ('name', 'prefix', 'side'),
    [('vit_small_patch14_reg4_dinov2', 0, 28), ('vit_base_patch16_siglip_224', 0, 32)],
)
def test_positions_without_a_class_token_are_resampled_too(name, prefix, side):
    large = create_plain(name, BANDS, 0, 2 * side, depth=1)
    small = create_plain(name, BANDS, 0, side, depth=1)
    report = load_plain(small, large.state_dict())
    assert report.resampled == ('pos_embed',)
    assert small.pos_embed.shape[1] == prefix + 4
    expected = resample_abs_pos_embed(large.pos_embed, [2, 2], num_prefix_tokens=0)
    assert torch.equal(small.pos_embed, expected)


def test_positions_of_no_square_grid_start_afresh():
    model = create_plain('vit_tiny_patch16_224', BANDS, 19, 64)
    tensors = dict(model.state_dict())
    tensors['pos_embed'] = torch.randn(1, 13, 192)
    report = load_plain(model, tensors)
    assert report.fresh == {'pos_embed': '1x13x192 in the weights, 1x17x192 here'}


def test_weights_of_another_model_are_refused():
    vit = create_plain('vit_tiny_patch16_224', BANDS, 19, 64)
    resnet = create_plain('resnet18', BANDS, 19, 64)
    with pytest.raises(ValueError, match='they are of another model'):
        load_plain(resnet, vit.state_dict())
