"""What the documentation says is so."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from jsonargparse.util import import_object

PROJECT = Path(__file__).parents[1]
PAGES = sorted((PROJECT / 'docs').glob('*.md'))


def blocks(page, language):
    text = (PROJECT / 'docs' / page).read_text()
    return re.findall(rf'^```{language}\n(.*?)^```', text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize('number', range(len(blocks('upstream.md', 'python'))))
@pytest.mark.filterwarnings('ignore')
def test_defects_of_torchgeo_are_still_there(number, tmp_path, monkeypatch):
    """A failure here is good news: take the defect off the page."""
    monkeypatch.chdir(tmp_path)
    exec(blocks('upstream.md', 'python')[number], {})


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_every_file_that_is_linked_is_there(page):
    links = re.findall(r'\]\(([^)#:]+?)(?:#[^)]*)?\)', page.read_text())
    drawn = [link for link in links if not link.startswith('images/drawn/')]
    assert [link for link in drawn if not (page.parent / link).exists()] == []


def test_classes_of_configurations_on_pages_can_be_imported():
    found = [text for page in PAGES for text in blocks(page.name, 'yaml')]
    assert len(found) > 3
    for text in found:
        yaml.safe_load(text)
        for path in re.findall(r'class_path: ([\w.]+)', text):
            import_object(path)


def test_the_quickstart_goes_from_a_clone_to_scores(tmp_path, torchgeo):
    """In five commands, from the page's own text, with trainings cut short."""
    (text,) = blocks('quickstart.md', 'console')
    clone, *commands = [shlex.split(line) for line in text.splitlines()]
    assert clone[:2] == ['git', 'clone']
    assert len(commands) == 4
    shutil.copytree(PROJECT / 'conf', tmp_path / 'conf')
    for words in commands:
        assert words[:3] == ['uv', 'run', 'torchgeo']
        short = ['--trainer.max_epochs=1', '--data.init_args.samples_per_epoch=16']
        done = torchgeo(*words[3:], *short, folder=tmp_path)
        assert done.code == 0, done.output[-2000:]
    assert 'mAP' in (tmp_path / 'runs/finetune/test/scores.md').read_text()
    predictions = tmp_path / 'runs/finetune/predict/predictions.csv'
    assert len(predictions.read_text().splitlines()) == 22
