"""Run ``torchgeo`` in a process that ends with its parent.

Arguments are the process id of the parent and those of ``torchgeo``.
"""

import sys

from torchgeo.main import main

from ...processes import end_with

if __name__ == '__main__':
    end_with(int(sys.argv.pop(1)))
    main()
