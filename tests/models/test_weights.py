"""Weights arrive by name, bands too, and a load says what it did."""

import pickle
import re
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torchgeo.models import get_weight
from torchvision.models import Weights, WeightsEnum

from torchgeo_channelmae import sensors
from torchgeo_channelmae.models import ChannelViT
from torchgeo_channelmae.models.weights import load_encoder, read_weights

L2A = sensors.names(sensors.SENTINEL2_L2A)
RADAR = ('VV', 'VH')
POLICIES = ('sample', 'index', 'nearest', 'random')
TWELVE_NEW = (*(f'new{i}' for i in range(11)), 'VV')


def encoder(bands=L2A, img_size=32, seed=0, **kwargs):
    torch.manual_seed(seed)
    arguments = {'patch_size': 8, 'embed_dim': 64, 'depth': 2, 'num_heads': 2}
    return ChannelViT(img_size=img_size, bands=bands, **(arguments | kwargs))


@pytest.fixture
def trained():
    """The state of a 12-band encoder whose bands lie around a mean of 3."""
    model = encoder(seed=1)
    with torch.no_grad():
        for number, row in enumerate(model.spectral_embed.values()):
            row.copy_(3 + 0.5 * torch.randn(64) + 0.01 * number)
    return model.state_dict()


def band_rows(state):
    rows = {k: v for k, v in state.items() if k.startswith('spectral_embed.')}
    return {key.split('.')[1]: value for key, value in rows.items()}


# What arrives


@pytest.mark.parametrize('bands', [RADAR, ('VV', 'B04'), L2A])
def test_every_tensor_but_bands_and_head_arrives_bit_for_bit(trained, bands):
    model = encoder(bands, num_classes=19)
    report = load_encoder(model, trained)
    for name, tensor in model.state_dict().items():
        if not name.startswith(('spectral_embed.', 'head.')):
            assert torch.equal(tensor, trained[name]), name
            assert name in report.loaded


def test_radar_bands_are_reported_as_fresh_with_how_they_started(trained):
    report = load_encoder(encoder(RADAR), trained)
    assert list(report.fresh_bands) == ['VV', 'VH']
    assert set(report.fresh_bands.values()) == {'sample: around the mean of 12 bands'}
    assert report.kept_bands == report.resampled == ()
    assert report.fresh == {}
    assert set(report.left_over) == {f'spectral_embed.{band}' for band in L2A}


@pytest.mark.parametrize(
    'bands', [('B04', 'B03', 'B02'), ('B02', 'B04'), L2A[::-1], ('B8A',)]
)
@pytest.mark.parametrize('policy', POLICIES)
def test_known_bands_keep_their_rows_by_name_whatever_the_order(trained, bands, policy):
    model = encoder(bands)
    report = load_encoder(model, trained, policy)
    for band in bands:
        assert torch.equal(
            model.spectral_embed[band], trained[f'spectral_embed.{band}']
        )
    assert report.kept_bands == bands
    assert report.fresh_bands == {}


def test_known_and_fresh_bands_are_told_apart(trained):
    model = encoder(('VV', 'B04', 'B10'))
    report = load_encoder(model, trained, 'nearest')
    assert torch.equal(model.spectral_embed['B04'], trained['spectral_embed.B04'])
    assert report.kept_bands == ('B04',)
    assert list(report.fresh_bands) == ['VV', 'B10']


def test_a_loaded_encoder_sees_like_the_one_that_was_saved(trained):
    source, model = encoder(), encoder(L2A[::-1], seed=9)
    source.load_state_dict(trained)
    load_encoder(model, trained)
    image = torch.randn(2, 12, 32, 32)
    torch.testing.assert_close(model.eval()(image.flip(1)), source.eval()(image))


def test_the_head_is_never_loaded():
    source, model = encoder(num_classes=19, seed=1), encoder(num_classes=19, seed=2)
    before = model.head.weight.detach().clone()
    report = load_encoder(model, source.state_dict())
    assert torch.equal(model.head.weight, before)
    assert not torch.equal(source.head.weight, before)
    assert {'head.weight', 'head.bias'} <= set(report.left_over)


def test_what_is_left_over_is_reported(trained):
    state = trained | {f'decoder.blocks.{i}.w': torch.zeros(1) for i in range(3)}
    report = load_encoder(encoder(), state)
    assert set(report.left_over) == {f'decoder.blocks.{i}.w' for i in range(3)}
    assert 'left over: decoder (3 tensors)' in str(report)


