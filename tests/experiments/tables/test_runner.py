"""How runs are run; what stands in for ``torchgeo`` notes its commands in files."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torchgeo.main
import yaml

from torchgeo_channelmae.experiments.tables.plan import Plan, Run
from torchgeo_channelmae.experiments.tables.runner import (
    check_settings,
    own,
    run_all,
)
from torchgeo_channelmae.experiments.tables.scores import (
    best_rate,
    validation_score,
)

SCORES = {'lr0.1': 0.3, 'lr0.2': 0.5, 'lr0.3': 0.4}


def fake_torchgeo(args):
    """Train and test in no time, and note what was asked for."""
    command = args[0]
    given = dict(zip(args[1::2], args[2::2], strict=True))
    folder = Path(given['--trainer.default_root_dir'])
    (folder / command).mkdir(parents=True, exist_ok=True)
    with (folder / 'asked').open('a') as file:
        file.write(json.dumps(args) + '\n')
    if command == 'fit':
        (folder / 'last.ckpt').write_text('weights')
        score = next((s for part, s in SCORES.items() if part in folder.name), 0.1)
        (folder / 'fit' / 'metrics.csv').write_text(
            f'epoch,val_mAP_micro\n0,0.9\n1,\n1,{score}\n'
        )
    if 'killed' in folder.name and '--ckpt_path' not in given:
        os.kill(os.getpid(), signal.SIGKILL)
    if 'failing' in folder.name:
        raise ValueError('The data is gone.')


@pytest.fixture(autouse=True)
def _torchgeo(monkeypatch):
    monkeypatch.setattr(torchgeo.main, 'main', fake_torchgeo)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'config.yaml'
    path.write_text('trainer:\n  max_epochs: 3\n')
    return path


def plan_of(*runs):
    return Plan({run.name: run for run in runs}, {}, {}, {})


def finetune(name, config, **kwargs):
    return Run(name, 'finetune', (config,), {'seed_everything': '0'}, **kwargs)


def pretrain(name, config, **options):
    return Run(name, 'pretrain', (config,), options)


def asked(folder, name):
    lines = (folder / name / 'asked').read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize('jobs', [1, 3])
def test_each_run_is_run_once_after_those_it_needs(tmp_path, config, jobs):
    folder = tmp_path / 'runs'
    folder.mkdir()
    plan = plan_of(
        pretrain('first', config),
        finetune('second', config, start='first'),
        finetune('third', config),
    )
    order = []
    outcome = run_all(plan, folder, jobs, lambda run, *_: order.append(run.name))
    assert outcome == {'first': None, 'second': None, 'third': None}
    assert order.index('first') < order.index('second')
    assert [args[0] for args in asked(folder, 'first')] == ['fit']
    assert [args[0] for args in asked(folder, 'second')] == ['fit', 'test']
    assert str(folder / 'first' / 'last.ckpt') in asked(folder, 'second')[0]
    again = run_all(plan, folder, jobs)
    assert again == outcome
    assert len(asked(folder, 'second')) == 2  # not run again
    assert multiprocessing.active_children() == []


def test_a_killed_run_is_told_and_goes_on_from_its_last_checkpoint(tmp_path, config):
    folder = tmp_path / 'runs'
    folder.mkdir()
    plan = plan_of(finetune('killed', config), finetune('other', config))
    outcome = run_all(plan, folder)
    assert outcome['killed'] == 'it was killed by signal 9 (see killed.log)'
    assert outcome['other'] is None
    assert run_all(plan, folder) == {'killed': None, 'other': None}
    first, second, test = asked(folder, 'killed')
    assert second == [*first, '--ckpt_path', str(folder / 'killed' / 'last.ckpt')]
    assert test[0] == 'test'


def test_a_failed_run_is_told_with_its_reason_and_the_others_go_on(tmp_path, config):
    folder = tmp_path / 'runs'
    folder.mkdir()
    plan = plan_of(
        pretrain('failing', config),
        finetune('dependent', config, start='failing'),
        finetune('other', config),
    )
    outcome = run_all(plan, folder)
    assert outcome['failing'] == 'ValueError: The data is gone. (see failing.log)'
    assert outcome['dependent'].startswith('its pretraining failing failed: ValueError')
    assert outcome['other'] is None
    assert not (folder / 'dependent').exists()


def test_other_seeds_take_the_learning_rate_that_was_best_on_validation(
    tmp_path, config
):
    folder = tmp_path / 'runs'
    folder.mkdir()
    candidates = {'lr0.1': 0.1, 'lr0.2': 0.2, 'lr0.3': 0.3}
    plan = plan_of(
        *(finetune(name, config) for name in candidates),
        finetune('seed1', config, candidates=candidates),
    )
    run_all(plan, folder, jobs=2)
    fit, test = asked(folder, 'seed1')
    for args in (fit, test):
        assert args[args.index('--model.init_args.base_lr') + 1] == '0.2'
    check_settings(plan, folder)  # its rate is no change of settings
    assert validation_score(folder / 'lr0.3') == 0.4  # of the last epoch, not the best
    assert best_rate({'lr0.3': 0.3, 'lr0.1': 0.1}, folder) == 0.3


def test_results_of_other_settings_are_refused_with_what_differs(tmp_path, config):
    folder = tmp_path / 'runs'
    folder.mkdir()
    run_all(plan_of(pretrain('first', config)), folder)
    config.write_text('trainer:\n  max_epochs: 5\n')
    plan = plan_of(pretrain('first', config, **{'model.init_args.model': 'big'}))
    before = {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}
    with pytest.raises(
        ValueError,
        match=r'first has results of other settings \(model.init_args.model was not '
        r'given, is now big; trainer.max_epochs was 3, is now 5\): choose another',
    ):
        check_settings(plan, folder)
    assert before == {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}
    assert yaml.safe_load((folder / 'first.yaml').read_text()) == {
        'trainer.max_epochs': 3
    }


def test_a_run_that_failed_before_it_trained_may_have_other_settings(tmp_path, config):
    folder = tmp_path / 'runs'
    folder.mkdir()
    (folder / 'first.yaml').write_text('trainer.max_epochs: 3\n')
    config.write_text('trainer:\n  max_epochs: 5\n')
    plan = plan_of(pretrain('first', config))
    check_settings(plan, folder)
    run_all(plan, folder)
    told = yaml.safe_load((folder / 'first.yaml').read_text())
    assert told == {'trainer.max_epochs': 5}


def test_two_processes_do_not_share_a_folder(tmp_path):
    with (
        own(tmp_path / 'runs'),
        pytest.raises(BlockingIOError, match='Another process runs tables in'),
        own(tmp_path / 'runs'),
    ):
        pass
    with own(tmp_path / 'runs'):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('mine')
    with (
        pytest.raises(OSError, match=r'Nothing can be written to .*file.*--out'),
        own(tmp_path / 'file' / 'runs'),
    ):
        pass
    assert (tmp_path / 'file').read_text() == 'mine'


def test_runs_end_with_the_process_that_started_them(tmp_path, config, monkeypatch):
    folder = tmp_path / 'runs'
    folder.mkdir()
    pid = tmp_path / 'pid'

    def endless(args):
        pid.write_text(str(os.getpid()))
        while True:
            time.sleep(1)

    monkeypatch.setattr(torchgeo.main, 'main', endless)
    parent = multiprocessing.Process(
        target=run_all, args=(plan_of(pretrain('first', config)), folder)
    )
    parent.start()
    while not pid.exists() or not pid.read_text():
        time.sleep(0.01)
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    for _ in range(500):
        if not _is_running(int(pid.read_text())):
            return
        time.sleep(0.01)
    raise AssertionError('it goes on')


def _is_running(pid):
    try:
        state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except FileNotFoundError:
        return False
    return state != 'Z'


@pytest.mark.parametrize('missing', ['file', 'column'])
def test_a_run_without_validation_scores_is_named(tmp_path, missing):
    if missing == 'column':
        (tmp_path / 'run' / 'fit').mkdir(parents=True)
        (tmp_path / 'run' / 'fit' / 'metrics.csv').write_text('epoch,val_loss\n0,1\n')
    error, words = {
        'file': (FileNotFoundError, 'metrics.csv is missing: run that training again'),
        'column': (ValueError, 'has no val_mAP_micro'),
    }[missing]
    with pytest.raises(error, match=words):
        validation_score(tmp_path / 'run')
