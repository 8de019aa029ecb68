"""Archives become an LMDB with the same pixels, whatever stops the command."""

import csv
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import lmdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rasterio
import safetensors.numpy
import torch
from filelock import FileLock

from tests.fabricate import write_tif
from tests.layouts import on_grid, write_copernicus, write_v1, write_v2
from torchgeo_channelmae import cli
from torchgeo_channelmae.datasets import BigEarthNetLMDB, records
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.encode import FOLDER, encode
from torchgeo_channelmae.datasets.metadata import read_table, table_note

ROWS = [0, 1, 30, 31, 50, 51]
WRITE = {'v1': write_v1, 'v2': write_v2, 'copernicus': write_copernicus}
EACH = pytest.mark.parametrize('kind', WRITE)


def records_of(folder: Path) -> dict[str, bytes]:
    """Records by key, of a copy, because this process may have the LMDB open."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copy(folder / 'data.mdb', copy)
        with lmdb.open(copy, readonly=True, lock=False) as env, env.begin() as txn:
            return {key.decode(): value for key, value in txn.cursor()}


SAMPLE = records_of(SAMPLE_ROOT / 'BigEarthNet-Sample-LMDB')


@pytest.fixture(scope='module')
def archives(tmp_path_factory):
    """Six real pairs as each archive, and the sample's key of each patch."""
    roots = {kind: tmp_path_factory.mktemp(kind) for kind in WRITE}
    return {kind: (roots[kind], WRITE[kind](roots[kind], rows=ROWS)) for kind in WRITE}


@pytest.fixture
def archive(archives, tmp_path):
    """A copy of the v2 archive to damage."""
    return shutil.copytree(archives['v2'][0], tmp_path / 'archive')


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'out'


def file_of(root, band):
    """The first file of a band, and its patch."""
    file = sorted(root.glob(f'BigEarthNet-S*/*/*/*_{band}.tif'))[0]
    return file, file.parent.name


def expected_records(kind, keys):
    if kind != 'copernicus':
        return {name: SAMPLE[key] for name, key in keys.items()}
    return {
        name: safetensors.numpy.save(
            {b: on_grid(a) for b, a in safetensors.numpy.load(SAMPLE[key]).items()}
        )
        for name, key in keys.items()
    }


def flip_a_bit(folder, key):
    with (
        lmdb.open(str(folder), map_size=1 << 30, lock=False) as env,
        env.begin(write=True) as txn,
    ):
        record = txn.get(key.encode())
        txn.put(key.encode(), record[:-1] + bytes([record[-1] ^ 1]))


# What is written


@EACH
def test_records_are_the_bytes_that_rico_hdl_writes(archives, out, kind, capsys):
    root, keys = archives[kind]
    encode(root, out, workers=2, verify=True)
    assert records_of(out / FOLDER) == expected_records(kind, keys)
    assert sorted(path.name for path in out.iterdir()) == [FOLDER, 'metadata.parquet']
    assert not list(out.parent.glob('*.partial*'))
    assert '12 of 12 records agree' in capsys.readouterr().out
    assert (table_note(out) is not None) == (kind == 'copernicus')


@EACH
def test_the_output_is_read_with_the_labels_and_pixels_of_the_archive(
    archives, out, kind
):
    root, keys = archives[kind]
    encode(root, out, workers=0)
    bands = ('VH', 'B02', 'VV', 'B12', 'B01')
    for split in ('train', 'val', 'test'):
        own = BigEarthNetLMDB(out, split, bands)
        sample = BigEarthNetLMDB(split=split, bands=bands)
        rows = {name: row for row, name in enumerate(sample.patch_ids)}
        assert len(own) == sum(key in rows for key in keys.values())
        for patch in own:
            twin = sample[rows[keys[patch['patch_id']]]]
            assert torch.equal(patch['label'], twin['label'])
            assert torch.equal(patch['image'][:3], twin['image'][:3])
            coarse = (patch['image'][3:] - twin['image'][3:]).abs().mean()
            assert coarse == 0 or (kind == 'copernicus' and coarse < 100)


def test_bands_on_one_grid_are_one_group_of_native_pixels(archives, out):
    encode(archives['copernicus'][0], out, workers=0)
    dataset = BigEarthNetLMDB(out, bands=('B01', 'VV', 'B02'), native=True)
    shapes = {names: a.shape for names, a in dataset[0]['native'].items()}
    assert shapes == {('B01', 'B02'): (2, 120, 120), ('VV',): (1, 120, 120)}


