"""``channelmae synthesize``: a synthetic Earth on disk, laid out as BigEarthNet v2.

Everything is written to a folder named ``.partial`` beside the one asked for, which is
renamed when all is in it. The same command goes on where an earlier one stopped.
"""

import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import tifffile
import torch
from tqdm import tqdm

from ..datasets.layout import band_file
from ..datasets.metadata import PatchTable, write_table
from ..datasets.parallel import use_in_order
from ..datasets.partial import check_space, partial_of
from ..datasets.writer import write_lmdb
from .observe import S1_BANDS, S2_BANDS
from .synthetic import NOTE, Sample, World

LMDB_NAME = 'Synthetic-LMDB'
"""Name of the folder of the LMDB."""

_FORMATS = ('lmdb', 'geotiff')
_PAIR_BYTES = 277_000  # of the records of a pair, headers included
_PAIR_FILES = 330_000  # bytes on a disk that rounds files up to 4 KB
_NULL_NOTE = (
    'Null world: the radar of each patch shows the land of another, so that no method '
    'can do better than chance.'
)
_DESCRIPTION = """\
# Synthetic data

{note}

{pairs} pairs of Sentinel-2 and Sentinel-1 patches that no satellite took, drawn with
seed {seed} and written as {format} in the layout of BigEarthNet v2. Names follow its
pattern and say that they are made up: tile zones 61 to 92 SYN (Earth has 60) and
relative orbit R000 (it starts at R001). `country` says whose mixture of landscapes a
scene follows; nothing in the data comes from that country, nor from any other place.

The same data: `channelmae synthesize --n {pairs} --seed {seed} --format {format} \
--null_world {null} --out DIR`
"""


def synthesize(
    n: int,
    out: Path,
    seed: int = 0,
    workers: int = 0,
    format: str = 'lmdb',
    null_world: bool = False,
) -> None:
    """Write a synthetic Earth: a test bed for machinery, no evidence about Earth.

    Patch i of a seed is the same whatever n and the number of workers. What was written
    is kept if the command is interrupted: run it again to go on.

    Args:
        n: Number of pairs of patches.
        out: Folder to write, which must not exist. BigEarthNetLMDB and
            BigEarthNetS1S2DataModule read it.
        seed: What the world is drawn from.
        workers: Number of processes that draw; 0 draws in this one.
        format: 'lmdb', or 'geotiff' for the layout of the original archives (v2).
        null_world: Swap the radar patches of a split, so that radar tells nothing about
            its labels and no method can show a gain.

    Raises:
        ValueError: If an option is wrong, or ``out`` was begun with others.
        OSError: If ``out`` exists or the disk is full.
    """
    if n < 1:
        raise ValueError(f'n is {n}: use 1 or more pairs.')
    if workers < 0:
        raise ValueError(f'workers is {workers}: use 0 or more.')
    if format not in _FORMATS:
        raise ValueError(f'format is {format!r}: use {" or ".join(_FORMATS)}.')
    if out.exists():
        raise FileExistsError(
            f'{out} exists already: nothing is overwritten, so remove it or choose '
            f'another folder.'
        )
    partial = partial_of(out)
    if not partial.exists():
        check_space(partial, _PAIR_FILES * n)
    world = World(seed, null_world)
    note = f'{NOTE} {_NULL_NOTE}' if null_world else NOTE
    _begin(
        partial,
        _DESCRIPTION.format(
            note=note, pairs=n, seed=seed, format=format, null=str(null_world).lower()
        ),
    )
    samples: list[Sample] = compute_all(world.sample, n, workers, 'labels')
    if format == 'lmdb':
        _write_lmdb(partial / LMDB_NAME, world, samples, workers)
    else:
        compute_all(PairWriter(world, partial, samples), n, workers, 'pairs')
    (partial / 'metadata.parquet').unlink(missing_ok=True)
    write_table(partial / 'metadata.parquet', table_of(samples), note)
    partial.rename(out)
    print(f'{n} pairs in {out}. {note}')


class RecordMaker:
    """Makes the records of an LMDB: those of Sentinel-2 first, then of Sentinel-1."""

    def __init__(self, world: World, pairs: int) -> None:
        """Make records of the first pairs of a world."""
        self.world, self.pairs = world, pairs

    def __call__(self, record: int) -> bytes:
        """Return a safetensors file of the bands of one sensor.

        Args:
            record: Number of a pair; from ``pairs`` on, its radar.
        """
        pair = record % self.pairs
        draw = self.world.optical if record < self.pairs else self.world.radar
        bands: dict[str, npt.NDArray[Any]] = dict(draw(pair))
        return safetensors.numpy.save(bands)


