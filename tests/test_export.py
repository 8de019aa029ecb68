"""Weights as files: whole, checked, byte-equal, and told what they are."""

import json
import pickle
from pathlib import Path

import pytest
import timm
import torch
from lightning.pytorch import Trainer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchgeo.models import get_model, get_weight, list_models
from torchgeo.tasks import Classification

from torchgeo_channelmae import cli
from torchgeo_channelmae.callbacks.register import RegisterModels
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.models import (
    ChannelMAE_Weights,
    register_torchgeo,
    register_weights,
    weights_entry,
)
from torchgeo_channelmae.models.export import read_run
from torchgeo_channelmae.models.exported import KEY, read_file, read_header, write_file
from torchgeo_channelmae.models.weights import read_weights
from torchgeo_channelmae.provenance.normalization import KEY as NORMALIZATION
from torchgeo_channelmae.provenance.normalization import read_normalization
from torchgeo_channelmae.provenance.record import KEY as PROVENANCE
from torchgeo_channelmae.provenance.record import UNKNOWN, read_provenance
from torchgeo_channelmae.tasks import ChannelMAE, CrossModalClassification

BANDS = ['B02', 'B8A', 'B04']
SMALL = {
    'model': 'channelmae_tiny_patch16',
    'in_channels': 3,
    'bands': BANDS,
    'size': 32,
    'decoder_dim': 32,
    'decoder_depth': 1,
    'decoder_num_heads': 2,
    'plot_every_n_epochs': 0,
    'warmup_epochs': 1,
}


def fit(task, folder, bands=BANDS, **kwargs):
    trainer = Trainer(
        accelerator='cpu',
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=1,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    data = BigEarthNetS1S2DataModule(bands=list(bands), size=32, batch_size=4, **kwargs)
    trainer.fit(task, data)
    return trainer


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
    """A checkpoint of a pretraining, of one step."""
    folder = tmp_path_factory.mktemp('pretrained')
    torch.manual_seed(0)
    fit(ChannelMAE(**SMALL), folder).save_checkpoint(folder / 'last.ckpt')
    return folder / 'last.ckpt'


def export(*options):
    return cli.main(['export', *map(str, options)])


@pytest.fixture
def exported(pretrained, tmp_path):
    assert export(pretrained, '--out', tmp_path / 'all.safetensors', '--decoder') == 0
    return tmp_path / 'all.safetensors'


def start(task, folder):
    """Weights that a task starts from."""
    task.on_train_start = lambda: start.kept.update(
        {name: value.clone() for name, value in task.state_dict().items()}
    )
    start.kept = {}
    fit(task, folder, task.hparams['bands'])
    return start.kept


def test_tensors_arrive_bit_for_bit_with_and_without_the_decoder(
    pretrained, exported, tmp_path
):
    stored = torch.load(pretrained, weights_only=True)['state_dict']
    header, tensors = read_file(exported)
    own = {k: v for k, v in tensors.items() if not k.startswith('patches.')}
    assert own.keys() == stored.keys()
    assert all(torch.equal(own[name], stored[name]) for name in stored)
    assert export(pretrained, '--out', tmp_path / 'encoder.safetensors') == 0
    header, tensors = read_file(tmp_path / 'encoder.safetensors')
    assert header['decoder'] is None
    own = {k for k in tensors if not k.startswith('patches.')}
    assert own == {k for k in stored if k.startswith('model.')}


def test_an_export_of_an_export_is_the_same_file(exported, tmp_path):
    again = tmp_path / 'again.safetensors'
    assert export(exported, '--out', again, '--decoder') == 0
    assert again.read_bytes() == exported.read_bytes()


def test_the_header_is_complete(exported, pretrained):
    header = read_header(exported)
    assert header['model'] == 'channelmae_tiny_patch16'
    assert header['bands'] == BANDS
    assert (header['patch_size'], header['size'], header['embed_dim']) == (16, 32, 192)
    assert header['decoder'] == {
        'decoder_dim': 32,
        'decoder_depth': 1,
        'decoder_num_heads': 2,
    }
    data = BigEarthNetS1S2DataModule(bands=BANDS, size=32, batch_size=4)
    data.setup('fit')
    assert header['normalization']['bands'] == BANDS
    assert header['normalization']['mean'] == pytest.approx(data.mean.tolist())
    assert header['normalization']['std'] == pytest.approx(data.std.tolist())
    for package in ('torch', 'timm', 'torchgeo', 'torchgeo-channelmae'):
        assert header['versions'][package][0].isdigit()
    assert read_provenance(str(exported)) == read_provenance(str(pretrained))
    (training,) = read_provenance(str(exported)).trainings
    assert training.record.sensors == ('Sentinel-2 L2A',)
    assert len(training.record.patches) > 0
    assert read_normalization(str(pretrained)) == header['normalization']


def test_the_card_tells_bands_in_order_data_and_use(exported):
    card = exported.with_suffix('.md').read_text()
    positions = [card.index(f'| {band} |') for band in BANDS]
    assert positions == sorted(positions)
    for words in ('library_name: timm', 'not learned', 'BigEarthNet', 'No score comes'):
        assert words in card
    assert read_header(exported)['hash'] in card


def test_bands_come_in_their_own_order_and_not_in_that_of_the_alphabet(exported):
    names = list(read_weights(str(exported)))
    for start in ('spectral_embed.', 'decoder.spectral_embed.'):
        found = [k.removeprefix(start) for k in names if k.startswith(start)]
        assert found == BANDS


def test_fine_tuning_starts_alike_from_an_export_and_its_checkpoint(
    pretrained, exported, tmp_path
):
    starts = []
    for weights in (pretrained, exported):
        torch.manual_seed(1)
        task = CrossModalClassification(
            'channelmae_tiny_patch16', str(weights), 2, ['VV', 'B8A'], 32
        )
        starts.append(start(task, tmp_path))
    assert starts[0].keys() == starts[1].keys()
    for name in starts[0]:
        one, two = starts[0][name], starts[1][name]
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)


