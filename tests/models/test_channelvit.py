"""The encoder is a timm vision transformer over one token per band and grid cell."""

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.optim import param_groups_layer_decay
from torch import nn
from torchgeo.tasks.utils import extract_backbone, load_state_dict

from torchgeo_channelmae.masking import RandomTokens
from torchgeo_channelmae.models import ChannelViT
from torchgeo_channelmae.models.tokens import unpatchify
from torchgeo_channelmae.token_numbers import membership

BANDS = ('B02', 'B08', 'VV')


def encoder(bands=BANDS, img_size=(16, 24), **kwargs):
    """A small encoder in which every parameter has an effect."""
    arguments = {
        'patch_size': 8,
        'embed_dim': 32,
        'depth': 2,
        'num_heads': 4,
        'num_classes': 5,
    }
    torch.manual_seed(0)
    model = ChannelViT(img_size=img_size, bands=bands, **(arguments | kwargs)).eval()
    for name, parameter in model.named_parameters():
        if 'norm' not in name:
            nn.init.normal_(parameter, std=0.2)
    return model


def pixels(channels=3, height=16, width=24, batch=2):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, height, width, generator=draw)


def by_hand(model, image, chosen, positions=None):
    """Embed every band with a convolution of its own, pick, then run the blocks."""
    positions = model.pos_embed[0] if positions is None else positions
    side = model.patch_embed.patch_size[0]
    convolution = nn.Conv2d(1, model.embed_dim, side, stride=side)
    convolution.load_state_dict(model.patch_embed.proj.state_dict())
    tokens = []
    for channel, name in enumerate(model.bands):
        maps = convolution(image[:, channel : channel + 1])  # (B, D, h, w)
        cells = [
            maps[:, :, y, x] for y in range(maps.shape[2]) for x in range(maps.shape[3])
        ]
        tokens += [
            cell + positions[number] + model.spectral_embed[name]
            for number, cell in enumerate(cells)
        ]
    rows = []
    for sample, numbers in enumerate(chosen.tolist()):
        picked = [tokens[number][sample] for number in numbers]
        if model.cls_token is not None:
            picked.insert(0, model.cls_token[0, 0])
        rows.append(torch.stack(picked))
    states = torch.stack(rows)
    for block in model.blocks:
        states = block(states)
    return model.norm(states)


def visible_tokens(ratio):
    return RandomTokens(ratio)(torch.tensor([3, 4]), 0, 1, 18).visible


def everything(image, side=8):
    tokens = image.shape[1] * (image.shape[2] // side) * (image.shape[3] // side)
    return torch.arange(tokens).expand(len(image), -1)


# Names and bands


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        ({'in_chans': 12}, 'in_channels is 12'),
        ({'bands': ('VV', 'B02', 'VV')}, "'VV'"),
        ({'img_size': 20}, '16 or 24 px'),
        ({'band_maps': 'sum'}, 'band_maps'),
        ({'embed_std': 0}, 'embed_std'),
        ({'dynamic_img_size': True}, 'changevit'),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, named):
    with pytest.raises(ValueError, match=named):
        encoder(**arguments)


# Encoding


@pytest.mark.parametrize('class_token', [True, False])
@pytest.mark.parametrize('ratio', [0.1, 0.5, 0.75])
@torch.no_grad()
def test_encoding_some_tokens_is_embedding_all_and_running_the_blocks_on_those(
    class_token, ratio
):
    model, image = encoder(class_token=class_token), pixels()
    visible = visible_tokens(ratio)
    found = model.encode(image, visible)
    assert found.shape == (2, class_token + visible.shape[1], 32)
    expected = by_hand(model, image, visible)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_what_is_hidden_may_be_nan():
    model, image = encoder(), pixels()
    visible = visible_tokens(0.75)
    seen = membership(visible, 18)[..., None].expand(-1, -1, 64)
    blinded = image.where(unpatchify(seen, 3, (2, 3)), torch.nan)
    assert torch.equal(model.encode(blinded, visible), model.encode(image, visible))


