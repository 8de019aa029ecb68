import multiprocessing
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lmdb
import numpy as np
import pytest

from torchgeo_channelmae.datasets import writer
from torchgeo_channelmae.datasets.parallel import use_in_order
from torchgeo_channelmae.datasets.writer import SkipRecord, write_lmdb
from torchgeo_channelmae.randomness import derive_seed

COUNT = 300
SIZE = 6000
KEYS = [f'patch_{i:04}'.encode() for i in range(COUNT)]


def record(i: int) -> bytes:
    return np.random.default_rng(i).bytes(SIZE)


def slowing_record(limit: int, i: int) -> bytes:
    time.sleep(0.001 if i < limit else 0.05)
    return record(i)


def logged_record(log: Path, i: int) -> bytes:
    with log.open('a') as file:
        file.write(f'{i}\n')
    return record(i)


def failing_record(failures: dict[int, Exception], i: int) -> bytes:
    if i in failures:
        raise failures[i]
    return record(i)


def fatal_record(deadly: int, i: int) -> bytes:
    if i == deadly and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return record(i)


def write(folder, make=record, keys=KEYS, **options):
    options = {'expected_bytes': COUNT * SIZE, 'description': 'test'} | options
    return write_lmdb(folder, keys, make, **options)


def contents(folder):
    with (
        lmdb.open(str(folder), readonly=True, lock=False) as env,
        env.begin() as transaction,
    ):
        return dict(transaction.cursor())


EXPECTED = {key: record(i) for i, key in enumerate(KEYS)}


@pytest.fixture
def small_batches(monkeypatch):
    """Commit every ten records."""
    monkeypatch.setattr(writer, 'BATCH_BYTES', 10 * SIZE)


def in_a_fork(target: Callable[[], object]) -> multiprocessing.Process:
    process = multiprocessing.get_context('fork').Process(target=target)
    process.start()
    return process


def written_so_far(folder):
    partial_folder = folder.with_name(folder.name + '.partial')
    file = partial_folder / 'data.mdb'
    is_begun = file.exists() and file.stat().st_size > 0  # else it can't be read yet
    return contents(partial_folder) if is_begun else {}


# What is written


@pytest.mark.parametrize('workers', [0, 2])
def test_each_record_is_under_its_key_whatever_their_order(tmp_path, workers):
    order = np.random.default_rng(derive_seed(0, 'order')).permutation(COUNT)
    keys = [KEYS[i] for i in order]
    report = write(tmp_path / 'lmdb', partial(_at, order), keys, workers=workers)
    assert contents(tmp_path / 'lmdb') == EXPECTED
    assert (report.kept, report.written, report.skipped) == (0, COUNT, ())
    assert report.folder == tmp_path / 'lmdb'
    assert report.size == (tmp_path / 'lmdb' / 'data.mdb').stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ['lmdb']


def _at(order: np.ndarray, i: int) -> bytes:
    return record(int(order[i]))


