"""How fast `channelmae encode` is, and whether kills change what it writes.

    uv run python -m benchmarks.encode profile --root ARCHIVE --out FOLDER
    uv run python -m benchmarks.encode kills --root ARCHIVE --out FOLDER

``profile`` encodes in one process, then with workers, then writes as many bytes to a
plain file, which is what the disk allows. ``kills`` encodes once undisturbed
and once with SIGKILL at random moments, run again each time, and compares the two
record by record. The folder is made and must not exist; it stays.
"""

import argparse
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import numpy as np

from torchgeo_channelmae.datasets.encode import FOLDER, encode
from torchgeo_channelmae.datasets.records import COMMIT_BYTES
from torchgeo_channelmae.randomness import derive_seed


def profile(root: Path, out: Path, workers: int) -> None:
    """Print where the time goes."""
    start = time.perf_counter()
    encode(root, out / 'alone', workers=0)
    total = time.perf_counter() - start
    size = (out / 'alone' / FOLDER / 'data.mdb').stat().st_size
    print_rate('all, one process', total, size)
    start = time.perf_counter()
    encode(root, out / 'workers', workers=workers)
    print_rate(f'all, {workers} workers', time.perf_counter() - start, size)
    print_rate('plain file', plain_write(out / 'plain', size), size)


def print_rate(what: str, seconds: float, size: int) -> None:
    """Print a time and the rate that it means."""
    pairs = size / 282_624  # bytes of a pair in the LMDB
    print(
        f'{what:26} {seconds:8.2f} s {pairs / seconds:8.0f} pairs/s '
        f'{size / seconds / 1e6:8.0f} MB/s'
    )


def plain_write(path: Path, size: int) -> float:
    """Write random bytes to a file, synced as often as the encoder does."""
    block = np.random.default_rng(0).bytes(COMMIT_BYTES)
    start = time.perf_counter()
    with path.open('wb', buffering=0) as file:
        for _ in range(-(-size // len(block))):
            file.write(block)
            os.fdatasync(file.fileno())
    return time.perf_counter() - start


def kills(root: Path, out: Path, workers: int, number: int, seed: int) -> None:
    """Compare an undisturbed encoding with one that was killed at random moments."""
    undisturbed, killed = out / 'undisturbed', out / 'killed'
    start = time.perf_counter()
    if start_encoding(root, undisturbed, workers).wait():
        raise SystemExit('the undisturbed encoding failed')
    print(f'undisturbed: {time.perf_counter() - start:.1f} s')
    with opened(undisturbed / FOLDER) as env:
        total = int(env.stat()['entries'])
    rng = np.random.default_rng(derive_seed(seed, 'kills'))
    for share in np.sort(rng.uniform(0.05, 0.85, number)):
        process = start_encoding(root, killed, workers)
        while count(killed) < share * total and process.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            raise SystemExit('the encoding ended before the kill')
        print(f'killed: {count(killed)} of {total} records are kept')
    if start_encoding(root, killed, workers).wait():
        raise SystemExit('the last encoding failed')
    records, size = compare(undisturbed / FOLDER, killed / FOLDER)
    both = (undisturbed, killed)
    tables = [(path / 'metadata.parquet').read_bytes() for path in both]
    if tables[0] != tables[1]:
        raise SystemExit('metadata.parquet differs')
    print(f'{records} records of {size / 1e9:.2f} GB are equal, byte by byte')


def start_encoding(root: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    """Start the command in a process of its own."""
    command = [sys.executable, '-W', 'ignore', '-m', 'torchgeo_channelmae.cli']
    options = [f'--root={root}', f'--out={out}', f'--workers={workers}']
    return subprocess.Popen(
        [*command, 'encode', *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def opened(folder: Path) -> lmdb.Environment:
    """Open an LMDB to look at it."""
    return lmdb.open(str(folder), readonly=True, lock=False)


def count(out: Path) -> int:
    """Count the records of an unfinished encoding, 0 where there is none yet."""
    try:
        with opened(Path(f'{out}.partial') / FOLDER) as env:
            return int(env.stat()['entries'])
    except lmdb.Error:
        return 0


def compare(one: Path, other: Path) -> tuple[int, int]:
    """Compare two LMDBs; returns the number of records and their bytes."""
    records = size = 0
    with (
        opened(one) as left,
        opened(other) as right,
        left.begin() as from_left,
        right.begin() as from_right,
    ):
        pairs = itertools.zip_longest(from_left.cursor(), from_right.cursor())
        for mine, theirs in pairs:
            if mine != theirs:
                raise SystemExit(f'record {records} differs: {mine and mine[0]!r}')
            records, size = records + 1, size + len(mine[1])
    return records, size


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('what', choices=('profile', 'kills'))
    parser.add_argument('--root', type=Path, required=True, help='an archive')
    parser.add_argument('--out', type=Path, required=True, help='a new folder')
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1)
    parser.add_argument('--number', type=int, default=3, help='of kills')
    parser.add_argument('--seed', type=int, default=0, help='of their moments')
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    if options.what == 'profile':
        profile(options.root, options.out, options.workers)
    else:
        arguments = (options.root, options.out, options.workers)
        kills(*arguments, options.number, options.seed)


if __name__ == '__main__':
    main()
