"""The files of a table, from runs that are made up."""

import math
import re
from dataclasses import replace

import pandas as pd
import pytest

from tests.experiments.tables.fabricated import PRESET, fabricate
from torchgeo_channelmae.experiments.tables.figures import figure
from torchgeo_channelmae.experiments.tables.pages import page, write_table
from torchgeo_channelmae.experiments.tables.protocol import smallest_gain

HEADS = replace(PRESET, partial_base_lrs=(0.016,))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('runs')


@pytest.fixture(scope='module')
def results(folder):
    rows = ['scratch-p16', 's2-p16', 'rgb-p16', 's1-p16', 'resnet50']
    return fabricate(folder, only=rows)


@pytest.fixture(scope='module')
def written(results, tmp_path_factory):
    return write_table(results, tmp_path_factory.mktemp('table')).parent


def rows_of(text, title, part=''):
    """Cells of the rows with a title, in the section with a heading."""
    section = text.partition(f'## {part}')[2].partition('\n## ')[0] if part else text
    lines = [re.split(r'\s*\|\s*', line)[1:-1] for line in section.splitlines()]
    return [cells[1:] for cells in lines if cells and cells[0] == title]


def numbers(text):
    return [float(number) for number in re.findall(r'[+-]?\d+\.\d+', text)]


def test_the_papers_numbers_stand_beside_ours_as_printed(results, written):
    text = (written / 'table.md').read_text()
    ((s1, paper_s1, f1, paper_f1, *_),) = rows_of(
        text, 'Sentinel-2, patch 16', 'As the paper'
    )
    assert [paper_s1, paper_f1] == ['71.02 ± 0.13', '59.18 ± 0.15']
    table = pd.read_csv(written / 'results.csv').set_index(['row', 'target', 'score'])
    for shown, score in ((s1, 'mAP_micro'), (f1, 'F1_micro')):
        record = table.loc['s2-p16', 'S1', score]
        expected = [record['subsets_mean'], record['subsets_std']]
        assert numbers(shown) == pytest.approx(expected, abs=0.006)
    (control,) = rows_of(text, 'ResNet-50 from scratch', 'As the paper')
    assert control[1::2] == [''] * 4
    (floor,) = rows_of(text, 'class frequencies (floor)')
    assert numbers(floor[0]) == pytest.approx([table['floor'].iloc[0]], abs=0.006)


def test_the_reader_learns_what_scores_and_spreads_are_worth(written):
    text = (written / 'table.md').read_text()
    assert PRESET.about in text
    assert '15 random subsets of the test set (5 groups, seeds 0, 1, 2)' in text
    assert 'contains no variance of training' in text
    assert '(its 10 tiles) and of the 2 training runs' in text
    assert 'each seed has its own pretraining and fine-tuning' in text


def test_differences_stand_beside_those_by_a_smaller_unit(results, written):
    text = (written / 'table.md').read_text()
    by_tile, by_date = results.compared['S1'], results.otherwise['S1']
    assert '10 tiles' in text
    assert '20 acquisitions' in text
    for pretrained in ('s2', 'rgb'):
        one, other = f'{pretrained}-p16:S1', 'scratch-p16:S1'
        title = results.table.cells[one].title
        shown = rows_of(text, title, 'Sentinel-1: the')[1]
        for column, compared in zip(shown, (by_tile, by_date), strict=True):
            found = compared.difference(one, other, 'mAP_micro')
            ends = [100 * x for x in (found.estimate, found.low, found.high)]
            assert numbers(column) == pytest.approx(ends, abs=0.006)


def test_differences_to_scratch_are_those_of_the_means(results, written):
    text = (written / 'table.md').read_text()
    for name, cell in results.done.items():
        section = 'Sentinel-1: the' if cell.target == 'S1' else 'Sentinel-2: the'
        (_, difference, *_) = rows_of(text, cell.title, section)[0]
        if cell.scratch:
            whole = results.compared[cell.target].whole
            means = [whole[n]['mAP_micro'].mean() for n in (name, cell.scratch)]
            estimate, low, high = numbers(difference)
            assert estimate == pytest.approx(100 * (means[0] - means[1]), abs=0.006)
            assert low <= estimate <= high


