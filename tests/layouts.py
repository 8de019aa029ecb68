"""Patches of an LMDB written as the original archives, in the layout TorchGeo expects.

    uv run python -m tests.layouts v2 OUT [--lmdb-root ROOT] [--compression zstd]
        [--workers 2] [--maps]

Pixels and labels are those of the LMDB. Where a patch comes from the other version of
BigEarthNet, its name is translated: pixels stay as they are.
"""

import argparse
import functools
import json
import re
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from torchgeo.datasets import BigEarthNet, BigEarthNetV2

from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.metadata import (
    PatchTable,
    find_lmdb,
    read_table,
    write_table,
)
from torchgeo_channelmae.datasets.records import read_bands

S2_BANDS = (
    *('B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09'),
    *('B11', 'B12'),
)
S1_BANDS = ('VH', 'VV')  # alphabetical, as in the archives
UNMAPPED = 124
"""The CORINE code of airports, which none of the 19 classes has."""

# one of the 43 classes for each of the 19, and a CORINE code for each
NAMES_43 = {
    new: BigEarthNet.class_sets[43][old]
    for old, new in reversed(BigEarthNet.label_converter.items())
}
CORINE = {new: code for code, new in reversed(BigEarthNetV2.clc_codes.items())}


def v1_name(s2_name: str) -> str:
    """Name a Sentinel-2 patch as v1 does: no tile, no leading zeros."""
    scene, row, column = s2_name.rsplit('_', 2)
    scene = re.sub(r'_N\d{4}_R\d{3}_T\w{5}$', '', scene)
    return f'{scene}_{int(row)}_{int(column)}'


def v2_name(s2_name: str, s1_name: str) -> str:
    """Name a Sentinel-2 patch as v2 does; the orbit's number is made up."""
    if re.search(r'_T\d{2}[A-Z]{3}_', s2_name):
        return s2_name
    scene, row, column = s2_name.rsplit('_', 2)
    day, time = scene.rsplit('T', 1)
    where = f'N9999_R022_T{s1_name.split("_")[-3]}'
    return f'{day}T{int(time):06}_{where}_{int(row):02}_{int(column):02}'


def write_v1(
    root: Path,
    lmdb_root: Path = SAMPLE_ROOT,
    rows: Sequence[int] | None = None,
    compression: str | None = None,
    workers: int = 0,
) -> dict[str, bytes]:
    """Write patches of an LMDB as the two folders and three lists of BigEarthNet v1.

    Args:
        root: The folder to write into.
        lmdb_root: Folder of the LMDB and its metadata.parquet.
        rows: The rows of its table to write; None is all.
        compression: None, 'deflate', 'lzw' or 'zstd'.
        workers: Processes that write; 0 writes here.

    Returns:
        For each patch written, Sentinel-2 and Sentinel-1, its key in the LMDB.
    """
    table = _rows(lmdb_root, rows)
    names = [
        (known or v1_name(name.decode()).encode()).decode()
        for name, known in zip(
            table.s2_names,
            [b''] * len(table) if table.v1_names is None else table.v1_names,
            strict=True,
        )
    ]
    job = functools.partial(_write_v1_patch, root, lmdb_root, compression)
    _each(job, table, names, workers)
    pairs = list(zip(names, _texts(table.s1_names), table.split.tolist(), strict=True))
    for split, where in BigEarthNet.splits_metadata.items():
        lines = [f'{s2},{s1}\n' for s2, s1, own in pairs if own == split]
        (root / where['filename']).write_text(''.join(lines))
    return _keys(table, names)


def write_v2(
    root: Path,
    lmdb_root: Path = SAMPLE_ROOT,
    rows: Sequence[int] | None = None,
    compression: str | None = None,
    workers: int = 0,
    maps: bool = False,
) -> dict[str, bytes]:
    """Write patches of an LMDB as the folders and metadata.parquet of BigEarthNet v2.

    Args:
        root: The folder to write into.
        lmdb_root: Folder of the LMDB and its metadata.parquet.
        rows: The rows of its table to write; None is all.
        compression: None, 'deflate', 'lzw' or 'zstd'.
        workers: Processes that write; 0 writes here.
        maps: Also write Reference_Maps: no real ones, but columns of the CORINE codes
            of a patch's labels, the last column of a code that no class has.

    Returns:
        For each patch written, Sentinel-2 and Sentinel-1, its key in the LMDB.
    """
    table = _rows(lmdb_root, rows)
    names = [
        v2_name(s2, s1)
        for s2, s1 in zip(_texts(table.s2_names), _texts(table.s1_names), strict=True)
    ]
    job = functools.partial(_write_v2_patch, root, lmdb_root, compression, maps)
    _each(job, table, names, workers)
    absent = np.zeros(len(table), dtype=bool)
    v1_names = [v1_name(name) for name in _texts(table.s2_names)]
    write_table(
        root / 'metadata.parquet',
        replace(
            table,
            s2_names=np.array(names, dtype='S'),
            v1_names=np.array(v1_names, dtype='S')
            if table.v1_names is None
            else table.v1_names,
            snow=absent if table.snow is None else table.snow,
            cloud=absent if table.cloud is None else table.cloud,
        ),
    )
    return _keys(table, names)