def test_the_table_of_v2_keeps_its_columns_and_its_note(archive, out):
    path = archive / 'metadata.parquet'
    table = pd.read_parquet(path)
    noted = pq.read_table(path).replace_schema_metadata({'note': 'Made up.'})
    pq.write_table(noted, path)
    encode(archive, out, workers=0)
    own = pd.read_parquet(out / 'metadata.parquet')
    assert table_note(out) == 'Made up.'
    for column in ('patch_id', 's1_name', 'split', 'country', 's2v1_name'):
        assert own[column].tolist() == table[column].tolist()


@pytest.mark.parametrize(('part', 'other'), [('s1', 'S2'), ('s2', 'S1')])
def test_one_sensor_needs_only_its_archive(archive, out, part, other):
    shutil.rmtree(archive / f'BigEarthNet-{other}')
    encode(archive, out, sensors=part, workers=0)
    table = read_table(archive)
    names = table.s1_names if part == 's1' else table.s2_names
    assert sorted(records_of(out / FOLDER)) == sorted(n.decode() for n in names)
    with pytest.raises(ValueError, match=f'BigEarthNet-{other}'):
        encode(archive, out.with_name('both'), workers=0)


# Stopping and continuing


def test_a_killed_run_continues_and_ends_as_an_unbroken_one(
    archives, out, tmp_path, monkeypatch
):
    root, _ = archives['v1']
    monkeypatch.setattr(records, 'COMMIT_BYTES', 1 << 17)  # a record or two
    options = ['encode', f'--root={root}', '--workers=1']
    assert cli.main([*options, f'--out={tmp_path / "unbroken"}']) == 0
    process = multiprocessing.get_context('fork').Process(
        target=cli.main, args=([*options, f'--out={out}'],)
    )
    process.start()
    staging = out.with_name('out.partial')
    while process.is_alive() and not kept(staging):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert 0 < kept(staging) < 2 * len(ROWS)
    with pytest.raises(FileNotFoundError):
        BigEarthNetLMDB(out)
    assert cli.main([*options, f'--out={out}']) == 0
    assert records_of(out / FOLDER) == records_of(tmp_path / 'unbroken' / FOLDER)
    tables = [path / 'metadata.parquet' for path in (tmp_path / 'unbroken', out)]
    assert tables[0].read_bytes() == tables[1].read_bytes()


def kept(staging):
    try:
        return len(records_of(staging / FOLDER))
    except (OSError, lmdb.Error):
        return 0


def test_a_finished_output_is_left_as_it_is(archives, out, capsys):
    root, _ = archives['v2']
    encode(root, out, workers=0)
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    encode(root, out, workers=0)
    assert f'{out} is finished, with 6 of 6' in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob('*')} == before


def test_two_runs_do_not_write_one_output(archives, out, monkeypatch):
    monkeypatch.setattr('torchgeo_channelmae.datasets.encode._LOCK_TIMEOUT', 0.1)
    with (
        FileLock(f'{out}.partial.lock', is_singleton=False),
        pytest.raises(OSError, match=r'out\.partial\.lock'),
    ):
        encode(archives['v2'][0], out, workers=0)


def test_a_part_of_another_archive_is_not_continued(archives, archive, out):
    file, _ = file_of(archive, 'B04')
    file.unlink()
    with pytest.raises(ValueError, match='B04'):
        encode(archive, out, workers=0)
    with pytest.raises(ValueError, match='BigEarthNet v2: 12 records'):
        encode(archives['v1'][0], out, workers=0)


@pytest.mark.parametrize('option', ['kind', 'sensors'])
def test_a_finished_output_of_something_else_is_refused(archives, out, option):
    encode(archives['v2'][0], out, workers=0, sensors='s2')
    root = archives['v1' if option == 'kind' else 'v2'][0]
    with pytest.raises(FileExistsError, match='out'):
        encode(root, out, workers=0)


@pytest.mark.parametrize('name', ['metadata.parquet', FOLDER, 'skipped.csv'])
def test_nothing_is_overwritten(archives, out, name):
    out.mkdir()
    (out / name).write_text('mine')
    with pytest.raises(FileExistsError, match='out'):
        encode(archives['v2'][0], out, workers=0)
    assert (out / name).read_text() == 'mine'
    assert [path.name for path in out.iterdir()] == [name]


