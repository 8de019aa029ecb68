"""Tests of fine-tuned heads on other sensors: which, how they run, what is shown."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.experiments.fabricated import predictions, write
from tests.experiments.tables.test_write import CONF, PRESET, fabricate
from torchgeo_channelmae.experiments.tables import definitions, runner
from torchgeo_channelmae.experiments.tables.plan import Data, make_plan
from torchgeo_channelmae.experiments.tables.runner import (
    check_settings,
    commands_done,
    run_all,
)
from torchgeo_channelmae.experiments.tables.sensors import bands_of
from torchgeo_channelmae.experiments.tables.unchanged import (
    unchanged_tests,
    with_unchanged,
)
from torchgeo_channelmae.experiments.tables.unchanged_page import unchanged_lines
from torchgeo_channelmae.experiments.tables.write import write_table

OVERLAYS = CONF / 'paper'
SENSORS = ('rgb', 's1')


def listed_for(*sensors):
    return unchanged_tests(
        definitions.table('matrix', sensors=sensors), sensors, OVERLAYS
    )


def planned(preset=PRESET, seeds=(0, 1), data=None, **options):
    table = definitions.table('matrix', sensors=SENSORS)
    plan = make_plan(table, preset, seeds, data or Data(), **options)
    return with_unchanged(plan, listed_for(*SENSORS), table.cells, preset)


def test_every_pretrained_cell_is_tested_on_sensors_with_bands_that_its_own_lacks():
    found = listed_for('s2', 'rgb', 's1')
    apart = {('S2', 's1'), ('RGB', 's1'), ('S1', 's2'), ('S1', 'rgb')}
    assert {(t.target, t.other) for t in found if not t.joined} == apart
    # RGB is a part of Sentinel-2: there is a test on the whole, and none the other way.
    joined = apart | {('RGB', 's2')}
    assert {(t.target, t.other) for t in found if t.joined} == joined
    assert len(found) == len({t.name for t in found}) == 3 * (4 + 5)  # three sources
    assert not any(t.cell.startswith('scratch') for t in found)
    one = {t.name: t for t in found}
    assert one['s2-p16:S1 on rgb'].bands == ('B04', 'B03', 'B02')
    assert one['s2-p16:S1 on s1+rgb'].bands == ('VV', 'VH', 'B04', 'B03', 'B02')
    whole = one['s2-p16:RGB on rgb+s2'].bands
    assert whole[:3] == ('B04', 'B03', 'B02')
    assert sorted(whole) == sorted(bands_of('s2', OVERLAYS))


def test_bands_that_the_pretraining_read_are_counted():
    found = {t.name: (t.known, t.added) for t in listed_for('s2', 'rgb', 's1')}
    assert found['s2-p16:S1 on s2'] == found['s2-p16:S1 on s1+s2'] == (12, 12)
    assert found['rgb-p16:S1 on s2'] == (3, 12)
    assert found['s2-p16:S1 on rgb'] == (3, 3)
    assert found['s1-p16:S1 on s2'] == (0, 12)
    assert found['s2-p16:RGB on rgb+s2'] == (9, 9)
    assert found['rgb-p16:RGB on rgb+s2'] == (0, 9)


def test_a_part_of_a_sensor_adds_nothing_to_it():
    assert {t.target for t in listed_for('s2', 'rgb')} == {'RGB'}


def test_a_sensor_that_has_the_own_bands_and_more_is_shown_without_itself_alone(
    tmp_path,
):
    sensors = ('rgb', 's2')
    tests = listed_for(*sensors)
    page = '\n'.join(
        unchanged_lines(
            fabricate(tmp_path, 'matrix', seeds=(0,), sensors=sensors, unchanged=tests)
        )
    )
    for source, known in (('RGB', 0), ('Sentinel-2', 9)):
        (line,) = [
            li for li in page.splitlines() if li.startswith(f'| {source} -> RGB ')
        ]
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        assert cells[1] == f'Sentinel-2 ({known} of 9 further bands known)'
        assert cells[3] == '-'
        assert '-' not in (cells[2], cells[4], cells[5])


def test_a_test_reads_the_fine_tuned_weights_and_the_embeddings_of_its_pretraining():
    plan = planned(data=Data(Path('data')), train_fraction=0.5)
    names = plan.unchanged['rgb-p16:S1 on s1+rgb']
    assert len(names) == 2  # one a seed
    run = plan.runs[names[1]]
    assert run.name == 'unchanged-from-rgb-p16-s1-labels50-on-s1+rgb-seed1'
    tuned = 'finetune-from-rgb-p16-s1-labels50-seed1'
    assert run.needs == (tuned, 'pretrain-rgb-p16-seed1')
    (test,) = run.commands(Path('out'))
    assert test[0] == 'test'
    given = dict(zip(test[1::2], test[2::2], strict=True))
    assert given == {
        '--config': str(CONF / 'unchanged.yaml'),  # the last
        '--seed_everything': '1',
        '--data.init_args.train_fraction': '0.5',
        '--data.init_args.root': 'data',
        '--model.init_args.in_channels': '5',
        '--model.init_args.bands': '[VV, VH, B04, B03, B02]',
        '--data.init_args.bands': '[VV, VH, B04, B03, B02]',
        '--model.init_args.weights': f'out/{tuned}/last.ckpt',
        '--model.init_args.embeddings': 'out/pretrain-rgb-p16-seed1/last.ckpt',
        '--trainer.default_root_dir': f'out/{run.name}',
    }


def test_tests_leave_the_runs_of_the_table_as_they_are_and_come_after_them():
    table = definitions.table('matrix', sensors=SENSORS)
    before = make_plan(table, PRESET, (0, 1), Data())
    plan = planned()
    assert dict(list(plan.runs.items())[: len(before.runs)]) == before.runs
    seen = set()
    for run in plan.runs.values():
        assert {*run.needs} <= seen
        seen.add(run.name)


def test_a_sensor_of_which_no_band_is_known_is_left_out_with_the_reason():
    plan = planned()
    assert set(plan.left_out) == {'rgb-p16:RGB on s1', 's1-p16:S1 on rgb'}
    assert plan.left_out['s1-p16:S1 on rgb'] == (
        'tests nothing, as neither the pretraining on s1 nor the fine-tuning on s1 '
        'read a band of rgb'
    )
    assert 's1-p16:S1 on s1+rgb' in plan.unchanged  # its own bands are known


def test_only_cells_that_are_asked_for_are_tested():
    plan = planned(only=['rgb-p16:S1'])
    assert set(plan.unchanged) == {'rgb-p16:S1 on rgb', 'rgb-p16:S1 on s1+rgb'}


def test_of_several_learning_rates_the_best_ones_weights_are_tested(
    tmp_path, monkeypatch
):
    asked = {}

    def done(commands, folder, number, jobs, parent):
        asked[folder.name] = commands
        folder.with_name(f'{folder.name}.json').write_text(f'{{"commands": {2}}}')

    class Here:
        exitcode = 0

        def __init__(self, target, args):
            self.start = lambda: done(*args)
            self.join = lambda *_: None
            self.kill = lambda: None

    monkeypatch.setattr(runner.multiprocessing, 'Process', Here)
    plan = planned(
        replace(PRESET, base_lrs=(1e-5, 0.2)), seeds=(0, 1), only=['rgb-p16:S1']
    )
    first, second = plan.unchanged['rgb-p16:S1 on rgb']
    assert first == 'unchanged-from-rgb-p16-s1-on-rgb-seed0'
    assert [*plan.runs[first].candidates.values()] == [1e-5, 0.2]
    assert plan.runs[second].start == 'finetune-from-rgb-p16-s1-seed1'
    for name, score in (('lr1e-05', 0.7), ('lr0.2', 0.6)):
        folder = tmp_path / f'finetune-from-rgb-p16-s1-{name}-seed0' / 'fit'
        folder.mkdir(parents=True)
        (folder / 'metrics.csv').write_text(f'epoch,val_mAP_micro\n0,{score}\n')
    outcome = run_all(plan, tmp_path)
    assert set(outcome.values()) == {None}
    (command,) = asked[first]
    best = tmp_path / 'finetune-from-rgb-p16-s1-lr1e-05-seed0' / 'last.ckpt'
    assert str(best) in command
    (tmp_path / first).mkdir()
    check_settings(plan, tmp_path)  # the same command goes on
    other = replace(plan.runs[first], embeddings='pretrain-s2-p16-seed0')
    changed = replace(plan, runs={**plan.runs, first: other})
    with pytest.raises(ValueError, match='embeddings of was pretrain-rgb-p16-seed0'):
        check_settings(changed, tmp_path)
    assert commands_done(tmp_path, plan.runs[first])


def test_a_failed_fine_tuning_is_the_reason_of_its_tests(tmp_path):
    run = planned().runs['unchanged-from-rgb-p16-s1-on-rgb-seed0']
    outcome = {run.start: 'The disk is full.', run.embeddings: None}
    assert runner._missing(run, outcome) == (
        'its fine-tuning finetune-from-rgb-p16-s1-seed0 failed: The disk is full.'
    )
    outcome = {run.start: None, run.embeddings: 'The data is gone.'}
    assert runner._missing(run, outcome) == (
        'its pretraining pretrain-rgb-p16-seed0 failed: The data is gone.'
    )


def test_a_dry_run_counts_a_test_by_its_samples_and_no_steps(tmp_path, start, conf):
    command = start(
        *('tables', 'matrix', '--preset', 'sample', '--sensors', 'rgb', 's1'),
        *('--only', 'rgb-p16:S1', '--seeds', '0', '--unchanged', '--dry-run'),
        *('--conf', str(conf)),
        folder=tmp_path,
        program='channelmae',
    ).wait()
    assert command.code == 0, command.output
    name = r'unchanged-from-rgb-p16-s1-on-s1\+rgb-seed0'
    assert re.search(rf'{name}: 21 test samples, about', command.output)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('runs')


@pytest.fixture(scope='module')
def results(folder):
    return fabricate(
        folder,
        'matrix',
        failed=['s1-p16:RGB on rgb+s1'],
        sensors=SENSORS,
        unchanged=listed_for(*SENSORS),
    )


def test_the_page_has_a_row_a_fine_tuned_model_and_other_sensor(
    results, tmp_path, folder
):
    one, two = (write_table(results, tmp_path / name).parent for name in 'ab')
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name
    page = (one / 'table.md').read_text()
    section = page.split('## The same head on other bands')[1].split('\n## ')[0]
    rows = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in section.splitlines()
        if ' -> ' in line and 'trained on A' not in line
    ]
    assert [row[:2] for row in rows] == [
        ['RGB -> RGB', 'Sentinel-1 (0 of 2 bands known)'],
        ['RGB -> Sentinel-1', 'RGB'],
        ['Sentinel-1 -> RGB', 'Sentinel-1'],
        ['Sentinel-1 -> Sentinel-1', 'RGB (0 of 3 bands known)'],
    ]
    assert rows[0][3] == rows[3][3] == rows[2][4] == rows[2][5] == '-'
    _, _, own, alone, both, gain, floor = rows[1]
    whole = results.compared['S1'].whole
    for text, name in (
        (own, 'rgb-p16:S1'),
        (alone, 'rgb-p16:S1 on rgb'),
        (both, 'rgb-p16:S1 on s1+rgb'),
    ):
        expected = 100 * whole[name]['mAP_micro'].mean()
        assert float(text.split()[0]) == pytest.approx(expected, abs=0.006)
    a, ab, found = (
        float(re.search(r'[+-]?\d+\.\d+', text)[0]) for text in (own, both, gain)
    )
    assert found == pytest.approx(ab - a, abs=0.011)
    assert floor == f'{100 * results.floor["S1"]["mAP_micro"]:.2f}'
    assert '- s1-p16:RGB on rgb+s1: failed: ValueError: The data is gone.' in page
    assert '- s1-p16:S1 on rgb: tests nothing, as neither' in page

    # What the table says without them, it says with them, to the last digit.
    plain = write_table(
        fabricate(folder, 'matrix', sensors=SENSORS), tmp_path / 'c'
    ).parent
    assert not (plain / 'unchanged.csv').exists()
    for path in plain.iterdir():
        if path.name != 'table.md':
            assert path.read_bytes() == (one / path.name).read_bytes(), path.name

    table = pd.read_csv(one / 'unchanged.csv')
    assert len(table) == 5 * 6 + 3  # of eight tests three are not there
    reasons = table.loc[table['missing'].notna(), 'missing'].tolist()
    assert sum(reason.startswith('failed: ValueError') for reason in reasons) == 1
    row = table.set_index(['row', 'trained_on', 'tested_on', 'score']).loc[
        ('rgb-p16', 's1', 's1+rgb', 'mAP_micro')
    ]
    assert row['difference'] == pytest.approx(row['whole'] - row['on_a'], abs=2e-4)
    assert row['difference_low'] <= row['difference'] <= row['difference_high']
    assert (row['bands'], row['known_of_other']) == (5, 3)


def test_a_test_of_other_patches_is_not_compared(tmp_path):
    only = {'only': ['rgb-p16:S1', 'scratch-p16:S1'], 'seeds': (0,)}
    name = 'unchanged-from-rgb-p16-s1-on-rgb-seed0'
    write(tmp_path / name, predictions(patches=50, scenes=20))
    found = fabricate(
        tmp_path, 'matrix', sensors=SENSORS, unchanged=listed_for(*SENSORS), **only
    )
    assert found.missing['rgb-p16:S1 on rgb'] == (
        'was tested on 50 patches, which are not the 120 of rgb-p16:S1: they cannot '
        'be compared'
    )
    assert 'rgb-p16:S1 on s1+rgb' in found.compared['S1'].whole
