"""Run ``torchgeo`` in a process that ends with its parent.

Arguments are the process id of the parent and those of ``torchgeo``.
"""

import os
import sys
import threading
import time

from torchgeo.main import main


def end_with(parent: int) -> None:
    """End this process as soon as its parent is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == '__main__':
    end_with(int(sys.argv.pop(1)))
    main()
