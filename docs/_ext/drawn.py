"""Draws the pages' figures while the site is built, from the package itself.

Every module of ``docs/figures`` has a function ``draw`` that returns a figure, which is
saved as ``docs/figures/drawn/MODULE.svg``.
"""

import importlib.util
from pathlib import Path

import matplotlib as mpl
from sphinx.application import Sphinx

FOLDER = Path(__file__).parents[1] / 'figures'
STYLE = {
    'font.size': 10,
    'figure.dpi': 100,
    'savefig.bbox': 'tight',
    'savefig.pad_inches': 0.06,
    'savefig.transparent': False,
    'svg.hashsalt': 'torchgeo_channelmae',  # the same file each time
}


def draw_all(folder: Path = FOLDER) -> list[Path]:
    """Draw all figures.

    Args:
        folder: Where the modules are.

    Returns:
        The files written.
    """
    target = folder / 'drawn'
    target.mkdir(exist_ok=True)
    written = []
    for path in sorted(folder.glob('[!_]*.py')):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with mpl.rc_context(STYLE):
            figure = module.draw()
            file = target / f'{path.stem}.svg'
            figure.savefig(file, metadata={'Date': None})
        written.append(file)
    return written


def on_builder_inited(app: Sphinx) -> None:
    """Draw before pages are read."""
    draw_all()


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to the start of a build."""
    app.connect('builder-inited', on_builder_inited)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