def test_pretraining_goes_on_from_an_export_with_its_decoder(
    pretrained, exported, tmp_path
):
    stored = torch.load(pretrained, weights_only=True)['state_dict']
    for weights in (exported, pretrained):
        torch.manual_seed(1)
        begun = start(ChannelMAE(**SMALL, weights=str(weights)), tmp_path)
        assert all(torch.equal(begun[name], stored[name]) for name in stored)


def test_a_decoder_starts_afresh_where_the_weights_have_none_and_it_is_said(
    pretrained, exported, tmp_path, caplog
):
    export(pretrained, '--out', tmp_path / 'encoder.safetensors')
    torch.manual_seed(1)
    fresh = ChannelMAE(**SMALL).state_dict()
    for weights, extra in (
        (tmp_path / 'encoder.safetensors', {}),
        (exported, {'decoder_depth': 2}),
    ):
        torch.manual_seed(1)
        with caplog.at_level('INFO'):
            begun = start(
                ChannelMAE(**{**SMALL, **extra}, weights=str(weights)), tmp_path
            )
        assert 'no decoder like this one: it starts afresh' in caplog.text
        caplog.clear()
        if not extra:
            name = 'decoder.blocks.0.attn.qkv.weight'
            assert torch.equal(begun[name], fresh[name])


def test_a_decoder_gets_the_bands_that_it_knows(exported, tmp_path):
    stored = load_file(exported)
    bands = ['B04', 'B11']
    task = ChannelMAE(
        **{**SMALL, 'bands': bands, 'in_channels': 2}, weights=str(exported)
    )
    begun = start(task, tmp_path)
    name = 'decoder.spectral_embed.'
    assert torch.equal(begun[f'{name}B04'], stored[f'{name}B04'])
    assert not torch.equal(begun[f'{name}B11'], stored[f'{name}B04'])
    assert torch.equal(begun['decoder.mask_token'], stored['decoder.mask_token'])


