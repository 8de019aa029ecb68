"""The matrix of sensors: its cells, its runs, and the page and picture of its gains."""

import re
import shutil

import pandas as pd
import pytest

from tests.experiments.tables.test_write import CONF, PRESET, fabricate
from torchgeo_channelmae.cli import _spell_out, main
from torchgeo_channelmae.experiments.tables import definitions
from torchgeo_channelmae.experiments.tables.command import tables
from torchgeo_channelmae.experiments.tables.grid import grid_lines, heat_map, sources
from torchgeo_channelmae.experiments.tables.plan import Data, make_plan
from torchgeo_channelmae.experiments.tables.write import write_table

SENSORS = ('s2', 'rgb', 's1')


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """All cells but RGB to Sentinel-1, which failed."""
    folder = tmp_path_factory.mktemp('matrix')
    return fabricate(folder, 'matrix', failed=['rgb-p16:S1'], sensors=('rgb', 's1'))


def test_every_sensor_is_a_source_and_a_target_of_every_other_and_itself():
    table = definitions.table('matrix', sensors=('swir', 's1'))
    assert table.targets == ('SWIR', 'S1')
    assert list(table.cells) == [
        f'{row}-p16:{target}'
        for row in ('scratch', 'swir', 's1')
        for target in ('SWIR', 'S1')
    ]
    read = {n: c.pretraining and c.pretraining.bands for n, c in table.cells.items()}
    assert read['scratch-p16:S1'] is None
    assert read['swir-p16:S1'] == read['swir-p16:SWIR'] == 'swir'


def test_the_ceiling_of_a_cell_is_the_diagonal_of_its_column():
    cells = definitions.table('matrix', sensors=SENSORS).cells
    assert {name: cell.ceiling for name, cell in cells.items() if cell.ceiling} == {
        's2-p16:RGB': 'rgb-p16:RGB',
        's2-p16:S1': 's1-p16:S1',
        'rgb-p16:S2': 's2-p16:S2',
        'rgb-p16:S1': 's1-p16:S1',
        's1-p16:S2': 's2-p16:S2',
        's1-p16:RGB': 'rgb-p16:RGB',
    }


def test_runs_that_table_1_has_as_well_are_the_same_runs():
    one, matrix = (
        make_plan(definitions.table(name), PRESET, (0,), Data()).runs
        for name in ('1', 'matrix')
    )
    shared = one.keys() & matrix.keys()
    assert {
        'pretrain-s2-p16-seed0',
        'finetune-from-s2-p16-s1-seed0',
        'finetune-from-rgb-p16-s2-seed0',
        'finetune-channelmae_tiny-p16-s1-seed0',
    } <= shared
    for name in shared:
        assert one[name] == matrix[name]


def cells_of(line):
    return [cell.strip() for cell in line.strip('|').split('|')]


def test_the_page_has_each_gain_where_source_and_target_meet(results):
    lines = grid_lines(results)
    head = next(i for i, li in enumerate(lines) if li.startswith('| pretrained on'))
    assert cells_of(lines[head])[1:] == ['to RGB', 'to Sentinel-1']
    rows = {cells_of(li)[0]: cells_of(li)[1:] for li in lines[head + 2 : head + 5]}
    assert list(rows) == [
        'RGB',
        'Sentinel-1',
        '*scratch: mAP micro*',
    ]
    cells, bold = results.cells, 0
    for title, source in (('RGB', 'rgb'), ('Sentinel-1', 's1')):
        for text, target in zip(rows[title], ('RGB', 'S1'), strict=True):
            if (source, target) == ('rgb', 'S1'):
                assert text == '-'
                continue
            compared = results.compared[target].whole
            whole = (
                compared[f'{name}-p16:{target}']['mAP_micro'].mean()
                for name in (source, 'scratch')
            )
            gain = 100 * (next(whole) - next(whole))
            estimate, low, high = map(float, re.findall(r'[+-]\d+\.\d+', text))
            assert estimate == pytest.approx(gain, abs=0.006)
            assert text.startswith('**') == (low > 0 or high < 0)
            bold += text.startswith('**')
    assert 0 < bold < len(cells)


