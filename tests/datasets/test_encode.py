import csv
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import lmdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rasterio
import safetensors.numpy
import torch

from tests.layouts import write_tif, write_v1, write_v2
from torchgeo_channelmae import cli
from torchgeo_channelmae.datasets import BigEarthNetLMDB, writer
from torchgeo_channelmae.datasets.archive_records import open_archive
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.encode import encode
from torchgeo_channelmae.datasets.metadata import read_table, table_note
from torchgeo_channelmae.randomness import derive_seed

ROWS = [0, 1, 30, 31, 50, 51]
SAMPLE_TABLE = read_table(SAMPLE_ROOT)
encode_module = sys.modules[encode.__module__]
LMDB = 'Encoded-BigEarthNet'


def records_of(folder):
    """Records by key, of a copy, as this process may have the LMDB open."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copy(folder / 'data.mdb', copy)
        with (
            lmdb.open(copy, readonly=True, lock=False) as env,
            env.begin() as transaction,
        ):
            return {key.decode(): value for key, value in transaction.cursor()}


SAMPLE = records_of(SAMPLE_ROOT / 'BigEarthNet-Sample-LMDB')


def change_record(folder, key, change):
    with (
        lmdb.open(str(folder), map_size=1 << 30, lock=False) as env,
        env.begin(write=True) as transaction,
    ):
        changed = change(transaction.get(key.encode()))
        transaction.delete(key.encode())
        if changed is not None:
            transaction.put(key.encode(), changed)


@pytest.fixture(scope='module')
def archives(tmp_path_factory):
    """Real patches as archives of v1 and v2, and the sample's key of each."""
    root = tmp_path_factory.mktemp('archives')
    for version in ('v1', 'v2'):
        (root / version).mkdir()
    return {
        'v1': (root / 'v1', write_v1(root / 'v1', rows=ROWS, compression='deflate')),
        'v2': (root / 'v2', write_v2(root / 'v2', rows=ROWS)),
    }


@pytest.fixture
def archive(archives, tmp_path):
    """A copy of the v2 archive that a test may damage."""
    return shutil.copytree(archives['v2'][0], tmp_path / 'archive')


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'out'


def file_of(root, band):
    """The first file of a band, and its patch."""
    file = sorted(root.glob(f'BigEarthNet-S*/*/*/*_{band}.tif'))[0]
    return file, file.parent.name


def assert_one_sentence(error, *words):
    text = str(error.value)
    assert '\n' not in text
    assert text.endswith('.')
    for word in words:
        assert str(word) in text, text


# What is written


@pytest.mark.parametrize('version', ['v1', 'v2'])
@pytest.mark.parametrize('workers', [0, 2])
def test_records_are_the_bytes_that_the_sample_has(archives, out, version, workers):
    root, keys = archives[version]
    encode(root, out, workers=workers)
    encoded = records_of(out / LMDB)
    assert encoded == {name: SAMPLE[key.decode()] for name, key in keys.items()}
    assert len(encoded) == 2 * len(ROWS)
    assert sorted(path.name for path in out.iterdir()) == [LMDB, 'metadata.parquet']


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_the_output_is_read_at_once(archives, out, version):
    root, keys = archives[version]
    encode(root, out, workers=0)
    bands = BigEarthNetLMDB.all_bands
    for split in ('train', 'val', 'test'):
        own = BigEarthNetLMDB(out, split=split, bands=bands)
        sample = BigEarthNetLMDB(split=split, bands=bands)
        rows = {name: row for row, name in enumerate(sample.patch_ids)}
        for patch in own:
            twin = sample[rows[keys[patch['patch_id']].decode()]]
            assert torch.equal(patch['image'], twin['image'])
            assert torch.equal(patch['label'], twin['label'])
        assert len(own) == sum(keys[n].decode() in rows for n in keys)


