"""Pages lead to what is there, and their examples run."""

import importlib
import json
import re
import shlex
import sys

import numpy as np
import pytest
import yaml

from tests.pages import DOCS, PROJECT, blocks, commands, links, pages
from torchgeo_channelmae.cli import COMMANDS, main
from torchgeo_channelmae.experiments.configuration import read_datamodule

PAGES = [str(path.relative_to(PROJECT)) for path in pages()]
HOWTO = DOCS / 'howto'


@pytest.mark.parametrize('page', PAGES)
def test_every_file_that_a_page_links_is_there(page):
    path = PROJECT / page
    targets = [link for link in links(path.read_text()) if '://' not in link]
    drawn = {f'{module.stem}.svg' for module in (DOCS / 'figures').glob('[!_]*.py')}
    missing = [
        target
        for target in (link.partition('#')[0] for link in targets)
        if target and not (path.parent / target).exists()
        and not ('figures/drawn/' in target and target.rpartition('/')[2] in drawn)
    ]  # fmt: skip
    assert missing == []


@pytest.mark.parametrize('page', PAGES)
def test_every_configuration_that_a_page_names_is_there(page):
    named = set(re.findall(r'\bconf/[\w/]+\.yaml', (PROJECT / page).read_text()))
    assert [path for path in named if not (PROJECT / path).is_file()] == []


@pytest.mark.parametrize('page', PAGES)
def test_every_command_that_a_page_shows_is_one(page):
    text = (PROJECT / page).read_text()
    shown = [shlex.split(line) for line in commands(text)]
    used = {
        words[words.index('channelmae') + 1] for words in shown if 'channelmae' in words
    }
    assert used <= set(COMMANDS) | {'COMMAND'}


@pytest.mark.parametrize('page', PAGES)
def test_every_command_that_a_page_shows_runs_without_activating_anything(page):
    shown = [shlex.split(line) for line in commands((PROJECT / page).read_text())]
    own = {'channelmae', 'torchgeo', 'torchgeo-bench', 'python', 'pytest'}
    assert [words for words in shown if words[0] in own] == []


def class_paths(node):
    if isinstance(node, dict):
        own = node.get('class_path')
        return ([own] if own else []) + class_paths(list(node.values()))
    if isinstance(node, list):
        return [found for item in node for found in class_paths(item)]
    return []


@pytest.mark.parametrize('page', [page for page in PAGES if page.startswith('docs/')])
def test_yaml_of_a_page_can_be_read_and_its_classes_imported(page):
    for block in blocks((PROJECT / page).read_text(), 'yaml'):
        for path in class_paths(yaml.safe_load(block)):
            module, _, name = path.rpartition('.')
            if module != 'lab':  # the reader's own
                assert hasattr(
                    importlib.import_module(module or 'torchgeo.datasets'), name
                )


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


def test_the_example_of_an_own_dataset_yields_normalised_batches(lab):
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


def test_commands_for_many_gpus_are_understood():
    from lightning.pytorch import Trainer
    from lightning.pytorch.cli import LightningArgumentParser

    parser = LightningArgumentParser()
    parser.add_lightning_class_args(Trainer, 'trainer')
    shown = blocks((HOWTO / 'many-gpus.md').read_text(), 'bash')
    assert len(shown) == 3
    for block in shown:
        [command] = [
            line
            for line in block.replace('\\\n', '').splitlines()
            if 'torchgeo' in line
        ]
        words = shlex.split(command.partition('torchgeo fit ')[2])
        options = dict(zip(words[::2], words[1::2], strict=True))
        given = [f'{k}={v}' for k, v in options.items() if k.startswith('--trainer.')]
        trainer = parser.parse_args(given).trainer
        assert trainer.strategy == 'ddp'
        assert trainer.devices == '4' or trainer.devices == 4


def test_tutorials_are_kept_without_output():
    notebooks = sorted((DOCS / 'tutorials').glob('*.ipynb'))
    assert len(notebooks) >= 2
    for path in notebooks:
        cells = json.loads(path.read_text())['cells']
        code = [cell for cell in cells if cell['cell_type'] == 'code']
        assert code
        assert not any(cell['outputs'] or cell['execution_count'] for cell in code)
