"""Learning rates follow a line and a cosine, weight decay spares embeddings."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.strategies import FSDPStrategy
from timm.optim import create_optimizer_v2
from torch.optim import AdamW

from tests.same import assert_same
from tests.small_tasks import fine_tuning
from torchgeo_channelmae.models import ChannelMAEDecoder, ChannelViT
from torchgeo_channelmae.models.controls import create_model
from torchgeo_channelmae.tasks.muon import orthogonalize
from torchgeo_channelmae.tasks.optim import (
    check_optimizer,
    create_optimizer,
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


@pytest.mark.parametrize('optimizer', ['adamw', 'muon'])
def test_every_parameter_of_both_models_is_in_one_group_once(
    encoder, decoder, optimizer
):
    groups = decay_groups((encoder, decoder), 0.05, optimizer)
    both = torch.nn.ModuleDict({'encoder': encoder, 'decoder': decoder})
    decay = by_name(both, groups, 'weight_decay')
    for name, value in decay.items():
        bare = name.split('.', 1)[1]
        expected = 0 if is_embedding_norm_or_bias(bare) else 0.05
        assert value == expected, name
    assert {group['weight_decay'] for group in groups} == {0, 0.05}


def test_frozen_parameters_are_in_no_group(encoder, decoder):
    encoder.requires_grad_(False)
    groups = decay_groups((encoder, decoder), 0.05, 'muon')
    found = {id(p) for group in groups for p in group['params']}
    assert found == {id(p) for p in decoder.parameters()}


@pytest.mark.parametrize('optimizer', ['adamw', 'muon'])
@pytest.mark.parametrize('layer_decay', [0.75, 1.0])
def test_a_layer_learns_slower_by_the_decay_for_every_layer_above_it(
    encoder, layer_decay, optimizer
):
    encoder.reset_classifier(19)
    groups = layer_decay_groups(encoder, 0.01, 0.05, layer_decay, optimizer)
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


def names_of_muon(model, groups):
    every = [{'use_fallback': False} | group for group in groups]
    fallback = by_name(model, every, 'use_fallback')
    return {name for name, falls_back in fallback.items() if not falls_back}


def test_muon_trains_the_matrices_of_the_blocks_and_nothing_else(encoder, decoder):
    encoder.reset_classifier(19)
    matrices = ('attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2')
    expected = {
        f'blocks.{block}.{matrix}.weight'
        for block in range(DEPTH)
        for matrix in matrices
    }
    groups = layer_decay_groups(encoder, 0.01, 0.05, 0.75, 'nmuon')
    assert names_of_muon(encoder, groups) == expected
    both = torch.nn.ModuleDict({'encoder': encoder, 'decoder': decoder})
    groups = decay_groups((encoder, decoder), 0.05, 'muon')
    assert names_of_muon(both, groups) == {
        *(f'encoder.{name}' for name in expected),
        *(f'decoder.blocks.0.{matrix}.weight' for matrix in matrices),
    }


def test_muon_trains_the_kernels_of_a_resnet_between_its_first_layer_and_its_head():
    model = create_model('resnet18', BANDS, num_classes=3, size=32)
    groups = layer_decay_groups(model, 0.01, 0.05, 0.75, 'muon')
    kernels = {n for n, p in model.named_parameters() if p.ndim == 4}
    assert names_of_muon(model, groups) == kernels - {'conv1.weight'}


def hparams(optimizer, **options):
    return {'optimizer': optimizer, 'betas': (0.8, 0.9), 'optimizer_options': options}


def test_adamw_is_torchs_fused_one_with_the_betas():
    weight = torch.nn.Parameter(torch.zeros(1))
    made = create_optimizer([weight], 0.1, hparams('adamw'))
    expected = AdamW([weight], 0.1, (0.8, 0.9), weight_decay=0.0, fused=True)
    assert type(made) is AdamW
    assert_same(made.state_dict(), expected.state_dict())


@pytest.mark.parametrize('name', ['sgd', 'lion', 'muon', 'nadamuon', 'adan', 'adagrad'])
def test_others_are_those_of_timm_and_have_betas_if_they_take_two(name):
    check_optimizer(hparams(name))
    weight = torch.nn.Parameter(torch.zeros(1))
    made = create_optimizer([weight], 0.1, hparams(name))
    given = {} if name == 'adan' else {'betas': (0.8, 0.9)}
    expected = create_optimizer_v2([weight], name, 0.1, **given)
    assert isinstance(made, type(expected))
    assert_same(made.state_dict(), expected.state_dict())


def test_options_are_passed_on():
    options = {'nesterov': True, 'fallback_lr_scale': 0.14, 'betas': (0.7, 0.8)}
    weight = torch.nn.Parameter(torch.zeros(1))
    (group,) = create_optimizer([weight], 0.1, hparams('muon', **options)).param_groups
    assert options.items() <= group.items()


@pytest.mark.parametrize('name', ['nmuon', 'adamuon'])
@pytest.mark.parametrize('shape', [(8, 32), (32, 8), (8, 12), (8, 4, 3, 3)])
def test_muon_moves_a_weight_on_a_cpu_as_timms_in_bfloat16_does(name, shape):
    start, slope = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    weights = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    ours = create_optimizer(weights[:1], 0.1, hparams(name))
    timms = create_optimizer_v2(weights[1:], name, 0.1, betas=(0.8, 0.9))
    for step in range(3):
        for weight, optimizer in zip(weights, (ours, timms), strict=True):
            weight.grad = slope + step
            optimizer.step()
    moved = [weight.detach() - start for weight in weights]
    difference = (moved[0] - moved[1]).norm() / moved[1].norm()
    assert 0 < difference < 0.1  # one digit of bfloat16


@given(
    st.sampled_from([(1, 1), (3, 7), (7, 3), (5, 64), (64, 6), (2, 4, 5)]),
    st.integers(0, 6),
    st.integers(0, 99),
)
def test_the_orthogonalization_is_newton_and_schulzs_iteration(shape, steps, seed):
    update = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    coefficients = [(2.0, -1.5, 0.5), (1.5, -0.5, 0.1)]
    x = update.double() / update.double().norm(dim=(-2, -1), keepdim=True)
    for step in range(steps):
        a, b, c = coefficients[min(step, 1)]
        square = x @ x.mT
        x = (a * x) + b * (square @ x) + c * (square @ square @ x)
    found = orthogonalize(update, steps, coefficients)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, x.float())


def test_an_unknown_optimizer_is_refused_with_the_nearest_and_all_names():
    with pytest.raises(ValueError, match="did you mean 'muon'") as caught:
        check_optimizer(hparams('Muonn'))
    assert 'adamw, ' in str(caught.value)


@pytest.mark.parametrize(
    ('name', 'option', 'value'),
    [
        ('muon', 'nestrov', True),
        ('muon', 'lr', 0.1),
        ('muon', 'weight_decay', 0.1),
        ('muon', 'layer_decay', 0.5),
        ('adamw', 'momentum', 0.9),
        ('muon', 'ns_coefficients', 'none'),  # else an error of the first step
        ('muon', 'fallback_lr_scale', 'low'),
    ],
)
def test_an_option_that_the_optimizer_cannot_use_is_refused(name, option, value):
    with pytest.raises(ValueError, match=f'optimizer_options of {name!r}'):
        check_optimizer(hparams(name, **{option: value}))


def test_muon_is_refused_where_matrices_are_cut():
    task = fine_tuning(optimizer='muon')
    task.trainer = SimpleNamespace(strategy=FSDPStrategy(), datamodule=None)
    with pytest.raises(ValueError, match='needs whole matrices'):
        task.setup('fit')


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
    double = SimpleNamespace(batch_size=64)
    sampled = SimpleNamespace(batch_size=None, batch_sampler=double)
    for changed, factor in (
        ({}, 1),  # 32 x 4 x 2
        ({'world_size': 1}, 0.25),
        ({'train_dataloader': double}, 2),
        ({'train_dataloader': sampled}, 2),
    ):
        lr = scaled_lr(1e-3, trainer(**changed), 'adamw')
        assert lr == pytest.approx(1e-3 * factor)
        lr = scaled_lr(1e-3, trainer(**changed), 'muon')
        assert lr == pytest.approx(1e-3 * math.sqrt(factor))


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
