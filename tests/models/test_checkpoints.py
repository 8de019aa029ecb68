"""One function reads weights of every kind, and what their file says about them."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchgeo.models import ResNet50_Weights

from torchgeo_channelmae.models import ChannelViT, read_checkpoint
from torchgeo_channelmae.models.checkpoints import bands_of
from torchgeo_channelmae.provenance.normalization import KEY as NORMALIZATION
from torchgeo_channelmae.provenance.record import KEY as PROVENANCE
from torchgeo_channelmae.provenance.record import (
    UNKNOWN,
    DataRecord,
    Provenance,
    Training,
)

BANDS = ['VV', 'B8A', 'B04', 'x']
PAST = Provenance(own=(Training(DataRecord('d', ('VV',), ('s',), (), None, None), 1),))


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    model = ChannelViT(32, 16, bands=BANDS, embed_dim=32, depth=1, num_heads=2)
    return model.state_dict()


def as_task(tensors, prefix='model.'):
    own = {prefix + key: value for key, value in tensors.items()}
    return own | {'decoder.mask_token': torch.zeros(3)}


@pytest.mark.parametrize('kind', [str, Path])
def test_a_checkpoint_brings_tensors_and_what_it_notes(tmp_path, tensors, kind):
    statistics = {'bands': ['VV'], 'mean': [1.0], 'std': [2.0]}
    content = {
        'state_dict': as_task(tensors),
        'hyper_parameters': {'model': 'channelmae_tiny_patch16'},
        PROVENANCE: PAST.state(),
        NORMALIZATION: statistics,
    }
    torch.save(content, tmp_path / 'last.ckpt')
    found = read_checkpoint(kind(tmp_path / 'last.ckpt'))
    assert found.tensors.keys() == {*tensors, 'decoder.mask_token'}
    assert all(torch.equal(found.tensors[k], tensors[k]) for k in tensors)
    assert bands_of(found.tensors) == BANDS
    assert found.provenance == PAST
    assert found.normalization == statistics
    assert found.hyper_parameters == content['hyper_parameters']


@pytest.mark.parametrize(
    'wrap',
    [
        lambda state: {f'module.{k}': v for k, v in as_task(state).items()},
        lambda state: as_task(state, 'model._orig_mod.'),
        lambda state: as_task(state, '_orig_mod.model.'),
        lambda state: as_task(state, 'backbone.'),
        lambda state: state,
    ],
    ids=['DDP', 'compiled encoder', 'compiled task', 'TorchGeo', 'plain'],
)
def test_prefixes_of_wrappers_and_tasks_are_removed(tmp_path, tensors, wrap):
    torch.save(wrap(tensors), tmp_path / 'wrapped.pth')
    found = read_checkpoint(tmp_path / 'wrapped.pth').tensors
    assert found.keys() - {'decoder.mask_token'} == tensors.keys()


def test_bands_of_a_safetensors_file_have_the_order_of_their_sensor(tmp_path, tensors):
    save_file(tensors, tmp_path / 'encoder.safetensors')
    found = read_checkpoint(tmp_path / 'encoder.safetensors')
    assert bands_of(found.tensors) == ['x', 'B04', 'B8A', 'VV']
    assert found.provenance == UNKNOWN
    assert found.normalization is None


def test_weights_of_torchgeo_are_read_by_enum_and_by_name(monkeypatch, tensors):
    weights = ResNet50_Weights.SENTINEL2_ALL_MOCO
    state = {'inner': {'w': torch.ones(1)}, **tensors}
    monkeypatch.setattr(type(weights), 'get_state_dict', lambda *a, **kwargs: state)
    for each in (weights, str(weights)):
        found = read_checkpoint(each)
        assert found.tensors.keys() == {*tensors, 'inner.w'}
        assert found.provenance.trainings[0].record.sensors == ('Sentinel-2 L1C',)


@pytest.mark.parametrize(
    'name', ['no/such.ckpt', 'ResNet18_Weights.NO_SUCH', Path('x')]
)
def test_what_is_neither_a_file_nor_a_name_is_refused(name):
    with pytest.raises(FileNotFoundError, match=str(name)):
        read_checkpoint(name)


class Boom:
    """Create a file when unpickled."""

    def __reduce__(self):
        return os.mkdir, ('ran',)


def half(path):
    save_file({'a': torch.zeros(99)}, path)
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ('name', 'write'),
    [
        ('text.ckpt', lambda path: path.write_text('no weights' * 50)),
        ('half.safetensors', half),
        ('code.ckpt', lambda path: torch.save({'state_dict': Boom()}, path)),
        ('code.safetensors', lambda path: path.write_bytes(pickle.dumps(Boom()))),
        ('tensor.pt', lambda path: torch.save(torch.zeros(3), path)),
    ],
)
def test_a_file_without_tensors_is_refused_and_no_code_runs(
    tmp_path, monkeypatch, name, write
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name)
    with pytest.raises(ValueError, match=name):
        read_checkpoint(name)
    assert not Path('ran').exists()
