"""The order of an epoch is decided by seed and epoch, and shared by the ranks."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, DistributedSampler, Subset

from torchgeo_channelmae.samplers import (
    EpochSampler,
    LandCoverBalancedSampler,
    RepeatedDataset,
)
from torchgeo_channelmae.samplers.balancing import entropy
from torchgeo_channelmae.samplers.shares import ClassShares, label_shares, write_shares

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


@given(sizes, epochs, worlds)
def test_ranks_that_drop_are_disjoint_and_miss_less_than_one_sample_each(
    size, epoch, world
):
    shares = [
        indices(size, epoch, num_replicas=world, rank=rank, drop_last=True)
        for rank in range(world)
    ]
    visited = [index for share in shares for index in share]
    assert len({len(share) for share in shares}) == 1
    assert len(set(visited)) == len(visited)
    assert 0 <= size - len(visited) < world


@given(sizes, epochs, worlds)
def test_ranks_that_pad_visit_everything_and_repeat_less_than_one_sample_each(
    size, epoch, world
):
    shares = [
        indices(size, epoch, num_replicas=world, rank=rank) for rank in range(world)
    ]
    visited = [index for share in shares for index in share]
    assert len({len(share) for share in shares}) == 1
    assert set(visited) == set(range(size))
    assert len(visited) - size < world


@given(st.integers(1, 20), st.integers(1, 100), epochs)
def test_samples_per_epoch_concatenates_passes_and_cuts_the_last(size, samples, epoch):
    drawn = indices(size, epoch, samples_per_epoch=samples)
    assert len(drawn) == samples
    for start in range(0, samples, size):
        one_pass = drawn[start : start + size]
        assert {number // size for number in one_pass} == {start // size}
        assert max(Counter(number % size for number in one_pass).values()) == 1


def test_passes_of_an_epoch_are_in_different_orders():
    drawn = indices(60, samples_per_epoch=120)
    assert drawn[:60] != [number - 60 for number in drawn[60:]]


def test_every_visit_of_an_epoch_has_a_number_that_leads_to_its_sample():
    dataset = [{'index': index, 'name': str(index)} for index in range(5)]
    visits = RepeatedDataset(dataset)
    drawn = [visits[number] for number in indices(5, samples_per_epoch=12)]
    assert len({sample['index'] for sample in drawn}) == 12
    assert all(int(sample['name']) == sample['index'] % 5 for sample in drawn)


@given(st.integers(1, 4), st.integers(1, 4), epochs)
def test_a_global_batch_does_not_depend_on_the_number_of_ranks(world, local, epoch):
    shares = [
        indices(48, epoch, num_replicas=world, rank=rank) for rank in range(world)
    ]
    together = [index for step in zip(*shares, strict=True) for index in step]
    assert together == indices(48, epoch)


def test_lightning_sees_a_distributed_sampler():
    assert isinstance(EpochSampler(range(3)), DistributedSampler)


def test_a_data_loader_follows_the_sampler():
    sampler = EpochSampler(range(10), seed=3)
    sampler.set_epoch(2)
    batches = list(DataLoader(range(10), batch_size=4, sampler=sampler))
    assert [b.tolist() for b in batches] == [
        indices(10, 2, seed=3)[i : i + 4] for i in (0, 4, 8)
    ]


@pytest.mark.parametrize(
    ('size', 'kwargs', 'message'),
    [
        (0, {}, 'dataset to sample from is empty'),
        (3, {'samples_per_epoch': 0}, 'samples_per_epoch is 0: give at least 1'),
        (3, {'num_replicas': 2, 'rank': 2}, 'Invalid rank 2'),
    ],
)
def test_impossible_requests_are_one_line_errors(size, kwargs, message):
    with pytest.raises(ValueError, match=message) as caught:
        EpochSampler(range(size), **kwargs)
    assert '\n' not in str(caught.value)


@st.composite
def labels(draw, most=40):
    """Class shares of labelled patches; each class occurs."""
    patches = draw(st.integers(2, most))
    classes = draw(st.integers(1, min(patches, 8)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    hot = rng.random((patches, classes)) < rng.random(classes)
    hot[np.arange(classes), np.arange(classes)] = True
    hot[~hot.any(axis=1), 0] = True
    return label_shares(hot)


temperatures = st.sampled_from([0.0, 0.5, 0.9, 1.0])


def balanced(shares, epoch=0, **kwargs):
    sampler = LandCoverBalancedSampler(range(len(shares)), shares, **kwargs)
    sampler.set_epoch(epoch)
    return sampler


@given(
    labels(), st.integers(1, 200), temperatures, st.integers(1, 20), st.floats(0, 1),
    epochs, seeds,
)  # fmt: skip
@settings(deadline=None)
def test_balanced_draws_keep_to_length_cap_and_distinct_samples(
    shares, draws, temperature, cap, least, epoch, seed
):
    size = len(shares)
    draws = min(draws, cap * size - (cap == 1))
    numbers = balanced(
        shares,
        epoch,
        samples_per_epoch=draws,
        temperature=temperature,
        max_repeats=cap,
        min_distinct=least,
        seed=seed,
    ).order()
    repeats = Counter(number % size for number in numbers)
    assert len(numbers) == draws
    assert max(repeats.values()) <= cap
    assert len(repeats) >= min(least * draws, size)
    visits = {k * size + i for i, count in repeats.items() for k in range(count)}
    assert sorted(numbers) == sorted(visits)


@given(labels(), epochs, st.data())
@settings(deadline=None, max_examples=40)
def test_without_replacement_no_sample_comes_twice(shares, epoch, data):
    draws = data.draw(st.integers(1, len(shares) - 1))
    numbers = balanced(
        shares, epoch, samples_per_epoch=draws, replacement=False
    ).order()
    assert len(set(numbers)) == draws
    assert set(numbers) <= set(range(len(shares)))


def ranks_of(shares, world, **kwargs):
    """Numbers that each rank visits, equally many."""
    ranks = [
        list(balanced(shares, num_replicas=world, rank=rank, **kwargs))
        for rank in range(world)
    ]
    assert len(set(map(len, ranks))) == 1
    return ranks


@given(labels(), epochs, worlds, st.booleans())
@settings(deadline=None, max_examples=40)
def test_ranks_share_the_balanced_order_whatever_their_number(
    shares, epoch, world, drop_last
):
    order = balanced(shares, epoch).order()
    together = list(chain(*ranks_of(shares, world, epoch=epoch, drop_last=drop_last)))
    assert len(set(together)) == len(together)
    if drop_last:
        assert sorted(together) == sorted(order[: len(order) // world * world])
    else:
        assert set(order) <= set(together)
        assert len(together) - len(order) < world


@given(labels(), epochs, worlds, st.integers(2, 5), st.booleans())
@settings(deadline=None, max_examples=60)
def test_all_draws_of_a_sample_go_to_one_rank_but_for_fewer_than_ranks(
    shares, epoch, world, cap, drop_last
):
    ranks = ranks_of(
        np.concatenate([shares, shares]),
        world,
        epoch=epoch,
        drop_last=drop_last,
        max_repeats=cap,
        samples_per_epoch=len(shares),
        min_distinct=0.0,
    )
    size = 2 * len(shares)
    repeats = Counter(number % size for number in list(chain(*ranks)))
    assert not repeats or max(repeats.values()) <= cap
    held = Counter(sample for rank in ranks for sample in {n % size for n in rank})
    shared = sum(count > 1 for count in held.values())
    once = sum(count == 1 for count in repeats.values())
    assert shared == 0 if once >= world * cap else shared < world


@given(labels(), epochs, worlds, st.booleans(), st.data())
@settings(deadline=None, max_examples=40)
def test_without_replacement_ranks_are_disjoint_even_where_they_pad(
    shares, epoch, world, drop_last, data
):
    room = (len(shares) - 1) // world * world
    if not room:
        return
    draws = data.draw(st.integers(1, room))
    ranks = ranks_of(
        shares,
        world,
        epoch=epoch,
        drop_last=drop_last,
        replacement=False,
        samples_per_epoch=draws,
    )
    together = list(chain(*ranks))
    assert len(set(together)) == len(together)
    assert set(together) <= set(range(len(shares)))


def test_samples_that_are_left_out_do_not_come_where_ranks_pad():
    shares = np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 0, 1, 0, 1]]
    shares[5:] = 0
    ranks = ranks_of(shares, 4, samples_per_epoch=3, replacement=False, temperature=0.5)
    together = list(chain(*ranks))
    assert len(set(together)) == 4
    assert max(together) < 5


def test_ranks_that_can_not_share_evenly_within_the_limits_are_an_error():
    with pytest.raises(ValueError, match='is 3, for 4 ranks 4, but 3 samples drawn on'):
        balanced(
            np.eye(3), samples_per_epoch=3, replacement=False, temperature=0,
            num_replicas=4, rank=0,
        )  # fmt: skip


@given(labels(), epochs, seeds)
@settings(deadline=None, max_examples=25)
def test_the_balanced_order_is_a_function_of_seed_and_epoch_only(shares, epoch, seed):
    used = balanced(shares, 3, seed=seed)
    list(used)
    used.set_epoch(epoch)
    assert list(used) == list(balanced(shares, epoch, seed=seed))


@given(epochs, seeds)
@settings(deadline=None, max_examples=15)
def test_each_epoch_and_seed_has_its_own_balanced_order(epoch, seed):
    shares = label_shares(np.repeat(np.eye(3), [40, 15, 5], axis=0))
    order = balanced(shares, epoch, seed=seed).order()
    assert order != balanced(shares, epoch + 1, seed=seed).order()
    assert order != balanced(shares, epoch, seed=seed + 1).order()


@given(labels(), epochs)
@settings(deadline=None, max_examples=60)
def test_each_class_is_drawn_in_each_balanced_epoch(shares, epoch):
    sampler = balanced(shares, epoch)
    assert (sampler.class_shares(sampler.order()) > 0).all()


def test_over_many_epochs_each_sample_comes_as_often_as_expected():
    rng = np.random.default_rng(0)
    shares = label_shares(rng.random((30, 4)) < [0.8, 0.5, 0.2, 0.1])
    shares[np.isnan(shares).any(axis=1)] = np.eye(4)[0]
    sampler = balanced(shares, samples_per_epoch=20)
    counts = np.zeros(30)
    for epoch in range(400):
        sampler.set_epoch(epoch)
        counts += np.bincount(np.array(sampler.order()) % 30, minlength=30)
    np.testing.assert_allclose(counts / 400, sampler.expected, atol=0.1)


def test_a_long_tail_of_labels_is_evened_out_within_the_limits():
    rng = np.random.default_rng(0)
    hot = rng.random((20_000, 19)) < 0.5 / np.arange(1, 20) ** 1.5
    hot[~hot.any(axis=1), 0] = True
    shares = label_shares(hot)
    sampler = balanced(shares)
    repeats = Counter(np.array(sampler.order()) % len(shares))
    assert max(repeats.values()) == 20
    assert len(repeats) >= 10_000
    drawn = sum(shares[i].astype(float) * n for i, n in repeats.items()) / 20_000
    natural = shares.mean(axis=0, dtype=float)
    np.testing.assert_allclose(sampler.class_shares(sampler.order()), drawn)
    np.testing.assert_allclose(sampler.class_shares(), natural)
    most = np.log(19)  # of any shares of 19 classes
    assert entropy(natural) < 0.65 * most
    assert entropy(drawn) > 0.95 * most


def test_a_sample_of_unknown_land_cover_is_drawn_and_one_left_out_is_not():
    shares = label_shares(np.repeat(np.eye(2), [30, 10], axis=0))
    shares[0], shares[1] = np.nan, 0
    drawn = np.array(balanced(shares, samples_per_epoch=78).order()) % 40
    assert (drawn == 0).sum() == 2
    assert 1 not in drawn


def test_a_class_that_no_sample_has_is_an_error_unless_it_is_left_out():
    shares = label_shares(np.repeat(np.eye(4)[[0, 2]], 5, axis=0))
    with pytest.raises(ValueError, match=r"No sample has the class 'class 1' and 1 m"):
        balanced(shares)
    sampler = balanced(shares, absent='ignore')
    assert sampler.classes == ('class 0', 'class 2')
    np.testing.assert_allclose(sampler.class_shares(sampler.order()), [0.5, 0.5])


def test_a_balanced_sampler_reads_its_file_and_says_whether_labels_steer_it(tmp_path):
    values = label_shares(np.repeat(np.eye(2), [6, 2], axis=0))
    for source, labelled in (('labels', True), ('raster', False)):
        shares = ClassShares(values, ('sea', 'land'), source, 'Some', labelled)
        write_shares(tmp_path / f'{source}.parquet', shares)
        sampler = LandCoverBalancedSampler(range(8), tmp_path / f'{source}.parquet')
        assert sampler.uses_labels is labelled
        assert sampler.classes == ('sea', 'land')
        assert sampler.order() == balanced(values).order()


def test_a_part_of_a_dataset_is_balanced_by_its_own_samples():
    values = label_shares(np.repeat(np.eye(2), [20, 4], axis=0))
    part = Subset(range(24), [23, 0, 1, 2, 3, 22])
    sampler = LandCoverBalancedSampler(part, values, max_repeats=6)
    np.testing.assert_allclose(sampler.class_shares(), [2 / 3, 1 / 3])
    assert sampler.expected[0] == pytest.approx(1.5, abs=0.01)
    given_rows = LandCoverBalancedSampler(
        range(6), values, max_repeats=6, rows=np.array(part.indices)
    )
    assert given_rows.order() == sampler.order()


def test_lightning_and_loaders_take_a_balanced_sampler_as_they_do_the_other():
    shares = label_shares(np.repeat(np.eye(2), [9, 1], axis=0))
    sampler = balanced(shares, 2)
    assert isinstance(sampler, EpochSampler)
    visits = RepeatedDataset([{'index': index, 'name': index} for index in range(10)])
    loaded = list(DataLoader(visits, batch_size=None, sampler=sampler))
    assert [sample['index'] for sample in loaded] == sampler.order()
    assert all(sample['name'] == sample['index'] % 10 for sample in loaded)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'temperature': 1.5}, 'temperature is 1.5: give a number from 0 to 1'),
        ({'min_distinct': -1}, 'min_distinct is -1: give a number from 0 to 1'),
        ({'max_repeats': 0}, 'max_repeats is 0: give at least 1'),
        ({'absent': 'drop'}, "absent is 'drop': use 'raise' or 'ignore'"),
        ({'samples_per_epoch': 0}, 'samples_per_epoch is 0'),
        ({'samples_per_epoch': 9, 'max_repeats': 2}, '4 samples drawn up to 2 times'),
        ({'samples_per_epoch': 5, 'replacement': False}, '4 samples drawn once each'),
        ({'replacement': False}, 'each of the 4 samples once, whatever their classes'),
        ({'rows': np.arange(3)}, 'rows has 3 numbers: give one from 0 to 3'),
        ({'rows': np.array([0, 1, 2, 4])}, 'give one from 0 to 3, the last row'),
        ({'shares': np.eye(5)}, 'those of 5 samples of an array, but the dataset'),
        ({'shares': np.eye(4) * 2}, 'Row 0 of The array of class shares has the sum 2'),
        ({'shares': np.eye(4) - 0.1}, 'the least value -0.1: class shares are not'),
        ({'shares': np.ones(4)}, r'has the shape \(4,\): give a row a sample'),
        ({'shares': np.full((4, 2), np.nan)}, 'No sample has any land cover'),
        ({'shares': 'no.parquet'}, 'no file no.parquet of land-cover shares: make one'),
        ({'shares': None}, 'give shares, the Parquet file of `channelmae landcover`'),
    ],
)
def test_impossible_balancing_is_a_one_line_error(kwargs, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        LandCoverBalancedSampler(range(4), **{'shares': np.eye(4), **kwargs})
    assert '\n' not in str(caught.value)
