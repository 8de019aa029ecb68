"""What the README says can be done as it says."""

import re
from pathlib import Path

from tests.pages import commands

PROJECT = Path(__file__).parents[1]
README = (PROJECT / 'README.md').read_text()


def test_the_python_example_runs():
    (example,) = re.findall(r'```python\n(.*?)```', README, flags=re.DOTALL)
    names = {}
    exec(example, names)
    assert names['logits'].shape == (4, 19)


def test_every_configuration_that_is_named_is_there():
    named = set(re.findall(r'conf/[a-z/]+\.yaml', README))
    assert {'conf/pretrain.yaml', 'conf/finetune.yaml'} <= named
    assert [path for path in named if not (PROJECT / path).is_file()] == []


def test_ci_runs_the_commands_of_the_readme():
    (block,) = re.findall(r'```console\n(git clone.*?)```', README, flags=re.DOTALL)
    shown = re.findall(r'^uv run .*?(?= +#|$)', block, flags=re.MULTILINE)
    assert len(shown) == 5
    script = (PROJECT / '.ci' / 'run').read_text()
    page = 'docs/quickstart.md'
    assert f'tests.run_page {page}' in script
    run = {'uv run pytest', *commands((PROJECT / page).read_text())}
    assert 'step uv run pytest\n' in script
    assert [command for command in shown if command not in run] == []
