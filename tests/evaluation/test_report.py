"""The files of a test and a prediction, and the summary a reader sees."""

import io

import numpy as np
import pandas as pd
import pytest
import torch

from torchgeo_channelmae.evaluation.metrics import evaluate, per_class
from torchgeo_channelmae.evaluation.report import (
    overlap_line,
    patch_table,
    per_country,
    predictions_csv,
    score_report,
    write_files,
)
from torchgeo_channelmae.provenance.overlap import CLAIMS, judge
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
    return score_report(scores, classes, 2, [4], 'Made up.', verdict)


def test_a_report_has_its_note_protocol_scores_and_classes():
    text = report(class_frequencies=torch.tensor([0.5, 0.25]))
    assert '**Made up.**' in text
    assert '2 groups with the seeds 4 (2 subsets)' in text
    # class 0: a hit at rank 1 and at rank 3; class 1: perfect
    assert '| water, inland | 2 | 83.33 | 50.00 |' in text
    assert '| forest | 2 | 100.00 | 100.00 |' in text
    assert '| floor: class frequencies |' in text


def test_a_report_has_only_the_rows_that_were_scored():
    assert '| floor' not in report()
    assert '| at tuned thresholds' not in report()
    tuned = report(thresholds=torch.tensor([0.2, 0.5]))
    assert '| at tuned thresholds |  |  | 88.89 | 90.00 |' in tuned


def test_predictions_keep_every_digit_of_a_float():
    text = predictions_csv(list('abcd'), PROBABILITIES, ['x, y', 'z'])
    table = pd.read_csv(io.StringIO(text))
    assert table.columns.tolist() == ['patch_id', 'x, y', 'z']
    assert table['patch_id'].tolist() == list('abcd')
    read = torch.tensor(table[['x, y', 'z']].to_numpy(), dtype=torch.float32)
    assert torch.equal(read, PROBABILITIES)


def test_an_older_file_is_moved_aside(tmp_path):
    for text in ('first', 'second'):
        write_files(tmp_path / 'test', {'scores.md': text, 'patches.csv': text})
    for name in ('scores{}.md', 'patches{}.csv'):
        assert (tmp_path / 'test' / name.format('')).read_text() == 'second'
        assert (tmp_path / 'test' / name.format('.1')).read_text() == 'first'


ORIGIN = ['tile', 'acquisition', 'country']


def test_unknown_origins_of_patches_stay_empty():
    labels = torch.tensor([[1, 0], [0, 1]])
    table = patch_table(['a', 'b'], labels, ['x', 'y'])
    assert table.columns.tolist() == ['patch_id', *ORIGIN, 'x', 'y']
    assert (table[ORIGIN] == '').all(axis=None)
    assert len(per_country(labels.float(), labels, None, table['country'])) == 0


# What the test shares with pretraining


def record(*sensors, tiles=None, steered=False):
    patches = torch.tensor([1, 9])
    kinds = ('v1', 'v2')  # of the names of one patch
    return DataRecord('Set', ('B04', 'B03'), sensors, tiles, patches, steered, kinds)


OPTICAL = Training(record('Sentinel-2 L2A', tiles=('33UUP',)), False)
RADAR = record('Sentinel-1 GRD')
UNREAD = UNKNOWN.inherited[0]
TILES = np.array(['33UUP', '29TNE', '33UUP', '31TFJ'])


def verdict_on(*pretraining, present=RADAR, tiles=TILES):
    patches = torch.tensor([1, 2, 3, 4])
    return judge(Provenance(pretraining), present, tiles, patches, ['v1'])


def claims(verdict):
    """Return name: (answer, why) of the claims in a report."""
    lines = [line.split('|') for line in report(verdict).splitlines()]
    cells = [[cell.strip(' *') for cell in line] for line in lines if len(line) == 5]
    return {name: (answer, why) for _, name, answer, why, _ in cells[2:]}


def test_a_report_gives_each_claim_an_answer_and_its_reason():
    text, answers = report(verdict_on(OPTICAL)), claims(verdict_on(OPTICAL))
    assert [answers[name][0] for name in CLAIMS] == ['yes', 'no', 'yes', 'yes']
    reason = 'the test reads Sentinel-1 GRD, pretraining read Sentinel-2 L2A'
    assert answers['sensor_free'][1] == reason
    assert answers['place_free'][1].endswith(': 2 of 4 (50.00 %)')
    read = 'Set (Sentinel-2 L2A: B04, B03; patches: 1; tiles: 1; without labels)'
    assert read in text
    assert 'Test patches that pretraining read: 1 of 4 (25.00 %).' in text


@pytest.mark.parametrize(
    'verdict',
    [
        verdict_on(UNREAD, present=None, tiles=None),
        verdict_on(OPTICAL, UNREAD, tiles=np.array(['29TNE', '', '31TFJ', ''])),
    ],
)
def test_what_is_unknown_is_never_answered_with_yes(verdict):
    answers = claims(verdict)
    assert {answer for answer, _ in answers.values()} == {'unknown'}
    assert 'unknown data' in answers['sensor_free'][1]


def test_places_known_in_part_are_a_lower_bound():
    answer, why = claims(verdict_on(OPTICAL, UNREAD))['place_free']
    assert answer == 'no'
    assert why.endswith('at least 2 of 4 (50.00 %), unknown of 2')


@pytest.mark.parametrize(
    ('pretraining', 'label', 'answer'),
    [
        (Training(record('Sentinel-2 L2A', steered=True), False), 'with labels', 'no'),
        (Training(record('Sentinel-2 L2A'), True), 'with labels', 'no'),
        (Training(None, False), 'labels unknown', 'unknown'),
    ],
)
def test_a_report_says_whether_labels_were_used(pretraining, label, answer):
    verdict = verdict_on(pretraining)
    assert label in report(verdict)
    assert label in overlap_line(verdict)
    assert claims(verdict)['label_free'][0] == answer


def test_a_model_from_scratch_has_read_nothing():
    assert {answer for answer, _ in claims(verdict_on()).values()} == {'yes'}
    assert overlap_line(verdict_on()).startswith('Nothing was pretrained')
