"""Getting archives into a folder: checksums and tar files that are cut in parts."""

import os
import tarfile
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from torchgeo.datasets.utils import check_integrity, download_url

_ALGORITHMS = {32: 'md5', 64: 'sha256'}  # by the number of a digest's digits


def download_files(
    root: Path, files: Mapping[str, tuple[str, str]], checksum: bool
) -> None:
    """Download files; those that are there already are kept.

    Args:
        root: The folder to download into.
        files: Names of files: their URL and published digest.
        checksum: Whether to check the files, and download those again that differ.

    Raises:
        OSError: If a file can't be downloaded.
        ValueError: If a download differs from what was published.
    """
    for name, (url, digest) in files.items():
        expected = _expected(digest) if checksum else {}
        try:
            download_url(url, root, filename=name, **expected)
        except RuntimeError as error:
            raise ValueError(str(error).splitlines()[0]) from None


def check_digests(root: Path, files: Mapping[str, tuple[str, str]]) -> None:
    """Check files by the algorithm that each digest is of, which its length tells.

    Args:
        root: The folder of the files.
        files: Names of files: their URL and published digest.

    Raises:
        ValueError: If one differs from what was published.
    """
    for name, (_, digest) in files.items():
        if not check_integrity(root / name, **_expected(digest)):
            raise ValueError(
                f'{root / name} does not have the checksum that was published: '
                f'download it again, or use checksum=False.'
            )


def unpack(parts: Sequence[Path], root: Path, folder: str) -> None:
    """Unpack a .tar.gz that is cut in parts, without joining them on disk first.

    It is unpacked aside and moved at the end: what is there is whole.

    Args:
        parts: The files, in order.
        root: Where to unpack.
        folder: The folder that the archive holds, which must not be there yet.

    Raises:
        OSError: If a file can't be read, or the disk is full.
        ValueError: If the archive is damaged or does not hold the folder.
    """
    names = ', '.join(part.name for part in parts)
    with (
        tempfile.TemporaryDirectory(prefix=f'.{folder}-', dir=root) as aside,
        ExitStack() as stack,
    ):
        files = [stack.enter_context(part.open('rb')) for part in parts]
        joined: Any = _Joined(files)
        try:
            with tarfile.open(fileobj=joined, mode='r|gz') as archive:
                archive.extractall(aside, filter='data')
        except (tarfile.TarError, EOFError, zlib.error) as error:
            reason = str(error).splitlines()[0] if str(error) else 'cut short'
            raise ValueError(
                f'{names} in {root} cannot be unpacked ({reason}): download again.'
            ) from None
        if not (Path(aside) / folder).is_dir():
            raise ValueError(
                f'{names} in {root} holds no folder {folder}: download again.'
            )
        os.rename(Path(aside) / folder, root / folder)


class _Joined:
    """Files to read one after the other, as one."""

    def __init__(self, files: Sequence[BinaryIO]) -> None:
        self._files = files

    def read(self, size: int) -> bytes:
        return next((part for file in self._files if (part := file.read(size))), b'')


def _expected(digest: str) -> dict[str, str]:
    """Name the algorithm of a digest, which its length tells."""
    return {_ALGORITHMS[len(digest)]: digest}
