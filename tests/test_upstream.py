"""What the page on upstreaming says of TorchGeo is true of the TorchGeo installed.

A test that fails here says that TorchGeo was mended: remove its section from the page.
"""

import re

import pytest

from tests.pages import DOCS, blocks

PAGE = (DOCS / 'develop' / 'upstreaming.md').read_text()
SECTIONS = dict(
    re.findall(r'^### (.+?)\n(.*?)(?=^##|\Z)', PAGE, flags=re.DOTALL | re.MULTILINE)
)


@pytest.mark.parametrize('title', SECTIONS)
@pytest.mark.filterwarnings('ignore')
def test_what_was_found_can_still_be_reproduced(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [code] = blocks(SECTIONS[title], 'python')
    assert '\nassert ' in code or '\n    assert ' in code
    exec(compile(code, title, 'exec'), {'__name__': 'reproduction'})


def test_every_module_of_the_table_is_there():
    rows = re.findall(r'^\| (`.+?) \|', PAGE, flags=re.MULTILINE)
    named = [name for row in rows for name in re.findall(r'`([\w/.]+)`', row)]
    assert len(named) > 15
    package = DOCS.parent / 'torchgeo_channelmae'
    folders = [package, *(path for path in package.iterdir() if path.is_dir())]
    missing = [
        name for name in named if not any((room / name).exists() for room in folders)
    ]
    assert missing == []
