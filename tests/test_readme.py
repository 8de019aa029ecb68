"""What the README says can be done as it says."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
README = (PROJECT / 'README.md').read_text()


def test_the_python_example_runs():
    (example,) = re.findall(r'```python\n(.*?)```', README, flags=re.DOTALL)
    names = {}
    exec(example, names)
    assert names['logits'].shape == (4, 19)


@pytest.mark.parametrize('page', ['README.md', 'CONTRIBUTING.md'])
def test_every_file_that_is_linked_is_there(page):
    links = re.findall(r'\]\(([^)#:]+)\)', (PROJECT / page).read_text())
    assert [link for link in links if not (PROJECT / link).exists()] == []


def test_every_configuration_that_is_named_is_there():
    named = set(re.findall(r'conf/[a-z/]+\.yaml', README))
    assert {'conf/pretrain.yaml', 'conf/finetune.yaml'} <= named
    assert [path for path in named if not (PROJECT / path).is_file()] == []


def test_ci_runs_the_commands_of_the_readme():
    (block,) = re.findall(r'```console\n(git clone.*?)```', README, flags=re.DOTALL)
    commands = re.findall(r'^uv run .*?(?= +#|$)', block, flags=re.MULTILINE)
    assert len(commands) == 5
    script = (PROJECT / '.ci' / 'run').read_text()
    assert [command for command in commands if command not in script] == []
