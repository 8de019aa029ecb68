"""An LMDB is opened once a process, and never used across a fork."""

import multiprocessing

import pytest

from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.records import (
    environment,
    first_key,
    missing_keys,
    read_bands,
)

PATH = SAMPLE_ROOT / 'BigEarthNet-Sample-LMDB'


@pytest.fixture
def keys():
    with environment(PATH).begin() as transaction:
        return [bytes(key) for key in transaction.cursor().iternext(values=False)]


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
    assert inherited.stat()['entries'] == len(keys)


def test_missing_keys_come_sorted(keys):
    assert missing_keys(PATH, [b'x', keys[5], b'', b'A', keys[0]]) == [b'', b'A', b'x']


def test_a_record_that_is_not_there_is_named():
    with pytest.raises(ValueError, match='Record nothing is not in the LMDB'):
        read_bands(PATH, b'nothing', ['VV'])


def test_the_first_key_of_a_prefix_is_found(keys):
    radar = [key for key in keys if key.startswith(b'S1')]
    assert first_key(PATH, b'S1') == min(radar)
    assert first_key(PATH, b'S1C') is None
    assert first_key(PATH, b'S3') is None
