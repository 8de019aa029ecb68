"""The files of a table, from runs that are made up."""

import math
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.experiments.fabricated import predictions, write
from torchgeo_channelmae.experiments.tables import definitions
from torchgeo_channelmae.experiments.tables.latex import escape, latex
from torchgeo_channelmae.experiments.tables.markdown import markdown
from torchgeo_channelmae.experiments.tables.plan import Data, make_plan
from torchgeo_channelmae.experiments.tables.presets import read_preset
from torchgeo_channelmae.experiments.tables.results import read_results
from torchgeo_channelmae.experiments.tables.sensors import DEFAULT
from torchgeo_channelmae.experiments.tables.unchanged import with_unchanged
from torchgeo_channelmae.experiments.tables.write import write_table

CONF = Path(__file__).parents[3] / 'conf'
PRESET = read_preset('sample', CONF)
SKILL = {'scratch': 0.6, 's1-p16': 2.0, 's2-p16': 1.3, 'rgb': 0.6, 'masking-s3': 0.1}


def skill_of(row):
    return next((skill for name, skill in SKILL.items() if row.startswith(name)), 1.0)


def fabricate(
    folder, name='1', seeds=(0, 1), failed=(), sensors=DEFAULT, unchanged=(), **options
):
    """Results of a table whose cells have the skill of their row."""
    table = definitions.table(name, sensors=sensors)
    plan = make_plan(table, PRESET, seeds, Data(), **options)
    plan = with_unchanged(plan, unchanged, table.cells, PRESET)
    outcome = {run: None for run in plan.runs}
    for cell, runs in {**plan.by_cell, **plan.unchanged}.items():
        for seed, run in enumerate(runs):
            if cell in failed:
                outcome[run] = 'ValueError: The data is gone.'
            elif not (folder / run).exists():
                skill = skill_of(cell)
                write(
                    folder / run, predictions(skill, patches=120, scenes=20, seed=seed)
                )
                (folder / f'{run}.yaml').write_text(
                    yaml.safe_dump({'model.init_args.base_lr': 0.016})
                )
    return read_results(table, PRESET, plan, outcome, folder, seeds, 200, unchanged)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('runs')


@pytest.fixture(scope='module')
def results(folder):
    return fabricate(folder)


@pytest.fixture(scope='module')
def page(results):
    return markdown(results)


def row_of(page, title, number=0):
    lines = [line for line in page.splitlines() if line.startswith(f'| {title} ')]
    return [cell.strip() for cell in lines[number].strip('|').split('|')]


def test_the_papers_numbers_stand_beside_ours_as_printed(page, results):
    heads = page.splitlines()[page.splitlines().index('## As the paper has it') + 2]
    assert heads.count('paper (averaging not stated)') == 4
    cells = row_of(page, 'Sentinel-2, patch 16')
    assert [cells[2], cells[4], cells[6], cells[8]] == [
        '71.02 ± 0.13',
        '59.18 ± 0.15',
        '81.18 ± 0.08',
        '70.78 ± 0.11',
    ]
    mean, std = results.cells['s2-p16:S1'].subsets['mAP_micro']
    assert cells[1] == f'{100 * mean:.2f} ± {100 * std:.2f}'


def test_the_reader_is_told_what_scores_and_spreads_are_worth(page):
    assert PRESET.about in page
    assert 'holds no variance of training' in page
    assert 'drawn by its 20 acquisitions, and the 2 training runs' in page
    assert 'each seed has a pretraining and a fine-tuning of its own' in page


def test_a_difference_is_marked_where_its_interval_excludes_zero_and_nowhere_else(
    page, results
):
    marked = 0
    for row in results.table.rows:
        for cell in row.cells:
            found = results.difference(cell, 'mAP_micro')
            if found is None:
                continue
            text = f'{100 * found.estimate:+.2f} ['
            line = next(
                line
                for line in page.splitlines()
                if line.startswith(f'| {row.title} ') and f'{text}' in line
            )
            assert (f'**{text}' in line) == (found.low > 0 or found.high < 0)
            marked += f'**{text}' in line
    assert 0 < marked < len(results.cells)


def test_the_recovered_gain_is_told_for_what_is_between_scratch_and_ceiling(page):
    (line,) = [
        line
        for line in page.splitlines()
        if line.startswith('- Sentinel-2, patch 16: ')
    ]
    share, low, high = map(float, re.findall(r'-?\d+\.\d+', line))
    assert 0 < low < share < high < 1