def test_the_table_of_v2_keeps_its_columns_and_its_note(archives, out, archive):
    path = archive / 'metadata.parquet'
    table = pd.read_parquet(path)
    noted = pq.read_table(path).replace_schema_metadata({'note': 'Made up.'})
    pq.write_table(noted, path)
    encode(archive, out, workers=0)
    own = pd.read_parquet(out / 'metadata.parquet')
    assert table_note(out) == 'Made up.'
    for column in ('patch_id', 's1_name', 'split', 'country', 's2v1_name'):
        assert own[column].tolist() == table[column].tolist()
    for mine, theirs in zip(own['labels'], table['labels'], strict=True):
        assert set(mine) == set(theirs)


@pytest.mark.parametrize(('part', 'other'), [('s1', 'S2'), ('s2', 'S1')])
def test_one_sensor_needs_only_its_archive(archive, out, part, other):
    shutil.rmtree(archive / f'BigEarthNet-{other}')
    encode(archive, out, sensors=part, workers=0)
    table = read_table(archive)
    names = table.s1_names if part == 's1' else table.s2_names
    assert sorted(records_of(out / LMDB)) == sorted(n.decode() for n in names)
    with pytest.raises(FileNotFoundError) as error:
        encode(archive, out.with_name('both'), workers=0)
    assert_one_sentence(error, f'BigEarthNet-{other}', 'sensors')


# Stopping and going on


def test_three_kills_at_random_moments_change_nothing(archives, out, monkeypatch):
    root, keys = archives['v1']
    monkeypatch.setattr(writer, 'BATCH_BYTES', 1 << 17)  # a record or two
    rng = np.random.default_rng(derive_seed(0, 'kills of encode'))
    options = ['encode', f'--root={root}', f'--out={out}', '--workers=2']
    fork = multiprocessing.get_context('fork')
    killed = 0
    for _ in range(3):
        process = fork.Process(target=cli.main, args=(options,))
        process.start()
        time.sleep(rng.uniform(0.02, 0.12))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        assert (out / 'metadata.parquet').exists() <= (out / LMDB).exists()
    assert killed
    assert cli.main(options) == 0
    assert records_of(out / LMDB) == {
        name: SAMPLE[key.decode()] for name, key in keys.items()
    }
    table = read_table(out)
    assert len(table) == len(ROWS)
    assert sorted(path.name for path in out.iterdir()) == [LMDB, 'metadata.parquet']


@pytest.mark.parametrize('stage', range(4))
def test_a_kill_while_the_files_get_their_names_loses_nothing(archive, out, stage):
    file, _ = file_of(archive, 'B04')
    file.write_bytes(b'damaged')
    encode(archive, out, workers=0, on_error='skip')
    names = (LMDB, 'skipped.csv', 'metadata.parquet')
    whole = {name: contents_of(out / name) for name in names}
    for name in names[stage:]:
        (out / name).rename(out / f'{name}.partial')
    if stage == 0:  # or half of the table was written
        (out / 'metadata.parquet.partial').write_bytes(b'PAR1')
    encode(archive, out, workers=0, on_error='skip')
    assert {name: contents_of(out / name) for name in names} == whole
    assert sorted(path.name for path in out.iterdir()) == sorted(names)


def contents_of(path):
    return records_of(path) if path.is_dir() else path.read_bytes()


def test_workers_that_are_not_forked_get_the_archive_too(archives):
    root, keys = archives['v1']
    archive = open_archive(root, ('s1', 's2'))
    copy = pickle.loads(pickle.dumps(archive))
    for i in (0, len(ROWS), 2 * len(ROWS) - 1):
        name = archive.keys[i].decode()
        assert copy(i) == SAMPLE[keys[name].decode()]


def test_what_is_half_encoded_is_not_read(archive, out):
    file, _ = file_of(archive, 'B04')
    file.unlink()
    with pytest.raises(ValueError, match='B04'):
        encode(archive, out, workers=0)
    assert (out / f'{LMDB}.partial' / 'data.mdb').exists()
    with pytest.raises(FileNotFoundError):
        BigEarthNetLMDB(out)