def test_one_comparison_is_primary_and_only_it_can_be_bold(results, written):
    text = (written / 'table.md').read_text()
    found = results.difference('s2-p16:S1', 'scratch-p16:S1', 'mAP_micro')
    (line,) = re.findall('^Primary comparison: (.*?): (.*?)[.] All', text, re.MULTILINE)
    title = 'Sentinel-2, patch 16 - From scratch, patch 16 on Sentinel-1, mAP micro'
    assert line[0] == title
    shown = [100 * x for x in (found.estimate, found.low, found.high)]
    assert numbers(line[1]) == pytest.approx(shown, abs=0.006)
    bold = [part for part in re.findall(r'\*\*(.*?)\*\*', text) if part[0] in '+-']
    assert len(bold) == found.excludes_zero
    assert 'exploratory' in text


def test_rows_of_a_claim_are_compared_with_each_other(results, written):
    table = pd.read_csv(written / 'contrasts.csv').set_index(['cell', 'score'])
    text = (written / 'table.md').read_text()
    for target in ('S1', 'S2'):
        found = results.difference(f's2-p16:{target}', f'rgb-p16:{target}', 'mAP_micro')
        record = table.loc[(f's2-p16:{target}', 'mAP_micro')]
        assert record['difference'] == pytest.approx(100 * found.estimate, abs=1e-3)
        section = f'Sentinel-{target[1]}: the'
        ((shown, *_),) = rows_of(text, 'Sentinel-2, patch 16 - RGB, patch 16', section)
        assert numbers(shown)[0] == pytest.approx(record['difference'], abs=0.006)
    assert record['other'] == 'rgb-p16:S2'


def test_a_head_that_has_not_converged_is_marked(tmp_path):
    for logistic, verdict in ((0.504, 'agrees'), (0.51, 'differs')):
        logged = f'probe_linear_mAP_micro,val_patches={logistic},15'
        only = ['head:S1', 'random-head:S1']
        found = fabricate(tmp_path / verdict, '3', HEADS, only=only, logged=logged)
        text = page(found, 'table.md')
        (cells,) = rows_of(text, 'head:S1', 'Frozen encoders')
        assert numbers(' '.join(cells)) == [50.0, 100 * logistic]
        assert verdict in cells[-1]
        assert 'Validation patches that chose thresholds: 15.' in text


def test_the_page_says_whether_a_protocol_was_fixed_and_what_it_could_show(folder):
    only = ['s2-p16:S1', 'scratch-p16:S1']
    none = page(fabricate(folder, '3', only=only), 'table.md')
    assert 'Protocol: none was fixed' in none
    fixed = page(
        fabricate(folder, '3', only=only, protocol='mine.yaml (..)'), 'table.md'
    )
    assert 'Protocol: mine.yaml (..); what ran is what it fixes' in fixed
    gain = smallest_gain(2, **PRESET.assumed)
    assert f'a gain of {gain:.2f} points' in none


def test_the_recovered_gain_lies_between_scratch_and_ceiling(written):
    text = (written / 'table.md').read_text()
    pattern = r'^- Sentinel-2, patch 16 \(ceiling: Sentinel-1 of .*\): (.*)$'
    (line,) = re.findall(pattern, text, re.MULTILINE)
    share, low, high = numbers(line)
    assert 0 < low < share < high < 1


def test_missing_cells_are_listed_with_their_reason(folder):
    found = fabricate(folder, failed=['rgb-p16:S2'], only=['rgb-p16', 's2-p16'])
    text = page(found, 'table.md')
    assert '- rgb-p16:S2: failed: ValueError: The data is gone.' in text
    assert '- scratch-p16:S1: not selected' in text
    (cells,) = rows_of(text, 'RGB, patch 16', 'As the paper')
    assert cells[4] == '-'


def test_a_table_without_any_cell_is_still_a_page(folder, tmp_path):
    cells = ['scratch-p16:S1', 's2-p16:S1']
    found = fabricate(folder, '3', failed=cells, only=cells)
    text = write_table(found, tmp_path).read_text()
    assert '- s2-p16:S1: failed: ValueError' in text
    assert pd.read_csv(tmp_path / 'results.csv')['missing'].notna().all()


