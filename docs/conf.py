"""How Sphinx builds the site.

    uv run --group docs sphinx-build -W --keep-going docs docs/_build/html

Needs no network. Where there is one, ``DOCS_INTERSPHINX=1`` links to the pages of other
projects, and ``DOCS_REPOSITORY=https://...`` to files of this one. ``DOCS_EXECUTE=off``
leaves the tutorials without their output, which is quicker while writing.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / '_ext'))

import torchgeo_channelmae

project = 'torchgeo_channelmae'
author = copyright = 'The torchgeo_channelmae authors'
version = release = torchgeo_channelmae.__version__

extensions = [
    'myst_nb',
    'sphinx.ext.autodoc',
    'sphinx.ext.autosummary',
    'sphinx.ext.intersphinx',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
    'docstrings',
    'drawn',
    'mathml',
    'project_files',
]
exclude_patterns = ['_build', '_ext', 'figures', '**.ipynb_checkpoints']
templates_path = ['_templates']
highlight_language = 'text'  # of blocks that name none
default_role = 'code'  # in docstrings, `name` is an argument

# Every name of this package that a page refers to has to be there. Names of others are
# known with DOCS_INTERSPHINX only.
nitpicky = True
nitpick_ignore_regex = [
    (r'py:.*', r'(?!torchgeo_channelmae\.|\.).*'),
    (r'py:class', r'.*\._\w+'),  # private bases
]

# -- Pages and tutorials -------------------------------------------------------------

myst_enable_extensions = ['colon_fence', 'deflist', 'dollarmath']
myst_heading_anchors = 3
myst_links_external_new_tab = False
nb_execution_mode = 'off' if os.environ.get('DOCS_EXECUTE') == 'off' else 'auto'
nb_execution_in_temp = True
nb_execution_timeout = 600  # seconds a cell
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
copybutton_exclude = '.linenos, .gp, .go'

# -- Reference -----------------------------------------------------------------------

autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False  # numpy.str_ would be read as a link

intersphinx_mapping = (
    {
        'kornia': ('https://kornia.readthedocs.io/en/stable/', None),
        'matplotlib': ('https://matplotlib.org/stable/', None),
        'numpy': ('https://numpy.org/doc/stable/', None),
        'pandas': ('https://pandas.pydata.org/docs/', None),
        'python': ('https://docs.python.org/3', None),
        'torch': ('https://docs.pytorch.org/docs/stable/', None),
        'torchgeo': ('https://docs.torchgeo.org/en/stable/', None),
    }
    if os.environ.get('DOCS_INTERSPHINX')
    else {}
)

# -- Appearance ----------------------------------------------------------------------

html_theme = 'pydata_sphinx_theme'  # TorchGeo's own since 0.8
html_title = 'torchgeo_channelmae'
html_static_path = ['_static']
html_css_files = ['site.css']
html_math_renderer = 'mathml'
html_show_sourcelink = False
html_theme_options = {
    'navbar_align': 'left',
    'navbar_end': ['theme-switcher'],
    'show_toc_level': 2,
    'navigation_depth': 3,
    'show_prev_next': True,
    'footer_start': ['copyright'],
    'footer_end': [],
    'secondary_sidebar_items': ['page-toc'],
    'pygments_light_style': 'a11y-high-contrast-light',
    'pygments_dark_style': 'a11y-high-contrast-dark',
}
html_sidebars = {'index': []}
