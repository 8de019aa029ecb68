import multiprocessing
import os
import signal
import threading
import time

import pytest

from torchgeo_channelmae.datasets.parallel import use_in_order

SIZE = 100_000  # sixteen of them are much more than a pipe holds


def large(i: int) -> bytes:
    return i.to_bytes(4, 'little') * (SIZE // 4)


@pytest.mark.parametrize('workers', [0, 1, 2, 5])
@pytest.mark.parametrize('count', [0, 1, 16, 17, 100])
def test_results_are_used_in_order_and_once(workers, count):
    used = []
    numbers = list(range(count, 0, -1))
    use_in_order(large, numbers, lambda i, made: used.append((i, made)), workers)
    assert used == [(i, large(i)) for i in numbers]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize('moment', range(8))
def test_a_worker_killed_at_any_moment_is_told_not_waited_for(moment):
    """Also in the middle of handing over its results, and while its sibling does."""
    victims = []

    def use(i, made):
        if i == 20:
            victims.extend(multiprocessing.active_children())
            time.sleep(0.005 * moment)  # their pipes are full
            os.kill(victims[moment % 2].pid, signal.SIGKILL)

    with pytest.raises(ChildProcessError, match='one of 2 worker processes died'):
        use_in_order(large, range(300), use, workers=2)
    assert multiprocessing.active_children() == []


def test_a_result_that_cannot_be_handed_over_is_told():
    with pytest.raises(RuntimeError, match='pickle'):
        use_in_order(
            lambda i: threading.Lock(), range(3), lambda i, made: None, workers=1
        )


def test_an_error_of_the_use_is_its_own_and_ends_the_workers():
    def use(i, made):
        raise ConnectionError('of the use')

    with pytest.raises(ConnectionError, match='of the use'):
        use_in_order(large, range(100), use, workers=2)
    assert multiprocessing.active_children() == []


def test_the_number_of_workers_is_checked():
    with pytest.raises(ValueError, match='workers is -1: use 0 or more'):
        use_in_order(large, range(3), lambda i, made: None, workers=-1)
