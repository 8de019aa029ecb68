"""What trainings read, in memory and in a checkpoint."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchgeo.models import get_weight

from torchgeo_channelmae.provenance.record import (
    KEY,
    UNKNOWN,
    DataRecord,
    Provenance,
    Training,
    from_state,
    patch_hashes,
    read_provenance,
)


def record(**changes):
    values = {
        'dataset': 'BigEarthNet',
        'bands': ('B04', 'B03'),
        'sensors': ('Sentinel-2 L2A',),
        'tiles': ('33UUP', '29TNE'),
        'patches': torch.tensor([7, -3, 7, 1]),
        'labels_steered': False,
    }
    return DataRecord(**(values | changes))


PRETRAINING = Training(record(), supervised=False)
FINE_TUNING = Training(record(bands=('VV',), sensors=('Sentinel-1 GRD',)), True)
FULL = Provenance(inherited=(PRETRAINING,), own=(FINE_TUNING, Training(None, True)))


# Hashes


def test_a_hash_is_that_of_other_software_and_so_the_same_on_every_machine():
    # printf S2A_MSIL2A_20170613T101031_26_57 | b2sum -l 64
    published = bytes.fromhex('ccc29627a090699c')
    expected = int.from_bytes(published, 'little', signed=True)
    name = b'S2A_MSIL2A_20170613T101031_26_57'
    assert patch_hashes(np.array([name])).tolist() == [expected]


def test_hashes_keep_the_order_and_do_not_depend_on_the_names_beside():
    names = np.array([b'long name of a patch', b'b', b'a', b'b'])
    hashes = patch_hashes(names)
    assert hashes.dtype == torch.int64
    assert [patch_hashes(names[i : i + 1]).item() for i in range(4)] == hashes.tolist()
    assert len(set(hashes.tolist())) == 3
    assert patch_hashes(names[:0]).tolist() == []


def test_as_many_patches_as_bigearthnet_has_hash_to_as_many_numbers():
    names = np.char.add(b'S2A_MSIL2A_', np.arange(100_000).astype('S'))
    assert len(patch_hashes(names).unique()) == 100_000


def test_a_patch_without_a_name_is_refused():
    with pytest.raises(ValueError, match=r'^Patch 1 of 2 has no name[^\n]*\.$'):
        patch_hashes(np.array([b'a', b'']))


# Records


def test_tiles_and_patches_are_in_order_and_there_once():
    assert record().tiles == ('29TNE', '33UUP')
    assert record(tiles=('b', 'a', 'b')).tiles == ('a', 'b')
    assert record().patches.tolist() == [-3, 1, 7]


def test_tiles_of_which_one_is_unknown_are_unknown():
    assert record(tiles=('33UUP', '')).tiles is None


@pytest.mark.parametrize(
    'change',
    [
        {'dataset': 'EuroSAT'},
        {'bands': ('B04',)},
        {'sensors': ('Sentinel-2 L1C',)},
        {'tiles': ('33UUP',)},
        {'tiles': None},
        {'patches': torch.tensor([7, 1])},
        {'patches': None},
        {'labels_steered': None},
        {'name_spaces': ('v1', 'v2')},
    ],
)
def test_records_are_equal_if_all_in_them_is(change):
    assert record(**change) == record(**change)
    assert record(**change) != record()
    assert record() != record(**change)


# The chain of trainings


def test_weights_bring_all_their_trainings_along():
    task = Provenance().started_from(FULL)
    assert task.inherited == (PRETRAINING, FINE_TUNING, Training(None, True))
    assert task.own == ()


def test_what_was_read_is_never_taken_back():
    again = Provenance(own=(FINE_TUNING,)).started_from(Provenance(own=(PRETRAINING,)))
    assert again.trainings == (PRETRAINING, FINE_TUNING)
    other = again.started_from(UNKNOWN)
    assert other.inherited == (PRETRAINING, Training(None, None))


def test_a_training_on_the_same_data_is_told_once_and_on_other_data_added():
    once = Provenance().trained(PRETRAINING)
    assert once.trained(Training(record(), False)) == once
    more = Training(record(tiles=('32TNT',)), False)
    assert once.trained(more).own == (PRETRAINING, more)


# In a checkpoint


@pytest.mark.parametrize(
    'provenance',
    [
        FULL,
        UNKNOWN,
        Provenance(),
        Provenance(own=(Training(record(tiles=(), patches=None), None),)),
        Provenance(own=(Training(record(tiles=None, labels_steered=None), False),)),
    ],
)
def test_a_checkpoint_gives_back_what_was_stored(tmp_path, provenance):
    path = tmp_path / 'one.ckpt'
    torch.save({'state_dict': {}, KEY: provenance.state()}, path)
    content = torch.load(path, weights_only=True)
    assert from_state(content[KEY]) == provenance
    assert read_provenance(str(path)) == provenance


def test_values_of_numpy_do_not_make_a_checkpoint_unreadable(tmp_path):
    tiles = tuple(np.array(['33UUP', '29TNE']))
    odd = record(bands=list(np.array(['B04', 'B03'])), tiles=tiles)
    torch.save(Provenance(own=(Training(odd, False),)).state(), tmp_path / 'one.pt')
    content = torch.load(tmp_path / 'one.pt', weights_only=True)
    assert from_state(content).own[0].record == record()


def test_a_patch_costs_eight_bytes_however_often_it_was_read(tmp_path):
    sizes = []
    for count in (10_000, 30_000):
        patches = torch.randint(2**62, (count,))
        read = Training(record(patches=patches), False)
        learned = Training(record(patches=patches.clone(), bands=('VV',)), True)
        state = Provenance(inherited=(read,), own=(learned,)).state()
        torch.save({KEY: state}, tmp_path / 'one.ckpt')
        sizes.append((tmp_path / 'one.ckpt').stat().st_size)
    assert (sizes[1] - sizes[0]) / 20_000 == pytest.approx(8, abs=0.01)
    assert sizes[0] < 8 * 10_000 + 10_000


def test_a_checkpoint_that_does_not_tell_is_unknown(tmp_path):
    tensors = {'model.cls_token': torch.zeros(1, 1, 8)}
    torch.save({'state_dict': tensors}, tmp_path / 'stock.ckpt')
    torch.save(tensors, tmp_path / 'old.pt', _use_new_zipfile_serialization=False)
    torch.save([1, 2], tmp_path / 'list.pt')
    save_file(tensors, tmp_path / 'tensors.safetensors')
    for name in ('stock.ckpt', 'old.pt', 'list.pt', 'tensors.safetensors', 'none.pt'):
        assert read_provenance(str(tmp_path / name)) == UNKNOWN, name


@pytest.mark.parametrize(
    ('name', 'sensor', 'band'),
    [
        ('ViTSmall16_Weights.SENTINEL2_ALL_MAE', 'Sentinel-2 L1C', 'B8A'),
        ('ViTBase16_Weights.SENTINEL1_GRD_MAE', 'Sentinel-1 GRD', 'VH'),
        ('ViTSmall16_Weights.LANDSAT_OLI_SR_MOCO', 'Landsat-8 SR', 'SR_B1'),
    ],
)
def test_weights_of_torchgeo_tell_what_their_entry_says(name, sensor, band):
    for weights in (name, get_weight(name)):
        (training,) = read_provenance(weights).trainings
        assert training.record.sensors == (sensor,)
        assert band in training.record.bands
        assert training.record.tiles is None
        assert training.supervised is False


@pytest.mark.parametrize(
    'state',
    [
        'text',
        {},
        {'version': 1, 'inherited': [], 'own': [{'supervised': True}]},
        {'version': 1, 'inherited': 3, 'own': []},
        {'version': 2, 'inherited': [], 'own': []},
    ],
)
def test_a_note_in_another_form_is_unknown_and_says_so(state):
    with pytest.warns(UserWarning, match='counts as unknown'):
        assert from_state(state) == UNKNOWN
