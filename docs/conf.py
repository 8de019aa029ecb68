"""Configuration of the documentation: Sphinx, with TorchGeo's theme.

Nothing is downloaded: names of other projects are not linked, unless INTERSPHINX is set
in the environment. Figures of the concepts are drawn, and tutorials run, at each build.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import figures  # noqa: E402

import torchgeo_channelmae  # noqa: E402

project = 'torchgeo_channelmae'
copyright = 'the contributors'
author = 'the contributors'
release = torchgeo_channelmae.__version__

extensions = [
    'myst_nb',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    *(['sphinx.ext.intersphinx'] if os.environ.get('INTERSPHINX') else []),
]
exclude_patterns = ['_build', 'jupyter_execute']
myst_enable_extensions = ['colon_fence']
myst_heading_anchors = 3
nb_execution_mode = 'force'
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_in_temp = True
nb_merge_streams = True

html_theme = 'pydata_sphinx_theme'
html_title = 'torchgeo_channelmae'
html_theme_options = {
    'navbar_align': 'left',
    'show_toc_level': 2,
    'navigation_with_keys': False,
}
html_sidebars = {'**': ['sidebar-nav-bs']}

napoleon_use_ivar = True
autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_inherit_docstrings = False

intersphinx_mapping = {
    'python': ('https://docs.python.org/3', None),
    'torch': ('https://docs.pytorch.org/docs/stable/', None),
    'torchgeo': ('https://torchgeo.readthedocs.io/en/stable/', None),
}

linkcheck_anchors = False

figures.draw_all(HERE / 'images' / 'drawn')
