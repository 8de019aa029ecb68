"""Foundation models behind one adapter get the same input as when called by hand."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torchgeo.models import get_model_weights, get_weight

from tests import peers
from torchgeo_channelmae.models.controls import check_image
from torchgeo_channelmae.models.peers import PEERS, Peer, check_published, fit_input
from torchgeo_channelmae.models.peers.scaling import picture
from torchgeo_channelmae.sensors import SENTINEL2_L2A, names
from torchgeo_channelmae.tasks.optim import layer_decay_groups
from torchgeo_channelmae.tasks.trainable import freeze_others, part_of, parts_in

RADAR, RGB, OPTICAL = ('VV', 'VH'), ('B04', 'B03', 'B02'), names(SENTINEL2_L2A)
ANY = [RADAR, OPTICAL, (*RADAR, 'B08')]
TAKES = dict.fromkeys(peers.BUILDERS, ANY) | {
    'croma_base': [RADAR, OPTICAL, (*OPTICAL, *RADAR)],
    'scalemae_large_patch16': [RGB],
}
CASES = [(name, bands) for name, several in TAKES.items() for bands in several]


@pytest.fixture
def make(monkeypatch):
    peers.shrink(monkeypatch)

    def make(name, bands=None, grid=1, **kwargs):
        torch.manual_seed(0)
        size = grid * peers.SIDE.get(name, 32)
        return Peer(name, bands or TAKES[name][0], 19, size, **kwargs)

    return make


def images(model):
    draw = torch.Generator().manual_seed(0)
    return torch.randn(2, len(model.bands), model.size, model.size, generator=draw)


@pytest.mark.parametrize(('name', 'bands'), CASES)
def test_every_parameter_that_may_learn_gets_a_gradient(make, name, bands):
    model = make(name, bands)
    freeze_others(model, parts_in(model))
    logits = model(images(model))
    assert logits.shape == (2, 19)
    logits.square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


AREA = torch.tensor([[math.nan] * 3 + [0.0256]] * 2)  # km2, of 16 px of 10 m
IDS = torch.tensor([[-1, 664.6, -2]] * 2)
BY_HAND = [
    (
        'dofa_base_patch16_224',
        ('VH', 'B04', 'B8A'),
        lambda model, x: model.forward_features(x, [3.75, 0.6646, 0.8647]),
    ),
    (
        'copernicusfm_base',
        ('B04', 'VV'),
        lambda model, x: model.forward_features(x, AREA, [665, 5e7], [30, 1e9]),
    ),
    (
        'panopticon_vitb14',
        ('VV', 'B04', 'VH'),
        lambda model, x: model({'imgs': x, 'chn_ids': IDS.clone()}),
    ),
    ('croma_base', ('VH', 'VV'), lambda model, x: model(x.flip(1))['sar_GAP']),
    (
        'croma_base',
        (*OPTICAL[::-1], *RADAR),
        lambda model, x: model(x[:, 12:], x[:, :12].flip(1))['joint_GAP'],
    ),
    (
        'scalemae_large_patch16',
        ('B02', 'B04', 'B03'),
        lambda model, x: model(x[:, [1, 2, 0]]),
    ),
]


@pytest.mark.parametrize(('name', 'bands', 'by_hand'), BY_HAND)
def test_features_are_those_of_the_encoder_called_by_hand(make, name, bands, by_hand):
    model = make(name, bands).eval()
    image = images(model)
    with torch.no_grad():
        wanted = by_hand(model.encoder, image)
        assert torch.equal(model.features(image), wanted)
        assert torch.equal(model.features(image), wanted)  # nothing was written to
        logits = model(image)
        assert torch.equal(copy.deepcopy(model)(image), logits)
        with torch.autocast('cpu', torch.bfloat16):
            assert torch.allclose(model(image).float(), logits, atol=0.1)


@pytest.mark.parametrize('name', peers.BUILDERS)
def test_lower_layers_learn_slower_and_embeddings_do_not_decay(make, name):
    model = make(name, TAKES[name][-1])
    assert {'patch_embed', 'blocks', 'head'} <= set(parts_in(model))
    groups = layer_decay_groups(model, 1.0, 0.05, 0.5, 'adamw')
    found = {p: group for group in groups for p in group['params']}
    named = {n: found[p] for n, p in model.named_parameters() if p in found}
    depth = 4 + 2 if name == 'croma_base' else peers.DEPTH  # and joint layers
    lowest = 0.5 ** (depth + 1)
    assert named['head.weight']['lr'] == 1
    assert min(group['lr'] for group in groups) == lowest
    assert 'patch_embed' in {
        part_of(n, model) for n, group in named.items() if group['lr'] == lowest
    }
    for n, group in named.items():
        if '.blocks.' in n:
            number = int(n.split('.blocks.')[1].split('.')[0])
            assert group['lr'] == 0.5 ** (depth - number)
        if n.endswith(('pos_embed', 'cls_token', 'query')):
            assert group['weight_decay'] == 0, n


@pytest.mark.parametrize('name', ['dofa_base_patch16_224', 'copernicusfm_base'])
def test_fixed_positions_are_sines_and_cosines_and_do_not_learn(make, name):
    model = make(name, grid=2)
    found = dict(model.named_buffers())['encoder.pos_embed'][0]
    width = found.shape[1]
    cells = torch.arange(16)
    rates = 10000 ** -(torch.arange(width // 4) / (width // 4))
    angles = [place[:, None] * rates for place in (cells % 4, cells // 4)]
    wanted = [f(angle) for angle in angles for f in (torch.sin, torch.cos)]
    assert torch.equal(found[0], torch.zeros(width))
    assert torch.allclose(found[1:], torch.cat(wanted, 1), atol=1e-5)


@pytest.mark.parametrize('name', PEERS)
def test_every_full_model_can_be_created_by_name(name):
    with torch.device('meta'):  # where it costs nothing
        bands = RGB if name.startswith('scalemae') else RADAR
        model = Peer(name, bands, 19, 16 if 'croma' in name else 112)
    assert model.head.in_features >= 384  # none of the small ones
    assert {'patch_embed', 'blocks', 'head'} <= set(parts_in(model))


# Input


def test_croma_gets_two_standard_deviations_as_zero_to_one(make):
    model = make('croma_base')
    fit_input(model, None, starts=True)
    image = images(model)
    assert torch.allclose(model.input_scaling(image), ((image + 2) / 4).clip(0, 1))


class Data:
    """Patches of 120 px, resized to 64 px."""

    side, size, size_by = 120, 64, 'resize'
    mean = std = torch.ones(3)

    class facts:  # noqa: N801
        class record:  # noqa: N801
            sensors = ('Sentinel-2 L1C',)


def test_scalemae_gets_metres_per_pixel_and_a_picture_of_the_product_level(make):
    model = make('scalemae_large_patch16', grid=2).eval()
    image = images(model)
    fit_input(model, None, starts=False)
    assert model.encoder.res == 10
    assert model.expected() == picture(RGB, 'L2A')
    before = model.features(image)
    fit_input(model, Data, starts=False)
    assert model.encoder.res == pytest.approx(10 * 120 / 64)
    assert model.expected() == picture(RGB, 'L1C')
    assert not torch.allclose(model.features(image), before)


# What does not fit


@pytest.mark.parametrize(
    ('name', 'bands', 'size', 'message'),
    [
        ('croma_base', ('VV',), 32, 'VV'),
        ('croma_base', (*OPTICAL, 'B10'), 32, 'B10'),
        ('croma_base', RADAR, 30, '24 or 32'),
        ('scalemae_large_patch16', RADAR, 32, 'VV, VH'),
        ('dofa_base_patch16_224', ('B04', 'nir'), 32, 'nir'),
        ('panopticon_vitb14', RADAR, 32, '28 or 42'),
        ('copernicusfm_base', ('B04', 'nir'), 32, 'nir'),
    ],
)
def test_bands_and_sizes_that_a_model_cannot_take_are_named(name, bands, size, message):
    with pytest.raises(ValueError, match=message):
        Peer(name, bands, 19, size)


def test_stochastic_depth_increases_with_depth(make):
    blocks = make('scalemae_large_patch16', drop_path_rate=0.4).encoder.blocks
    assert [getattr(block.drop_path1, 'drop_prob', 0) for block in blocks] == [0, 0.4]
    with pytest.raises(ValueError, match='drop_path'):
        make('croma_base', drop_path_rate=0.1)


def test_images_of_another_size_are_refused(make):
    with pytest.raises(ValueError, match=r'32 px.*24 px'):
        check_image(make('croma_base'), 24)


@pytest.mark.parametrize(
    ('name', 'weights', 'owner'),
    [
        ('dofa_large_patch16_224', 'DOFABase16_Weights.DOFA_MAE', 'dofa_base_patch16'),
        ('croma_base', 'CROMALarge_Weights.CROMA_VIT', 'croma_large'),
        ('resnet18', 'ResNet50_Weights.SENTINEL2_ALL_MOCO', 'resnet50'),
    ],
)
def test_weights_of_another_model_are_refused_before_they_are_downloaded(
    name, weights, owner
):
    for given in (weights, get_weight(weights)):
        with pytest.raises(ValueError, match=owner):
            check_published(name, given)


def test_weights_of_the_model_pass_and_so_do_paths():
    for name, model in PEERS.items():
        for weights in model.weights or ():
            assert check_published(name, str(weights)) is weights
        if model.weights:
            assert get_model_weights(name) is model.weights
    weights = get_weight('ResNet50_Weights.SENTINEL2_ALL_MOCO')
    assert check_published('resnet50.a1_in1k', weights) is weights
    for path in ('runs/pretrain/last.ckpt', Path('last.ckpt')):
        assert check_published('resnet50', path) is None