def test_controls_stand_below_the_papers_rows_and_the_floor_last(page):
    order = [
        page.index(text)
        for text in (
            '| Sentinel-2, patch 8 ',
            'controls that the paper lacks',
            '| From scratch, patch 8 ',
            '| ResNet-50 from scratch ',
            'class frequencies (floor)',
        )
    ]
    assert order == sorted(order)


def test_cells_that_are_not_there_are_listed_with_their_reason(folder):
    page = markdown(
        fabricate(folder, failed=['rgb-p16:S2'], only=['rgb-p16', 's2-p16'])
    )
    assert '- rgb-p16:S2: failed: ValueError: The data is gone.' in page
    assert '- scratch-p16:S1: was not asked for' in page
    assert '- optical-mae:S1: was not asked for' in page
    assert row_of(page, 'RGB, patch 16')[5] == '-'
    whole = markdown(fabricate(folder))
    assert '- optical-mae:S1: needs a download (ViTBase16' in whole


def test_the_papers_signs_are_agreed_with_denied_or_left_open(folder):
    page = markdown(fabricate(folder, '2'))
    line = next(li for li in page.splitlines() if li.startswith('- S3: one band in'))
    assert 'Sentinel-1 mAP: below scratch in the paper (-0.05); agrees here' in line
    line = next(li for li in page.splitlines() if li.startswith('- S1: random'))
    assert 'above scratch in the paper (+2.55); ' in line
    assert len([li for li in page.splitlines() if 'scratch in the paper' in li]) == 16


def test_equal_runs_give_equal_files_and_nothing_is_lost(folder, tmp_path):
    first, second = (write_table(fabricate(folder), tmp_path / n).parent for n in 'ab')
    names = sorted(path.name for path in first.iterdir())
    assert names == [
        'per_class.csv',
        'per_country.csv',
        'results.csv',
        'runs.csv',
        'table.md',
        'table.png',
        'table.tex',
    ]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    before = (first / 'results.csv').read_bytes()
    write_table(fabricate(folder), first)
    assert sorted(path.name for path in first.iterdir()) == names  # no copies
    write_table(fabricate(folder, only=['s2-p16', 'scratch-p16']), first)
    assert (first / 'results.1.csv').read_bytes() == before
    assert (first / 'results.csv').read_bytes() != before


def test_the_csv_has_a_row_for_every_cell_and_score_without_paths(results, tmp_path):
    folder = write_table(results, tmp_path / 'table').parent
    table = pd.read_csv(folder / 'results.csv')
    done = table[table['missing'].isna()]
    assert len(done) == 6 * len(results.cells)
    row = done.set_index(['row', 'target', 'score']).loc[('s2-p16', 'S1', 'mAP_micro')]
    found = results.difference(results.cells['s2-p16:S1'].cell, 'mAP_micro')
    assert row['difference'] == pytest.approx(100 * found.estimate, abs=1e-3)
    assert row['paper'] == 71.02
    assert bool(row['differs']) == found.excludes_zero
    assert math.isnan(
        done.set_index(['row', 'target', 'score']).loc[
            ('s2-p16', 'S1', 'mAP_macro'), 'paper'
        ]
    )
    runs = pd.read_csv(folder / 'runs.csv')
    assert len(runs) == 2 * 6 * len(results.cells)
    for path in folder.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path
    countries = pd.read_csv(folder / 'per_country.csv')
    assert set(countries['country']) == {'Austria', 'Serbia'}


def test_latex_has_a_line_a_row_and_its_letters_are_escaped(results):
    text = latex(results)
    rows = [line for line in text.splitlines() if line.startswith('Sentinel-2, patch')]
    assert len(rows) == 2
    columns = re.search(r'begin{tabular}{(l+r+)}', text)[1]
    for line in text.splitlines():
        if line.endswith('\\\\') and 'multicolumn' not in line:
            assert line.count('&') - line.count('\\&') == len(columns) - 1, line
    assert text.count('{') - text.count('\\{') == text.count('}') - text.count('\\}')
    assert r'71.02 $\pm$ 0.13' in text
    assert escape('50 % & a_b') == r'50 \% \& a\_b'


def test_the_table_of_labels_is_drawn_as_a_curve(folder, tmp_path):
    results = fabricate(folder, 'labels')
    path = write_table(results, tmp_path / 'labels')
    assert (path.parent / 'table.png').stat().st_size > 10_000
    assert '1 % of the labels' in path.read_text()
    shares = pd.read_csv(path.parent / 'results.csv')['fraction'].unique()
    assert set(shares) == {0.01, 0.1, 1.0}