class PairWriter:
    """Writes the GeoTIFFs of a pair, unless they are there in full."""

    def __init__(self, world: World, root: Path, samples: Sequence[Sample]) -> None:
        """Write the samples of a world, from the first on, to a root."""
        self.world, self.root, self.samples = world, root, samples

    def __call__(self, pair: int) -> OSError | None:
        """Write a pair.

        Args:
            pair: Its number.

        Returns:
            Why it could not be written, if so.
        """
        try:
            self._write(pair)
        except OSError as error:
            return type(error)(
                f'Pair {pair} cannot be written to {self.root} ({error.strerror}): '
                f'make room and run the same command again, what is written is kept.'
            )
        return None

    def _write(self, pair: int) -> None:
        sample = self.samples[pair]
        sensors: Sequence[tuple[str, tuple[str, ...], Callable[[int], Any]]] = (
            (sample.s2_name, S2_BANDS, self.world.optical),
            (sample.s1_name, S1_BANDS, self.world.radar),
        )
        for name, bands, draw in sensors:
            paths = {band: band_file(self.root, 'v2', name, band) for band in bands}
            if all(_is_whole(path, band) for band, path in paths.items()):
                continue
            pixels = draw(pair)
            paths[bands[0]].parent.mkdir(parents=True, exist_ok=True)
            for band, path in paths.items():
                path.write_bytes(geotiff(pixels[band]))


def geotiff(pixels: npt.NDArray[Any]) -> bytes:
    """Return an uncompressed GeoTIFF of one band.

    Pixels have their size in metres, but no place, which synthetic land has not: the
    corner of every patch is (0, 0) of no coordinate system.

    Args:
        pixels: (h, w) of a patch of 1,200 m.
    """
    file = io.BytesIO()
    metres = 1200 / pixels.shape[0]
    tifffile.imwrite(
        file,
        pixels,
        photometric='minisblack',
        metadata=None,
        software=False,
        extratags=[
            (33550, 'd', 3, (metres, metres, 0.0), True),  # ModelPixelScale
            (33922, 'd', 6, (0.0,) * 6, True),  # ModelTiepoint
        ],
    )
    return file.getvalue()


@functools.cache
def _size(band: str) -> int:
    """Return how many bytes the file of a band has."""
    sample: dict[str, npt.NDArray[Any]] = {**World().optical(0), **World().radar(0)}
    return len(geotiff(sample[band]))


def _is_whole(path: Path, band: str) -> bool:
    return path.is_file() and path.stat().st_size == _size(band)


def table_of(samples: Sequence[Sample]) -> PatchTable:
    """Return samples as the rows of BigEarthNet's table."""

    def names(kind: str) -> npt.NDArray[np.bytes_]:
        return np.array([getattr(sample, kind).encode() for sample in samples])

    return PatchTable(
        s2_names=names('s2_name'),
        s1_names=names('s1_name'),
        split=np.array([sample.scene.split for sample in samples]),
        labels=torch.from_numpy(np.stack([sample.labels for sample in samples])),
        countries=np.array([sample.scene.country for sample in samples]),
        v1_names=names('v1_name'),
        snow=np.array([sample.snow for sample in samples]),
        cloud=np.array([sample.cloud for sample in samples]),
    )


def _write_lmdb(
    folder: Path, world: World, samples: Sequence[Sample], workers: int
) -> None:
    if folder.exists():  # an earlier run ended between the records and the table
        return
    keys = [sample.s2_name.encode() for sample in samples]
    keys += [sample.s1_name.encode() for sample in samples]
    write_lmdb(
        folder,
        keys,
        RecordMaker(world, len(samples)),
        workers=workers,
        expected_bytes=_PAIR_BYTES * len(samples),
        description='synthetic Earth',
    )


def _begin(partial: Path, description: str) -> None:
    """Open a folder for one set of options, said in its NOTE.md."""
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(
            f'Nothing can be written to {partial.parent} ({error.strerror}): choose a '
            f'folder that you may write to.'
        ) from None
    said = partial / 'NOTE.md'
    if said.exists() and said.read_text() != description:
        raise ValueError(
            f'{partial} was begun with other options (its NOTE.md says which): finish '
            f'that with the same options, or remove the folder.'
        )
    said.write_text(description)


def compute_all[T](
    function: Callable[[int], T], n: int, workers: int, unit: str
) -> list[T]:
    """Compute a function of 0 to n - 1, with a progress bar.

    Args:
        function: What to compute.
        n: How often.
        workers: Processes that compute; 0 computes in this one.
        unit: What the bar counts.

    Returns:
        The results, in order.

    Raises:
        OSError: If a result is one (what a worker raises would lose its kind), or if a
            worker dies.
    """
    results: list[T] = []
    with tqdm(total=n, desc='synthetic Earth', unit=f' {unit}') as bar:

        def keep(_: int, result: T) -> None:
            if isinstance(result, OSError):
                raise result
            results.append(result)
            bar.update()

        try:
            use_in_order(function, range(n), keep, workers)
        except ChildProcessError as error:
            raise ChildProcessError(
                f'Drawing the synthetic Earth stopped, as {error}: use fewer workers '
                f'and run the same command again.'
            ) from None
    return results
