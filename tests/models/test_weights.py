"""Weights are loaded by name, bands too, and a load reports what it did."""

import pytest
import torch
from timm.layers import resample_abs_pos_embed

from torchgeo_channelmae import sensors
from torchgeo_channelmae.models import ChannelMAEDecoder, ChannelViT
from torchgeo_channelmae.models.weights import load_decoder, load_encoder

L2A = sensors.names(sensors.SENTINEL2_L2A)
RADAR = ('VV', 'VH')
POLICIES = ('sample', 'index', 'nearest', 'random')


def encoder(bands=L2A, img_size=32, seed=0, **kwargs):
    torch.manual_seed(seed)
    arguments = {'patch_size': 8, 'embed_dim': 64, 'depth': 2, 'num_heads': 2}
    return ChannelViT(img_size=img_size, bands=bands, **(arguments | kwargs))


@pytest.fixture
def trained():
    """The state of a 12-band encoder with embeddings around a mean of 3."""
    model = encoder(seed=1)
    with torch.no_grad():
        for number, row in enumerate(model.spectral_embed.values()):
            row.copy_(3 + 0.5 * torch.randn(64) + 0.01 * number)
    return model.state_dict()


# What is loaded


@pytest.mark.parametrize('bands', [RADAR, ('VV', 'B04', 'B10'), L2A[::-1]])
def test_all_but_head_and_fresh_bands_is_loaded_unchanged(trained, bands):
    model = encoder(bands, num_classes=19)
    head = model.head.weight.detach().clone()
    state = trained | {'head.weight': torch.zeros(19, 64)}
    report = load_encoder(model, state)
    known = tuple(band for band in bands if band in L2A)
    fresh = {f'spectral_embed.{band}' for band in bands if band not in L2A}
    own = {k for k in model.state_dict() if not k.startswith('head.')}
    assert set(report.loaded) == own - fresh
    for name in report.loaded:
        assert torch.equal(model.state_dict()[name], trained[name]), name
    assert report.kept_bands == known
    assert list(report.fresh_bands) == [band for band in bands if band not in L2A]
    assert report.fresh == {}
    assert set(report.left_over) == set(state) - own
    assert torch.equal(model.head.weight, head)


def test_what_the_weights_lack_is_reported_and_kept(trained):
    model = encoder(patch_size=16, img_size=64)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = load_encoder(model, {k: v for k, v in trained.items() if k != 'cls_token'})
    shapes = '64x1x8x8 in the weights, 64x1x16x16 here'
    missing = {'cls_token': 'not in the weights', 'patch_embed.proj.weight': shapes}
    assert report.fresh == missing
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in missing)


@pytest.mark.parametrize('kwargs', [{'embed_dim': 32}, {'adopt': True}])
def test_weights_of_another_model_are_refused_and_change_nothing(trained, kwargs):
    model = encoder(img_size=64, embed_dim=kwargs.get('embed_dim', 64))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = trained if 'embed_dim' in kwargs else {'pos_embed': trained['pos_embed']}
    with pytest.raises(ValueError, match='first difference is cls_token'):
        load_encoder(model, state, adopt_grid=True)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_report_is_one_line_that_groups_tensors(trained):
    state = trained | {f'decoder.blocks.{i}.w': torch.zeros(1) for i in range(3)}
    report = load_encoder(encoder(('VV', 'B02'), img_size=64), state, 'index')
    assert str(report) == (
        f'{len(report.loaded)} tensors loaded; resampled: pos_embed; bands with their '
        f'weights: B02; fresh bands: VV (index: as B01); left over: spectral_embed '
        f'(11 tensors), decoder (3 tensors).'
    )


# Positions


@pytest.mark.parametrize('side', [8, 3, 4])
@pytest.mark.parametrize('adopt', [True, False])
def test_positions_are_resampled_or_the_grid_of_the_weights_is_adopted(
    trained, side, adopt
):
    model = encoder(RADAR, img_size=8 * side)
    report = load_encoder(model, trained, adopt_grid=adopt)
    grid = [4, 4] if adopt else [side, side]
    expected = resample_abs_pos_embed(
        trained['pos_embed'], grid, old_size=[4, 4], num_prefix_tokens=0
    )
    assert torch.equal(model.pos_embed, expected)
    assert model.patch_embed.grid_size == tuple(grid)
    assert report.resampled == (() if grid == [4, 4] else ('pos_embed',))


# Fresh bands


def fresh(state, bands, policy):
    model = encoder(bands)
    report = load_encoder(model, state, policy)
    rows = {name: row.detach().clone() for name, row in model.spectral_embed.items()}
    return rows, report.fresh_bands