def test_a_finished_output_is_said_to_be_finished(archives, out, capsys):
    root, _ = archives['v2']
    encode(root, out, workers=0)
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    capsys.readouterr()
    encode(root, out, workers=0)
    assert capsys.readouterr().out == (
        f'{out} is finished, with {len(ROWS)} patches: nothing to encode.\n'
    )
    assert {path: path.stat().st_mtime_ns for path in out.rglob('*')} == before


# Comparing


def test_every_record_is_compared(archives, out, capsys):
    root, _ = archives['v1']
    encode(root, out, workers=0, verify=True)
    said = f'{2 * len(ROWS)} of {2 * len(ROWS)} records agree with the archive'
    assert said in capsys.readouterr().out
    encode(root, out, workers=2, verify=True)
    assert said in capsys.readouterr().out


def flip_a_bit(record):
    return record[:-1] + bytes([record[-1] ^ 1])


def test_records_of_a_sensor_that_is_not_compared_are_told_apart(archives, out, capsys):
    root, _ = archives['v2']
    encode(root, out, workers=0)
    key = SAMPLE_TABLE.s2_names[ROWS[0]].decode()
    change_record(out / LMDB, key, flip_a_bit)
    capsys.readouterr()
    encode(root, out, sensors='s1', workers=0, verify=True)
    count = len(ROWS)
    assert (
        f'{count} of {count} records agree with the archive, bit by bit; {count} of '
        f'the other sensor were not compared.'
    ) in capsys.readouterr().out


@pytest.mark.parametrize('column', ['labels', 'split'])
def test_a_table_that_says_other_things_than_the_archive_is_found(
    archives, out, column
):
    root, _ = archives['v2']
    encode(root, out, workers=0)
    path = out / 'metadata.parquet'
    table = pd.read_parquet(path)
    table[column] = table[column].to_numpy()[::-1]
    table.to_parquet(path)
    with pytest.raises(ValueError, match=rf'patches have other {column}, such as S2'):
        encode(root, out, workers=0, verify=True)


def test_patches_that_a_finished_table_lacks_are_found(archives, out):
    root, _ = archives['v2']
    encode(root, out, workers=0)
    path = out / 'metadata.parquet'
    pd.read_parquet(path).iloc[1:].to_parquet(path)
    with pytest.raises(ValueError, match=r'lacks 1 patches of .* not skipped, such as'):
        encode(root, out, workers=0, verify=True)


def test_patches_that_were_skipped_are_no_fault_of_the_table(archive, out, capsys):
    file, _ = file_of(archive, 'B04')
    file.unlink()
    encode(archive, out, workers=0, on_error='skip')
    encode(archive, out, workers=0, on_error='skip', verify=True)
    assert 'records agree with the archive, bit by bit' in capsys.readouterr().out


def test_no_other_process_writes_while_records_are_compared(archives, out, monkeypatch):
    root, _ = archives['v2']
    ended = []

    def meanwhile(*_):
        command = [sys.executable, '-m', 'torchgeo_channelmae.cli', 'encode']
        options = [f'--root={root}', f'--out={out}', '--workers=0']
        ended.append(
            subprocess.run([*command, *options], capture_output=True, text=True)
        )

    monkeypatch.setattr(encode_module, '_verify', meanwhile)
    encode(root, out, workers=0, verify=True)
    assert ended[0].returncode == 1
    assert 'Another process is writing' in ended[0].stderr
    assert len(BigEarthNetLMDB(out)) > 0


def test_a_list_that_was_there_is_not_overwritten(archives, out):
    out.mkdir()
    (out / 'skipped.csv').write_text('mine')
    with pytest.raises(FileExistsError, match=r'skipped\.csv exists already'):
        encode(archives['v2'][0], out, workers=0, on_error='skip')
    assert (out / 'skipped.csv').read_text() == 'mine'


def test_a_list_that_a_stopped_run_left_is_not_that_of_the_next(archives, out):
    out.mkdir()
    (out / 'skipped.csv.partial').write_text('old')
    encode(archives['v2'][0], out, workers=0)
    assert sorted(path.name for path in out.iterdir()) == [LMDB, 'metadata.parquet']


def without_a_band(record):
    bands = safetensors.numpy.load(record)
    bands.pop('VH', None)
    return safetensors.numpy.save(bands)