def test_a_fine_tuned_encoder_is_exported_without_its_head(tmp_path):
    task = CrossModalClassification(
        'channelmae_tiny_patch16', in_channels=2, bands=['VH', 'VV'], size=32
    )
    fit(task, tmp_path, ['VH', 'VV']).save_checkpoint(tmp_path / 'tuned.ckpt')
    out = tmp_path / 'tuned.safetensors'
    assert export(tmp_path / 'tuned.ckpt', '--out', out) == 0
    header, tensors = read_file(out)
    assert header['bands'] == ['VH', 'VV']
    assert not any('head' in name for name in tensors)
    assert '| learned |' in out.with_suffix('.md').read_text()
    assert read_provenance(str(out)).trainings[0].supervised is True


# What is damaged or not ours


def refused(path):
    with pytest.raises(ValueError, match=r'.') as caught:
        read_weights(str(path))
    return str(caught.value)


def test_a_truncated_file_is_refused(exported):
    whole = exported.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 100, 4):
        exported.write_bytes(whole[:length])
        assert 'it is no whole .safetensors file' in refused(exported)


@pytest.mark.parametrize('at', [-1, -4000, 'header'])
def test_a_tampered_file_is_refused(exported, at):
    whole = bytearray(exported.read_bytes())
    if at == 'header':
        at = whole.index(b'B8A')
        whole[at : at + 3] = b'B11'
    else:
        whole[at] ^= 1
    exported.write_bytes(whole)
    assert 'not as it was exported' in refused(exported)


def test_a_header_of_another_form_or_version_is_refused(exported, tmp_path):
    tensors = load_file(exported)
    with safe_open(exported, 'pt') as file:
        header = json.loads(file.metadata()[KEY])
    for metadata, words in (
        ('{', 'not as an export has it'),
        (json.dumps({'version': 1}), 'not as an export has it'),
        (json.dumps({**header, 'version': 2}), 'version 2, but this package reads'),
    ):
        path = tmp_path / 'changed.safetensors'
        save_file(tensors, path, {KEY: metadata})
        assert words in refused(path)


class Boom:
    def __reduce__(self):
        return Path.touch, (Path('ran'),)


def test_no_pickle_of_a_weights_file_is_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({'state_dict': Boom()}, 'bad.ckpt')
    Path('raw.ckpt').write_bytes(pickle.dumps(Boom()))
    Path('named.safetensors').write_bytes(pickle.dumps(Boom()))
    for path in ('bad.ckpt', 'raw.ckpt', 'named.safetensors'):
        assert refused(path)
        assert export(path, '--out', 'out.safetensors') == 1
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not Path('ran').exists()
    assert not Path('out.safetensors').exists()


def test_what_is_not_ours_is_not_exported(tmp_path, capsys, exported):
    stock = Trainer(accelerator='cpu', logger=False, enable_checkpointing=False)
    stock.strategy.connect(Classification('resnet18', num_classes=2))
    stock.save_checkpoint(tmp_path / 'stock.ckpt')
    torch.save({'a': torch.ones(1)}, tmp_path / 'plain.ckpt')
    (tmp_path / 'noise.ckpt').write_bytes(b'noise' * 100)
    save_file({'a': torch.ones(1)}, tmp_path / 'other.safetensors')
    for name in ('stock.ckpt', 'plain.ckpt', 'noise.ckpt', 'other.safetensors'):
        assert export(tmp_path / name, '--out', tmp_path / 'out.safetensors') == 1
        told = capsys.readouterr().err
        assert 'is no checkpoint of ChannelMAE' in told
        assert len(told.strip().splitlines()) == 1
    assert not (tmp_path / 'out.safetensors').exists()


