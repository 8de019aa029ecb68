"""Pages link to what exists, and their commands and examples run."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import yaml

from tests.pages import DOCS, PROJECT, blocks, commands, links, pages
from tests.run_page import main as run_page
from torchgeo_channelmae.cli import COMMANDS, main
from torchgeo_channelmae.experiments.configuration import read_datamodule

PAGES = [str(path.relative_to(PROJECT)) for path in pages()]
HOWTO = DOCS / 'howto'


@pytest.mark.parametrize('page', PAGES)
def test_links_configurations_commands_and_yaml_of_a_page_are_right(page):
    path = PROJECT / page
    text = path.read_text()
    targets = [link.partition('#')[0] for link in links(text) if '://' not in link]
    drawn = {f'{module.stem}.svg' for module in (DOCS / 'figures').glob('[!_]*.py')}
    assert [
        target for target in targets
        if target and not (path.parent / target).exists()
        and not ('figures/drawn/' in target and target.rpartition('/')[2] in drawn)
    ] == []  # fmt: skip
    named = set(re.findall(r'\bconf/[\w/]+\.yaml', text))
    assert [name for name in named if not (PROJECT / name).is_file()] == []
    shown = [shlex.split(line) for line in commands(text)]
    used = {
        line[line.index('channelmae') + 1] for line in shown if 'channelmae' in line
    }
    assert used <= set(COMMANDS) | {'COMMAND'}
    own = {'channelmae', 'torchgeo', 'torchgeo-bench', 'python', 'pytest'}
    assert [line for line in shown if line[0] in own] == []  # without `uv run`
    for block in blocks(text, 'yaml') if page.startswith('docs/') else ():
        for name in class_paths(yaml.safe_load(block)):
            module, _, short = name.rpartition('.')
            if module != 'lab':  # the reader's own
                module = importlib.import_module(module or 'torchgeo.datasets')
                assert hasattr(module, short), name


def class_paths(node):
    if isinstance(node, dict):
        own = node.get('class_path')
        return ([own] if own else []) + class_paths(list(node.values()))
    if isinstance(node, list):
        return [found for item in node for found in class_paths(item)]
    return []


def test_the_python_example_of_the_readme_runs():
    [example] = blocks((PROJECT / 'README.md').read_text(), 'python')
    names = {}
    exec(example, names)
    assert names['logits'].shape == (4, 19)


def test_ci_runs_the_commands_of_the_readme_and_the_quickstart():
    [block, *_] = blocks((PROJECT / 'README.md').read_text(), 'console')
    shown = re.findall(r'^uv run .*?(?= +#|$)', block, flags=re.MULTILINE)
    script = (PROJECT / '.ci' / 'run').read_text()
    assert 'tests.run_page docs/quickstart.md' in script
    assert 'step uv run pytest\n' in script
    run = {'uv run pytest', *commands((DOCS / 'quickstart.md').read_text())}
    assert len(shown) == 5
    assert set(shown) <= run


def test_commands_of_a_page_run_in_order_and_stop_at_a_failure(tmp_path, capfd):
    page, after = tmp_path / 'page.md', tmp_path / 'after'
    lines = ['git clone X', 'echo 1   # a remark', 'echo \\', '  2', 'exit 7']
    page.write_text('\n'.join(['```console', *lines, f'touch {after}', '```', '']))
    assert run_page([str(page)]) == 7
    assert not after.exists()
    printed = [line for line in capfd.readouterr().out.splitlines() if line]
    assert [line for line in printed if not line.startswith('==')] == ['1', '2']


def test_the_examples_of_an_own_sensor_run(monkeypatch, capsys):
    from torchgeo_channelmae import sensors

    monkeypatch.setattr(sensors, 'SENSORS', dict(sensors.SENSORS))
    text = (HOWTO / 'own-sensor.md').read_text()
    first, second = blocks(text, 'python')
    names = {}
    exec(first, names)
    assert names['model'].bands == ('red', 'nir', 'thermal')
    exec(second, {})
    assert f'prints `{capsys.readouterr().out.strip()}`' in text
    assert sensors.default_names(12)[0] == 'B01'


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder as the page on an own dataset has it."""
    page = (HOWTO / 'own-dataset.md').read_text()
    [code], [overlay] = blocks(page, 'python'), blocks(page, 'yaml')
    (tmp_path / 'lab.py').write_text(code)
    (tmp_path / 'lab-data.yaml').write_text(overlay)
    (tmp_path / 'images').mkdir()
    draw = np.random.default_rng(0)
    for number in range(40):
        pixels = draw.normal([[[100]], [[200]], [[300]], [[400]]], 10, (4, 64, 64))
        np.save(tmp_path / f'images/{number:02}.npy', pixels.astype(np.float32))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield page
    sys.modules.pop('lab', None)


