"""What a test and a prediction leave behind."""

import pandas as pd
import torch

from torchgeo_channelmae.metrics import evaluate, per_class
from torchgeo_channelmae.tasks.reports import (
    score_report,
    write_predictions,
    write_report,
)

PROBABILITIES = torch.tensor([[0.9, 0.2], [0.6, 0.8], [0.3, 0.7], [0.1, 1e-7]])
LABELS = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0]])


def report(**kwargs):
    scores = evaluate(PROBABILITIES, LABELS, groups=2, seeds=[4], **kwargs)
    classes = per_class(PROBABILITIES, LABELS, names=['water, inland', 'forest'])
    return score_report(scores, classes, 2, [4], 'Made up.'), classes


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


def test_nothing_is_overwritten(tmp_path):
    text, classes = report()
    for count in range(3):
        write_report(tmp_path, f'{count} {text}', classes)
        write_predictions(tmp_path, list('abcd'), PROBABILITIES + count, ['x', 'z'])
    assert (tmp_path / 'scores.md').read_text().startswith('2 ')
    assert (tmp_path / 'scores.1.md').read_text().startswith('0 ')
    assert (tmp_path / 'scores.2.md').read_text().startswith('1 ')
    assert pd.read_csv(tmp_path / 'predictions.1.csv')['x'][0] < 1
    assert (tmp_path / 'per_class.2.csv').is_file()
