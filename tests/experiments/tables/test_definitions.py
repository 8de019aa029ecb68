import re
from pathlib import Path

import pytest

from torchgeo_channelmae.experiments.tables import definitions

TABLES = [definitions.table(name) for name in definitions.NAMES]

#: The paper's tables as printed: rows, then mAP and F1 on Sentinel-1 and Sentinel-2.
PRINTED = {
    '1': """
        68.47 ± 0.13 | 56.82 ± 0.14 | 78.09 ± 0.05 | 67.79 ± 0.07
        71.02 ± 0.13 | 59.18 ± 0.15 | 81.18 ± 0.08 | 70.78 ± 0.11
        70.83 ± 0.14 | 58.93 ± 0.14 | 80.25 ± 0.07 | 69.91 ± 0.10
        70.81 ± 0.14 | 59.53 ± 0.17 | 82.35 ± 0.09 | 72.14 ± 0.09
    """,
    '2': """
        71.02 ± 0.13 | 59.18 ± 0.15 | 81.18 ± 0.08 | 70.78 ± 0.11
        69.92 ± 0.13 | 58.15 ± 0.17 | 78.66 ± 0.08 | 68.01 ± 0.10
        68.42 ± 0.11 | 56.46 ± 0.15 | 74.73 ± 0.10 | 63.61 ± 0.12
        70.25 ± 0.13 | 58.76 ± 0.12 | 71.19 ± 0.11 | 61.24 ± 0.11
    """,
    '3': """
        56.58 ± 0.14 | 55.08 ± 0.14
        57.22 ± 0.15 | 55.67 ± 0.15
        56.81 ± 0.16 | 54.95 ± 0.14
        57.51 ± 0.15 | 55.87 ± 0.15
    """,
}


@pytest.mark.parametrize('name', PRINTED)
def test_the_papers_rows_come_first_with_its_numbers(name):
    table = definitions.table(name)
    printed = [
        tuple(map(float, re.findall(r'\d+\.\d+', line)))
        for line in PRINTED[name].strip().splitlines()
    ]
    rows = table.rows[: len(printed)]
    found = [tuple(x for t in table.targets for x in row.paper[t]) for row in rows]
    assert found == printed
    assert all(row.is_control for row in table.rows[len(printed) :])


@pytest.mark.parametrize('table', TABLES, ids=definitions.NAMES)
def test_names_are_unique_and_tell_row_and_target(table):
    assert len({row.name for row in table.rows}) == len(table.rows)
    for name, cell in table.cells.items():
        assert name == f'{cell.row}:{cell.target}'
        assert cell.target in table.targets


@pytest.mark.parametrize('table', TABLES, ids=definitions.NAMES)
def test_a_cell_is_compared_with_one_that_differs_in_the_weights_alone(table):
    for cell in table.cells.values():
        if cell.scratch is None:
            assert cell.pretraining is None
            assert cell.weights is None
            continue
        scratch = table.cells[cell.scratch]
        assert scratch.pretraining is None
        assert scratch.weights is None
        assert scratch.target == cell.target
        assert scratch.fraction == cell.fraction
        if cell.pretraining is not None:
            assert scratch.patch == cell.patch
            assert scratch.trainable == cell.trainable
        if cell.ceiling and table.name == '1':
            assert table.cells[cell.ceiling].pretraining.bands == 's1'


def test_table_1_has_the_controls_that_the_paper_lacks():
    names = {row.name for row in definitions.table('1').rows if row.is_control}
    assert names == {
        'scratch-p8',
        's1-p16',
        'random-head',
        'resnet50',
        'optical-mae',
        'radar-mae',
    }


@pytest.mark.parametrize('table', TABLES, ids=definitions.NAMES)
def test_every_overlay_of_a_cell_is_a_file(table):
    folder = Path(__file__).parents[3] / 'conf' / 'paper'
    for cell in table.cells.values():
        assert (folder / 'bands' / f'{cell.target.lower()}.yaml').is_file()
        if cell.pretraining is not None:
            for overlay in (
                f'bands/{cell.pretraining.bands}',
                *cell.pretraining.overlays,
            ):
                assert (folder / f'{overlay}.yaml').is_file()


def test_label_efficiency_has_scratch_and_pretrained_at_each_share():
    cells = definitions.table('labels', (0.25, 1.0)).cells
    assert [(c.row, c.fraction, c.scratch) for c in cells.values()] == [
        ('scratch-p16-25', 0.25, None),
        ('s2-p16-25', 0.25, 'scratch-p16-25:S1'),
        ('scratch-p16-100', 1.0, None),
        ('s2-p16-100', 1.0, 'scratch-p16-100:S1'),
    ]


def test_an_unknown_table_is_named():
    with pytest.raises(ValueError, match="no table '4': choose 1, 2, 3, labels"):
        definitions.table('4')
