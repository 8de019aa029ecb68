"""What a test and a prediction leave behind."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from torchgeo_channelmae.evaluation.metrics import evaluate, per_class
from torchgeo_channelmae.evaluation.report import (
    overlap_line,
    score_report,
    write_predictions,
    write_report,
)
from torchgeo_channelmae.provenance.overlap import judge
from torchgeo_channelmae.provenance.record import (
    UNKNOWN,
    DataRecord,
    Provenance,
    Training,
)

PROBABILITIES = torch.tensor([[0.9, 0.2], [0.6, 0.8], [0.3, 0.7], [0.1, 1e-7]])
LABELS = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0]])


def report(verdict=None, **kwargs):
    scores = evaluate(PROBABILITIES, LABELS, groups=2, seeds=[4], **kwargs)
    classes = per_class(PROBABILITIES, LABELS, names=['water, inland', 'forest'])
    return score_report(scores, classes, 2, [4], 'Made up.', verdict), classes


def test_a_report_has_its_note_protocol_scores_and_classes():
    text, _ = report(class_frequencies=torch.tensor([0.5, 0.25]))
    assert '**Made up.**' in text
    assert '2 groups with the seeds 4 (2 subsets)' in text
    # class 0: a hit at rank 1 and at rank 3; class 1: perfect
    assert '| water, inland | 2 | 83.33 | 50.00 |' in text
    assert '| forest | 2 | 100.00 | 100.00 |' in text
    assert 'floor: class frequencies' in text


def test_a_report_without_training_frequencies_has_no_floor():
    assert 'floor' not in report()[0]


def test_predictions_keep_every_digit_of_a_float(tmp_path):
    path = write_predictions(tmp_path, list('abcd'), PROBABILITIES, ['x, y', 'z'])
    table = pd.read_csv(path)
    assert table.columns.tolist() == ['patch_id', 'x, y', 'z']
    assert table['patch_id'].tolist() == list('abcd')
    read = torch.tensor(table[['x, y', 'z']].to_numpy(), dtype=torch.float32)
    assert torch.equal(read, PROBABILITIES)


PATCHES = pd.DataFrame({'patch_id': list('abcd')})
COUNTRIES = pd.DataFrame({'patches': [4]}, index=['Austria'])


def test_nothing_is_overwritten(tmp_path):
    text, classes = report()
    for count in range(3):
        write_report(tmp_path, f'{count} {text}', classes, COUNTRIES, PATCHES)
        write_predictions(tmp_path, list('abcd'), PROBABILITIES + count, ['x', 'z'])
    assert (tmp_path / 'scores.md').read_text().startswith('2 ')
    assert (tmp_path / 'scores.1.md').read_text().startswith('0 ')
    assert (tmp_path / 'scores.2.md').read_text().startswith('1 ')
    assert pd.read_csv(tmp_path / 'predictions.1.csv')['x'][0] < 1
    for name in ('per_class', 'per_country', 'patches'):
        assert (tmp_path / f'{name}.2.csv').is_file()


# What the test shares with pretraining


def record(*sensors, tiles=None, patches=None, steered=False):
    numbers = None if patches is None else torch.tensor(patches)
    return DataRecord('Set', ('B04', 'B03'), sensors, tiles, numbers, steered)


OPTICAL = Training(record('Sentinel-2 L2A', tiles=('33UUP',), patches=[1, 9]), False)
RADAR = record('Sentinel-1 GRD')
UNTOLD = UNKNOWN.inherited[0]
TILES = np.array(['33UUP', '29TNE', '33UUP', '31TFJ'])


def verdict_on(*pretraining, present=RADAR, tiles=TILES):
    return judge(Provenance(pretraining), present, tiles, torch.tensor([1, 2, 3, 4]))


def claims(verdict):
    """Return name: (answer, why) of the claims in a report."""
    lines = [line.split('|') for line in report(verdict)[0].splitlines()]
    cells = [[cell.strip(' *') for cell in line] for line in lines if len(line) == 5]
    return {name: (answer, why) for _, name, answer, why, _ in cells}


def test_a_report_gives_each_claim_an_answer_and_what_it_rests_on():
    told = claims(verdict_on(OPTICAL))
    assert told['sensor_free'] == (
        'yes',
        'the test reads Sentinel-1 GRD, pretraining read Sentinel-2 L2A',
    )
    assert told['place_free'] == (
        'no',
        'test patches on MGRS tiles that pretraining read: 2 of 4 (50.00 %)',
    )
    assert told['label_free'][0] == 'yes'
    assert told['overlap_free'][0] == 'yes'
    assert told['overlap_free'][1].startswith('of sensors alone')
    text, _ = report(verdict_on(OPTICAL))
    assert (
        'Pretraining read Set (Sentinel-2 L2A: B04, B03; 2 patches; 1 tile; without '
        'labels). Test patches that pretraining read: 1 of 4 (25.00 %).'
    ) in text


def test_patches_with_names_of_two_kinds_are_counted_once():
    both = replace(OPTICAL.record, name_spaces=('v1', 'v2'))
    assert '; 1 patch; ' in report(verdict_on(Training(both, False)))[0]
    odd = replace(both, patches=torch.tensor([1, 5, 9]))  # of one, a name was the same
    assert '; patches of 3 names; ' in report(verdict_on(Training(odd, False)))[0]


def test_what_is_not_known_is_never_answered_with_yes():
    for verdict in (
        verdict_on(UNTOLD),
        verdict_on(UNTOLD, present=None, tiles=None),
        verdict_on(OPTICAL, UNTOLD, tiles=np.array(['29TNE', '', '31TFJ', ''])),
    ):
        told = claims(verdict)
        for name in ('sensor_free', 'place_free', 'label_free', 'overlap_free'):
            assert told[name][0] == 'unknown', name
        assert 'data that are not known' in told['sensor_free'][1]


def test_of_places_known_in_part_the_known_is_a_lower_bound():
    answer, why = claims(verdict_on(OPTICAL, UNTOLD))['place_free']
    assert answer == 'no'
    assert why.endswith('at least 2 of 4 (50.00 %), unknown of 2')


@pytest.mark.parametrize(
    ('pretraining', 'label'),
    [
        (Training(record('Sentinel-2 L2A', steered=True), False), 'with labels'),
        (Training(record('Sentinel-2 L2A'), True), 'with labels'),
        (Training(record('Sentinel-2 L2A', steered=None), False), 'labels unknown'),
        (Training(None, False), 'data that are not known (labels unknown)'),
        (Training(None, True), 'data that are not known (with labels)'),
    ],
)
def test_a_report_says_whether_labels_were_used(pretraining, label):
    verdict = verdict_on(pretraining)
    assert label in report(verdict)[0]
    assert label in overlap_line(verdict)
    expected = 'no' if 'with labels' in label else 'unknown'
    assert claims(verdict)['label_free'][0] == expected


def test_a_model_from_scratch_has_read_nothing():
    verdict = verdict_on()
    assert {answer for answer, _ in list(claims(verdict).values())[-4:]} == {'yes'}
    assert overlap_line(verdict) == (
        'Nothing was pretrained: the weights started from scratch.'
    )


def test_sensors_of_a_test_that_are_known_in_part_are_said_so():
    present = record('Sentinel-1 GRD', 'unknown')
    told = claims(verdict_on(OPTICAL, present=present))
    assert told['sensor_free'] == (
        'unknown',
        'the test reads Sentinel-1 GRD, data that are not known, pretraining read '
        'Sentinel-2 L2A',
    )
