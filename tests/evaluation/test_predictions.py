"""Predictions of all batches and ranks: each sample once, in order."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from lightning.pytorch.trainer.states import RunningStage
from torch.utils.data import ConcatDataset, DataLoader, DistributedSampler

from tests.small_tasks import Patches, fine_tuning, trainer
from torchgeo_channelmae.evaluation.predictions import PredictionStore, sample_numbers

SCORES = torch.linspace(0, 1, 21)


def store_batches(numbers, size, store):
    for start in range(0, len(numbers), size):
        part = torch.tensor(numbers[start : start + size])
        names = [f'patch {number}' for number in part.tolist()]
        store.update(part, score=SCORES[part], patch_id=names)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.integers(1, 7))
def test_the_store_returns_each_sample_once_in_order(numbers, size):
    store = PredictionStore()
    store_batches(numbers, size, store)
    rows, expected = store.gather(), sorted(set(numbers))
    assert rows['index'].tolist() == expected
    assert torch.equal(rows['score'], SCORES[expected])
    assert rows['patch_id'] == [f'patch {number}' for number in expected]


def test_the_store_keeps_copies_until_they_are_gathered():
    store, values = PredictionStore(), torch.ones(1)
    store.update(torch.tensor([0]), values=values)
    values.zero_()
    assert store.gather()['values'].tolist() == [1]
    with pytest.raises(ValueError, match='empty'):
        store.gather()


def numbers_of(loader, rank, skipped=()):
    """Number all samples of a loader that delivers each sample's own number."""
    state = SimpleNamespace(stage=RunningStage.TESTING)
    run = SimpleNamespace(state=state, test_dataloaders=[loader], global_rank=rank)
    rows = []
    for number, own in enumerate(loader):
        kept = [value for value in own.tolist() if value not in skipped]
        if kept:
            batch = {'image': kept, 'index': torch.tensor(kept)}
            found = sample_numbers(run, batch, number).tolist()
            rows += zip(found, kept, strict=True)
    return rows


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ranks_number_samples_by_their_place_in_the_dataset(data):
    count, world_size = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 4))
    size = data.draw(st.integers(1, 5))
    skipped = data.draw(st.sets(st.integers(0, count - 1)))
    kinds = [DistributedSampler]
    if count >= world_size:
        kinds.append(UnrepeatedDistributedSampler)
    kind = data.draw(st.sampled_from(kinds))
    found = []
    for rank in range(world_size):
        sampler = kind(range(count), world_size, rank, shuffle=False)
        loader = DataLoader(range(count), batch_size=size, sampler=sampler)
        found += numbers_of(loader, rank, skipped)
    assert all(number == own for number, own in found)
    assert {own for _, own in found} == set(range(count)) - skipped


@pytest.mark.parametrize('options', [{'batch_size': 2}, {'batch_size': None}])
def test_without_a_distributed_sampler_numbers_rise_and_ranks_differ(options):
    data = [torch.arange(3)] * 4 if options['batch_size'] is None else range(12)
    one, other = (
        [number for number, _ in numbers_of(DataLoader(data, **options), rank)]
        for rank in range(2)
    )
    assert len(one) == len({*one, *other}) / 2 == 12
    assert all(a < b for a, b in pairwise(one))


def drop_index(samples):
    rows = torch.utils.data.default_collate(samples)
    return {name: rows[name].float() for name in ('image', 'label')}


@pytest.mark.parametrize('collate', [None, drop_index])
def test_no_sample_is_lost_to_an_index_that_repeats_or_is_missing(collate, tmp_path):
    twice = ConcatDataset([Patches(5), Patches(5)])
    loader = DataLoader(twice, batch_size=4, collate_fn=collate)
    run = trainer(tmp_path, logger=False)
    run.test(fine_tuning(), [loader, loader], verbose=False)
    assert run.callback_metrics['test_num_samples'] == 20
    table = (tmp_path / 'predictions.csv').read_text().splitlines()
    assert len({row.split(',')[0] for row in table[1:]}) == 20
