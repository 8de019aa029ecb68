"""Records are read by band, by any process, and written in chunks."""

import multiprocessing

import numpy as np
import pytest
import safetensors.numpy

from torchgeo_channelmae.datasets import records
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.records import (
    environment,
    missing_keys,
    read_bands,
    write_lmdb,
)

PATH = SAMPLE_ROOT / 'BigEarthNet-Sample-LMDB'
DRAWS = np.random.default_rng(0)
BANDS = {
    'VV': DRAWS.normal(size=(120, 120)).astype('f4'),
    'VH': DRAWS.normal(size=(120, 120)).astype('f4'),
}


@pytest.fixture
def keys():
    with environment(PATH).begin() as transaction:
        return [bytes(key) for key in transaction.cursor().iternext(values=False)]


@pytest.fixture
def write(tmp_path):
    """Write one record as bytes; returns the LMDB."""

    def write(record):
        write_lmdb(tmp_path / 'lmdb', [('name', record)])
        return tmp_path / 'lmdb'

    return write


def test_a_process_opens_a_path_once_however_it_is_spelt():
    assert environment(PATH) is environment(str(PATH / '..' / PATH.name))


def test_a_forked_process_opens_its_own(keys):
    inherited = environment(PATH)
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)

    def report():
        own = environment(PATH)
        sender.send((own is inherited, own.stat()['entries']))

    child = context.Process(target=report)
    child.start()
    assert receiver.poll(30)
    assert receiver.recv() == (False, len(keys))
    child.join()
    assert environment(PATH) is inherited


def test_missing_keys_come_sorted(keys):
    assert missing_keys(PATH, [b'x', keys[5], b'', b'A', keys[0]]) == [b'', b'A', b'x']


def test_what_is_written_in_chunks_is_read_by_band(tmp_path, monkeypatch):
    monkeypatch.setattr(records, 'COMMIT_BYTES', 200_000)
    named = [(f'patch {number}', BANDS) for number in range(5)]
    write_lmdb(tmp_path, named[:3])
    write_lmdb(tmp_path, named[3:])
    for name, _ in named:
        found = read_bands(tmp_path, name.encode(), ['VH'])
        assert list(found) == ['VH']
        np.testing.assert_array_equal(found['VH'], BANDS['VH'])


def test_what_was_committed_survives_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(records, 'COMMIT_BYTES', 200_000)

    def interrupted():
        yield 'a', BANDS
        yield 'b', BANDS
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lmdb(tmp_path, interrupted())
    assert missing_keys(tmp_path, [b'a', b'b']) == []


def test_only_the_bytes_of_the_bands_asked_for_are_read(write):
    path = write(safetensors.numpy.save(BANDS)[:-57600])  # VH lies before VV
    assert read_bands(path, b'name', ['VH'])['VH'].shape == (120, 120)
    with pytest.raises(ValueError, match='Record name'):
        read_bands(path, b'name', ['VV'])


@pytest.mark.parametrize(
    'damage',
    [
        lambda record: record[:4],
        lambda record: record[:50],
        lambda record: b'\xff' * 3000,
        lambda record: b'\x02' + b'\0' * 7 + b'[]',
        lambda record: record.replace(b'"VV"', b'"HH"'),
        lambda record: record.replace(b'F32', b'X32'),
        lambda record: record.replace(b'[120,120]', b'[120,119]'),
    ],
)
def test_a_damaged_record_is_named(write, damage):
    path = write(damage(safetensors.numpy.save(BANDS)))
    with pytest.raises(ValueError, match='Record name'):
        read_bands(path, b'name', ['VV'])
    with pytest.raises(ValueError, match='Record nothing'):
        read_bands(path, b'nothing', ['VV'])


def test_a_truncated_lmdb_is_an_error_and_not_a_crash(write):
    file = write(safetensors.numpy.save(BANDS)) / 'data.mdb'
    file.write_bytes(file.read_bytes()[:50_000])
    with pytest.raises(ValueError, match='truncated'):
        environment(file.parent)
    file.write_bytes(b'no database' * 2000)
    with pytest.raises(ValueError, match=str(file.parent)):
        environment(file.parent)
