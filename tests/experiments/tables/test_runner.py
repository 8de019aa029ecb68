"""How runs are run; a script stands in for ``torchgeo`` and notes its commands."""

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from torchgeo_channelmae.experiments.tables import child, runner
from torchgeo_channelmae.experiments.tables.plan import Plan, Run
from torchgeo_channelmae.experiments.tables.runner import check_settings, run_all

FAKE = f"""
import json, os, runpy, signal, sys, time
from pathlib import Path

parent, command, *options = sys.argv[1:]
given = dict(option[2:].split('=', 1) for option in options)
folder = Path(given['trainer.default_root_dir'])
name = folder.name.removeprefix('finetune-').rpartition('-seed')[0]
(folder / command).mkdir(parents=True, exist_ok=True)
with (folder / 'asked').open('a') as file:
    print(json.dumps([command, given]), file=file)
if command == 'fit':
    (folder / 'last.ckpt').write_text('weights')
    score = {{'a-lr0.1': 0.3, 'a-lr0.2': 0.5}}.get(name, 0.4)
    table = f'epoch,val_mAP_micro\\n0,0.9\\n1,\\n1,{{score}}\\n'
    (folder / 'fit' / 'metrics.csv').write_text(table)
if name == 'killed' and 'ckpt_path' not in given:
    os.kill(os.getpid(), signal.SIGKILL)
if name == 'failing' and not Path('mended').exists():
    sys.exit('ValueError: The data is gone.')
if name == 'endless' and 'ckpt_path' not in given:
    runpy.run_path({child.__file__!r})['end_with'](int(parent))
    (folder / 'pid').write_text(str(os.getpid()))
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _fake(tmp_path, monkeypatch):
    (tmp_path / 'fake.py').write_text(FAKE)
    (tmp_path / 'config.yaml').write_text('trainer:\n  max_epochs: 3\n')
    monkeypatch.setattr(runner, '_CHILD', [sys.executable, str(tmp_path / 'fake.py')])
    monkeypatch.chdir(tmp_path)


def run_of(label, kind='finetune', **options):
    return Run(kind, label, 0, (Path('config.yaml'),), {}, **options)


def plan_of(*runs):
    return Plan({run.name: run for run in runs}, {}, {}, {})


def outcome_of(plan, jobs=1):
    return {run.name: failure for run, failure, _ in run_all(plan, Path(), jobs)}


def asked(name):
    lines = (Path(name) / 'asked').read_text().splitlines()
    return [tuple(json.loads(line)) for line in lines]


@pytest.mark.parametrize('jobs', [1, 3])
def test_each_run_is_run_once_after_those_it_needs(jobs):
    second = run_of('second', start='pretrain-first-seed0')
    plan = plan_of(second, run_of('first', 'pretrain'), run_of('third'))
    outcome = outcome_of(plan, jobs)
    assert set(outcome.values()) == {None}
    order = list(outcome)
    assert order.index('pretrain-first-seed0') < order.index('finetune-second-seed0')
    assert [command for command, _ in asked('pretrain-first-seed0')] == ['fit']
    (fit, given), (test, _) = asked('finetune-second-seed0')
    assert (fit, test) == ('fit', 'test')
    assert given['model.init_args.weights'] == 'pretrain-first-seed0/last.ckpt'
    assert outcome_of(plan, jobs) == outcome
    assert len(asked('finetune-second-seed0')) == 2  # not run again


def test_a_killed_run_continues_from_its_last_checkpoint():
    plan = plan_of(run_of('killed'), run_of('other'))
    outcome = outcome_of(plan)
    assert 'signal 9' in outcome['finetune-killed-seed0']
    assert outcome['finetune-other-seed0'] is None
    assert set(outcome_of(plan).values()) == {None}
    first, second, test = asked('finetune-killed-seed0')
    last = {'ckpt_path': 'finetune-killed-seed0/last.ckpt'}
    assert second == ('fit', first[1] | last)
    assert test[0] == 'test'


def test_a_failed_run_is_named_with_its_last_line_and_tried_again():
    dependent = run_of('dependent', start='finetune-failing-seed0')
    plan = plan_of(run_of('failing'), dependent, run_of('other'))
    outcome = outcome_of(plan)
    reason = 'ValueError: The data is gone. (see finetune-failing-seed0.log)'
    assert outcome['finetune-failing-seed0'] == reason
    assert reason in outcome['finetune-dependent-seed0']
    assert not Path('finetune-dependent-seed0').exists()
    assert outcome['finetune-other-seed0'] is None
    Path('mended').touch()
    assert set(outcome_of(plan).values()) == {None}


def test_other_seeds_and_zero_shot_tests_take_the_run_that_is_best_on_validation():
    tried = [run_of('a', tuned={'base_lr': r}, is_tried=True) for r in (0.1, 0.2)]
    candidates = {run.name: run.tuned for run in tried}
    second = run_of('b', candidates=candidates)
    plan = plan_of(*tried, second, run_of('c', 'unchanged', candidates=candidates))
    assert set(outcome_of(plan, jobs=2).values()) == {None}
    for _, given in asked('finetune-b-seed0'):
        assert given['model.init_args.base_lr'] == '0.2'
    ((_, given),) = asked('unchanged-c-seed0')
    assert given['model.init_args.weights'] == 'finetune-a-lr0.2-seed0/last.ckpt'
    check_settings(plan, Path())  # what is chosen is no change of settings


def test_a_diverged_run_is_never_the_best(tmp_path):
    for name, score in (('diverged', ''), ('poor', '0.1')):
        (tmp_path / name / 'fit').mkdir(parents=True)
        text = f'epoch,val_mAP_micro,loss\n0,0.9,1\n1,{score},1\n'
        (tmp_path / name / 'fit' / 'metrics.csv').write_text(text)
    assert runner.best_run(['diverged', 'poor'], tmp_path) == 'poor'


def test_results_of_other_settings_are_refused_with_what_differs():
    plan = plan_of(run_of('first', 'pretrain'))
    outcome_of(plan)
    Path('config.yaml').write_text('trainer:\n  max_epochs: 5\n')
    with pytest.raises(ValueError, match=r'first.*trainer.max_epochs was 3, is now 5'):
        check_settings(plan, Path())


def test_a_killed_command_takes_its_runs_along_and_continues():
    plan = plan_of(run_of('endless'))
    folder = Path('finetune-endless-seed0')
    parent = multiprocessing.get_context('fork').Process(target=outcome_of, args=[plan])
    parent.start()
    wait_for(lambda: (folder / 'pid').exists() and (folder / 'pid').read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    child = Path('/proc') / (folder / 'pid').read_text()
    wait_for(lambda: not child.exists() or ') Z ' in (child / 'stat').read_text())
    assert outcome_of(plan) == {folder.name: None}
    assert [command for command, _ in asked(folder)] == ['fit', 'fit', 'test']


def wait_for(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError('not within 20 seconds')