def test_learning_rates_are_listed_and_the_best_one_is_used(tmp_path):
    preset = replace(PRESET, base_lrs=(0.008, 0.016, 0.03), layer_decays=(0.75, 1))
    found = fabricate(tmp_path, preset=preset, only=['scratch-p16:S1'])
    text = page(found, 'table.md')
    for decay, expected in {
        '0.75': ['24.20', '25.00', '23.60'],
        '1': ['49.20', '**50.00**', '48.60'],
    }.items():
        row = f'scratch-p16:S1, layer decay {decay}'
        assert rows_of(text, row, 'Learning rates tried') == [expected]
    record = found.by_name['scratch-p16:S1', 'mAP_micro']
    assert (record['base_lr'], record['layer_decay']) == (0.016, 1)


def test_equal_runs_give_equal_files_and_older_ones_are_kept(folder, tmp_path):
    only = ['s2-p16:S1', 'scratch-p16:S1']
    found = fabricate(folder, '3', only=only)
    first, second = (write_table(found, tmp_path / name).parent for name in 'ab')
    names = sorted(path.name for path in first.iterdir())
    expected = 'per_class.csv per_country.csv results.csv runs.csv table.md table.png'
    assert names == [*expected.split(), 'table.tex']
    for name in names:
        content = (first / name).read_bytes()
        assert content == (second / name).read_bytes(), name
        assert str(folder).encode() not in content
    before = (first / 'results.csv').read_bytes()
    write_table(fabricate(folder, '3', only=only), first)
    assert sorted(path.name for path in first.iterdir()) == names  # no copies
    write_table(fabricate(folder, '3', only=only[:1]), first)
    assert (first / 'results.1.csv').read_bytes() == before


def test_the_csv_files_have_every_cell_and_score(results, written):
    table = pd.read_csv(written / 'results.csv').set_index(['row', 'target', 'score'])
    done = table[table['missing'].isna()]
    assert len(done) == 6 * len(results.done)
    assert done.loc[('s2-p16', 'S1', 'mAP_micro'), 'paper'] == 71.02
    assert math.isnan(done.loc[('s2-p16', 'S1', 'mAP_macro'), 'paper'])
    runs = pd.read_csv(written / 'runs.csv')
    means = runs.groupby(['cell', 'score'])['value'].mean()
    for (row, target, score), record in done.iterrows():
        mean = means.loc[f'{row}:{target}', score]
        assert record['whole'] == pytest.approx(mean, abs=2e-4)
    classes = pd.read_csv(written / 'per_class.csv').set_index(['cell', 'class'])
    labels = results.runs['s2-p16:S1'][0].labels
    assert classes.loc['s2-p16:S1', 'support'].tolist() == labels.sum(0).tolist()
    countries = pd.read_csv(written / 'per_country.csv')
    assert countries.groupby('cell')['patches'].sum().eq(120).all()


def test_latex_has_a_line_per_row_with_escaped_letters(results, written):
    text = (written / 'table.tex').read_text()
    lines = [line for line in text.splitlines() if line.endswith(r'\\')]
    assert len(lines) == 2 + len(results.table.rows) + 1  # heads and floor
    assert {line.count(' & ') for line in lines[1:]} == {8}
    assert r'71.02 $\pm$ 0.13' in text
    assert not re.search(r'(?<!\\)%(?! needs|$)', text, re.MULTILINE)


def test_the_picture_shows_intervals_and_the_papers_numbers(results):
    drawing = figure(results)
    shown = [text.get_text().split()[0] for text in drawing.legends[0].get_texts()]
    assert sorted(shown) == ['control,', 'paper', 'this']
    assert len([t for t in drawing.axes[0].texts if t.get_text() == 'not run']) == 7


def test_label_efficiency_has_a_row_per_share_of_the_labels(tmp_path):
    only = ['s2-p16-10:S1', 'scratch-p16-10:S1']
    found = fabricate(tmp_path, 'labels', seeds=(0,), only=only)
    text = write_table(found, tmp_path / 'labels').read_text()
    assert rows_of(text, 'Sentinel-2, patch 16, 10 % of the labels', 'Sentinel-1: the')


# The matrix, with zero-shot tests


