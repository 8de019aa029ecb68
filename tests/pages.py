"""Reads pages of the documentation: their commands, code and links."""

import re
from pathlib import Path

PROJECT = Path(__file__).parents[1]
DOCS = PROJECT / 'docs'
_FENCE = re.compile(r'^(`{3,})(\S+)[^\n]*\n(.*?)^\1$', flags=re.DOTALL | re.MULTILINE)


def pages() -> list[Path]:
    """Find the Markdown pages, written by hand, of the project."""
    written = [*PROJECT.glob('*.md'), *DOCS.rglob('*.md')]
    return sorted(p for p in written if '_build' not in p.parts)


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language, in order."""
    return [body for _, name, body in _FENCE.findall(text) if name == language]


def commands(text: str) -> list[str]:
    r"""Return the commands of the console blocks of a page, in order.

    A line that ends in a backslash goes on in the next; what follows `` # `` is a
    remark. Cloning is left out: who runs a page has its project.
    """
    joined = re.sub(r'\s*\\\n\s*', ' ', '\n'.join(blocks(text, 'console')))
    lines = [line.partition(' #')[0].strip() for line in joined.splitlines()]
    return [line for line in lines if line and not line.startswith(('#', 'git clone'))]


def links(text: str) -> list[str]:
    """Return the targets of a page's links and pictures, outside of code."""
    prose = re.sub(r'`[^`\n]+`', '', _FENCE.sub('', text))
    return re.findall(r'\]\(([^)\s]+)\)', prose)
