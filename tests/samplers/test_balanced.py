"""Balanced epochs keep to their limits, and draw each class as often as expected."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Subset

from torchgeo_channelmae.samplers import LandCoverBalancedSampler
from torchgeo_channelmae.samplers.balance import entropy
from torchgeo_channelmae.samplers.shares import ClassShares, label_shares, write_shares

epochs = st.integers(0, 50)


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


def balanced(shares, epoch=0, **kwargs):
    sampler = LandCoverBalancedSampler(range(len(shares)), shares, **kwargs)
    sampler.set_epoch(epoch)
    return sampler


@given(
    labels(), st.integers(1, 200), st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    st.integers(1, 20), st.floats(0, 1), epochs,
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_draws_keep_to_length_cap_and_distinct_samples(
    shares, draws, temperature, cap, least, epoch
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
    ).order()
    repeats = Counter(number % size for number in numbers)
    assert len(numbers) == draws
    assert max(repeats.values()) <= cap
    assert len(repeats) >= min(least * draws, size)
    expected = {k * size + i for i, count in repeats.items() for k in range(count)}
    assert sorted(numbers) == sorted(expected)


def test_epochs_and_seeds_have_their_own_order_and_repeat_it():
    shares = label_shares(np.repeat(np.eye(3), [40, 15, 5], axis=0))
    orders = [
        balanced(shares, epoch, seed=seed).order()
        for epoch, seed in [(3, 1), (4, 1), (3, 2)]
    ]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert balanced(shares, 3, seed=1).order() == orders[0]


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
    np.testing.assert_allclose(sampler.class_shares(sampler.order()), drawn)
    most = np.log(19)  # of any shares of 19 classes
    assert entropy(shares.mean(axis=0, dtype=float)) < 0.65 * most
    assert entropy(drawn) > 0.95 * most


def test_a_class_that_no_sample_has_is_an_error_unless_it_is_ignored():
    shares = label_shares(np.repeat(np.eye(4)[[0, 2]], 5, axis=0))
    with pytest.raises(ValueError, match='class 1'):
        balanced(shares)
    sampler = balanced(shares, absent='ignore')
    assert sampler.classes == ('class 0', 'class 2')
    np.testing.assert_allclose(sampler.class_shares(sampler.order()), [0.5, 0.5])


def test_a_sampler_reads_its_file_and_knows_whether_labels_steer_it(tmp_path):
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


@pytest.mark.parametrize(
    ('kwargs', 'named'),
    [
        ({'temperature': 1.5}, 'temperature'),
        ({'max_repeats': 0}, 'max_repeats'),
        ({'absent': 'drop'}, 'absent'),
        ({'samples_per_epoch': 9, 'max_repeats': 2}, 'samples_per_epoch'),
        ({'replacement': False}, 'samples_per_epoch'),
        ({'shares': np.eye(5)}, '5 samples'),
        ({'shares': np.eye(4) * 2}, 'Row 0'),
        ({'shares': np.full((4, 2), np.nan)}, 'land cover'),
        ({'shares': 'no.parquet'}, 'no.parquet'),
    ],
)
def test_impossible_balancing_is_an_error(kwargs, named):
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        LandCoverBalancedSampler(range(4), **{'shares': np.eye(4), **kwargs})
