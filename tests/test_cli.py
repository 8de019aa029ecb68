"""The command line itself; commands are tested where they are."""

import functools
import importlib
import os
import shutil
import subprocess
import sys

import docstring_parser
import pytest
import yaml

from tests.layouts import write_v2
from torchgeo_channelmae.cli import COMMANDS, main
from torchgeo_channelmae.datasets import encode
from torchgeo_channelmae.datasets.metadata import read_table
from torchgeo_channelmae.experiments.probes import probe


@pytest.fixture
def archive(tmp_path):
    root = tmp_path / 'archive'
    root.mkdir()
    write_v2(root, rows=[0, 30, 50])
    return root


def patches_of(out):
    return read_table(out).s2_names.tolist()


@pytest.mark.parametrize('args', [[], ['-h'], ['--help']])
def test_help_lists_all_commands(capsys, args):
    assert main(args) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, (_, purpose) in COMMANDS.items():
        assert any(line.split() == [name, *purpose.split()] for line in lines), name


def test_an_unknown_command_is_named_beside_those_there_are(capsys):
    assert main(['encod']) == 2
    printed = capsys.readouterr()
    assert printed.out == ''
    assert printed.err.splitlines()[0] == "channelmae: unknown command 'encod'."
    for name in COMMANDS:
        assert name in printed.err


@pytest.mark.parametrize('name', COMMANDS)
def test_help_of_a_command_explains_every_option(capsys, name):
    with pytest.raises(SystemExit) as stop:
        main([name, '--help'])
    assert stop.value.code == 0
    text = ''.join(capsys.readouterr().out.split())  # wrapped at blanks and hyphens
    assert f'channelmae{name}' in text
    module, _ = COMMANDS[name]
    for option, purpose in documented(module, name).items():
        assert f'--{option}' in text, option
        assert ''.join(purpose.split()) in text, option


def documented(module, name):
    """Return the options of a command, each with its description."""
    function = getattr(importlib.import_module(f'torchgeo_channelmae.{module}'), name)
    options = docstring_parser.parse(function.__doc__).params
    described = {each.arg_name: each.description for each in options}
    if 'config' in described:  # described once for all commands
        described['config'] = 'Configuration of `torchgeo fit`'
    return described


@pytest.mark.parametrize('options', [[], ['--no-such-option=1']])
def test_a_missing_or_unknown_option_is_refused(capsys, options):
    with pytest.raises(SystemExit) as stop:
        main(['encode', *options])
    assert stop.value.code == 2
    assert 'error: ' in capsys.readouterr().err


def test_an_error_is_one_line_and_exit_code_1(capsys, tmp_path):
    options = [f'--root={tmp_path}', f'--out={tmp_path / "out"}', '--workers=0']
    assert main(['encode', *options]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f'channelmae encode: {tmp_path} has no unpacked archive')


def test_options_may_come_from_a_yaml_file(archive, tmp_path):
    out = tmp_path / 'out'
    options = {'root': str(archive), 'out': str(out), 'sensors': 's1', 'workers': 0}
    (tmp_path / 'options.yaml').write_text(yaml.safe_dump(options))
    assert main(['encode', '--config', str(tmp_path / 'options.yaml')]) == 0
    assert patches_of(out) == patches_of(archive)
    # options on the command line win
    other = tmp_path / 'other'
    args = ['--config', str(tmp_path / 'options.yaml'), f'--out={other}']
    assert main(['encode', *args]) == 0
    assert patches_of(other) == patches_of(archive)


def test_the_installed_command_says_what_it_does_and_how_far_it_is(archive, tmp_path):
    out = tmp_path / 'out'
    command = shutil.which('channelmae', path=os.path.dirname(sys.executable))
    assert command is not None
    args = [command, 'encode', f'--root={archive}', f'--out={out}', '--verify']
    done = subprocess.run([*args, '--workers=1'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == '6 of 6 records agree with the archive, bit by bit.'
    assert lines[1].startswith(f'{out} has 3 patches of BigEarthNet v2: 6 records')
    assert '6/6 [' in done.stderr  # the progress bar
    assert 'Traceback' not in done.stderr
    assert 'Warning' not in done.stderr


def test_control_c_stops_a_command_with_exit_code_130(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(encode, 'open_archive', interrupted)
    assert main(['encode', '--root=a', '--out=b']) == 130
    assert capsys.readouterr().err == 'channelmae encode: stopped.\n'


@pytest.mark.parametrize(
    'options', [['--weights', 'a', 'b'], ['--weights=a', '--weights=b']]
)
def test_an_option_for_several_values_takes_them_in_a_row_or_one_by_one(
    options, monkeypatch
):
    given = {}

    @functools.wraps(probe.probe)
    def record(**values):
        given.update(values)

    monkeypatch.setattr(probe, 'probe', record)
    assert main(['probe', '--config', 'c.yaml', *options, '--out', 'o']) == 0
    assert given['weights'] == ['a', 'b']
    assert given['config'] == ['c.yaml']