def test_bad_requests_are_one_line_and_nothing_is_overwritten(
    pretrained, exported, tmp_path, capsys
):
    before = exported.read_bytes()
    for options, words in (
        ((pretrained, '--out', exported), 'exists and is not overwritten'),
        ((pretrained, '--out', tmp_path / 'a.ckpt'), 'ends in .safetensors'),
        (
            (tmp_path / 'no.ckpt', '--out', tmp_path / 'a.safetensors'),
            'There is no file',
        ),
    ):
        assert export(*options) == 1
        told = capsys.readouterr().err
        assert words in told
        assert len(told.strip().splitlines()) == 1
    assert export(pretrained, '--out', tmp_path / 'bare.safetensors') == 0
    out = tmp_path / 'b.safetensors'
    assert export(tmp_path / 'bare.safetensors', '--out', out, '--decoder') == 1
    assert 'has no decoder' in capsys.readouterr().err
    assert exported.read_bytes() == before


def test_a_notably_different_normalisation_is_warned_of(exported, tmp_path):
    task = CrossModalClassification(
        'channelmae_tiny_patch16', str(exported), 2, ['B02', 'VV'], 32
    )
    header, tensors = read_file(exported)
    fit(task, tmp_path, ['B02', 'VV'])  # no warning: an error in these tests

    changed = {
        **header,
        'normalization': {**header['normalization'], 'mean': [9e3] * 3},
    }
    other = tmp_path / 'other.safetensors'
    write_file(other, {k: v for k, v in changed.items() if k != 'hash'}, tensors)
    task = CrossModalClassification(
        'channelmae_tiny_patch16', str(other), 2, ['B02', 'VV'], 32
    )
    with pytest.warns(UserWarning, match='normalised notably differently.*B02 9000 ±'):
        fit(task, tmp_path, ['B02', 'VV'])


def changed(pretrained, path, change):
    """Write a checkpoint that is not as a task of this package writes it."""
    content = torch.load(pretrained, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def tensors_with(**tensors):
    return lambda content: content['state_dict'].update(tensors)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (tensors_with(**{'model.pos_embed': torch.zeros(3)}), 'holds the model'),
        (tensors_with(**{'model.pos_embed': 'x'}), 'holds the model'),
        (tensors_with(**{'model.extra': torch.zeros(3)}), r'extra is \[3\] instead of'),
        (lambda content: content['hyper_parameters'].update(bands=['B02']), 'instead'),
        (
            lambda content: content['state_dict']['model.norm.bias'].fill_(torch.nan),
            r'numbers that are none \(NaN or infinite\) in model.norm.bias: .* earlier',
        ),
    ],
)
def test_a_checkpoint_with_other_tensors_is_refused_in_a_sentence(
    pretrained, tmp_path, change, words
):
    path = changed(pretrained, tmp_path / 'other.ckpt', change)
    for use in (
        lambda: read_run(path),
        lambda: register_weights('channelmae_tiny_patch16.other', str(path)),
    ):
        with pytest.raises(ValueError, match=words) as error:
            use()
        assert '\n' not in str(error.value)


def notes(content):
    content[PROVENANCE] = {'x': 1}
    content[NORMALIZATION] = {'bands': ['B02']}
    content['hyper_parameters'].update(size='big')
    del content['hyper_parameters']['decoder_dim']
    content['state_dict'][5] = torch.zeros(1)


def test_notes_of_another_form_count_as_not_known(pretrained, tmp_path):
    path = changed(pretrained, tmp_path / 'notes.ckpt', notes)
    with pytest.warns(UserWarning, match='counts as unknown'):
        header, tensors = read_run(path)
    assert header['provenance'] == UNKNOWN.state()
    assert header['normalization'] is None
    assert header['size'] == 32  # of the positions
    assert header['decoder'] is None
    assert all(name.startswith('model.') for name in tensors)
    assert read_normalization(str(path)) is None
    assert 'decoder.mask_token' in read_weights(str(path))


def test_a_task_of_torchgeo_that_started_from_a_tag_is_of_the_tags_model(
    exported, pretrained, tmp_path
):
    def started_from_a_tag(content):
        content['hyper_parameters'] = {'model': 'channelmae_tiny_patch16.lab-1'}

    path = changed(pretrained, tmp_path / 'stock.ckpt', started_from_a_tag)
    assert read_run(path)[0]['model'] == 'channelmae_tiny_patch16'


