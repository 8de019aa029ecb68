"""timm and TorchGeo find the models, and weights by the name they were given."""

import logging
import warnings
from pathlib import Path

import pytest
import timm
import torch
import torchgeo.models
import torchgeo.models.api
from huggingface_hub.errors import LocalEntryNotFoundError
from lightning.pytorch import Trainer
from torchgeo.tasks import Classification
from torchvision.models import Weights, WeightsEnum

from torchgeo_channelmae.callbacks.register import RegisterModels
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.models import (
    ChannelMAE_Weights,
    ChannelViT,
    register_weights,
    tags,
    weights_entry,
)
from torchgeo_channelmae.models.export import export
from torchgeo_channelmae.models.weights import read_weights
from torchgeo_channelmae.provenance.normalization import read_normalization
from torchgeo_channelmae.provenance.record import read_provenance
from torchgeo_channelmae.tasks import ChannelMAE

BANDS = ('B08', 'B04', 'B03')
MODELS = [
    f'channelmae_{size}_patch{patch}'
    for size in ('tiny', 'small', 'base', 'large')
    for patch in (8, 16)
]
TINY = 'channelmae_tiny_patch16'


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    task = ChannelMAE(
        TINY,
        in_channels=3,
        bands=list(BANDS),
        size=32,
        decoder_dim=32,
        decoder_depth=1,
        decoder_num_heads=2,
        plot_every_n_epochs=0,
    )
    trainer = Trainer(
        accelerator='cpu',
        default_root_dir=folder,
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = BigEarthNetS1S2DataModule(bands=list(BANDS), size=32, batch_size=4)
    trainer.fit(task, data)
    trainer.save_checkpoint(folder / 'last.ckpt')
    return str(folder / 'last.ckpt')


@pytest.fixture(scope='module')
def exported(pretrained, tmp_path_factory):
    path = tmp_path_factory.mktemp('files') / 'whole.safetensors'
    export(Path(pretrained), path, decoder=True)
    return str(path)


@pytest.fixture(scope='module')
def tag(exported):
    register_weights(f'{TINY}.lab', exported)
    return f'{TINY}.lab'


@pytest.fixture(scope='module')
def state(exported):
    tensors = read_weights(exported)
    return {k: t for k, t in tensors.items() if not k.startswith('decoder.')}


def assert_loaded(model, state):
    own = model.state_dict()
    for name, tensor in state.items():
        assert torch.equal(own[name], tensor), name


# Models


@pytest.mark.parametrize('name', MODELS)
def test_torchgeo_knows_every_model_and_its_enum_of_weights(name):
    assert name in torchgeo.models.list_models()
    enum = torchgeo.models.get_model_weights(name)
    assert enum is ChannelMAE_Weights
    builder = torchgeo.models.api._model[name]
    assert torchgeo.models.get_model_weights(builder) is enum
    assert builder.__name__ == name


def test_no_weights_are_claimed_to_be_published():
    assert list(ChannelMAE_Weights) == []
    assert list(torchgeo.models.get_model_weights('channelmae_tiny_patch8')) == []
    assert timm.list_pretrained('channelmae_tiny_patch8*') == []
    with pytest.raises(RuntimeError, match='No pretrained weights exist'):
        timm.create_model('channelmae_tiny_patch8', pretrained=True)


def test_torchgeo_makes_a_model_with_its_arguments():
    model = torchgeo.models.get_model(TINY, bands=['VH', 'B04'], img_size=64)
    assert isinstance(model, ChannelViT)
    assert model.bands == ('VH', 'B04')
    assert model(torch.zeros(1, 2, 64, 64)).shape == (1, 192)


# Weights with a name


def test_timm_lists_and_loads_weights_with_their_bands_and_size(tag, state):
    assert tag in timm.list_pretrained('channelmae_tiny*')
    model = timm.create_model(tag, pretrained=True)
    assert model.bands == BANDS
    assert model.patch_embed.img_size == (32, 32)
    assert_loaded(model, state)
    config = model.pretrained_cfg
    assert config['input_size'] == (3, 32, 32)
    assert config['mean'] == pytest.approx((2193.29, 588.41, 614.06))
    assert config['tag'] == 'lab'


def test_timm_loads_them_for_other_bands_by_name_and_says_what_is_fresh(
    tag, state, caplog
):
    with caplog.at_level(logging.INFO, 'lightning.pytorch.utilities.rank_zero'):
        model = timm.create_model(tag, pretrained=True, bands=['VV', 'B04'])
    assert torch.equal(model.spectral_embed['B04'], state['spectral_embed.B04'])
    assert torch.equal(model.norm.weight, state['norm.weight'])
    assert 'fresh bands: VV (sample: around the mean of 3 bands)' in caplog.text


def test_their_first_layers_as_features_are_those_of_the_model(tag):
    image = torch.randn(1, 3, 32, 32)
    features = timm.create_model(tag, pretrained=True, features_only=True).eval()
    model = timm.create_model(tag, pretrained=True).eval()
    expected = model.forward_intermediates(image, 3, intermediates_only=True)
    for one, other in zip(features(image), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_torchgeo_finds_their_entry_and_loads_them(tag, state, exported):
    weights = torchgeo.models.get_weight(tag)
    assert str(weights) == tag
    assert list(torchgeo.models.get_model_weights(tag)) == [weights]
    assert weights.url == Path(exported).as_uri()
    meta = weights.meta
    assert meta['model'] == TINY
    assert meta['in_chans'] == 3
    assert meta['bands'] == list(BANDS)
    assert meta['dataset'] == 'BigEarthNet (bundled sample)'
    assert meta['ssl_method'] == 'channelmae'
    assert meta['publication'] is meta['repo'] is None
    for given in (weights, tag, exported):
        model = torchgeo.models.get_model(TINY, weights=given)
        assert model.bands == BANDS
        assert_loaded(model, state)
    assert set(weights.get_state_dict(progress=True)) == set(state)


def test_stock_tasks_load_them_by_name_by_entry_and_by_the_models_tag(tag, state):
    entry = torchgeo.models.get_weight(tag)
    shared = {key: t for key, t in state.items() if 'spectral' not in key}
    for arguments in (
        {'model': TINY, 'weights': tag},
        {'model': TINY, 'weights': entry},
        {'model': tag, 'weights': True},
    ):
        task = Classification(in_channels=3, num_classes=2, **arguments)
        own = task.model.state_dict()
        for name, tensor in shared.items():
            if name != 'pos_embed':
                assert torch.equal(own[name], tensor), name
        assert torch.equal(own['spectral_embed.B03'], state['spectral_embed.B03'])
    assert task.model.bands == BANDS  # of the tag


def test_our_tasks_load_them_with_all_that_they_have_read(tag, exported):
    for weights in (tag, torchgeo.models.get_weight(tag)):
        assert read_provenance(weights) == read_provenance(exported)
        assert read_normalization(weights) == read_normalization(exported)
        assert read_normalization(weights)['bands'] == list(BANDS)
        found = read_weights(weights)
        assert 'decoder.mask_token' in found
        assert [k for k in found if k.startswith('spectral_embed.')] == [
            f'spectral_embed.{band}' for band in BANDS
        ]


def test_a_checkpoint_may_have_a_name_too(pretrained, state):
    register_weights(f'{TINY}.run', pretrained)
    model = timm.create_model(f'{TINY}.run', pretrained=True)
    assert model.bands == BANDS
    assert_loaded(model, state)
    assert str(torchgeo.models.get_weight(f'{TINY}.run')) == f'{TINY}.run'


def test_the_same_name_again_changes_nothing_and_for_another_file_is_refused(
    tag, exported, pretrained
):
    before = timm.list_models('channelmae*', include_tags=True)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        register_weights(tag, exported)
    assert timm.list_models('channelmae*', include_tags=True) == before
    with pytest.raises(ValueError, match=rf"^Tag '{tag}' stands for .* already"):
        register_weights(tag, pretrained)
    assert tags.file_of(tag) == exported


@pytest.mark.parametrize(
    ('name', 'told'),
    [
        ('resnet50.mine', 'a dot and a name'),
        ('mine', 'a dot and a name'),
        (TINY, 'a dot and a name'),
        (f'{TINY}.', 'a dot and a name'),
        (f'{TINY}.a.b', 'letters, digits, _ or -'),
        (f'{TINY}._a_', 'letters, digits, _ or -'),
        (f'{TINY}.meta', 'no name of an attribute'),
        (f'{TINY}.mro', 'no name of an attribute'),
    ],
)
def test_what_can_not_be_a_name_is_refused_in_a_sentence(exported, name, told):
    before = timm.list_models('channelmae*', include_tags=True)
    with pytest.raises(ValueError, match=told) as error:
        register_weights(name, exported)
    assert repr(name) in str(error.value)
    assert '\n' not in str(error.value)
    assert timm.list_models('channelmae*', include_tags=True) == before


def random_bytes(path):
    path.write_bytes(bytes(range(256)) * 9)


def resnet(path):
    task = Classification('resnet18', in_channels=3, num_classes=2)
    content = {'state_dict': task.state_dict(), 'hyper_parameters': dict(task.hparams)}
    torch.save(content, path)


@pytest.mark.parametrize(
    ('name', 'write', 'error', 'told'),
    [
        (f'{TINY}.gone', None, FileNotFoundError, 'is missing: give its path'),
        (f'{TINY}.bytes', random_bytes, ValueError, 'is no checkpoint of'),
        (f'{TINY}.other', resnet, ValueError, "it holds the model 'resnet18'"),
    ],
)
def test_a_file_that_is_missing_or_no_weights_is_refused_in_a_sentence(
    tmp_path, name, write, error, told
):
    if write:
        write(tmp_path / 'last.ckpt')
    with pytest.raises(error, match=told) as found:
        register_weights(name, str(tmp_path / 'last.ckpt'))
    assert '\n' not in str(found.value)
    assert tags.file_of(name) is None
    assert name not in timm.list_pretrained()


# From elsewhere


def test_weights_on_the_hub_are_fetched_when_they_are_needed(
    monkeypatch, exported, state
):
    asked = []

    def download(repository, filename, revision=None, cache_dir=None):
        asked.append((repository, filename, revision))
        return exported

    monkeypatch.setattr(tags, 'hf_hub_download', download)
    monkeypatch.setattr('timm.models._hub.hf_hub_download', download)
    name = 'channelmae_tiny_patch16.hub'
    register_weights(name, hf_hub_id='lab/encoder@v2')
    entry = torchgeo.models.get_weight(name)
    assert entry.url == 'hf-hub:lab/encoder@v2'
    assert asked == []
    model = timm.create_model(name, pretrained=True)
    assert model.bands == BANDS
    assert_loaded(model, state)
    assert set(asked) == {('lab/encoder', 'model.safetensors', 'v2')}
    assert set(entry.get_state_dict()) == set(state)


def test_a_hub_that_does_not_answer_is_told_in_a_sentence(monkeypatch):
    def download(*_, **__):
        raise LocalEntryNotFoundError('No network\nat all.')

    monkeypatch.setattr(tags, 'hf_hub_download', download)
    register_weights(f'{TINY}.far', hf_hub_id='lab/far')
    with pytest.raises(OSError, match=r"of 'lab/far' on the .* fetched: No network at"):
        read_weights(f'{TINY}.far')


def test_an_entry_for_a_published_file_is_what_torchgeo_has(
    exported, monkeypatch, tmp_path, state
):
    url = 'https://host.example/encoder-1.safetensors'
    entry = weights_entry(url, exported, publication='https://doi.example/1')

    class Published_Weights(ChannelMAE_Weights):  # noqa: N801
        SENTINEL2_RGN_CHANNELMAE = entry

    assert entry.meta['publication'] == 'https://doi.example/1'

    def download(source, target):
        assert source == url
        Path(target).write_bytes(Path(exported).read_bytes())

    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    member = Published_Weights.SENTINEL2_RGN_CHANNELMAE
    assert_loaded(torchgeo.models.get_model(TINY, weights=member), state)
    assert read_provenance(member) == read_provenance(exported)


class Boom:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_code_in_downloaded_weights_is_run(tmp_path, monkeypatch):
    torch.save({'a': torch.zeros(1), 'b': Boom(tmp_path / 'boom')}, tmp_path / 'a.pth')
    url = (tmp_path / 'a.pth').as_uri()

    class Foreign_Weights(WeightsEnum):  # noqa: N801
        ONE = Weights(url=url, transforms=None, meta={})

    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    with pytest.raises(ValueError, match=r'^weights Foreign_Weights.ONE hold') as error:
        read_weights(Foreign_Weights.ONE)
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'boom').exists()


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        ({'model': 'channelmae_base_patch16'}, r'cls_token is \[1, 1, 192\] instead'),
        ({'drop': 'model.norm.weight'}, r'norm.weight is missing instead of \[192\]'),
        ({'model': 'channelmae_huge_patch2'}, 'holds the unknown model'),
    ],
)
def test_a_checkpoint_that_is_not_of_the_model_it_names_is_not_exported(
    pretrained, tmp_path, change, told
):
    content = torch.load(pretrained, weights_only=True)
    content['hyper_parameters']['model'] = change.get('model', TINY)
    content['state_dict'].pop(change.get('drop'), None)
    torch.save(content, tmp_path / 'one.ckpt')
    with pytest.raises(ValueError, match=told) as error:
        export(tmp_path / 'one.ckpt', tmp_path / 'one.safetensors')
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'one.safetensors').exists()


def test_a_configuration_names_weights_on_the_hub_without_asking_it():
    RegisterModels(weights={f'{TINY}.far-away': 'hf-hub:lab/encoder'})
    assert torchgeo.models.get_weight(f'{TINY}.far-away').url == 'hf-hub:lab/encoder'
