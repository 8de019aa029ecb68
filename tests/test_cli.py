"""The door itself; what a command does is tested where the command is."""

import ast
import functools
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.layouts import write_v2
from torchgeo_channelmae import cli
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
    told = capsys.readouterr()
    assert told.out == ''
    assert told.err.splitlines()[0] == "channelmae: unknown command 'encod'."
    for name in COMMANDS:
        assert name in told.err


@pytest.mark.parametrize('name', COMMANDS)
def test_help_of_a_command_explains_every_option(capsys, name):
    with pytest.raises(SystemExit) as stop:
        main([name, '--help'])
    assert stop.value.code == 0
    text = ''.join(capsys.readouterr().out.split())  # wrapped at blanks and hyphens
    assert f'channelmae{name}' in text
    module, _ = COMMANDS[name]
    assert f'valueof--{next(documented(module, name))[0]}maycomefirst' in text
    for option, purpose in documented(module, name):
        assert f'--{option}' in text, option
        assert ''.join(purpose.split()) in text, option


def test_help_of_a_command_starts_with_what_it_does(capsys):
    with pytest.raises(SystemExit):
        main(['why', '--help'])
    words = ' '.join(capsys.readouterr().out.split())
    does = "Compare an encoder's features of two sensors that look at the same places."
    assert words.index(does) < words.index('--out OUT The folder to make')
    assert "often a place's other image is found." in words  # the whole of it
    assert 'Raises' not in words


def documented(module, name):
    """Options of a command and the first words of what its docstring says of each."""
    package = cli.__file__.removesuffix('cli.py')
    with open(f'{package}/{module.replace(".", "/")}.py') as file:
        tree = ast.parse(file.read())
    function = next(
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    section = ast.get_docstring(function).split('Args:\n')[1]
    for line in section.splitlines():
        if not line.startswith(' '):
            break
        if not line.startswith('     ') and ':' in line:
            option, purpose = line.strip().split(':', 1)
            if option == 'config':  # the door's own words
                purpose = 'Configuration of `torchgeo fit`'
            yield option, purpose.strip()


@pytest.mark.parametrize('name', COMMANDS)
def test_a_missing_option_is_asked_for_and_an_unknown_one_refused(capsys, name):
    for options in ([], ['--no-such-option=1']):
        with pytest.raises(SystemExit) as stop:
            main([name, *options])
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
    # the terminal has the last word
    other = tmp_path / 'other'
    args = ['--config', str(tmp_path / 'options.yaml'), f'--out={other}']
    assert main(['encode', *args]) == 0
    assert patches_of(other) == patches_of(archive)


def test_an_unknown_key_of_the_yaml_file_is_refused(tmp_path, capsys):
    (tmp_path / 'options.yaml').write_text('root: a\nout: b\nworker: 2\n')
    with pytest.raises(SystemExit) as stop:
        main(['encode', '--config', str(tmp_path / 'options.yaml')])
    assert stop.value.code == 2
    assert 'worker' in capsys.readouterr().err


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
    assert '6/6 [' in done.stderr  # the progress bar, with the time left after '<'
    assert 'Traceback' not in done.stderr
    assert 'Warning' not in done.stderr


def test_control_c_stops_a_command_with_exit_code_130(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(encode, 'open_archive', interrupted)
    assert main(['encode', '--root=a', '--out=b']) == 130
    assert capsys.readouterr().err == 'channelmae encode: stopped.\n'


@pytest.mark.parametrize(
    'options',
    [
        ['--weights', 'a', 'b'],
        ['--weights', 'a', '--weights', 'b'],
        ['--weights=a', '--weights=b'],
        ['--weights', '[a, b]'],
    ],
)
def test_an_option_for_several_values_takes_them_in_a_row_or_one_by_one(
    options, monkeypatch
):
    given = {}
    monkeypatch.setattr(probe, 'probe', _recording(probe.probe, given))
    assert main(['probe', '--config', 'c.yaml', *options, '--out', 'o']) == 0
    assert given['weights'] == ['a', 'b']
    assert given['config'] == ['c.yaml']


def _recording(function, given):
    @functools.wraps(function)
    def record(**values):
        given.update(values)

    return record