def test_the_picture_shows_the_same_gains_and_what_was_not_run(results):
    panel = heat_map(results).axes[0]
    texts = {}
    for text in panel.texts:
        x, y = text.get_position()
        texts.setdefault((round(x), round(y)), []).append(text)
    frames = {'-': set(), '--': set()}  # of what is sure, and of ceilings
    for frame in panel.patches:
        line = '-' if frame.get_linestyle() in ('-', 'solid') else '--'
        x, y = frame.get_center()
        frames[line].add((round(x), round(y)))
    cells, sure = results.table.cells, set()
    for y, source in enumerate(sources(results)):
        for x, target in enumerate(results.table.targets):
            gain = results.difference(cells[f'{source}:{target}'], 'mAP_micro')
            shown = [text.get_text() for text in texts.pop((x, y))]
            if gain is None:
                assert (source, target, shown) == ('rgb-p16', 'S1', ['not run'])
                continue
            ends = f'[{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]'
            assert shown == [f'{100 * gain.estimate:+.2f}', ends]
            if gain.low > 0 or gain.high < 0:
                sure.add((x, y))
    assert not texts
    assert frames == {'-': sure, '--': {(0, 0), (1, 1)}}
    assert len(sure) > 0
    for label, target in zip(panel.get_xticklabels(), ('RGB', 'S1'), strict=True):
        scratch = results.whole(cells[f'scratch-p16:{target}'], 'mAP_micro')
        assert label.get_text().endswith(f'scratch: {100 * scratch.estimate:.2f}')


@pytest.mark.parametrize(
    ('sensors', 'only'), [(('s1',), []), (SENSORS, ['s2-p16:S1', 'scratch-p16:S1'])]
)
def test_one_sensor_and_a_matrix_with_holes_are_drawn(sensors, only, tmp_path):
    found = fabricate(tmp_path, 'matrix', sensors=sensors, only=only, seeds=(0,))
    drawing = heat_map(found)
    drawing.savefig(tmp_path / 'table.png')
    holes = [t for t in drawing.axes[0].texts if t.get_text() == 'not run']
    assert len(holes) == (8 if only else 0)


def test_the_reader_is_told_what_is_missing_and_files_are_equal_again(
    results, tmp_path
):
    one, two = (write_table(results, tmp_path / name).parent for name in 'ab')
    assert '- rgb-p16:S1: failed: ValueError' in (one / 'table.md').read_text()
    table = pd.read_csv(one / 'results.csv').set_index(['row', 'target'])
    assert table.loc[('rgb-p16', 'S1'), 'missing'].startswith('failed')
    assert not (one / 'unchanged.csv').exists()
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    'given', [['--sensors', 's2', 'rgb', 's1'], ['--sensors', 's2,rgb', 's1']]
)
def test_sensors_may_have_spaces_between_them(given):
    asked = ['--table', 'matrix', *given, '--preset', 'sample']
    joined = _spell_out(asked, tables)
    assert joined[2:] == ['--sensors', 's2,rgb,s1', '--preset', 'sample']


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['matrix', '--sensors', 's2', 's9'], "no sensor 's9', did you mean 's2'"),
        (['matrix', '--sensors', 's1', 'rgb', 's1'], "Sensor 's1' is named twice"),
        (['matrix', '--sensors', ''], 'No sensor is named'),
        (['1', '--unchanged'], '--unchanged is of the table matrix: leave it out'),
    ],
)
def test_bad_requests_are_told_in_a_sentence_and_leave_nothing(
    options, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    asked = ['tables', *options, '--preset', 'sample', '--conf', str(CONF)]
    assert main(asked) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert list(tmp_path.iterdir()) == []


def test_bands_that_the_data_lack_are_told_by_the_run(tmp_path, start):
    conf = tmp_path / 'conf'
    shutil.copytree(CONF, conf)
    text = (conf / 'paper' / 'bands' / 's1.yaml').read_text()
    (conf / 'paper' / 'bands' / 'cirrus.yaml').write_text(
        text.replace('[VV, VH]', '[B10, B11]')
    )
    command = start(
        *('tables', 'matrix', '--preset', 'sample', '--sensors', 'cirrus'),
        *('--only', 'scratch-p16:CIRRUS', '--seeds', '0', '--resamples', '100'),
        *('--conf', str(conf), '--out', str(tmp_path / 'out')),
        folder=tmp_path,
        program='channelmae',
    ).wait()
    assert command.code == 1
    assert "Unknown band 'B10': choose from" in command.output
    page = (tmp_path / 'out' / 'matrix' / 'table.md').read_text()
    assert re.search(r"- scratch-p16:CIRRUS: failed: .*'B10'", page)
    assert '- cirrus-p16:CIRRUS: was not asked for' in page