def other_type(record):
    bands = safetensors.numpy.load(record)
    return safetensors.numpy.save({b: a.astype('f8') for b, a in bands.items()})


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (flip_a_bit, ('VV has other pixels',)),
        (without_a_band, ('it has the bands VV',)),
        (other_type, ('(120, 120) float64',)),
        (lambda _: b'nonsense', ('no safetensors file',)),
        (lambda _: None, ('it is missing',)),
    ],
)
def test_the_first_record_that_differs_is_named(archives, out, change, words):
    root, _ = archives['v2']
    encode(root, out, workers=0)
    names = sorted(name.decode() for name in read_table(root).s1_names)
    for name in names[2:4]:
        change_record(out / LMDB, name, change)
    with pytest.raises(ValueError, match='agree') as error:
        encode(root, out, workers=0, verify=True)
    total = 2 * len(ROWS)
    assert_one_sentence(
        error, f'{total - 2} of {total} records', names[2], *words, 'encode again'
    )


def test_pixels_of_the_archive_that_changed_are_found(archive, out):
    encode(archive, out, workers=0)
    file, patch = file_of(archive, 'B8A')
    with rasterio.open(file) as source:
        pixels = source.read(1)
    pixels[59, 59] += 1
    file.unlink()
    write_tif(file, pixels)
    with pytest.raises(ValueError, match=f'{patch}: B8A has other pixels'):
        encode(archive, out, workers=0, verify=True)


def test_an_output_that_differs_does_not_get_its_name(archive, out):
    file, _ = file_of(archive, 'B02')
    backup = file.read_bytes()
    file.unlink()
    with pytest.raises(ValueError, match='lacks B02'):
        encode(archive, out, workers=0)
    file.write_bytes(backup)
    # not the last one, which the next run looks at anyway
    name = min(records_of(out / f'{LMDB}.partial'))
    change_record(out / f'{LMDB}.partial', name, flip_a_bit)
    with pytest.raises(ValueError, match=f'{name}: VV has other pixels'):
        encode(archive, out, workers=0, verify=True)
    assert [path.name for path in out.iterdir()] == [f'{LMDB}.partial']


# Bad input


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-100])


def as_another_type(file):
    with rasterio.open(file) as source:
        pixels = source.read(1)
    file.unlink()
    write_tif(file, pixels.astype('float64'))


def as_another_size(file):
    with rasterio.open(file) as source:
        pixels = source.read(1)
    file.unlink()
    write_tif(file, pixels[:10, :10])


BAD_FILES = [
    (cut_short, 'B04', 'bytes'),
    (lambda file: file.unlink(), 'B12', 'lacks B12'),  # a patch with 11 bands
    (as_another_type, 'VH', 'float64'),
    (as_another_size, 'B01', '10 x 10'),
]


@pytest.mark.parametrize(('damage', 'band', 'word'), BAD_FILES)
def test_a_bad_file_is_named(archive, out, damage, band, word):
    file, patch = file_of(archive, band)
    damage(file)
    with pytest.raises(ValueError, match='cannot be written') as error:
        encode(archive, out, workers=0)
    assert_one_sentence(error, patch, file, word)


@pytest.mark.parametrize(('damage', 'band', 'word'), BAD_FILES)
def test_a_skipped_patch_is_counted_and_listed_and_left_out(
    archive, out, capsys, damage, band, word
):
    file, patch = file_of(archive, band)
    damage(file)
    encode(archive, out, workers=0, on_error='skip', verify=True)
    said = capsys.readouterr().out
    assert f'1 of {len(ROWS)} patches were skipped' in said
    assert word in said
    with (out / 'skipped.csv').open(newline='') as opened:
        rows = list(csv.DictReader(opened))
    assert [row['record'] for row in rows] == [patch]
    assert str(file) in rows[0]['reason']
    kept, everything = read_table(out), read_table(archive)
    pair = (everything.s1_names == patch.encode()) | (
        everything.s2_names == patch.encode()
    )
    assert pair.sum() == 1
    assert kept.s2_names.tolist() == everything.s2_names[~pair].tolist()
    assert patch not in records_of(out / LMDB)
    assert len(records_of(out / LMDB)) == 2 * len(ROWS) - 1


