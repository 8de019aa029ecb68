"""The order of an epoch is decided by seed and epoch, and shared by the ranks."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchgeo_channelmae.samplers import EpochSampler, RepeatedDataset

sizes = st.integers(1, 60)
epochs = st.integers(0, 50)
seeds = st.integers(0, 2**31)
worlds = st.integers(1, 7)


def indices(size: int, epoch: int = 0, **kwargs: object) -> list[int]:
    sampler = EpochSampler(range(size), **kwargs)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert len(drawn) == len(sampler)
    return drawn


@given(sizes, epochs, seeds)
def test_an_epoch_visits_each_sample_once(size, epoch, seed):
    assert sorted(indices(size, epoch, seed=seed)) == list(range(size))


@given(sizes, epochs, seeds)
def test_the_order_is_a_function_of_seed_and_epoch_only(size, epoch, seed):
    fresh = indices(size, epoch, seed=seed)
    used = EpochSampler(range(size), seed=seed)
    for earlier in (3, 1):
        used.set_epoch(earlier)
        list(used)
    used.set_epoch(epoch)
    assert list(used) == fresh


@given(epochs, seeds)
def test_epochs_and_seeds_differ(epoch, seed):
    order = indices(60, epoch, seed=seed)
    assert order != indices(60, epoch + 1, seed=seed)
    assert order != indices(60, epoch, seed=seed + 1)


@given(sizes, epochs, worlds, st.booleans())
def test_ranks_have_equal_shares_and_drop_or_repeat_less_than_one_sample_each(
    size, epoch, world, drop
):
    shares = [
        indices(size, epoch, num_replicas=world, rank=rank, drop_last=drop)
        for rank in range(world)
    ]
    drawn = [index for share in shares for index in share]
    assert len({len(share) for share in shares}) == 1
    assert len(set(drawn)) == (len(drawn) if drop else size)
    assert abs(len(drawn) - size) < world


@given(st.integers(1, 20), st.integers(1, 100), epochs)
def test_samples_per_epoch_concatenates_passes_and_cuts_the_last(size, samples, epoch):
    drawn = indices(size, epoch, samples_per_epoch=samples)
    assert len(drawn) == samples
    for start in range(0, samples, size):
        one_pass = drawn[start : start + size]
        assert {number // size for number in one_pass} == {start // size}
        assert max(Counter(number % size for number in one_pass).values()) == 1


def test_every_draw_of_an_epoch_has_a_number_that_leads_to_its_sample():
    dataset = [{'index': index, 'name': str(index)} for index in range(5)]
    repeated = RepeatedDataset(dataset)
    drawn = [repeated[number] for number in indices(5, samples_per_epoch=12)]
    assert len({sample['index'] for sample in drawn}) == 12
    assert all(int(sample['name']) == sample['index'] % 5 for sample in drawn)


@given(st.integers(1, 4), st.integers(1, 4), epochs)
def test_a_global_batch_does_not_depend_on_the_number_of_ranks(world, local, epoch):
    shares = [
        indices(48, epoch, num_replicas=world, rank=rank) for rank in range(world)
    ]
    together = [index for step in zip(*shares, strict=True) for index in step]
    assert together == indices(48, epoch)


@pytest.mark.parametrize(
    ('size', 'kwargs', 'message'),
    [
        (0, {}, 'empty'),
        (3, {'samples_per_epoch': 0}, 'samples_per_epoch is 0'),
        (3, {'num_replicas': 2, 'rank': 2}, 'rank 2'),
    ],
)
def test_impossible_requests_are_errors(size, kwargs, message):
    with pytest.raises(ValueError, match=message):
        EpochSampler(range(size), **kwargs)