def test_a_tag_for_a_tampered_file_is_refused(exported, tmp_path):
    content = bytearray(Path(exported).read_bytes())
    content[-1] ^= 1
    (tmp_path / 'tampered.safetensors').write_bytes(content)
    for use in (
        lambda path: register_weights('channelmae_tiny_patch16.tampered', path),
        lambda path: weights_entry('https://host.example/a', path),
    ):
        with pytest.raises(ValueError, match='is not as it was exported'):
            use(str(tmp_path / 'tampered.safetensors'))


# Names of weights


def test_a_tag_of_timm_finds_a_file(exported, pretrained, tmp_path):
    tag = 'channelmae_tiny_patch16.testing'
    register_weights(tag, file=str(exported))
    assert tag in timm.list_models('channelmae*', pretrained=True)
    stored = torch.load(pretrained, weights_only=True)['state_dict']
    model = timm.create_model(tag, pretrained=True, bands=['VV', 'B04'])
    for name in ('blocks.3.attn.qkv.weight', 'spectral_embed.B04', 'norm.weight'):
        assert torch.equal(model.get_parameter(name), stored[f'model.{name}'])
    assert torch.equal(read_weights(tag)['cls_token'], stored['model.cls_token'])
    assert read_provenance(tag) == read_provenance(str(exported))
    task = Classification(tag, weights=True, in_channels=3, num_classes=2)
    assert torch.equal(task.model.norm.weight, stored['model.norm.weight'])
    assert len(task.model.bands) == 3


def test_a_configuration_names_files_of_tags(exported):
    tag = 'channelmae_tiny_patch16.named'
    RegisterModels(weights={tag: str(exported)})
    assert torch.equal(
        read_weights(tag)['cls_token'], read_weights(str(exported))['cls_token']
    )
    with pytest.warns(UserWarning, match=r'of tag .* is missing'):
        callback = RegisterModels(weights={tag: 'nowhere.safetensors'})
    callback.setup(None, None, 'test')  # which needs no weights
    with pytest.raises(FileNotFoundError, match=r'of tag .* is missing'):
        callback.setup(None, None, 'fit')


@pytest.mark.parametrize(
    ('tag', 'source', 'error', 'words'),
    [
        (
            'channelmae_tiny_patch16.a',
            {'file': 'nowhere'},
            FileNotFoundError,
            'missing',
        ),
        ('channelmae_tiny_patch16', {'file': 'x'}, ValueError, 'a dot and a name'),
        ('resnet50.mine', {'file': 'x'}, ValueError, 'a dot and a name'),
        ('channelmae_tiny_patch16.a', {}, ValueError, 'either a file or a hub id'),
        ('channelmae_base_patch16.a', {}, ValueError, 'either a file or a hub id'),
    ],
)
def test_a_bad_tag_is_one_sentence(tag, source, error, words):
    with pytest.raises(error, match=words):
        register_weights(tag, **source)


def test_a_tag_of_another_model_is_refused(exported):
    with pytest.raises(ValueError, match='has weights of channelmae_tiny_patch16'):
        register_weights('channelmae_base_patch16.mine', file=str(exported))


def test_torchgeos_registry_knows_the_models(exported):
    assert set(timm.list_models('channelmae_*')) <= set(list_models())
    assert get_model('channelmae_tiny_patch16', in_chans=2).bands == ('VV', 'VH')
    assert list(ChannelMAE_Weights) == []

    class Lab_Weights(ChannelMAE_Weights):  # noqa: N801
        TINY = weights_entry(exported.as_uri(), str(exported), repo='here')

    meta = Lab_Weights.TINY.meta
    assert meta['bands'] == BANDS
    assert (meta['in_chans'], meta['model']) == (3, 'channelmae_tiny_patch16')
    assert (meta['ssl_method'], meta['repo']) == ('channelmae', 'here')
    assert 'BigEarthNet' in meta['dataset']
    register_torchgeo(Lab_Weights)
    try:
        assert get_weight('Lab_Weights.TINY') is Lab_Weights.TINY
    finally:
        register_torchgeo()
