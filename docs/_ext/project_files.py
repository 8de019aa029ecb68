"""Links from a page to files of the project, such as ``[a](../conf/pretrain.yaml)``.

Whoever reads a page in the repository follows them. On the site they lead to the
repository where ``DOCS_REPOSITORY`` says where that is, and are plain text elsewhere. A
file that is not there is an error in both.
"""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

LINK = re.compile(r'(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]*)\)')
DOCS = Path(__file__).parents[1]


def lead(text: str, page: Path) -> str:
    """Rewrite the links of a page that lead out of the pages.

    Args:
        text: The page.
        page: Where it is.

    Returns:
        The page with links to the repository, or without them.
    """

    def rewrite(match: re.Match[str]) -> str:
        title, target = match.groups()
        path = (page.parent / target).resolve()
        if path.is_relative_to(DOCS):
            return match[0]
        if not path.exists():
            logging.getLogger(__name__).warning('%s: no file %s', page, target)
        name = path.relative_to(DOCS.parent).as_posix()
        repository = os.environ.get('DOCS_REPOSITORY')
        if repository:
            return f'[{title}]({repository.rstrip("/")}/blob/main/{name})'
        return f'`{title}`' if title == name else f'{title} (`{name}`)'

    return LINK.sub(rewrite, text)


def on_source_read(app: Sphinx, docname: str, source: list[str]) -> None:
    """Rewrite the links of a page as it is read."""
    path = Path(app.env.doc2path(docname))
    if path.suffix == '.md':
        source[0] = lead(source[0], path)


def on_include_read(
    app: Sphinx, relative_path: Path, parent: str, content: list[str]
) -> None:
    """Rewrite the links of a file that a page includes."""
    content[0] = lead(content[0], DOCS.parent / relative_path)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to the reading of pages."""
    app.connect('source-read', on_source_read)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