def test_what_is_missing_in_the_weights_is_reported_and_left_as_it_was(trained):
    model = encoder(class_token=True)
    before = model.cls_token.detach().clone()
    without = {name: v for name, v in trained.items() if name != 'cls_token'}
    report = load_encoder(model, without)
    assert torch.equal(model.cls_token, before)
    assert report.fresh == {'cls_token': 'not in the weights'}
    assert 'cls_token (not in the weights)' in str(report)


# Positions


@pytest.mark.parametrize(('size', 'grid'), [(64, [8, 8]), (24, [3, 3]), (40, [5, 5])])
def test_positions_of_another_grid_are_resampled_as_timm_does(trained, size, grid):
    model = encoder(RADAR, img_size=size)
    report = load_encoder(model, trained)
    expected = resample_abs_pos_embed(
        trained['pos_embed'], grid, old_size=[4, 4], num_prefix_tokens=0
    )
    assert torch.equal(model.pos_embed, expected)
    assert report.resampled == ('pos_embed',)
    assert 'pos_embed' not in report.loaded
    assert 'resampled: pos_embed' in str(report)


def test_the_grid_of_the_weights_is_taken_where_asked(trained):
    model = encoder(RADAR, img_size=64)
    report = load_encoder(model, trained, takes_grid=True)
    assert torch.equal(model.pos_embed, trained['pos_embed'])
    assert model.patch_embed.grid_size == (4, 4)
    assert report.resampled == ()
    assert 'pos_embed' in report.loaded


def test_weights_that_are_refused_leave_the_grid_as_it_was(trained):
    model = encoder(RADAR, img_size=64)
    before = model.pos_embed.detach().clone()
    some = {'pos_embed': trained['pos_embed']}
    with pytest.raises(ValueError, match='another model'):
        load_encoder(model, some, takes_grid=True)
    assert torch.equal(model.pos_embed, before)


def test_positions_of_the_same_grid_are_not_reported_as_resampled(trained):
    report = load_encoder(encoder(), trained)
    assert report.resampled == ()
    assert 'pos_embed' in report.loaded
    assert 'resampled' not in str(report)


# Fresh bands


def fresh(state, bands, policy):
    model = encoder(bands)
    report = load_encoder(model, state, policy)
    rows = {name: row.detach().clone() for name, row in model.spectral_embed.items()}
    return rows, report.fresh_bands


def test_sampled_bands_lie_around_the_mean_of_the_pretrained_with_their_spread(trained):
    names = tuple(f'new{i}' for i in range(400))
    rows, _ = fresh(trained, names, 'sample')
    drawn = torch.stack(list(rows.values()))
    known = torch.stack(list(band_rows(trained).values()))
    error = (drawn.mean(0) - known.mean(0)) / (known.std(0) / 400**0.5)
    assert error.abs().max() < 5
    ratio = drawn.std(0) / known.std(0)
    assert 0.8 < ratio.min() < ratio.max() < 1.2


@pytest.mark.parametrize('policy', ['sample', 'random'])
def test_no_two_drawn_bands_are_alike_and_each_is_the_same_in_every_run(
    trained, policy
):
    rows, _ = fresh(trained, RADAR, policy)
    torch.manual_seed(123)
    again, _ = fresh(trained, ('B02', 'VH', 'B10', 'VV'), policy)
    assert torch.equal(rows['VV'], again['VV'])
    assert torch.equal(rows['VH'], again['VH'])
    assert (rows['VV'] - rows['VH']).abs().max() > 0.01


def test_drawing_bands_leaves_the_global_generator_alone(trained):
    model = encoder(RADAR)
    before = torch.random.get_rng_state()
    load_encoder(model, trained, 'sample')
    assert torch.equal(torch.random.get_rng_state(), before)


def test_random_bands_start_as_small_as_from_scratch(trained):
    rows, how = fresh(trained, tuple(f'new{i}' for i in range(50)), 'random')
    drawn = torch.stack(list(rows.values()))
    assert drawn.std().item() == pytest.approx(0.02, rel=0.1)
    assert abs(drawn.mean().item()) < 0.002
    assert set(how.values()) == {'random'}


def test_by_index_a_band_starts_as_the_one_at_its_place(trained):
    rows, how = fresh(trained, RADAR, 'index')
    assert torch.equal(rows['VV'], trained['spectral_embed.B01'])
    assert torch.equal(rows['VH'], trained['spectral_embed.B02'])
    assert how == {'VV': 'index: as B01', 'VH': 'index: as B02'}


def test_by_index_a_band_beyond_the_last_is_sampled(trained):
    rows, how = fresh(trained, (*L2A, 'B10'), 'index')
    sampled, _ = fresh(trained, ('B10',), 'sample')
    assert torch.equal(rows['B10'], sampled['B10'])
    assert how == {'B10': 'sample: around the mean of 12 bands'}