@pytest.mark.parametrize(('down', 'across'), [(2, 3), (1, 1), (5, 2)])
@torch.no_grad()
def test_positions_are_resampled_to_any_size_that_the_patch_divides(down, across):
    model, image = encoder(), pixels(3, 8 * down, 8 * across)
    positions = resample_abs_pos_embed(
        model.pos_embed, [down, across], [2, 3], num_prefix_tokens=0
    )[0]
    expected = by_hand(model, image, everything(image), positions)
    found = model.forward_features(image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    chosen = everything(image)[:, ::2]
    expected = by_hand(model, image, chosen, positions)
    found = model.encode(image, chosen)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('call', ['forward', 'encode'])
def test_other_channels_than_bands_are_refused_with_both_numbers(call):
    model, image = encoder(), pixels(4)
    arguments = (image, torch.zeros(2, 1).long()) if call == 'encode' else (image,)
    with pytest.raises(ValueError, match=r'4 channels, .*3 bands \(B02, B08, VV\)'):
        getattr(model, call)(*arguments)


# Pooling and bands by name


@pytest.mark.parametrize('pool', ['avg', 'token'])
@torch.no_grad()
def test_the_feature_is_the_mean_of_the_band_tokens_or_the_class_token(pool):
    model, image = encoder(global_pool=pool), pixels()
    tokens = by_hand(model, image, everything(image))
    feature = tokens[:, 0] if pool == 'token' else tokens[:, 1:].mean(1)
    expected = feature @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(image), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_bands_in_another_order_give_the_same_feature():
    model, other, image = encoder(), encoder(('VV', 'B02', 'B08')), pixels()
    other.load_state_dict(model.state_dict())
    found = other(image[:, [2, 0, 1]])
    torch.testing.assert_close(found, model(image), rtol=1e-4, atol=1e-5)
    assert (other(image) - model(image)).abs().max() > 1e-3


# What TorchGeo and timm ask of a model


@pytest.mark.parametrize('size', [48, 32, 64])
def test_torchgeos_own_loader_brings_a_checkpoint_back(tmp_path, size):
    name = 'channelmae_tiny_patch16'
    trained = timm.create_model(name, img_size=48, depth=2).eval()
    state = {f'model.{key}': value for key, value in trained.state_dict().items()}
    state['decoder.mask_token'] = torch.zeros(1)
    path = tmp_path / 'last.ckpt'
    torch.save({'hyper_parameters': {'model': name}, 'state_dict': state}, path)

    found, tensors = extract_backbone(str(path))
    model = timm.create_model(found, img_size=size, num_classes=0, depth=2).eval()
    missing, unexpected = load_state_dict(model, tensors)

    assert list(dict(model.named_children()))[-1] == 'head'  # which TorchGeo replaces
    assert missing == unexpected == []
    assert torch.equal(model.pos_embed, trained.pos_embed)
    image = pixels(12, 32, 64)
    with torch.no_grad():
        assert torch.equal(model(image), trained(image))


def test_bands_that_weights_lack_are_warned_about_and_the_others_loaded():
    model, known = encoder(('VV', 'B02')), encoder(('B02', 'B08'))
    with pytest.warns(UserWarning, match='no band VV, .*LoadWeights'):
        model.load_state_dict(known.state_dict(), strict=False)
    assert torch.equal(model.spectral_embed['B02'], known.spectral_embed['B02'])
    with pytest.raises(RuntimeError, match=r'spectral_embed\.VV'):
        model.load_state_dict(known.state_dict())


def test_layer_decay_puts_all_embeddings_into_the_lowest_layer():
    model = encoder(img_size=16)
    groups = param_groups_layer_decay(
        model, 0.05, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.5
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    scale, decay = (
        {names[id(p)]: group[key] for group in groups for p in group['params']}
        for key in ('lr_scale', 'weight_decay')
    )
    spectral = {f'spectral_embed.{band}' for band in BANDS}
    projection = {'patch_embed.proj.weight', 'patch_embed.proj.bias'}
    lowest = {name for name, value in scale.items() if value == min(scale.values())}
    assert lowest == {'cls_token', 'pos_embed'} | projection | spectral
    assert scale['head.weight'] == scale['head.bias'] == 1
    plain = {n for n in names.values() if n.endswith('bias') or 'norm' in n}
    without = {name for name, value in decay.items() if value == 0}
    assert without == {'cls_token', 'pos_embed'} | spectral | plain


@pytest.mark.parametrize('band_maps', ['mean', 'concat'])
@torch.no_grad()
def test_feature_maps_reduce_the_bands_of_each_cell(band_maps):
    model, image = encoder(band_maps=band_maps), pixels()
    states = []
    for block in model.blocks:
        block.register_forward_hook(lambda *call: states.append(call[2]))
    maps = model.forward_intermediates(image)[1]
    for found, state in zip(maps, states, strict=True):
        for y in range(2):
            for x in range(3):
                own = [state[:, 1 + c * 6 + y * 3 + x] for c in range(3)]
                cell = sum(own) / 3 if band_maps == 'mean' else torch.cat(own, dim=1)
                torch.testing.assert_close(found[:, :, y, x], cell)


@torch.no_grad()
def test_feature_maps_come_in_every_form_of_timms():
    model, image = encoder(), pixels()
    _, maps = model.forward_intermediates(image)
    only = model.forward_intermediates(image, indices=1, intermediates_only=True)
    named = model.forward_intermediates(image, output_dict=True)
    paired = model.forward_intermediates(image, return_prefix_tokens=True)[1]
    tokens = model.forward_intermediates(image, output_fmt='NLC')[1]
    assert torch.equal(only[0], maps[-1])
    assert torch.equal(named['image_intermediates'][0], maps[0])
    assert torch.equal(paired[0][0], maps[0])
    assert tokens[0].shape == (2, 18, 32)


@pytest.mark.parametrize('band_maps', ['mean', 'concat'])
@torch.no_grad()
def test_a_feature_extractor_knows_the_channels_of_its_maps(band_maps):
    arguments = {'bands': BANDS, 'depth': 4, 'band_maps': band_maps}
    extractor = timm.create_model(
        'channelmae_tiny_patch16', features_only=True, out_indices=(1, 3), **arguments
    )
    channels = [found.shape[1] for found in extractor(pixels(3, 32, 48))]
    assert channels == extractor.feature_info.channels()
    assert channels == [192 * (3 if band_maps == 'concat' else 1)] * 2
    assert extractor.feature_info.reduction() == [16, 16]


def test_a_new_input_size_resamples_the_positions():
    model = encoder(img_size=16)
    before = model.pos_embed.detach().clone()
    model.set_input_size(img_size=(32, 24))
    assert model.patch_embed.grid_size == (4, 3)
    expected = resample_abs_pos_embed(before, [4, 3], [2, 2], num_prefix_tokens=0)
    assert torch.equal(model.pos_embed, expected)
    assert model(pixels(3, 32, 24)).shape == (2, 5)
    with pytest.raises(ValueError, match='patch size'):
        model.set_input_size(patch_size=16)


def test_gradient_checkpointing_changes_neither_output_nor_gradients():
    image = pixels()
    visible = visible_tokens(0.5)
    results = []
    for enable in (False, True):
        model = encoder().train()
        model.set_grad_checkpointing(enable)
        output = model.encode(image, visible)
        (output.square().mean() + model(image).square().mean()).backward()
        results.append((output, [p.grad for p in model.parameters()]))
    (plain, gradients), (checkpointed, again) = results
    assert torch.equal(plain, checkpointed)
    assert all(gradient is not None for gradient in gradients)
    torch.testing.assert_close(again, gradients)
