"""An export has the weights of a run unchanged, and says what they are."""

import json
import shutil

import pytest
import torch
from lightning.pytorch import Trainer
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from torchgeo_channelmae import cli
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.models import read_checkpoint
from torchgeo_channelmae.models.checkpoints import KEY, bands_of
from torchgeo_channelmae.models.export import export
from torchgeo_channelmae.tasks import ChannelMAE, CrossModalClassification

BANDS = ['B02', 'B8A', 'B04']
QUIET = {'accelerator': 'cpu', 'logger': False, 'limit_val_batches': 0} | dict.fromkeys(
    ('enable_checkpointing', 'enable_progress_bar', 'enable_model_summary'), False
)
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


def fit(task, folder, bands):
    trainer = Trainer(max_steps=1, default_root_dir=folder, **QUIET)
    data = BigEarthNetS1S2DataModule(
        bands=bands, size=32, batch_size=4, clip_pixels=4.5
    )
    trainer.fit(task, data)
    return trainer


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A checkpoint of one step of pretraining, and its export with the decoder."""
    folder = tmp_path_factory.mktemp('pretrained')
    torch.manual_seed(0)
    fit(ChannelMAE(**SMALL), folder, BANDS).save_checkpoint(folder / 'last.ckpt')
    export(folder / 'last.ckpt', folder / 'all.safetensors', decoder=True)
    return folder


@pytest.fixture
def exported(folder, tmp_path):
    return shutil.copy(folder / 'all.safetensors', tmp_path / 'mine.safetensors')


def test_an_export_reads_as_its_checkpoint(folder, tmp_path):
    stored, found = (
        read_checkpoint(folder / name) for name in ('last.ckpt', 'all.safetensors')
    )
    assert found.tensors.keys() == stored.tensors.keys()
    assert all(torch.equal(found.tensors[k], v) for k, v in stored.tensors.items())
    assert bands_of(found.tensors) == BANDS
    assert found.provenance == stored.provenance
    assert len(found.provenance.trainings[0].record.patches) > 0
    assert found.normalization == stored.normalization
    assert found.normalization['bands'] == BANDS
    for name in ('model', 'bands', 'size', 'decoder_dim', 'decoder_depth'):
        assert found.hyper_parameters[name] == SMALL[name]
    export(folder / 'all.safetensors', tmp_path / 'encoder.safetensors')
    encoder = read_checkpoint(tmp_path / 'encoder.safetensors').tensors
    assert encoder.keys() == {k for k in stored.tensors if not k.startswith('decoder.')}


def test_an_export_of_an_export_is_the_same_file(folder, tmp_path):
    again = tmp_path / 'again.safetensors'
    options = ['--out', str(again), '--decoder']
    assert cli.main(['export', str(folder / 'all.safetensors'), *options]) == 0
    assert again.read_bytes() == (folder / 'all.safetensors').read_bytes()


def test_the_card_has_bands_data_and_hash(folder):
    card = (folder / 'all.md').read_text()
    positions = [card.index(f'| {band} |') for band in BANDS]
    assert positions == sorted(positions)
    with safe_open(folder / 'all.safetensors', 'pt') as file:
        header = json.loads(file.metadata()[KEY])
    clipped = 'Normalized pixels are clipped to -4.5 and 4.5.'
    for words in ('BigEarthNet', '| not learned |', header['hash'], clipped):
        assert words in card
    assert 'torchgeo 0.' in card


def test_a_fine_tuned_encoder_is_exported_without_its_head(tmp_path):
    task = CrossModalClassification(
        'channelmae_tiny_patch16', in_channels=2, bands=['VH', 'VV'], size=32
    )
    fit(task, tmp_path, ['VH', 'VV']).save_checkpoint(tmp_path / 'tuned.ckpt')
    export(tmp_path / 'tuned.ckpt', tmp_path / 'tuned.safetensors')
    found = read_checkpoint(tmp_path / 'tuned.safetensors')
    assert bands_of(found.tensors) == ['VH', 'VV']
    assert not any('head' in name for name in found.tensors)
    assert found.provenance.trainings[0].supervised is True


@pytest.mark.parametrize('at', [-1, -4000, 'header'])
def test_a_tampered_file_is_refused(exported, at):
    whole = bytearray(exported.read_bytes())
    if at == 'header':
        at = whole.index(b'B8A')
        whole[at : at + 3] = b'B11'
    else:
        whole[at] ^= 1
    exported.write_bytes(whole)
    with pytest.raises(ValueError, match='hash'):
        read_checkpoint(exported)


def test_a_header_of_another_version_is_refused(exported, tmp_path):
    with safe_open(exported, 'pt') as file:
        header = json.loads(file.metadata()[KEY])
    changed = {KEY: json.dumps({**header, 'version': 2})}
    save_file(load_file(exported), tmp_path / 'changed.safetensors', changed)
    with pytest.raises(ValueError, match='version 2'):
        read_checkpoint(tmp_path / 'changed.safetensors')


def test_existing_files_are_not_overwritten(folder, exported, tmp_path):
    (tmp_path / 'b.md').touch()
    for out in (exported, tmp_path / 'b.safetensors'):
        with pytest.raises(FileExistsError):
            export(folder / 'last.ckpt', out)
    assert exported.read_bytes() == (folder / 'all.safetensors').read_bytes()
    assert not (tmp_path / 'b.safetensors').exists()


def other_model(content):
    content['hyper_parameters']['model'] = 'resnet18'


def no_decoder(content):
    del content['hyper_parameters']['decoder_dim']


def diverged(content):
    content['state_dict']['model.norm.bias'].fill_(torch.nan)


@pytest.mark.parametrize(
    ('change', 'named'),
    [(other_model, 'resnet18'), (no_decoder, 'decoder'), (diverged, 'norm.bias')],
)
def test_a_checkpoint_without_such_a_model_is_not_exported(
    folder, tmp_path, change, named
):
    content = torch.load(folder / 'last.ckpt', weights_only=True)
    change(content)
    torch.save(content, tmp_path / 'changed.ckpt')
    out = tmp_path / 'out.safetensors'
    with pytest.raises(ValueError, match=named):
        export(tmp_path / 'changed.ckpt', out, decoder=True)
    assert not out.exists()
