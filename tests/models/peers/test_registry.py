"""Every foundation model, small: bands in, scores out, and what does not fit."""

import copy
import math
import pickle

import pytest
import torch
from torchgeo.models import get_weight

from tests import peers
from torchgeo_channelmae.models.peers import (
    PEERS,
    check_published,
    create_peer,
    is_peer,
)
from torchgeo_channelmae.sensors import SENTINEL2_L2A, names
from torchgeo_channelmae.tasks.optim import layer_decay_groups
from torchgeo_channelmae.tasks.trainable import freeze_others, part_of, parts_in

RADAR, RGB, OPTICAL = ('VV', 'VH'), ('B04', 'B03', 'B02'), names(SENTINEL2_L2A)
TAKES = {
    'dofa_base_patch16_224': [RADAR, OPTICAL, (*RADAR, 'B08')],
    'croma_base': [RADAR, OPTICAL, (*OPTICAL, *RADAR)],
    'copernicusfm_base': [RADAR, OPTICAL, (*RADAR, 'B08')],
    'panopticon_vitb14': [RADAR, OPTICAL, (*RADAR, 'B08')],
    'scalemae_large_patch16': [RGB],
}
CASES = [(name, bands) for name, all_bands in TAKES.items() for bands in all_bands]


@pytest.fixture
def make(monkeypatch):
    peers.shrink(monkeypatch)

    def make(name, bands, grid=1, **kwargs):
        torch.manual_seed(0)
        size = grid * peers.SIDE.get(name, 32)
        return create_peer(name, bands, 19, size, **kwargs)

    return make


@pytest.mark.parametrize(('name', 'bands'), CASES)
def test_all_that_may_learn_learns_from_images_of_the_bands(make, name, bands):
    model = make(name, bands)
    freeze_others(model, parts_in(model))
    logits = model(torch.randn(2, len(bands), model.size, model.size))
    assert logits.shape == (2, 19)
    logits.square().sum().backward()
    # None without a gradient: processes wait for it (DDP).
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(('name', 'bands'), CASES)
def test_the_order_of_the_bands_does_not_matter(make, name, bands):
    model, other = make(name, bands), make(name, bands[::-1])
    own = other.state_dict()
    other.load_state_dict(
        {
            k: v if k in own and v.shape == own[k].shape else own[k]
            for k, v in model.state_dict().items()
        }
    )
    image = torch.randn(2, len(bands), model.size, model.size)
    with torch.no_grad():
        one, two = model.eval()(image), other.eval()(image.flip(1))
    assert torch.allclose(one, two, atol=1e-4)


@pytest.mark.parametrize('name', peers.NAMES)
def test_a_model_can_be_copied_pickled_and_run_in_bfloat16(make, name):
    bands = TAKES[name][0]
    model = make(name, bands).eval()
    image = torch.randn(1, len(bands), model.size, model.size)
    with torch.no_grad():
        wanted = model(image)
        assert torch.equal(copy.deepcopy(model)(image), wanted)
        with torch.autocast('cpu', torch.bfloat16):
            rounded = model(image)
    assert torch.allclose(rounded.float(), wanted, atol=0.1)
    pickle.dumps(model.state_dict())


@pytest.mark.parametrize('name', peers.NAMES)
def test_every_parameter_is_of_a_part_and_the_first_layer_of_its_own(make, name):
    model = make(name, TAKES[name][0])
    parts = {n: part_of(n, model) for n, _ in model.named_parameters()}
    assert {'patch_embed', 'blocks', 'head'} <= set(parts_in(model))
    assert parts['head.weight'] == 'head'
    rest = {n for n, part in parts.items() if part == 'blocks'}
    inner = ('blocks.', 'layers.', 'norm', 'cls_token', 'GAP_FFN')
    assert all(any(word in n for word in inner) for n in rest)


@pytest.mark.parametrize('name', peers.NAMES)
def test_lower_layers_learn_slower_block_by_block(make, name):
    model = make(name, TAKES[name][-1])
    groups = layer_decay_groups(model, 1.0, 0.05, 0.5)
    lr = {id(p): group['lr'] for group in groups for p in group['params']}
    rates = {n: lr[id(p)] for n, p in model.named_parameters() if p.requires_grad}
    assert rates['head.weight'] == 1
    first = min(rates.values())
    assert {part_of(n, model) for n, r in rates.items() if r == first} >= {
        'patch_embed'
    }
    depth = round(-math.log2(first)) - 1
    assert depth == {'croma_base': 4 + 2}.get(name, peers.DEPTH)  # and the joint ones
    for n, rate in rates.items():
        if '.blocks.' in n:
            number = int(n.split('.blocks.')[1].split('.')[0])
            assert rate == 0.5 ** (depth - number)


