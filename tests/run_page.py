"""Run the commands of a page, one by one, as someone who types them.

    python -m tests.run_page docs/quickstart.md

Stops at the first that fails, with its exit code.
"""

import subprocess
import sys
from pathlib import Path

from tests.pages import commands


def main(arguments: list[str]) -> int:
    """Run a page; return the exit code."""
    [page] = arguments
    found = commands(Path(page).read_text())
    if not found:
        print(f'{page} has no command in a console block.', file=sys.stderr)
        return 2
    for command in found:
        print(f'\n== {page}: {command}', flush=True)
        done = subprocess.run(command, shell=True, check=False)
        if done.returncode:
            print(f'{page}: failed with {done.returncode}: {command}', file=sys.stderr)
            return done.returncode
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
