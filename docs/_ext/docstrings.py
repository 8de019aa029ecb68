r"""Lets docstrings be written for people.

* A plural right after a literal is no error, and a single letter is no list.
* Names that a package re-exports, such as ``torchgeo_channelmae.models.Name``, and
  relative ones, lead to where the object is documented.
* Fields of a named tuple are described where its docstring does so, and not again as
  "Alias for field number 0".
"""

import importlib
import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

LITERAL = re.compile(r'(``[^`]+``)(\w?)')
LETTER = re.compile(r'^(:\w+ [^:]+: )([A-Z]\.)$', flags=re.MULTILINE)
PACKAGE = 'torchgeo_channelmae'


def escape(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Escape what reStructuredText would read in another way."""
    text = LITERAL.sub(
        lambda match: f'{match[1]}\\ {match[2]}' if match[2] else match[1],
        '\n'.join(lines),
    )
    lines[:] = LETTER.sub(r'\1\\\2', text).split('\n')


def skip(
    app: Sphinx, what: str, name: str, obj: Any, skipped: bool, options: Any
) -> bool | None:
    """Leave the fields of named tuples out."""
    text = getattr(obj, '__doc__', None) or ''
    return True if text.startswith('Alias for field number') else None


def canonical(target: str, module: str | None) -> str | None:
    """Return where an object is defined.

    Args:
        target: Its dotted name, with leading dots if it is relative.
        module: The module in which it is mentioned.

    Returns:
        The full name, or None if there is no such object.
    """
    dots = len(target) - len(target.lstrip('.'))
    if dots:
        parts = (module or PACKAGE).split('.')
        target = '.'.join([*parts[: len(parts) - dots], target.lstrip('.')])
    parts = target.split('.')
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module('.'.join(parts[:cut]))
        except ImportError:
            continue
        try:
            for part in parts[cut:]:
                found = getattr(found, part)
        except AttributeError:
            return None
        home = getattr(found, '__module__', None)
        return f'{home}.{found.__qualname__}' if home else None
    return None


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Resolve what the Python domain did not find."""
    target = node.get('reftarget', '')
    if node.get('refdomain') != 'py' or not target.startswith((PACKAGE, '.')):
        return None
    if target.startswith('.') and node.get('refspecific'):
        target = f'.{target}'  # Sphinx took the first dot off
    home = canonical(target, node.get('py:module'))
    if home is None or home == target:
        return None
    domain = env.domains.python_domain
    return domain.resolve_xref(
        env, node['refdoc'], app.builder, node['reftype'], home, node, content
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to autodoc and to the resolving of references."""
    app.connect('autodoc-process-docstring', escape, priority=800)
    app.connect('autodoc-skip-member', skip)
    app.connect('missing-reference', resolve)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
