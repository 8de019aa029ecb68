"""``channelmae tables`` from the command line."""

import re
import shutil
from pathlib import Path

import filelock
import pandas as pd
import pytest
import yaml

from torchgeo_channelmae.cli import main
from torchgeo_channelmae.experiments.tables import child, runner
from torchgeo_channelmae.experiments.tables import command as module
from torchgeo_channelmae.experiments.tables.calibrate import Cost

CONF = Path(__file__).parents[3] / 'conf'
CELL = ('--only', 'scratch-p16:S1', '--seeds', '0')


def tables(*options, conf=CONF):
    return main(['tables', *map(str, options), '--conf', str(conf)])


@pytest.fixture
def short_conf(tmp_path):
    """The shipped configurations, with a fine-tuning of a step on small images."""
    folder = tmp_path / 'conf'
    shutil.copytree(CONF, folder)
    path = folder / 'tables' / 'sample' / 'finetune.yaml'
    values = yaml.safe_load(path.read_text())
    values['data']['init_args'] |= {'samples_per_epoch': 16, 'size': 32}
    values['model'] = {'init_args': {'size': 32}}
    values['trainer']['max_epochs'] = 1
    path.write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture
def forked(start, zygote, tmp_path, monkeypatch):
    """Run the child processes of runs without importing TorchGeo each time."""

    def torchgeo(command, log, jobs):
        args = (f'{child.__name__}:run', zygote.pid, *command)
        ended = start(*args, folder=tmp_path, program='call').wait()
        log.write_text(ended.output)
        return ended.code

    monkeypatch.setattr(runner, 'torchgeo', torchgeo)


@pytest.mark.usefixtures('forked')
def test_a_table_runs_from_the_data_to_its_files_and_is_not_run_twice(
    short_conf, tmp_path, capsys
):
    asked = ('3', '--preset', 'sample', *CELL, '--resamples', '100')
    asked = (*asked, '--out', tmp_path / 'out')
    assert tables(*asked, conf=short_conf) == 0, capsys.readouterr()
    folder = tmp_path / 'out' / '3'
    assert f'is in {folder / "table.md"}' in capsys.readouterr().out
    table = pd.read_csv(folder / 'results.csv').set_index(['row', 'score'])
    score = table.loc[('scratch-p16', 'mAP_micro')]
    assert 0 < score['whole_low'] <= score['whole'] <= score['whole_high'] <= 100
    files = [path for path in (tmp_path / 'out').rglob('*') if path.name != '.lock']
    before = {path: path.stat().st_mtime_ns for path in files}
    assert tables(*asked, conf=short_conf) == 0
    path = short_conf / 'tables' / 'sample' / 'finetune.yaml'
    path.write_text(path.read_text().replace('max_epochs: 1', 'max_epochs: 2'))
    assert tables(*asked, conf=short_conf) == 1
    assert 'trainer.max_epochs was 1, is now 2' in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_dry_run_shows_commands_and_costs_and_leaves_nothing(
    tmp_path, monkeypatch, capsys
):
    def calibrate(runs):
        costs = [Cost(160, 20, 360, 2**30), 'not measured']
        return {run.name: cost for run, cost in zip(runs, costs, strict=True)}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, 'calibrate', calibrate)
    only = ('--only', 's2-p16:S1', '--seeds', '0')
    assert tables('1', '--preset', 'sample', *only, '--dry-run', '--jobs', '2') == 0
    shown = capsys.readouterr().out
    for words in (
        '160 samples per epoch, 20 optimizer steps, about 0.100 hours, 1.00 GiB',
        'seed0: not measured',
        '2 runs, 0 done; the 1 measured ones: 20 optimizer steps, about 0.05',
    ):
        assert words in shown
    assert shown.count('  torchgeo fit --config=') == 2
    assert 'expected to tell a gain of ' in shown.splitlines()[-1]
    assert not any(tmp_path.iterdir())


def test_a_failed_run_ends_the_command_with_its_reason_after_the_page(
    tmp_path, monkeypatch, capsys
):
    def run_all(plan, folder, jobs):
        for run in plan.runs.values():
            yield run, 'The disk is full.', 1.0

    monkeypatch.setattr(module, 'run_all', run_all)
    assert tables('3', '--preset', 'sample', *CELL, '--out', tmp_path) == 1
    assert 'The disk is full.' in capsys.readouterr().err.splitlines()[-1]
    assert 'The disk is full.' in (tmp_path / '3' / 'table.md').read_text()


def test_two_commands_do_not_share_a_folder(tmp_path, capsys):
    (tmp_path / 'runs').mkdir()
    with filelock.FileLock(tmp_path / 'runs' / '.lock'):
        assert tables('3', '--preset', 'sample', *CELL, '--out', tmp_path) == 1
    assert '.lock' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ('1 --preset paper', 'needs --root'),
        ('1 --preset paper --root .', 'needs --pretrain-root'),
        ('1 --preset paper --root . --pretrain-root .', 'needs --shares'),
        ('1 --preset copernicus-bench --root gone', '--root gone'),
        ('1 --preset sample --root .', 'takes no --root'),
        ('1 --preset big', "'big'"),
        ('4 --preset sample', "'4'"),
        ('1 --preset sample --only s3', "'s3'"),
        ('1 --preset sample --seeds a', '--seeds'),
        ('1 --preset sample --unchanged', '--unchanged'),
        ('matrix --preset sample --sensors s2 s9', r"'s9'.*\(rgb, s1, s1s2, s2"),
    ],
)
def test_wrong_options_end_in_a_sentence_and_leave_nothing(
    options, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert tables(*options.split()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(words, line)
    assert not any(tmp_path.iterdir())
