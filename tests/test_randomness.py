"""A draw depends on its address and on nothing else."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from torchgeo_channelmae.randomness import derive_seed, generator, global_seed

addresses = st.lists(st.integers() | st.text(), max_size=4).map(tuple)


@given(addresses, addresses)
def test_two_addresses_share_a_seed_only_if_they_are_equal(one, other):
    # '\x1f' is what separates the parts
    assert (
        one == other
        or any('\x1f' in str(part) for part in one + other)
        or (derive_seed(*one) != derive_seed(*other))
    )


def test_a_number_and_its_text_are_different_addresses():
    assert derive_seed(1) != derive_seed('1')
    assert derive_seed(1, 2) != derive_seed(12)


def test_an_address_has_the_same_seed_on_every_machine_and_in_every_release():
    assert derive_seed(7, 'mask', 3, 11) == 6031657290764505210


def test_a_generator_does_not_touch_the_global_one():
    before = torch.random.get_rng_state()
    torch.rand(3, generator=generator(0, 'order'))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_global_seed_is_the_one_of_seed_everything(monkeypatch):
    monkeypatch.setenv('PL_GLOBAL_SEED', '42')
    assert global_seed() == 42
    monkeypatch.delenv('PL_GLOBAL_SEED')
    assert global_seed() == 0
