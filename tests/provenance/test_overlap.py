"""What a test shares with pretraining: known, refuted or unknown."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from torchgeo_channelmae.provenance.overlap import (
    Overlap,
    check_not_trained_on,
    judge,
    label_free,
    patch_overlap,
    place_overlap,
    sensor_free,
)
from torchgeo_channelmae.provenance.record import (
    UNKNOWN,
    DataRecord,
    Provenance,
    Training,
)

RADAR = ('Sentinel-1 GRD',)
L2A = ('Sentinel-2 L2A',)


def read(*sensors, supervised=False, tiles=(), patches=(), steered=False):
    numbers = None if patches is None else torch.tensor(patches, dtype=torch.int64)
    record = DataRecord('Data', ('B04',), sensors, tiles, numbers, steered)
    return Training(record, supervised)


NOT_KNOWN = UNKNOWN.inherited[0]


@pytest.mark.parametrize(
    ('trainings', 'targets', 'expected'),
    [
        ([read(*L2A)], RADAR, True),
        ([read(*L2A, *RADAR)], RADAR, False),
        ([read(*L2A)], ('Sentinel-2 L1C',), False),  # another level of the sensor
        ([], RADAR, True),  # from scratch
        ([read(*L2A), NOT_KNOWN], RADAR, None),
        ([read(*RADAR), NOT_KNOWN], RADAR, False),
        ([read(*L2A, 'unknown')], RADAR, None),
        ([read()], RADAR, None),
        ([read(*L2A)], ('unknown',), None),
    ],
)
def test_sensor_free_needs_every_sensor_to_be_known(trainings, targets, expected):
    assert sensor_free(trainings, targets) is expected


@pytest.mark.parametrize(
    ('trainings', 'expected'),
    [
        ([read(*L2A)], True),
        ([], True),
        ([read(*L2A, steered=True)], False),
        ([read(*L2A, supervised=True)], False),
        ([read(*L2A), NOT_KNOWN], None),
        ([read(*L2A, steered=True), NOT_KNOWN], False),
    ],
)
def test_label_free_needs_unlabelled_learning_and_sampling(trainings, expected):
    assert label_free(trainings) is expected


TILES = np.array(['33UUP', '33UUP', '29TNE', '35VPK'])


@pytest.mark.parametrize(
    ('trainings', 'tiles', 'expected'),
    [
        ([read(tiles=('33UUP',)), read(tiles=('35VPK',))], TILES, Overlap(3, 0, 4)),
        ([read(tiles=None)], TILES, Overlap(0, 4, 4)),
        ([read(tiles=('33UUP',)), NOT_KNOWN], TILES, Overlap(2, 2, 4)),
        ([read(tiles=('33UUP',))], np.array(['33UUP', '', 'x']), Overlap(1, 1, 3)),
        ([read(tiles=('33UUP',))], None, None),
        ([], TILES, Overlap(0, 0, 0)),
    ],
)
def test_patches_on_tiles_of_pretraining_are_counted(trainings, tiles, expected):
    assert place_overlap(trainings, tiles) == expected


@pytest.mark.parametrize(
    ('trainings', 'patches', 'expected'),
    [
        ([read(patches=(1,)), read(patches=(8,))], [9, 8, 1], Overlap(2, 0, 3)),
        ([read(patches=(1,)), read(patches=None)], [9, 8, 1], Overlap(1, 2, 3)),
        ([read(patches=(1,))], None, None),
        ([], None, Overlap(0, 0, 0)),
    ],
)
def test_patches_that_were_read_are_counted(trainings, patches, expected):
    numbers = None if patches is None else torch.tensor(patches)
    assert patch_overlap(trainings, numbers) == expected


def named(*spaces, patches=(1,), supervised=True):
    training = read(*L2A, patches=patches, supervised=supervised)
    return replace(training, record=replace(training.record, name_spaces=spaces))


@pytest.mark.parametrize(
    ('known', 'tested', 'expected'),
    [
        (['v2'], ['v1'], Overlap(0, 3, 3)),
        (['v1', 'v2'], ['v1'], Overlap(0, 0, 3)),
        (['v2'], ['v1', 'v2'], Overlap(0, 0, 3)),
        ([], ['v1'], Overlap(0, 3, 3)),  # an older checkpoint
    ],
)
def test_patches_with_names_of_another_kind_are_unknown(known, tested, expected):
    assert patch_overlap([named(*known)], torch.tensor([9, 8, 7]), tested) == expected


def test_a_patch_is_known_by_any_of_its_names():
    names = torch.tensor([[9, 1], [8, 7], [1, 6]])
    assert patch_overlap([named('v1', 'v2')], names, ['v1', 'v2']) == Overlap(2, 0, 3)


@pytest.mark.parametrize(
    ('overlap', 'share', 'free'),
    [
        (Overlap(1, 0, 4), 0.25, False),
        (Overlap(1, 1, 4), None, False),  # one is enough to refute
        (Overlap(0, 1, 4), None, None),
        (Overlap(0, 0, 0), 0.0, True),
    ],
)
def test_a_share_needs_all_patches_to_be_known(overlap, share, free):
    assert overlap.share == share
    assert overlap.free is free


# The verdict

PRESENT = read(*RADAR).record


def test_a_verdict_answers_each_claim_in_numbers():
    past = Provenance(inherited=(read(*L2A, tiles=('33UUP',), patches=(5,)),))
    assert judge(past, PRESENT, TILES, torch.tensor([1, 5, 6, 7])).numbers() == {
        'sensor_free': 1,
        'place_free': 0,
        'label_free': 1,
        'overlap_free': 1,
        'place_overlap': 0.5,
        'patch_overlap': 0.25,
    }
    unknown = judge(UNKNOWN, PRESENT, TILES, torch.arange(4)).numbers()
    assert all(math.isnan(value) for value in unknown.values())
    scratch = judge(Provenance(), None).numbers()
    assert all(scratch[k] == (0 if k.endswith('_overlap') else 1) for k in scratch)


def test_what_the_task_itself_read_counts_as_its_target():
    own = read(*RADAR, supervised=True, tiles=('33UUP',), steered=True)
    task = Provenance(inherited=(read(*L2A),), own=(own,))
    numbers = judge(task, PRESENT, TILES).numbers()
    assert [numbers[f'{name}_free'] for name in ('sensor', 'place', 'label')] == [1] * 3
    assert judge(task, None).targets == ('Sentinel-1 GRD', 'unknown')
    optical = Provenance(own=(read(*L2A),)).started_from(task)
    assert judge(optical, PRESENT).sensor_free is False


# Patches that were trained on

LEARNED = read(*RADAR, supervised=True, patches=(3, 4))
TEST = torch.tensor([2, 3, 1, 4, 0])


@pytest.mark.parametrize(
    'provenance',
    [
        Provenance(inherited=(LEARNED,), own=(read(*RADAR, supervised=True),)),
        Provenance(own=(Training(None, True), LEARNED)),
    ],
)
def test_a_test_on_patches_with_learned_labels_is_refused(provenance):
    names = np.array(list('abcde'), dtype='S')
    with pytest.raises(ValueError, match=r'2 of the 5 test patches.* b\.'):
        check_not_trained_on(provenance, TEST, names)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize(
    'training',
    [
        read(*L2A, patches=(2, 3)),  # without their labels
        read(*RADAR, supervised=True, patches=(8,)),
        Training(None, True),
        named('v1', 'v2', patches=(8,)),
        named('v2', patches=(2,), supervised=False),
        named('v2', patches=None),
    ],
)
def test_a_test_on_other_patches_passes_without_a_warning(training):
    spaces = training.data.name_spaces and ['v1']
    check_not_trained_on(Provenance(own=(training,)), TEST, None, spaces)
    check_not_trained_on(Provenance(own=(LEARNED,)), None)


def test_a_test_that_cannot_be_checked_warns():
    past = Provenance(own=(named('v2'),))
    with pytest.warns(UserWarning, match='has v2 names, the test has v1 names'):
        check_not_trained_on(past, torch.tensor([5]), None, ['v1'])
    verdict = judge(past, PRESENT, None, torch.tensor([5]), ['v1'])
    assert verdict.trained == Overlap(0, 1, 1)