@pytest.mark.parametrize('missing', L2A)
def test_by_wavelength_a_band_starts_as_its_nearest_neighbour(trained, missing):
    state = {k: v for k, v in trained.items() if k != f'spectral_embed.{missing}'}
    wavelengths = {band.name: band.wavelength for band in sensors.SENTINEL2_L2A}
    own = wavelengths.pop(missing)
    nearest = sorted(wavelengths, key=lambda name: abs(wavelengths[name] - own))[0]
    rows, how = fresh(state, (missing,), 'nearest')
    assert torch.equal(rows[missing], trained[f'spectral_embed.{nearest}'])
    assert how == {missing: f'nearest: as {nearest}'}


@pytest.mark.parametrize('band', ['VV', 'a band of mine'])
def test_a_band_without_a_wavelength_has_no_nearest_and_is_sampled(trained, band):
    rows, how = fresh(trained, (band,), 'nearest')
    sampled, _ = fresh(trained, (band,), 'sample')
    assert torch.equal(rows[band], sampled[band])
    assert how == {band: 'sample: around the mean of 12 bands'}


def test_radar_weights_have_no_nearest_for_an_optical_band():
    state = encoder(RADAR, seed=4).state_dict()
    _, how = fresh(state, ('B02',), 'nearest')
    assert how == {'B02': 'sample: around the mean of 2 bands'}


def test_weights_of_a_single_band_lend_their_row_with_a_small_spread():
    state = encoder(('B08',), seed=4).state_dict()
    state['spectral_embed.B08'] += 3
    rows, how = fresh(state, tuple(f'new{i}' for i in range(200)), 'sample')
    drawn = torch.stack(list(rows.values()))
    assert torch.isfinite(drawn).all()
    assert (drawn.mean(0) - state['spectral_embed.B08']).abs().max() < 0.01
    assert drawn.std(0).mean().item() == pytest.approx(0.02, rel=0.1)
    assert set(how.values()) == {'sample: around the mean of 1 bands'}


@pytest.mark.parametrize('policy', POLICIES)
def test_weights_without_bands_start_all_bands_at_random(trained, policy):
    state = {k: v for k, v in trained.items() if not k.startswith('spectral_embed.')}
    _, how = fresh(state, RADAR, policy)
    assert how == {'VV': 'random', 'VH': 'random'}


def test_an_unknown_policy_is_refused_with_the_known_ones(trained):
    with pytest.raises(ValueError, match=r"^fresh_bands 'mean' is not known") as error:
        load_encoder(encoder(), trained, 'mean')  # also where no band is fresh
    assert all(policy in str(error.value) for policy in POLICIES)


# Weights of another model


def test_weights_of_another_width_are_refused_and_change_nothing(trained):
    model = encoder(embed_dim=32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r'^The weights match 0 of the [^\n]*\.$') as e:
        load_encoder(model, trained)
    assert 'cls_token (1x1x64 in the weights, 1x1x32 here)' in str(e.value)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_projection_of_another_patch_size_is_reported_as_fresh(trained):
    model = encoder(patch_size=16)
    before = model.patch_embed.proj.weight.detach().clone()
    report = load_encoder(model, trained)
    shapes = '64x1x8x8 in the weights, 64x1x16x16 here'
    assert report.fresh == {'patch_embed.proj.weight': shapes}
    assert torch.equal(model.patch_embed.proj.weight, before)


def test_weights_that_share_no_name_are_refused():
    with pytest.raises(ValueError, match='another model'):
        load_encoder(encoder(), {'layer1.0.conv1.weight': torch.zeros(3)})


def test_the_report_is_one_line_that_counts_what_was_loaded(trained):
    report = load_encoder(encoder(('VV', 'B02'), img_size=64), trained, 'index')
    text = str(report)
    assert '\n' not in text
    assert text.startswith(f'{len(report.loaded)} tensors loaded; ')
    assert 'bands with their weights: B02' in text
    assert 'VV (index: as B01)' in text


# Files


def in_safetensors(state, path):
    save_file({k: v.contiguous() for k, v in state.items()}, path)


def in_plain_state_dict(state, path):
    torch.save(state, path)


def in_lightning_checkpoint(state, path):
    tensors = {f'model.{key}': value for key, value in state.items()}
    tensors |= {'decoder.mask_token': torch.zeros(3)}
    hparams = {'model': 'channelmae_tiny_patch16', 'bands': None}
    torch.save({'state_dict': tensors, 'hyper_parameters': hparams, 'epoch': 3}, path)


