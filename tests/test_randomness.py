"""A draw depends on its address and on nothing else."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from torchgeo_channelmae.randomness import derive_seed, generator

parts = st.integers(0, 20) | st.text('012ab', max_size=3)
addresses = st.lists(parts, max_size=4).map(tuple)


@given(addresses, addresses)
def test_two_addresses_share_a_seed_only_if_they_are_equal(one, other):
    assert (one == other) is (derive_seed(*one) == derive_seed(*other))


def test_an_address_has_the_same_seed_on_every_machine_and_in_every_release():
    assert derive_seed(7, 'mask', 3, 11) == 6031657290764505210


def test_a_generator_does_not_touch_the_global_one():
    before = torch.random.get_rng_state()
    torch.rand(3, generator=generator(0, 'order'))
    assert torch.equal(torch.random.get_rng_state(), before)
