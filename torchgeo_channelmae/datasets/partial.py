"""The folder that an LMDB is written in until it is whole: whose it is, its room."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

_JOB = 'job.json'


def partial_of(path: Path) -> Path:
    """Return what stands in for a file or folder until that is whole."""
    return path.with_name(path.name + '.partial')


@contextlib.contextmanager
def own(
    partial: Path, keys: Sequence[bytes], description: str, needed: int
) -> Iterator[None]:
    """Hold a partial folder for one job, making it where it is new.

    The file that says what the job is carries the lock, which ends with the process.

    Args:
        partial: The folder.
        keys: Keys of all records of the job, sorted.
        description: What is written, in a few words.
        needed: Bytes that all records need.

    Raises:
        OSError: If the folder can't be written, has no room for a new job, or if
            another process holds it.
        ValueError: If it holds a part of another job.
    """
    digest = hashlib.blake2b(b'\0'.join(keys), digest_size=16).hexdigest()
    job = {'description': description, 'records': len(keys), 'keys': digest}
    text = json.dumps(job, indent=2) + '\n'
    if not partial.exists():
        check_space(partial, needed)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        file = (partial / _JOB).open('a+')
    except OSError as error:
        raise type(error)(
            f'Nothing can be written to {partial.parent} ({error.strerror}): choose a '
            f'folder that you may write to.'
        ) from None
    with file:
        locked = _lock(file.fileno(), partial)
        file.seek(0)
        found = file.read()
        if found != text:
            if (partial / 'data.mdb').exists():
                raise ValueError(
                    f'{partial} holds a part of something else ({_summary(found)}), '
                    f'not of {description!r} with {len(keys)} records: finish that '
                    f'with its own options, or remove the folder.'
                )
            file.truncate(0)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if not locked:
            file.close()  # Windows renames no folder with open files
        yield


def check_space(partial: Path, needed: int, spare: int = 0) -> None:
    """Check that there is room on a disk.

    Args:
        partial: A folder that exists or will.
        needed: Bytes to be written.
        spare: Bytes of its files that will be written over.

    Raises:
        OSError: If there is less.
    """
    there = next(path for path in partial.absolute().parents if path.is_dir())
    free = shutil.disk_usage(there).free + spare
    if free < needed:
        raise OSError(
            f'{partial.parent} has {size_text(free)} free and about '
            f'{size_text(needed)} are needed: make room or choose a folder on another '
            f'disk.'
        )


def size_text(count: int) -> str:
    """Write a number of bytes for people."""
    return f'{count / 1e9:.1f} GB' if count >= 1e8 else f'{count / 1e6:.1f} MB'


def _lock(file: int, partial: Path) -> bool:
    """Lock a file for this process; false where there are no such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:  # not flock, which forked workers would hold beyond their parent's death
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(
            f'Another process is writing {partial}: wait for it or choose another '
            f'folder.'
        ) from None
    except OSError as error:
        raise type(error)(
            f'{partial} cannot be locked ({error.strerror}), so another process might '
            f'write it too: choose a folder on a disk that has locks.'
        ) from None
    return True


def _summary(job: str) -> str:
    try:
        found = json.loads(job)
        return f'{found["description"]!r} with {found["records"]} records'
    except (ValueError, KeyError, TypeError):
        return f'its {_JOB} cannot be read'
