"""Write output files whole or not at all, and never over an earlier one."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it if the block succeeds.

    Readers see the old file or the new one, never a part, even if the run is killed.
    A missing parent folder is created. If the block raises, its output is deleted.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f'.{path.name}.', dir=path.parent))
    try:
        yield folder / path.name
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def refuse_existing(path: str | Path) -> Path:
    """Return the path of an output, or raise a FileExistsError if it exists."""
    path = Path(path)
    if path.exists():
        raise FileExistsError(
            f'{path} already exists. Delete it or choose another name.'
        )
    return path


def move_aside(path: str | Path) -> Path | None:
    """Rename an existing file or folder to the next free number; None if there is none.

    ``scores.md`` becomes ``scores.1.md``, a folder ``test`` becomes ``test.1``; the
    newest keeps the plain name, the oldest is number 1.
    """
    path = Path(path)
    if not path.exists():
        return None
    stem, suffix = (path.name, '') if path.is_dir() else (path.stem, path.suffix)
    number = 1
    while (target := path.with_name(f'{stem}.{number}{suffix}')).exists():
        number += 1
    return path.rename(target)
