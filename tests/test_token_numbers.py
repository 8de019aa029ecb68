import torch
from hypothesis import given
from hypothesis import strategies as st

from torchgeo_channelmae.token_numbers import choose, locate, membership, tokens_of


@given(st.integers(1, 60), st.data())
def test_what_is_chosen_and_what_is_not_are_all_once(of, data):
    count = data.draw(st.integers(0, of))
    chosen, others = choose(torch.arange(4), of, count)
    assert chosen.shape == (4, count)
    for one, other in zip(chosen.tolist(), others.tolist(), strict=True):
        assert sorted(one + other) == list(range(of))
        assert one == sorted(one)
        assert other == sorted(other)


@given(st.permutations(range(20)), st.lists(st.integers(0, 11), min_size=1))
def test_tokens_are_found_where_they_stand(order, places):
    among = torch.tensor([order[:12]])
    tokens = among[:, places]
    assert locate(tokens, among, 20).tolist() == [places]


def test_membership_says_of_every_number_whether_it_is_listed():
    listed = torch.tensor([[4, 0], [1, 3]])
    assert membership(listed, 5).int().tolist() == [[1, 0, 0, 0, 1], [0, 1, 0, 1, 0]]


def test_tokens_of_some_cells_are_those_cells_of_every_band():
    bands, cells = torch.tensor([[0, 2]]), torch.tensor([[1, 3]])
    assert tokens_of(bands, 4, cells).tolist() == [[1, 3, 9, 11]]
    assert tokens_of(bands, 2).tolist() == [[0, 1, 4, 5]]
