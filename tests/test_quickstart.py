"""CI runs the quickstart as it stands; what makes that worth something is here."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from tests.pages import DOCS, PROJECT, blocks, commands
from tests.run_page import main

PAGE = (DOCS / 'quickstart.md').read_text()


def test_ci_runs_the_commands_of_the_page():
    script = (PROJECT / '.ci' / 'run').read_text()
    assert 'python -m tests.run_page docs/quickstart.md' in script


def test_it_takes_five_commands_from_a_clone_to_predictions():
    assert blocks(PAGE, 'console')[0].startswith('git clone ')
    kinds = [shlex.split(command)[:4] for command in commands(PAGE)]
    assert [kind[:3] for kind in kinds] == [['uv', 'run', 'torchgeo']] * 4
    assert [kind[3] for kind in kinds] == ['fit', 'fit', 'test', 'predict']


def test_each_command_finds_what_an_earlier_one_wrote():
    written = set()
    for command in commands(PAGE):
        words = shlex.split(command)
        config = yaml.safe_load(
            (PROJECT / words[words.index('--config') + 1]).read_text()
        )
        arguments = config['model']['init_args']
        needed = [arguments.get('weights')] if words[3] == 'fit' else []
        if '--ckpt_path' in words:
            needed.append(words[words.index('--ckpt_path') + 1])
        assert {path for path in needed if path} <= written
        written.add(f'{config["trainer"]["default_root_dir"]}/last.ckpt')


def test_the_files_that_the_page_lists_are_those_of_the_configurations():
    named = set(re.findall(r'runs/(\w+)/', PAGE))
    assert named == {'pretrain', 'finetune'}


def page(folder: Path, *lines: str) -> str:
    path = folder / 'page.md'
    path.write_text('\n'.join(['Text.', '', '```console', *lines, '```', '']))
    return str(path)


def test_commands_run_in_order_without_remarks_and_clones(tmp_path, capfd):
    python = shlex.quote(sys.executable)
    lines = (
        'git clone NOWHERE',
        f"{python} -c 'print(1)'   # a remark",
        f'{python} -c \\',
        "    'print(2)'",
    )
    assert main([page(tmp_path, *lines)]) == 0
    printed = [line for line in capfd.readouterr().out.splitlines() if line]
    assert [line for line in printed if not line.startswith('==')] == ['1', '2']


def test_a_command_that_fails_ends_the_page_with_its_code(tmp_path, capfd):
    after = tmp_path / 'after'
    assert main([page(tmp_path, 'exit 7', f'touch {after}')]) == 7
    assert not after.exists()
    assert 'failed with 7: exit 7' in capfd.readouterr().err


@pytest.mark.parametrize('text', ['', '```python\n1\n```\n'])
def test_a_page_without_commands_is_no_success(tmp_path, text):
    path = tmp_path / 'page.md'
    path.write_text(text)
    assert main([str(path)]) == 2
