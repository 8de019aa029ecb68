"""What trainings read, in memory and in a checkpoint."""

import numpy as np
import pytest
import torch

from torchgeo_channelmae.provenance.record import (
    UNKNOWN,
    DataRecord,
    Provenance,
    Training,
    from_state,
    patch_hashes,
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


def test_tiles_and_patches_are_sorted_and_unique_or_unknown():
    assert record(tiles=('b', 'a', 'b')).tiles == ('a', 'b')
    assert record().patches.tolist() == [-3, 1, 7]
    assert record(tiles=('33UUP', '')).tiles is None


@pytest.mark.parametrize(
    'change',
    [
        {'dataset': 'EuroSAT'},
        {'tiles': None},
        {'patches': torch.tensor([7, 1])},
        {'patches': None},
        {'labels_steered': None},
    ],
)
def test_records_are_equal_if_all_their_content_is(change):
    assert len({record(**change), record(**change), record()}) == 2


def test_loading_weights_adds_all_their_trainings_and_removes_none():
    task = Provenance().started_from(FULL)
    assert task.inherited == (PRETRAINING, FINE_TUNING, Training(None, True))
    assert task.own == ()
    again = Provenance(own=(FINE_TUNING,)).started_from(Provenance(own=(PRETRAINING,)))
    assert again.trainings == (PRETRAINING, FINE_TUNING)
    other = again.started_from(UNKNOWN)
    assert other.inherited == (PRETRAINING, Training(None, None))


def test_only_a_training_on_other_data_is_added():
    once = Provenance().trained(PRETRAINING)
    assert once.trained(Training(record(), False)) == once
    more = Training(record(tiles=('32TNT',)), False)
    assert once.trained(more).own == (PRETRAINING, more)


@pytest.mark.parametrize('provenance', [FULL, UNKNOWN, Provenance()])
def test_a_checkpoint_gives_back_what_was_stored(tmp_path, provenance):
    torch.save(provenance.state(), tmp_path / 'one.pt')
    content = torch.load(tmp_path / 'one.pt', weights_only=True)
    assert from_state(content) == provenance


def test_equal_patches_are_stored_once(tmp_path):
    sizes = []
    for count in (10_000, 30_000):
        patches = torch.randint(2**62, (count,))
        read = Training(record(patches=patches), False)
        learned = Training(record(patches=patches.clone(), bands=('VV',)), True)
        state = Provenance(inherited=(read,), own=(learned,)).state()
        torch.save(state, tmp_path / 'one.pt')
        sizes.append((tmp_path / 'one.pt').stat().st_size)
    assert (sizes[1] - sizes[0]) / 20_000 == pytest.approx(8, abs=0.01)


def test_another_form_counts_as_unknown_with_a_warning():
    assert from_state(None) == UNKNOWN
    with pytest.warns(UserWarning, match='unknown'):
        assert from_state({'version': 2, 'inherited': [], 'own': []}) == UNKNOWN


def test_a_hash_is_that_of_other_software():
    # printf S2A_MSIL2A_20170613T101031_26_57 | b2sum -l 64
    published = bytes.fromhex('ccc29627a090699c')
    expected = int.from_bytes(published, 'little', signed=True)
    names = np.array([b'a', b'S2A_MSIL2A_20170613T101031_26_57'])
    assert patch_hashes(names)[1].item() == expected
    with pytest.raises(ValueError, match='Patch 1 of 2'):
        patch_hashes(np.array([b'a', b'']))