def test_the_file_is_little_larger_than_its_records(tmp_path, small_batches):
    report = write(tmp_path / 'lmdb')
    pages = -(-(SIZE + 16) // 4096)
    assert report.size < COUNT * pages * 4096 * 1.03


def test_records_that_are_larger_than_expected_make_the_map_grow(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, 'MAP_BYTES', 0)
    keys = KEYS[:40]
    write(tmp_path / 'lmdb', _large, keys, expected_bytes=1)
    assert contents(tmp_path / 'lmdb') == {k: _large(i) for i, k in enumerate(keys)}


def _large(i: int) -> bytes:
    return record(i) * 20


def test_workers_are_only_a_little_ahead_of_the_writing():
    made = multiprocessing.Value('i', 0)
    ahead = []

    def count(i):
        with made.get_lock():
            made.value += 1
        return i

    def use(i, result):
        assert i == result
        time.sleep(0.0005)
        ahead.append(made.value - len(ahead))

    use_in_order(count, range(COUNT), use, workers=2)
    assert len(ahead) == COUNT
    assert max(ahead) <= (2 * 2 + 1) * 16  # two chunks a worker, and the one in use


# Stopping and going on


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize('workers', [0, 2])
def test_three_kills_at_random_moments_change_nothing(
    tmp_path, small_batches, number, workers
):
    folder = tmp_path / 'lmdb'
    rng = np.random.default_rng(derive_seed(0, 'kills', workers))
    kept = [0]
    for limit in (60, 120, 180):
        make = partial(slowing_record, limit)

        def job(make=make):  # a shell's background job ignores SIGINT, and so do forks
            signal.signal(signal.SIGINT, signal.default_int_handler)
            write(folder, make, workers=workers)

        process = in_a_fork(job)
        while len(written_so_far(folder)) <= kept[-1]:  # it gets somewhere
            assert process.is_alive()
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        os.kill(process.pid, number)
        process.join()
        assert process.exitcode != 0
        assert not folder.exists()
        kept.append(len(written_so_far(folder)))
    report = write(folder, workers=workers)
    assert contents(folder) == EXPECTED
    assert report.kept == kept[-1] > kept[1] > 0


def test_what_is_written_is_not_made_again(tmp_path, small_batches):
    folder, log = tmp_path / 'lmdb', tmp_path / 'log'
    with pytest.raises(ValueError, match='patch_0105'):
        write(folder, partial(failing_record, {105: ValueError('It is gone.')}))
    report = write(folder, partial(logged_record, log))
    last, *made = map(int, log.read_text().split())
    assert last == 104  # once more, to see that the data are the same
    assert made == list(range(105, COUNT))
    assert (report.kept, report.written) == (105, COUNT - 105)
    assert contents(folder) == EXPECTED


def test_a_left_out_record_is_reported_and_tried_again(tmp_path, small_batches):
    folder = tmp_path / 'lmdb'
    skip = SkipRecord('It is clouded.')
    failures = {30: skip, 200: ValueError('It is gone.')}
    with pytest.raises(ValueError, match='patch_0200'):
        write(folder, partial(failing_record, failures))
    report = write(folder, partial(failing_record, {31: skip, 250: skip}))
    assert report.skipped == ((b'patch_0250', 'It is clouded.'),)
    assert report.kept + report.written == COUNT - 1
    expected = EXPECTED.copy()
    del expected[b'patch_0250']
    assert contents(folder) == expected


@pytest.mark.parametrize('workers', [0, 2])
def test_an_unmakeable_record_is_named_and_those_before_it_kept(tmp_path, workers):
    folder = tmp_path / 'lmdb'
    make = partial(failing_record, {100: ValueError('B04 is cut short.')})
    with pytest.raises(ValueError, match=r'patch_0100.*B04 is cut short\.$') as caught:
        write(folder, make, workers=workers)
    assert '\n' not in str(caught.value)
    assert written_so_far(folder) == {key: EXPECTED[key] for key in KEYS[:100]}


@pytest.mark.parametrize('workers', [0, 2])
def test_a_bug_keeps_its_traceback_and_names_the_record(tmp_path, workers):
    make = partial(failing_record, {100: ZeroDivisionError('by nothing')})
    with pytest.raises((ZeroDivisionError, RuntimeError)) as caught:
        write(tmp_path / 'lmdb', make, workers=workers)
    told = [str(caught.value), *getattr(caught.value, '__notes__', [])]
    assert 'patch_0100' in '\n'.join(told)
    assert 'by nothing' in '\n'.join(told)


def test_a_record_has_to_be_bytes(tmp_path):
    with pytest.raises(ValueError, match=r'patch_0000 cannot.*int, not bytes'):
        write(tmp_path / 'lmdb', lambda i: i)


def test_a_dead_worker_ends_the_writing_and_the_next_run_goes_on(
    tmp_path, small_batches
):
    folder = tmp_path / 'lmdb'
    with pytest.raises(ChildProcessError, match='what was written is kept') as caught:
        write(folder, partial(fatal_record, 150), workers=2)
    assert '\n' not in str(caught.value)
    assert multiprocessing.active_children() == []
    assert 0 < len(written_so_far(folder)) < 160
    write(folder)
    assert contents(folder) == EXPECTED


# What is refused


@pytest.mark.parametrize(
    ('keys', 'words'),
    [
        ([b'a', b'b', b'a'], 'Key a occurs twice'),
        ([b'a', b''], "Key '' has 0 bytes"),
        ([b'a', b'x' * 512], '512 bytes: LMDB takes 1 to 511'),
    ],
)
def test_keys_that_lmdb_does_not_take(tmp_path, keys, words):
    with pytest.raises(ValueError, match=words):
        write(tmp_path / 'lmdb', keys=keys)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / 'lmdb').mkdir()
    (tmp_path / 'lmdb' / 'data.mdb').write_text('mine')
    with pytest.raises(FileExistsError, match='exists already'):
        write(tmp_path / 'lmdb')
    assert (tmp_path / 'lmdb' / 'data.mdb').read_text() == 'mine'


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'keys': KEYS[1:]}, "'test' with 300 records.*'test' with 299 records"),
        ({'description': 'other'}, "'test' with 300 records.*'other'"),
        ({'make': _large}, 'begun from other data: its record patch_0099'),
    ],
)
def test_a_part_of_something_else_is_left_alone(tmp_path, change, words):
    folder = tmp_path / 'lmdb'
    with pytest.raises(ValueError, match='gone'):
        write(folder, partial(failing_record, {100: ValueError('gone')}))
    before = written_so_far(folder)
    with pytest.raises(ValueError, match=words) as caught:
        write(folder, **change)
    assert '\n' not in str(caught.value)
    assert written_so_far(folder) == before


def test_one_process_writes_a_folder_at_a_time(tmp_path, small_batches):
    folder = tmp_path / 'lmdb'
    process = in_a_fork(lambda: write(folder, partial(slowing_record, COUNT)))
    while not written_so_far(folder):
        time.sleep(0.002)
    with pytest.raises(BlockingIOError, match='Another process is writing'):
        write(folder)
    process.join()
    assert contents(folder) == EXPECTED


def test_too_small_a_disk_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(OSError, match=r'free and about 1000000000\.0 GB are needed'):
        write(tmp_path / 'lmdb', expected_bytes=10**18)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_keeps_what_was_written(tmp_path, small_batches):
    folder, log = tmp_path / 'lmdb', tmp_path / 'log'

    def run():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            write(folder)
        except OSError as error:
            log.write_text(str(error))

    in_a_fork(run).join()
    kept = len(written_so_far(folder))
    told = log.read_text()
    assert told.startswith('The disk')
    assert f'{kept} of {COUNT} records are written and kept' in told
    assert 'are free; lift the quota or limit that is in the way and run' in told
    assert '\n' not in told
    assert 50 < kept < 130  # of 8 KB each in 1 MB
    assert write(folder).kept == kept
    assert contents(folder) == EXPECTED


def test_a_folder_that_may_not_be_written_is_named():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        folder.chmod(0o555)
        superuser = os.geteuid() == 0
        if superuser:  # whom no permission stops
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError, match='Nothing can be written') as told:
                write(folder / 'out' / 'lmdb')
            assert str(folder) in str(told.value)
            assert '\n' not in str(told.value)
        finally:
            if superuser:
                os.seteuid(0)
            folder.chmod(0o755)