def test_the_example_of_an_own_dataset_yields_normalized_batches(lab):
    stats, fit = blocks(lab, 'bash')
    words = shlex.split(stats.replace('\\\n', ''))
    assert main(words[words.index('channelmae') + 1 :]) == 0
    configs = re.findall(r'--config (\S+)', fit)
    assert configs == ['conf/pretrain.yaml', 'lab-data.yaml']
    datamodule, _ = read_datamodule(
        [PROJECT / configs[0], DOCS.joinpath(configs[1]).name], {'num_workers': 0}
    )
    datamodule.setup('fit')
    batch = next(iter(datamodule.train_dataloader()))
    image = datamodule.finish(batch, training=True)['image']
    assert image.shape == (16, 4, 64, 64)
    assert image.mean(dim=(0, 2, 3)).numpy() == pytest.approx([0] * 4, abs=0.05)
    assert image.std(dim=(0, 2, 3)).numpy() == pytest.approx([1] * 4, abs=0.05)


@pytest.mark.parametrize('number', range(3))
def test_commands_for_many_gpus_are_understood(number, tmp_path):
    from lightning.pytorch import Trainer
    from lightning.pytorch.cli import LightningArgumentParser

    for program in ('uv', 'srun', 'sbatch'):
        stub = tmp_path / program  # sbatch runs the script, the others say their words
        does = 'bash "$@"' if program == 'sbatch' else 'printf \'%s\\n\' "$@"'
        stub.write_text(f'#!/bin/bash\n{does}\n')
        stub.chmod(0o755)
    job = {'SLURM_JOB_NUM_NODES': '2', 'SLURM_NTASKS_PER_NODE': '4'}
    env = os.environ | job | {'PATH': f'{tmp_path}:{os.environ["PATH"]}'}
    block = blocks((HOWTO / 'many-gpus.md').read_text(), 'bash')[number]
    done = subprocess.run(
        ['bash', '-c', block], cwd=PROJECT, env=env, stdout=subprocess.PIPE, text=True
    )
    words = done.stdout.split('\n')[:-1]
    words = words[words.index('torchgeo') + 2 :]
    pairs = list(zip(words[::2], words[1::2], strict=True))
    configs = [value for key, value in pairs if key == '--config']
    assert configs[-1] == 'conf/scale/ddp.yaml'
    assert all((PROJECT / config).is_file() for config in configs)
    assert any(key.startswith('--data.init_args.root') for key, _ in pairs)
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(Trainer, 'trainer')
    given = [f'{key}={value}' for key, value in pairs if key.startswith('--trainer.')]
    trainer = parser.parse_args(given).trainer
    where = (trainer.num_nodes, trainer.devices)
    assert where == ((1, 'auto') if number == 0 else (2, '4'))


def test_tutorials_are_kept_without_output():
    notebooks = sorted((DOCS / 'tutorials').glob('*.ipynb'))
    assert len(notebooks) >= 2
    for path in notebooks:
        cells = json.loads(path.read_text())['cells']
        code = [cell for cell in cells if cell['cell_type'] == 'code']
        assert code
        assert not any(cell['outputs'] or cell['execution_count'] for cell in code)