@pytest.mark.parametrize(
    ('write', 'name', 'extra'),
    [
        (in_safetensors, 'encoder.safetensors', set()),
        (in_plain_state_dict, 'encoder.pth', set()),
        (in_lightning_checkpoint, 'last.ckpt', {'decoder.mask_token'}),
    ],
)
def test_tensors_come_out_of_a_file_as_they_went_in(
    tmp_path, trained, write, name, extra
):
    write(trained, tmp_path / name)
    found = read_weights(str(tmp_path / name))
    assert set(found) == set(trained) | extra
    for key, tensor in trained.items():
        assert torch.equal(found[key], tensor)


@pytest.mark.parametrize('policy', POLICIES)
def test_radar_bands_start_alike_from_every_kind_of_file(tmp_path, trained, policy):
    starts = []
    for write, name in (
        (in_safetensors, 'encoder.safetensors'),
        (in_lightning_checkpoint, 'last.ckpt'),
    ):
        write(trained, tmp_path / name)
        starts.append(fresh(read_weights(str(tmp_path / name)), TWELVE_NEW, policy))
    (one, how), (other, again) = starts
    assert how == again
    for band in TWELVE_NEW:
        torch.testing.assert_close(one[band], other[band])


def test_torchgeos_weights_are_read_by_enum_and_by_name(tmp_path, monkeypatch, trained):
    torch.save(trained, tmp_path / 'encoder.pth')
    url = (tmp_path / 'encoder.pth').as_uri()

    class TinyWeights(WeightsEnum):
        MINE = Weights(url=url, transforms=None, meta={})

    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    found = read_weights(TinyWeights.MINE)
    assert torch.equal(found['pos_embed'], trained['pos_embed'])

    def lookup(name):
        return TinyWeights.MINE if name == 'TinyWeights.MINE' else get_weight(name)

    monkeypatch.setattr('torchgeo_channelmae.models.weights.get_weight', lookup)
    assert set(read_weights('TinyWeights.MINE')) == set(trained)


@pytest.mark.parametrize('path', ['no/such.ckpt', 'ResNet18_Weights.NO_SUCH'])
def test_a_path_that_is_not_there_is_named(path):
    with pytest.raises(FileNotFoundError, match=rf'^weights {path!r} is neither'):
        read_weights(path)


class Boom:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def text(path):
    path.write_text('these are no weights\n' * 50)


def empty(path):
    path.touch()


def folder(path):
    path.mkdir()


def truncated(path):
    torch.save(encoder().state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def truncated_safetensors(path):
    save_file(encoder().state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def saved_code(path):
    torch.save({'state_dict': Boom(path.with_name('boom'))}, path)


def pickled_code(path):
    path.write_bytes(pickle.dumps({'state_dict': Boom(path.with_name('boom'))}, 2))


def old_pickled_code(path):
    torch.save(
        {'x': Boom(path.with_name('boom'))}, path, _use_new_zipfile_serialization=False
    )


def no_tensors(path):
    torch.save({'epoch': 3, 'state_dict': {'epoch': 3}}, path)


def one_tensor(path):
    torch.save(torch.zeros(3), path)


@pytest.mark.parametrize(
    ('write', 'name'),
    [
        (text, 'notes.txt'),
        (text, 'notes.ckpt'),
        (text, 'notes.safetensors'),
        (empty, 'empty.ckpt'),
        (empty, 'empty.safetensors'),
        (folder, 'folder'),
        (folder, 'folder.safetensors'),
        (truncated, 'half.ckpt'),
        (truncated_safetensors, 'half.safetensors'),
        (saved_code, 'code.ckpt'),
        (pickled_code, 'code.pkl'),
        (old_pickled_code, 'code.pth'),
        (no_tensors, 'numbers.ckpt'),
        (one_tensor, 'tensor.pt'),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line_and_runs_no_code(
    tmp_path, write, name
):
    path = tmp_path / name
    write(path)
    with pytest.raises(ValueError, match=re.escape(repr(str(path)))) as error:
        read_weights(str(path))
    message = str(error.value)
    assert '\n' not in message
    assert message.startswith('weights ')
    assert message.endswith('.')
    assert not (tmp_path / 'boom').exists()


@given(st.binary(), st.sampled_from(['.ckpt', '.safetensors']))
@example(b'these', '.ckpt')  # opcodes of pickle that find an empty stack
@example(b'hj', '.ckpt')
def test_whatever_bytes_a_file_holds_the_refusal_is_one_line(
    tmp_path_factory, content, suffix
):
    path = tmp_path_factory.getbasetemp() / f'bytes{suffix}'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(repr(str(path)))) as error:
        read_weights(str(path))
    assert '\n' not in str(error.value)
