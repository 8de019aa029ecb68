"""Run ``torchgeo`` in a process that ends with its parent.

Usage: ``python -m torchgeo_channelmae.experiments.tables.child PARENT ARGUMENTS``, where
PARENT is the process id of the parent.
"""

import sys

from torchgeo.main import main

from ...processes import end_with

if __name__ == '__main__':
    end_with(int(sys.argv.pop(1)))
    main()
