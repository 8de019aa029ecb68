"""Segmentation models take the encoder under its own name, for images of any size."""

import copy
import io

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.encoders import get_encoder

from torchgeo_channelmae.models import pad_inputs, register_variant

BANDS = {1: ['VV'], 2: ['VV', 'VH'], 3: ['B04', 'B03', 'B02'], 12: [*'abcdefghijkl']}
SMALL = {'embed_dim': 32, 'depth': 4, 'num_heads': 2}
THIN = {
    smp.Unet: {'decoder_channels': (16, 16, 8, 8, 8)},
    smp.FPN: {'decoder_pyramid_channels': 16, 'decoder_segmentation_channels': 32},
    smp.UPerNet: {'decoder_channels': 16},
    smp.DeepLabV3Plus: {'decoder_channels': 16},
    smp.Segformer: {'decoder_segmentation_channels': 16},
}
OTHER = (smp.UnetPlusPlus, smp.MAnet, smp.Linknet, smp.PSPNet, smp.DeepLabV3, smp.PAN)


@pytest.fixture(scope='module', autouse=True)
def small():
    for side in (8, 16):
        for count, bands in BANDS.items():
            model = f'channelmae_tiny_patch{side}'
            register_variant(f'small{side}_{count}', model, bands=bands, **SMALL)
    register_variant(
        'small_twice', 'channelmae_tiny_patch16', dates=2, bands=BANDS[3], **SMALL
    )


def build(architecture, name, in_channels, **kwargs):
    torch.manual_seed(0)
    arguments = THIN.get(architecture, {}) | kwargs
    model = architecture(
        name, encoder_weights=None, in_channels=in_channels, classes=3, **arguments
    )
    pad_inputs(model)
    return model


def image(channels, height=128, width=None):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, height, width or height, generator=draw)


@pytest.mark.parametrize(
    ('architecture', 'channels', 'side', 'size'),
    [
        *((kind, 1, 8, (61, 90)) for kind in THIN),
        *((kind, 12, 16, (96, 128)) for kind in THIN),
        *((kind, 2, 16, (120, 120)) for kind in OTHER),
    ],
    ids=lambda value: getattr(value, '__name__', str(value)),
)
def test_masks_have_the_size_of_the_image_and_all_tensors_learn(
    architecture, size, side, channels
):
    model = build(architecture, f'small{side}_{channels}', channels)
    masks = model(image(channels, *size))
    assert masks.shape == (2, 3, *size)
    masks.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    learning = dict(model.encoder.named_parameters())
    for name in ('patch_embed.proj.weight', f'spectral_embed.{BANDS[channels][0]}'):
        assert learning[name].grad.abs().max() > 0


@pytest.mark.parametrize(
    ('side', 'depth', 'stride', 'strides'),
    [
        (8, 5, 32, [1, 2, 4, 8, 16, 32]),
        (16, 5, 16, [1, 2, 4, 8, 16, 16]),
        (16, 5, 8, [1, 2, 4, 8, 8, 8]),
        (16, 3, 32, [1, 2, 4, 8]),
    ],
)
@torch.no_grad()
def test_there_is_one_map_per_stride_as_in_every_encoder_of_the_library(
    side, depth, stride, strides
):
    arguments = {'depth': depth, 'output_stride': stride}
    encoder = get_encoder(f'small{side}_2', in_channels=2, **arguments)
    maps = encoder(image(2, 64, 96))
    assert torch.equal(maps[0], image(2, 64, 96))
    assert [tuple(m.shape[2:]) for m in maps] == [(64 // s, 96 // s) for s in strides]
    assert [found.shape[1] for found in maps] == encoder.out_channels
    assert encoder.output_stride == strides[-1]


@torch.no_grad()
def test_maps_come_from_the_depths_that_the_encoder_names():
    encoder = get_encoder('small16_2', in_channels=2).eval()
    assert encoder.layers == [0, 0, 1, 2, 3]
    states = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda *call: states.append(call[2]))
    maps = encoder(image(2, 64))
    for number, (level, layer) in enumerate(
        zip(encoder.pyramid, encoder.layers, strict=True)
    ):
        tokens = encoder.norm(states[layer])[:, encoder.num_prefix_tokens :]
        cells = tokens.reshape(2, 2, 4, 4, 32).mean(1).movedim(-1, 1)
        torch.testing.assert_close(maps[number + 1], level(cells))


# Stacked dates


@torch.no_grad()
def test_each_of_two_stacked_dates_is_encoded_separately():
    encoder = get_encoder('small_twice', in_channels=6).eval()
    first, second = image(3, 64), image(3, 64).flip(0) + 1
    seen = []
    encoder.pyramid[-1].register_forward_hook(lambda *call: seen.append(call[1][0]))
    encoder(torch.cat([first, second], dim=1))
    single = [
        encoder.forward_intermediates(date, indices=[3], norm=True)[1][0]
        for date in (first, second)
    ]
    torch.testing.assert_close(seen[0], torch.cat(single, dim=1))


def test_stacked_dates_learn():
    model = build(smp.Unet, 'small_twice', 6)
    model(image(6, 120)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    register_variant('two_dates', 'channelmae_tiny_patch16', dates=2)
    assert get_encoder('two_dates', in_channels=4).bands == ('VV', 'VH')


@pytest.mark.parametrize(
    ('name', 'channels', 'named'),
    [
        ('small16_2', 3, 'in_channels is 3, .*VV, VH'),
        ('small_twice', 3, 'in_channels is 3, .*2 dates'),
        ('channelmae_tiny_patch16', 5, '5 channels .*variant'),
    ],
)
def test_a_channel_count_without_bands_is_refused(name, channels, named):
    with pytest.raises(ValueError, match=named):
        get_encoder(name, in_channels=channels)


# Weights, copies and DPT


def pretrained(bands=BANDS[12], size=128):
    torch.manual_seed(2)
    name = 'channelmae_tiny_patch16'
    model = timm.create_model(name, img_size=size, bands=bands, **SMALL)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize('size', [96, 128])
def test_a_checkpoints_tensors_are_loaded_unchanged_and_the_pyramid_kept(size):
    encoder = get_encoder('small16_12', in_channels=12)
    pyramid = copy.deepcopy(encoder.pyramid.state_dict())
    tensors = pretrained(size=size)
    encoder.load_state_dict(dict(tensors))
    found = encoder.state_dict()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert set(found) - set(tensors) == {f'pyramid.{name}' for name in pyramid}
    assert all(torch.equal(found[f'pyramid.{n}'], t) for n, t in pyramid.items())


def test_bands_that_a_checkpoint_lacks_start_near_those_that_it_has():
    encoder = get_encoder('small16_2', in_channels=2)
    tensors = pretrained(['a', 'VH'])
    known = [tensors[f'spectral_embed.{name}'].add_(5) for name in ('a', 'VH')]
    encoder.load_state_dict(tensors)
    assert torch.equal(encoder.spectral_embed['VH'], known[1])
    assert (encoder.spectral_embed['VV'] - 5).abs().max() < 0.2


@torch.no_grad()
def test_a_whole_model_comes_back_from_its_state_and_a_copy_from_a_pickle():
    model = build(smp.FPN, 'small16_2', 2).eval()
    expected = model(image(2, 120))
    again = build(smp.FPN, 'small16_2', 2, decoder_dropout=0.5).eval()
    torch.nn.init.zeros_(again.encoder.patch_embed.proj.weight)
    again.load_state_dict(model.state_dict())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = again, copy.deepcopy(model), torch.load(file, weights_only=False)
    for copied in copies:
        assert torch.equal(copied(image(2, 120)), expected)