def test_sampled_bands_have_the_mean_and_spread_of_the_pretrained(trained, monkeypatch):
    monkeypatch.setenv('PL_GLOBAL_SEED', '7')
    rows, how = fresh(trained, tuple(f'new{i}' for i in range(400)), 'sample')
    drawn = torch.stack(list(rows.values()))
    known = torch.stack([trained[f'spectral_embed.{band}'] for band in L2A])
    error = (drawn.mean(0) - known.mean(0)) / (known.std(0) / 400**0.5)
    assert error.abs().max() < 5
    ratio = drawn.std(0) / known.std(0)
    assert 0.8 < ratio.min() < ratio.max() < 1.2
    assert set(how.values()) == {'sample: around the mean of 12 bands, draw 7'}


@pytest.mark.parametrize('policy', ['sample', 'random'])
def test_drawn_bands_differ_and_are_those_of_the_seed(trained, policy, monkeypatch):
    rows, _ = fresh(trained, RADAR, policy)
    model, before = encoder(RADAR, seed=123), torch.random.get_rng_state()
    load_encoder(model, trained, policy)
    assert torch.equal(torch.random.get_rng_state(), before)
    again, _ = fresh(trained, ('B02', 'VH', 'B10', 'VV'), policy)
    assert torch.equal(rows['VV'], again['VV'])
    assert torch.equal(rows['VH'], again['VH'])
    assert (rows['VV'] - rows['VH']).abs().max() > 0.01
    monkeypatch.setenv('PL_GLOBAL_SEED', '1')
    other, _ = fresh(trained, RADAR, policy)
    assert (rows['VV'] - other['VV']).abs().max() > 0.01


@pytest.mark.parametrize('policy', POLICIES)
def test_bands_start_as_from_scratch_where_random_or_the_weights_have_none(
    trained, policy
):
    if policy != 'random':
        trained = {k: v for k, v in trained.items() if 'spectral_embed' not in k}
    rows, how = fresh(trained, tuple(f'new{i}' for i in range(50)), policy)
    drawn = torch.stack(list(rows.values()))
    assert drawn.std().item() == pytest.approx(0.02, rel=0.1)
    assert abs(drawn.mean().item()) < 0.002
    assert all(origin.startswith('random: draw ') for origin in how.values())


def test_by_index_a_band_starts_as_the_one_at_its_position(trained):
    rows, how = fresh(trained, (*RADAR, *L2A[2:], 'B10'), 'index')
    assert torch.equal(rows['VV'], trained['spectral_embed.B01'])
    assert torch.equal(rows['VH'], trained['spectral_embed.B02'])
    sampled, _ = fresh(trained, ('B10',), 'sample')
    assert torch.equal(rows['B10'], sampled['B10'])
    assert how['VV'] == 'index: as B01'
    assert how['B10'].startswith('sample')


@pytest.mark.parametrize('missing', ['B01', 'B8A', 'B09', 'B12'])
def test_by_wavelength_a_band_starts_as_its_nearest_neighbor(trained, missing):
    state = {k: v for k, v in trained.items() if k != f'spectral_embed.{missing}'}
    wavelengths = {band.name: band.wavelength for band in sensors.SENTINEL2_L2A}
    own = wavelengths.pop(missing)
    nearest = sorted(wavelengths, key=lambda name: abs(wavelengths[name] - own))[0]
    rows, how = fresh(state, (missing,), 'nearest')
    assert torch.equal(rows[missing], trained[f'spectral_embed.{nearest}'])
    assert how == {missing: f'nearest: as {nearest}'}


# Decoders


def decoder(bands, grid=(4, 4), depth=1, seed=0):
    torch.manual_seed(seed)
    return ChannelMAEDecoder(bands, grid, 8, 64, 32, depth, 2)


def test_a_decoder_loads_bands_by_name_and_resamples_positions():
    stored = decoder(L2A, seed=1).state_dict()
    state = {f'decoder.{name}': value for name, value in stored.items()}
    model = decoder(('B04', 'VV'), (6, 6))
    report = load_decoder(model, state)
    assert report.kept_bands == ('B04',)
    assert report.fresh_bands == {'VV': 'random'}
    assert report.resampled == ('pos_embed',)
    assert torch.equal(model.spectral_embed['B04'], stored['spectral_embed.B04'])
    assert torch.equal(model.mask_token, stored['mask_token'])


def test_a_decoder_of_another_depth_is_not_loaded():
    stored = decoder(L2A, seed=1).state_dict()
    model = decoder(L2A, depth=2)
    before = model.mask_token.detach().clone()
    for state in ({}, {f'decoder.{name}': value for name, value in stored.items()}):
        assert load_decoder(model, state) is None
        assert torch.equal(model.mask_token, before)