# Verifying


def test_a_record_that_differs_is_named(archives, out):
    root, _ = archives['v2']
    encode(root, out, workers=0)
    name = sorted(records_of(out / FOLDER))[3]
    flip_a_bit(out / FOLDER, name)
    with pytest.raises(ValueError, match=f'1 of 12 records .* {name}: V'):
        encode(root, out, workers=0, verify=True)


def test_an_output_that_differs_does_not_get_its_name(archive, out):
    file, _ = file_of(archive, 'B02')
    backup = file.read_bytes()
    file.unlink()
    with pytest.raises(ValueError, match='B02'):
        encode(archive, out, workers=0)
    file.write_bytes(backup)
    staging = out.with_name('out.partial') / FOLDER
    records.write_lmdb(staging, [(file.parent.name, {'B02': np.ones((1, 1), 'u2')})])
    with pytest.raises(ValueError, match=file.parent.name):
        encode(archive, out, workers=0, verify=True)
    assert not out.exists()


@pytest.mark.parametrize('column', ['labels', 'split'])
def test_a_table_that_differs_from_the_archive_is_found(archives, out, column):
    root, _ = archives['v2']
    encode(root, out, workers=0)
    path = out / 'metadata.parquet'
    table = pd.read_parquet(path)
    table[column] = table[column].to_numpy()[::-1]
    table.to_parquet(path)
    with pytest.raises(ValueError, match=f'differs from .* in {column}'):
        encode(root, out, workers=0, verify=True)


# Bad input


def rewrite(change):
    def damage(file):
        with rasterio.open(file) as source:
            pixels = source.read()
        file.unlink()
        write_tif(file, change(pixels))

    return damage


BAD_FILES = [
    (lambda file: file.write_bytes(file.read_bytes()[:-100]), 'B04'),
    (lambda file: file.unlink(), 'B12'),
    (rewrite(lambda pixels: pixels.astype('int16')), 'VH'),
    (rewrite(lambda pixels: pixels[:, :10, :10]), 'B01'),
    (rewrite(lambda pixels: pixels + np.float32(0.5)), 'B8A'),
]


@pytest.mark.parametrize(('damage', 'band'), BAD_FILES)
def test_a_patch_that_cannot_be_read_ends_the_command_or_is_listed(
    archive, out, capsys, damage, band
):
    file, patch = file_of(archive, band)
    damage(file)
    with pytest.raises(ValueError, match=str(file)):
        encode(archive, out, workers=0)
    encode(archive, out, workers=0, on_error='skip', verify=True)
    assert '1 of 6 patches were skipped' in capsys.readouterr().out
    with (out / 'skipped.csv').open(newline='') as opened:
        (listed,) = csv.DictReader(opened)
    assert listed['record'] == patch
    assert str(file) in listed['reason']
    table = read_table(out)
    assert len(table) == 5
    assert patch.encode() not in [*table.s1_names, *table.s2_names]
    assert patch not in records_of(out / FOLDER)


def test_damaged_labels_of_v1_are_found_while_encoding(archives, tmp_path, out):
    root = shutil.copytree(archives['v1'][0], tmp_path / 'archive')
    file = sorted(root.glob('BigEarthNet-v1.0/*/*.json'))[0]
    file.write_text('{')
    with pytest.raises(ValueError, match=str(file)):
        encode(root, out, workers=0)
    encode(root, out, workers=0, on_error='skip')
    assert file.parent.name.encode() not in read_table(out).s2_names
    assert len(read_table(out)) == 5


def test_an_archive_of_which_nothing_can_be_read_is_an_error(archive, out):
    for file in archive.glob('BigEarthNet-S1/*/*/*_VV.tif'):
        file.write_bytes(b'')
    with pytest.raises(ValueError, match='VV'):
        encode(archive, out, workers=0, on_error='skip')


def test_a_folder_needs_exactly_one_archive(archives, tmp_path, out):
    with pytest.raises(ValueError, match='no unpacked archive'):
        encode(tmp_path, out)
    both = shutil.copytree(archives['v1'][0], tmp_path / 'both')
    shutil.copytree(archives['v2'][0], both, dirs_exist_ok=True)
    with pytest.raises(ValueError, match='v1 and BigEarthNet v2'):
        encode(both, out)
