"""Run folders on disk: a new one moves the old aside, and a failed one is undone.

The plain name is always the newest. Older folders carry numbers in the order of their
age: ``run.1`` is the oldest, then ``run.2``, and so on.
"""

import errno
import re
import shutil
from pathlib import Path

BOOKKEEPING = re.compile(
    r'config\.yaml|hparams\.yaml|metrics\.csv|events\.out\.tfevents\..*'
)
"""Names of the files that a command writes before it has any result."""


def move_aside(folder: Path) -> Path | None:
    """Rename a folder that holds something to the next number.

    Args:
        folder: The folder whose name is needed.

    Returns:
        The new name, or None if there was nothing to move.

    Raises:
        OSError: If a file has that name, or renaming is not possible.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, 'it is a file', str(folder))
    siblings = (path.name for path in folder.parent.iterdir())
    older = [number for name in siblings if (number := age(name, folder.name))]
    target = folder.with_name(f'{folder.name}.{max(older, default=0) + 1}')
    return folder.rename(target)


def age(name: str, newest: str) -> int | None:
    """Return N if the name is ``newest.N``, 0 if it is ``newest`` and None if not."""
    match = re.fullmatch(rf'{re.escape(newest)}(?:\.(\d+))?', name)
    return match and int(match[1] or 0)


def run_of(file: str | Path, root: Path) -> Path | None:
    """Return the run that a file lies in: the root, an older ``root.N``, or None."""
    newest = root.resolve()
    for parent in Path(file).resolve().parents:
        if parent.parent == newest.parent and age(parent.name, newest.name) is not None:
            return root.with_name(root.name + parent.name[len(newest.name) :])
    return None


class OpenedFolder:
    """A folder for one command, that can be undone while it holds no result."""

    def __init__(self, path: Path) -> None:
        """Plan a folder; nothing is touched yet.

        Args:
            path: The folder of the command, inside that of the run.
        """
        self.path = path
        self._made: list[Path] = []
        self._moved: list[tuple[Path, Path]] = []

    def open(self, *, new_run: bool) -> None:
        """Make the folder, moving aside what has its name.

        Args:
            new_run: Move the whole run aside, not only the command's folder.

        Raises:
            OSError: If the disk refuses. What was done until then can be undone.
        """
        old = self.path.parent if new_run else self.path
        if moved := move_aside(old):
            self._moved.append((old, moved))
        for folder in (*reversed(self.path.parents), self.path):
            if not folder.is_dir():
                folder.mkdir()
                self._made.append(folder)

    def put_back(self) -> None:
        """Remove the folder and return what was moved aside, unless there are results.

        Any file beyond :data:`BOOKKEEPING` is a result, in the folder or, for a new
        run, in the run.
        """
        inside = [path for folder in self._made for path in folder.rglob('*')]
        files = [path for path in inside if not path.is_dir()]
        if any(not BOOKKEEPING.fullmatch(file.name) for file in files):
            return
        for folder in reversed(self._made):
            if folder == self.path:
                shutil.rmtree(folder, ignore_errors=True)
            elif folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        for old, moved in reversed(self._moved):
            if not old.exists():
                moved.rename(old)