def test_a_damaged_label_file_of_v1_is_found_while_encoding(archives, tmp_path, out):
    root = shutil.copytree(archives['v1'][0], tmp_path / 'archive')
    file = sorted(root.glob('BigEarthNet-v1.0/*/*.json'))[0]
    file.write_text('{')
    with pytest.raises(ValueError, match='cannot be written') as error:
        encode(root, out, workers=0)
    assert_one_sentence(error, file)
    encode(root, out, workers=0, on_error='skip')
    assert file.parent.name.encode() not in read_table(out).s2_names
    assert len(read_table(out)) == len(ROWS) - 1


def test_a_patch_of_the_table_without_a_folder(archive, out):
    _, patch = file_of(archive, 'VV')
    shutil.rmtree(next(archive.glob(f'BigEarthNet-S1/*/{patch}')))
    with pytest.raises(FileNotFoundError) as error:
        encode(archive, out, workers=0)
    assert_one_sentence(error, patch, '1 of the 6 patches')
    assert not out.exists()


def test_an_archive_of_which_nothing_can_be_read(archive, out):
    for file in archive.glob('BigEarthNet-S1/*/*/*_VV.tif'):
        file.write_bytes(b'')
    with pytest.raises(ValueError, match='No patch') as error:
        encode(archive, out, workers=0, on_error='skip')
    assert_one_sentence(error, archive, 'VV')


def test_a_part_of_another_archive_is_left_alone(archives, archive, out):
    file, _ = file_of(archive, 'B04')
    file.unlink()
    with pytest.raises(ValueError, match='B04'):
        encode(archive, out, workers=0)
    before = records_of(out / f'{LMDB}.partial')
    with pytest.raises(ValueError, match='part of something else') as error:
        encode(archives['v1'][0], out, workers=0)
    assert_one_sentence(error, 'BigEarthNet v2', 'BigEarthNet v1', out)
    assert records_of(out / f'{LMDB}.partial') == before


def test_a_finished_output_of_another_archive_is_left_alone(archives, out):
    encode(archives['v2'][0], out, workers=0)
    with pytest.raises(FileExistsError, match='something else') as error:
        encode(archives['v1'][0], out, workers=0)
    assert_one_sentence(error, out, archives['v1'][0])


def test_a_finished_output_of_one_sensor_is_not_taken_for_both(archives, out):
    root, _ = archives['v2']
    encode(root, out, sensors='s2', workers=0)
    with pytest.raises(FileExistsError, match='one sensor alone') as error:
        encode(root, out, workers=0)
    assert_one_sentence(error, 'S1')


@pytest.mark.parametrize('name', ['metadata.parquet', LMDB])
def test_nothing_is_overwritten(archives, out, name):
    out.mkdir()
    (out / name).write_text('mine')
    with pytest.raises(FileExistsError) as error:
        encode(archives['v2'][0], out, workers=0)
    assert_one_sentence(error, out / name, 'nothing is overwritten')
    assert (out / name).read_text() == 'mine'
    assert [path.name for path in out.iterdir()] == [name]


def test_the_archive_itself_is_no_output(archive):
    with pytest.raises(FileExistsError, match='choose another folder'):
        encode(archive, archive, workers=0)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'sensors': 'S1'}, "sensors is 'S1': use one of all, s1, s2."),
        ({'on_error': 'ignore'}, "on_error is 'ignore': use 'raise' or 'skip'."),
        ({'workers': -1}, 'workers is -1: use 0 or more.'),
    ],
)
def test_options_that_make_no_sense(archives, out, options, words):
    with pytest.raises(ValueError, match=words):
        encode(archives['v2'][0], out, **options)
    assert not out.exists()


def test_a_root_without_an_archive(tmp_path, out):
    with pytest.raises(FileNotFoundError) as error:
        encode(tmp_path, out)
    assert_one_sentence(error, tmp_path)