def write_tif(
    path: Path,
    pixels: np.ndarray,
    compression: str | None = None,
    s1_name: str = 'S1A_IW_GRDH_1SDV_20170612T165809_33UUP_0_0',
    **profile: object,
) -> None:
    """Write (h, w) pixels as GDAL does, where the patch lies in its UTM zone.

    Args:
        path: The file.
        pixels: A band.
        compression: None, 'deflate', 'lzw' or 'zstd'.
        s1_name: The patch, for its tile, row and column.
        profile: What else rasterio takes, such as ``nodata``.
    """
    zone, row, column = s1_name.split('_')[-3:]
    metres = 1200 / pixels.shape[0]
    west, north = 300_000 + 1200 * int(column), 5_400_000 - 1200 * int(row)
    with warnings.catch_warnings():
        warnings.simplefilter('error', NotGeoreferencedWarning)
        with rasterio.open(
            path,
            'w',
            driver='GTiff',
            height=pixels.shape[0],
            width=pixels.shape[1],
            count=1,
            dtype=pixels.dtype,
            crs=_crs(32601 + (int(zone[:2]) - 1) % 60),  # synthetic zones lie beyond 60
            transform=Affine(metres, 0, west, 0, -metres, north),
            **({'compress': compression} if compression else {}),
            **profile,
        ) as file:
            file.write(pixels, 1)


_crs = functools.cache(CRS.from_epsg)


def _rows(lmdb_root: Path, rows: Sequence[int] | None) -> PatchTable:
    table = read_table(lmdb_root)
    return table if rows is None else table.rows(np.asarray(rows))


def _texts(names: np.ndarray) -> list[str]:
    return [name.decode() for name in names.tolist()]


def _keys(table: PatchTable, names: list[str]) -> dict[str, bytes]:
    renamed = dict(zip(names, table.s2_names.tolist(), strict=True))
    return renamed | {key.decode(): key for key in table.s1_names.tolist()}


def _each(
    job: Callable[..., None], table: PatchTable, names: list[str], workers: int
) -> None:
    columns = (table.s2_names.tolist(), names, _texts(table.s1_names))
    labels = [row.nonzero().flatten().tolist() for row in table.labels]
    if workers == 0:
        for arguments in zip(*columns, labels, strict=True):
            job(*arguments)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context('spawn')) as pool:
        for _ in pool.map(job, *columns, labels, chunksize=64):
            pass


def _write_bands(
    folder: Path,
    name: str,
    pixels: dict[str, np.ndarray],
    s1_name: str,
    compression: str | None,
) -> None:
    folder.mkdir(parents=True)
    for band, array in pixels.items():
        write_tif(folder / f'{name}_{band}.tif', array, compression, s1_name)


def _write_v1_patch(
    root: Path,
    lmdb_root: Path,
    compression: str | None,
    key: bytes,
    s2_name: str,
    s1_name: str,
    labels: list[int],
) -> None:
    lmdb = find_lmdb(lmdb_root)
    kept = {'labels': [NAMES_43[label] for label in labels]}
    for directory, name, pixels, extra in (
        ('BigEarthNet-v1.0', s2_name, read_bands(lmdb, key, S2_BANDS), {}),
        (
            'BigEarthNet-S1-v1.0',
            s1_name,
            read_bands(lmdb, s1_name.encode(), S1_BANDS),
            {'corresponding_s2_patch': s2_name},
        ),
    ):
        folder = root / directory / name
        _write_bands(folder, name, pixels, s1_name, compression)
        path = folder / f'{name}_labels_metadata.json'
        path.write_text(json.dumps(kept | extra))


def _write_v2_patch(
    root: Path,
    lmdb_root: Path,
    compression: str | None,
    maps: bool,
    key: bytes,
    s2_name: str,
    s1_name: str,
    labels: list[int],
) -> None:
    lmdb = find_lmdb(lmdb_root)
    scene, pass_ = s2_name.rsplit('_', 2)[0], s1_name.rsplit('_', 3)[0]
    pixels = read_bands(lmdb, key, S2_BANDS)
    folder = root / 'BigEarthNet-S2' / scene / s2_name
    _write_bands(folder, s2_name, pixels, s1_name, compression)
    pixels = read_bands(lmdb, s1_name.encode(), S1_BANDS)
    folder = root / 'BigEarthNet-S1' / pass_ / s1_name
    _write_bands(folder, s1_name, pixels, s1_name, compression)
    if maps:
        codes = [*(CORINE[label] for label in labels), UNMAPPED]
        column = np.linspace(0, len(codes), 120, endpoint=False).astype(int)
        column[-1] = len(codes) - 1
        pixels = {'reference_map': np.tile(np.array(codes, 'u2')[column], (120, 1))}
        folder = root / 'Reference_Maps' / scene / s2_name
        _write_bands(folder, s2_name, pixels, s1_name, compression)


def main() -> None:
    """Write an archive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('version', choices=('v1', 'v2'))
    parser.add_argument('out', type=Path)
    parser.add_argument('--lmdb-root', type=Path, default=SAMPLE_ROOT)
    parser.add_argument('--compression', choices=('deflate', 'lzw', 'zstd'))
    parser.add_argument('--workers', type=int, default=0)
    parser.add_argument('--maps', action='store_true', help='v2 only')
    options = vars(parser.parse_args())
    version, root = options.pop('version'), options.pop('out')
    if version == 'v1':
        options.pop('maps')
    root.mkdir(parents=True)
    written = (write_v1 if version == 'v1' else write_v2)(root, **options)
    print(f'{len(written) // 2} pairs of {version} in {root}')


if __name__ == '__main__':
    main()