@pytest.fixture(scope='module')
def matrix(folder):
    return fabricate(
        folder,
        'matrix',
        failed=['rgb-p16:S1', 's1-p16:RGB on rgb+s1'],
        sensors=('rgb', 's1'),
        zero_shot=True,
    )


def test_the_page_has_each_gain_where_source_and_target_meet(matrix):
    text = page(matrix, 'table.md')
    (rgb,) = rows_of(text, 'RGB', 'Gain over scratch')
    (radar,) = rows_of(text, 'Sentinel-1', 'Gain over scratch')
    (scratch,) = rows_of(text, '*scratch: mAP micro*', 'Gain over scratch')
    assert rgb[1] == '-'  # failed
    for gain, base, target in zip(radar, scratch, ('RGB', 'S1'), strict=True):
        found = matrix.compared[target].whole
        mean = 100 * found[f's1-p16:{target}']['mAP_micro'].mean()
        assert numbers(gain)[0] + numbers(base)[0] == pytest.approx(mean, abs=0.011)


def test_the_heat_map_shows_the_same_gains_and_frames_sure_ones_and_ceilings(matrix):
    panel = figure(matrix).axes[0]
    texts = {text.get_position(): text.get_text() for text in panel.texts}
    assert texts[1, 0] == 'not run'
    sure = set()
    for place, name in {(0, 0): 'rgb-p16:RGB', (1, 1): 's1-p16:S1'}.items():
        record = matrix.by_name[name, 'mAP_micro']
        ends = [record[f'difference{end}'] for end in ('', '_low', '_high')]
        assert numbers(texts[place]) == pytest.approx(ends, abs=0.006)
        if record['differs']:
            sure.add(place)
    frames = {(tuple(map(round, p.get_center())), p.get_ls()) for p in panel.patches}
    assert {place for place, style in frames if style == 'solid'} - {(0, 1)} == sure
    assert {place for place, style in frames if style == '--'} == {(0, 0), (1, 1)}


def test_zero_shot_tests_have_a_row_per_fine_tuned_model_and_other_sensor(matrix):
    text = page(matrix, 'table.md')
    part = 'The same head on other bands'
    ((other, own, single, both, gain, floor),) = rows_of(
        text, 'Sentinel-1 -> Sentinel-1', part
    )
    assert other == 'RGB (0 of 3 bands known)'
    assert single == '-'
    assert numbers(gain)[0] == pytest.approx(
        numbers(both)[0] - numbers(own)[0], abs=0.011
    )
    run = matrix.runs['s1-p16:S1'][0]
    assert numbers(floor) == pytest.approx([100 * run.floor['mAP_micro']], abs=0.006)
    ((other, _, single, both, gain, _),) = rows_of(text, 'Sentinel-1 -> RGB', part)
    assert (other, both, gain) == ('Sentinel-1 (2 of 2 bands known)', '-', '-')
    assert len(numbers(single)) == 3
    assert not rows_of(text, 'RGB -> Sentinel-1', part)  # its fine-tuning failed
    assert '- s1-p16:RGB on rgb+s1: failed: ValueError: The data is gone.' in text
    assert '- s1-p16:S1 on rgb: tests nothing, as neither' in text


def test_zero_shot_tests_add_a_file_and_leave_the_others_as_they_are(
    matrix, folder, tmp_path
):
    plain = fabricate(folder, 'matrix', failed=['rgb-p16:S1'], sensors=('rgb', 's1'))
    more = write_table(matrix, tmp_path / 'more').parent
    less = write_table(plain, tmp_path / 'less').parent
    names = {path.name for path in less.iterdir()}
    assert {path.name for path in more.iterdir()} == {*names, 'unchanged.csv'}
    for name in names - {'table.md'}:
        assert (less / name).read_bytes() == (more / name).read_bytes(), name
    table = pd.read_csv(more / 'unchanged.csv').set_index(['row', 'tested_on', 'score'])
    row = table.loc[('s1-p16', 's1+rgb', 'mAP_micro')]
    assert row['difference'] == pytest.approx(row['whole'] - row['on_a'], abs=2e-4)
    assert row['difference_low'] <= row['difference'] <= row['difference_high']
    assert (row['bands'], row['known_of_other']) == (5, 0)
    reasons = table['missing'].dropna()
    assert sum(reason.startswith('its fine-tuning: failed') for reason in reasons) == 2
