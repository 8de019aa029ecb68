"""Learning rates follow a line and a cosine, weight decay spares embeddings."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import AdamW

from torchgeo_channelmae.models import ChannelMAEDecoder, ChannelViT
from torchgeo_channelmae.tasks.optim import (
    decay_groups,
    layer_decay_groups,
    scaled_lr,
    schedule,
    warmup_cosine,
)

BANDS = ('B02', 'VV')
DEPTH = 3


@pytest.fixture
def encoder():
    return ChannelViT(16, 8, bands=BANDS, embed_dim=16, depth=DEPTH, num_heads=2)


@pytest.fixture
def decoder():
    return ChannelMAEDecoder(BANDS, (2, 2), 8, 16, embed_dim=8, depth=1, num_heads=2)


def is_embedding_norm_or_bias(name):
    first, last = name.split('.')[0], name.split('.')[-1]
    embeddings = ('pos_embed', 'spectral_embed', 'cls_token', 'mask_token')
    return first in embeddings or last == 'bias' or 'norm' in name


def by_name(model, groups, key):
    """Return the setting per parameter; each one is in one group, once."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [(names[id(p)], group[key]) for group in groups for p in group['params']]
    assert sorted(name for name, _ in found) == sorted(names.values())
    return dict(found)


@given(st.integers(0, 50), st.integers(1, 200))
def test_the_rate_rises_to_its_peak_in_a_line_and_falls_in_half_a_cosine(warmup, after):
    total = warmup + after
    rates = [warmup_cosine(step, warmup, total) for step in range(total + 1)]
    for step, rate in enumerate(rates):
        if step < warmup:
            assert rate == pytest.approx((step + 1) / (warmup + 1))
        else:
            angle = math.pi * (step - warmup) / after
            assert rate == pytest.approx(math.cos(angle / 2) ** 2, abs=1e-12)
    assert min(rates[:-1]) > 0


def test_every_parameter_of_both_models_is_in_one_group_once(encoder, decoder):
    groups = decay_groups((encoder, decoder), 0.05)
    both = torch.nn.ModuleDict({'encoder': encoder, 'decoder': decoder})
    decay = by_name(both, groups, 'weight_decay')
    for name, value in decay.items():
        bare = name.split('.', 1)[1]
        expected = 0 if is_embedding_norm_or_bias(bare) else 0.05
        assert value == expected, name
    assert {group['weight_decay'] for group in groups} == {0, 0.05}


def test_frozen_parameters_are_in_no_group(encoder, decoder):
    encoder.requires_grad_(False)
    groups = decay_groups((encoder, decoder), 0.05)
    found = {id(p) for group in groups for p in group['params']}
    assert found == {id(p) for p in decoder.parameters()}


@pytest.mark.parametrize('layer_decay', [0.75, 1.0])
def test_a_layer_learns_slower_by_the_decay_for_every_layer_above_it(
    encoder, layer_decay
):
    encoder.reset_classifier(19)
    groups = layer_decay_groups(encoder, 0.01, 0.05, layer_decay)
    decay = by_name(encoder, groups, 'weight_decay')
    rates = by_name(encoder, groups, 'lr')
    for name, rate in rates.items():
        if name.startswith('head.'):
            above = 0
        elif name.startswith('blocks.'):
            above = DEPTH - int(name.split('.')[1])
        elif name.startswith('norm.'):  # timm counts it to the last block
            above = 1
        else:  # embeddings
            above = DEPTH + 1
        assert rate == pytest.approx(0.01 * layer_decay**above), name
        assert decay[name] == (0 if is_embedding_norm_or_bias(name) else 0.05), name


def trainer(**kwargs):
    """What the functions read of a trainer."""
    return SimpleNamespace(
        **{
            'fit_loop': SimpleNamespace(setup_data=lambda: None),
            'train_dataloader': SimpleNamespace(batch_size=32),
            'world_size': 4,
            'accumulate_grad_batches': 2,
            'estimated_stepping_batches': 40,
        }
        | kwargs
    )


def test_the_base_rate_belongs_to_a_global_batch_of_256():
    assert scaled_lr(1e-3, trainer()) == pytest.approx(1e-3)  # 32 x 4 x 2
    assert scaled_lr(1e-3, trainer(world_size=1)) == pytest.approx(2.5e-4)
    double = SimpleNamespace(batch_size=64)
    assert scaled_lr(1e-3, trainer(train_dataloader=double)) == pytest.approx(2e-3)
    sampled = SimpleNamespace(batch_size=None, batch_sampler=double)
    assert scaled_lr(1e-3, trainer(train_dataloader=sampled)) == pytest.approx(2e-3)


def run(scheduled, steps):
    optimizer = scheduled['optimizer']
    scheduler = scheduled['lr_scheduler']['scheduler']
    rates = []
    for _ in range(steps):
        rates.append([group['lr'] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return rates


def test_the_schedule_counts_optimizer_steps_and_keeps_each_groups_own_peak():
    groups = [
        {'params': [torch.nn.Parameter(torch.zeros(1))], 'lr': lr} for lr in (0.1, 0.4)
    ]
    task = SimpleNamespace(trainer=trainer(num_training_batches=19))
    scheduled = schedule(task, AdamW(groups), warmup_epochs=0.5)
    assert scheduled['lr_scheduler']['interval'] == 'step'
    rates = run(scheduled, 40)  # 10 steps an epoch, 5 of warm-up
    for step, (low, high) in enumerate(rates):
        factor = (
            (step + 1) / 6
            if step < 5
            else (1 + math.cos(math.pi * (step - 5) / 35)) / 2
        )
        assert low == pytest.approx(0.1 * factor)
        assert high == pytest.approx(0.4 * factor)


def test_a_warm_up_longer_than_the_training_still_reaches_the_peak_at_its_end():
    task = SimpleNamespace(
        trainer=trainer(num_training_batches=20, estimated_stepping_batches=6)
    )
    optimizer = AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = run(schedule(task, optimizer, warmup_epochs=100), 6)
    assert [rate for (rate,) in rates] == pytest.approx([i / 6 for i in range(1, 7)])


def test_a_training_without_an_end_is_refused():
    task = SimpleNamespace(trainer=trainer(estimated_stepping_batches=math.inf))
    optimizer = AdamW([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match='max_epochs or max_steps'):
        schedule(task, optimizer, 1)
