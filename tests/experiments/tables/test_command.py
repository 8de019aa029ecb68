"""``channelmae tables`` from the command line, with real trainings of seconds."""

import time
from pathlib import Path

import pandas as pd
import pytest

from torchgeo_channelmae.cli import main

CONF = Path(__file__).parents[3] / 'conf'
CELLS = 's2-p16:S1,scratch-p16:S1'


@pytest.fixture
def conf(short_conf):
    return short_conf(pretrain=3, finetune=2)


def arguments(conf, out, *options):
    return [
        'tables',
        '1',
        *('--preset', 'sample'),
        *('--only', CELLS),
        *('--resamples', '100'),
        *('--conf', str(conf)),
        *('--out', str(out)),
        *options,
    ]


def tables_of(out):
    return {path.name: path.read_bytes() for path in (out / '1').iterdir()}


def test_a_table_killed_again_and_again_ends_as_an_undisturbed_one(
    conf, tmp_path, start
):
    def run(out):
        told = arguments(conf, out, '--seeds', '0')
        return start(*told, folder=tmp_path, program='channelmae')

    broken = tmp_path / 'broken'
    for mark in (
        broken / 'runs' / 'pretrain-s2-p16-seed0' / 'last.ckpt',
        broken / 'runs' / 'finetune-from-s2-p16-s1-seed0' / 'last.ckpt',
    ):
        command = run(broken)
        while not mark.exists():
            assert command.is_running, command.output
            time.sleep(0.01)
        command.kill()
    for out in (broken, tmp_path / 'whole'):
        command = run(out).wait()
        assert command.code == 0, command.output
    assert tables_of(broken) == tables_of(tmp_path / 'whole')
    table = pd.read_csv(broken / '1' / 'results.csv')
    assert set(table.loc[table['missing'].isna(), 'row']) == {'s2-p16', 'scratch-p16'}

    # Run again, all is there; asked with other settings, it is refused.
    before = {p: p.stat().st_mtime_ns for p in broken.rglob('*') if p.is_file()}
    assert main(arguments(conf, broken, '--seeds', '0')) == 0
    path = conf / 'tables' / 'sample' / 'finetune.yaml'
    path.write_text(path.read_text().replace('max_epochs: 2', 'max_epochs: 4'))
    assert main(arguments(conf, broken, '--seeds', '0')) == 1
    assert before == {p: p.stat().st_mtime_ns for p in broken.rglob('*') if p.is_file()}


def test_a_dry_run_shows_commands_and_costs_and_leaves_nothing(conf, tmp_path, start):
    out = tmp_path / 'out'
    asked = arguments(conf, out, '--dry-run', '--seeds', '0')
    command = start(*asked, folder=tmp_path, program='channelmae').wait()
    assert command.code == 0
    assert not out.exists()
    told = command.output
    assert 'torchgeo fit --config' in told
    assert 'torchgeo test --config' in told
    assert '32 samples an epoch, 6 optimizer steps' in told  # 2 batches x 3 epochs
    assert '32 samples an epoch, 4 optimizer steps' in told
    assert 'not measured' not in told
    assert '3 runs, 0 done; the 3 measured ones: 14 optimizer steps' in told


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['1', '--preset', 'synthetic'], 'synthetic needs data: give --root FOLDER'),
        (['1', '--preset', 'paper', '--root', '.'], 'give --pretrain-root FOLDER'),
        (['1', '--preset', 'synthetic', '--root', 'gone'], '--root gone is no folder'),
        (
            ['1', '--preset', 'paper', '--root', '.', '--pretrain-root', '.'],
            'give --shares FILE, the land cover of MMEarth',
        ),
        (['1', '--preset', 'sample', '--shares', '.'], '--shares . is no file'),
        (['1', '--preset', 'sample', '--shares', __file__], 'leave out --shares'),
        (['1', '--preset', 'sample', '--root', '.'], 'brings its data: leave out'),
        (['1', '--preset', 'big'], "no preset 'big': choose sample"),
        (['4', '--preset', 'sample'], "no table '4': choose 1, 2, 3, labels"),
        (['1', '--preset', 'sample', '--only', 's3'], "no cell or row 's3'"),
        (['1', '--preset', 'sample', '--seeds', '0,0'], 'each once, as equal seeds'),
        (['1', '--preset', 'sample', '--seeds', 'a'], "seeds is 'a': give whole"),
        (['1', '--preset', 'sample', '--jobs', '0'], 'jobs is 0'),
        (['1', '--preset', 'sample', '--conf', 'gone'], 'give its conf folder'),
    ],
)
def test_bad_requests_are_told_in_a_sentence_and_leave_nothing(
    options, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    conf = [] if '--conf' in options else ['--conf', str(CONF)]
    assert main(['tables', *options, *conf]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert list(tmp_path.iterdir()) == []