@pytest.mark.parametrize('name', [n for n in peers.NAMES if n != 'croma_base'])
def test_blocks_are_dropped_more_often_with_depth(make, name):
    model = make(name, TAKES[name][0], drop_path_rate=0.4)
    rates = [getattr(b.drop_path1, 'drop_prob', 0.0) for b in model.encoder.blocks]
    assert rates == pytest.approx(
        [0.4 * i / (len(rates) - 1) for i in range(len(rates))]
    )


@pytest.mark.parametrize('name', peers.NAMES)
def test_embeddings_do_not_decay(make, name):
    model = make(name, TAKES[name][0])
    groups = layer_decay_groups(model, 1.0, 0.05, 1.0)
    decays = {id(p): g['weight_decay'] for g in groups for p in g['params']}
    for n, p in model.named_parameters():
        if n.endswith(('pos_embed', 'cls_token', 'query')):
            assert decays.get(id(p), 0) == 0, n


@pytest.mark.parametrize('name', PEERS)
def test_every_full_model_can_be_made_by_name(name):
    bands = RGB if name.startswith('scalemae') else RADAR
    with torch.device('meta'):  # where it costs nothing
        model = create_peer(name, bands, 19, 16 if 'croma' in name else 112)
    kind = 'encoder.' if 'croma' not in name else 'encoder.s1_encoder.'
    assert any(n.startswith(kind) for n, _ in model.named_parameters())
    assert model.head.in_features >= 384  # none of the small ones of these tests
    assert {'patch_embed', 'blocks', 'head'} <= set(parts_in(model))


# What does not fit


@pytest.mark.parametrize(
    ('name', 'bands', 'size', 'message'),
    [
        ('croma_base', ('VV',), 32, 'croma_base takes both channels .* not VV'),
        ('croma_base', ('VV', 'VH', 'B04'), 32, 'not VV, VH, B04'),
        ('croma_base', (*OPTICAL, 'B10'), 32, 'all of the 12 bands'),
        ('croma_base', ('nir',), 32, 'and not nir'),
        ('croma_base', RADAR, 30, 'patches of 8 px, .* such as 24 or 32'),
        ('scalemae_large_patch16', RADAR, 32, 'red, green and blue alone, .* VV, VH'),
        ('scalemae_large_patch16', ('B04', 'B03'), 32, 'alone, and not B04, B03'),
        ('dofa_base_patch16_224', ('B04', 'nir'), 32, "wavelength .* 'nir'"),
        ('dofa_base_patch16_224', RADAR, 40, 'such as 32 or 48'),
        ('panopticon_vitb14', ('HH', 'VV'), 28, "wavelength .* 'HH'"),
        ('panopticon_vitb14', RADAR, 32, 'patches of 14 px, .* such as 28 or 42'),
        ('copernicusfm_base', ('B04', 'nir'), 32, "bandwidth .* those of 'nir'"),
        ('copernicusfm_base', RADAR, 8, 'images of 8 px: .* such as 16 or 32'),
    ],
)
def test_bands_or_sizes_that_a_model_can_not_take_are_one_sentence(
    make, name, bands, size, message
):
    with pytest.raises(ValueError, match=message) as caught:
        create_peer(name, bands, 19, size)
    assert '\n' not in str(caught.value)
    assert str(caught.value).count('. ') == 0


def test_a_model_without_stochastic_depth_says_so(make):
    with pytest.raises(ValueError, match='set drop_path to 0'):
        make('croma_base', RADAR, drop_path_rate=0.1)


def test_foundation_models_are_told_from_those_of_timm():
    assert is_peer('croma_base')
    assert not is_peer('resnet50')


@pytest.mark.parametrize(
    ('name', 'weights', 'owner'),
    [
        ('dofa_large_patch16_224', 'DOFABase16_Weights.DOFA_MAE', 'dofa_base_patch16'),
        ('croma_base', 'CROMALarge_Weights.CROMA_VIT', 'croma_large'),
        ('resnet18', 'ResNet50_Weights.SENTINEL2_ALL_MOCO', 'resnet50'),
        ('channelmae_base_patch16', 'Panopticon_Weights.VIT_BASE14', 'panopticon'),
        ('dofa_small_patch16_224', 'ScaleMAELarge16_Weights.FMOW_RGB', 'scalemae'),
    ],
)
def test_weights_of_another_model_are_refused_before_they_are_downloaded(
    name, weights, owner
):
    for given in (weights, get_weight(weights)):
        with pytest.raises(ValueError, match=f'are of the model {owner}') as caught:
            check_published(name, given)
        assert '\n' not in str(caught.value)


def test_weights_of_the_model_pass_and_so_do_paths():
    for name, entry in PEERS.items():
        for weights in entry.weights or ():
            assert check_published(name, str(weights)) is weights
    weights = get_weight('ResNet50_Weights.SENTINEL2_ALL_MOCO')
    assert check_published('resnet50.a1_in1k', weights) is weights
    assert check_published('resnet50', 'runs/pretrain/last.ckpt') is None
