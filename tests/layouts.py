"""Patches of an LMDB written as the original archives, in TorchGeo's layouts.

Pixels and labels are those of the LMDB. A patch of the other version of BigEarthNet is
renamed; its pixels stay as they are.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from torchgeo.datasets import BigEarthNet

from tests.fabricate import L2A, write_tif
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.metadata import (
    CLASSES,
    find_lmdb,
    read_table,
    write_table,
)
from torchgeo_channelmae.datasets.records import read_bands

S1_BANDS = ('VV', 'VH')
NAMES_43 = {
    new: BigEarthNet.class_sets[43][old]
    for old, new in reversed(BigEarthNet.label_converter.items())
}
"""One of the 43 classes for each of the 19."""


def v1_name(s2_name):
    """Name a Sentinel-2 patch as v1 does: no tile, no leading zeros."""
    scene, row, column = s2_name.rsplit('_', 2)
    scene = re.sub(r'_N\d{4}_R\d{3}_T\w{5}$', '', scene)
    return f'{scene}_{int(row)}_{int(column)}'


def v2_name(s2_name, s1_name):
    """Name a Sentinel-2 patch as v2 does; the orbit's number is made up."""
    if re.search(r'_T\d{2}[A-Z]{3}_', s2_name):
        return s2_name
    scene, row, column = s2_name.rsplit('_', 2)
    day, time = scene.rsplit('T', 1)
    where = f'N9999_R022_T{s1_name.split("_")[-3]}'
    return f'{day}T{int(time):06}_{where}_{int(row):02}_{int(column):02}'


def write_v1(root: Path, lmdb_root: Path = SAMPLE_ROOT, rows=None):
    """Write the two folders and three lists of v1; returns the LMDB's key by name."""
    pairs = {split: [] for split in BigEarthNet.splits_metadata}
    keys = {}
    for s2, s1, split, labels, pixels in _patches(lmdb_root, rows):
        name = v1_name(s2)
        keys |= {name: s2, s1: s1}
        pairs[split].append(f'{name},{s1}\n')
        for patch, part in ((name, 's2'), (s1, 's1')):
            folder = root / BigEarthNet.metadata[part]['directory'] / patch
            _write_bands(folder, pixels)
            path = folder / f'{patch}_labels_metadata.json'
            path.write_text(json.dumps({'labels': [NAMES_43[i] for i in labels]}))
    for split, lines in pairs.items():
        (root / f'bigearthnet-{split}.csv').write_text(''.join(lines))
    return keys


def write_v2(root: Path, lmdb_root: Path = SAMPLE_ROOT, rows=None):
    """Write the folders and metadata.parquet of v2; returns the LMDB's key by name."""
    keys = {}
    for s2, s1, _, _, pixels in _patches(lmdb_root, rows):
        name = v2_name(s2, s1)
        keys |= {name: s2, s1: s1}
        for patch, part, cut in ((name, 'S2', 2), (s1, 'S1', 3)):
            scene = patch.rsplit('_', cut)[0]
            _write_bands(root / f'BigEarthNet-{part}' / scene / patch, pixels)
    table = _table(lmdb_root, rows)
    v1_names = [v1_name(name.decode()) for name in table.s2_names]
    write_table(
        root / 'metadata.parquet',
        replace(
            table,
            s2_names=np.array([n for n in keys if n.startswith('S2')], dtype='S'),
            v1_names=np.array(v1_names, dtype='S'),
        ),
    )
    return keys


def write_copernicus(root: Path, lmdb_root: Path = SAMPLE_ROOT, rows=None):
    """Write Copernicus-Bench's files and tables; coarse pixels are repeated to 10 m.

    Columns of labels are in the order of the alphabet.
    """
    folder = root / 'bigearthnet_s1s2'
    tables = {split: [] for split in ('train', 'val', 'test')}
    keys = {}
    for s2, s1, split, labels, pixels in _patches(lmdb_root, rows):
        name = v2_name(s2, s1)
        keys |= {name: s2, s1: s1}
        files = []
        for patch, part, bands in ((s1, 'S1', S1_BANDS), (name, 'S2', L2A)):
            file = f'{patch}/{patch}_allbands.tif'
            write_tif(
                folder / f'BigEarthNet-{part}-5%' / file,
                np.stack([on_grid(pixels[band]) for band in bands]),
            )
            files.append(file)
        hot = {label: int(i in labels) for i, label in enumerate(CLASSES)}
        tables[split].append(
            {'s1_path': files[0], 's2_path': files[1]} | dict(sorted(hot.items()))
        )
    columns = ['s1_path', 's2_path', *sorted(CLASSES)]
    for split, lines in tables.items():
        frame = pd.DataFrame(lines, columns=columns)
        frame.to_csv(folder / f'multilabel-{split}.csv', index=False)
    return keys


def on_grid(pixels):
    """Repeat the pixels of a coarse band to 120 x 120."""
    times = 120 // len(pixels)
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def _table(lmdb_root, rows):
    table = read_table(lmdb_root)
    return table if rows is None else table.rows(np.asarray(rows))


def _patches(lmdb_root, rows):
    """Yield the names, split, numbers of the classes and pixels of each patch."""
    lmdb, table = find_lmdb(lmdb_root), _table(lmdb_root, rows)
    for row in range(len(table)):
        s2, s1 = table.s2_names[row], table.s1_names[row]
        pixels = read_bands(lmdb, s2, L2A) | read_bands(lmdb, s1, S1_BANDS)
        labels = table.labels[row].nonzero().flatten().tolist()
        yield s2.decode(), s1.decode(), str(table.split[row]), labels, pixels


def _write_bands(folder, pixels):
    """Write the bands of a patch's sensor, a file each."""
    for band in S1_BANDS if folder.name.startswith('S1') else L2A:
        write_tif(folder / f'{folder.name}_{band}.tif', pixels[band][None])
