"""A mask is a random split of the tokens that its key alone decides."""

import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from torchgeo_channelmae.masking import random_masking

ratios = st.floats(0.01, 0.99)
counts = st.integers(2, 400)
keys = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6)


def possible(num_tokens: int, ratio: float) -> None:
    """Leave out the ratios that hide nothing or everything."""
    assume(0.5 < num_tokens * ratio < num_tokens - 0.5)


@given(keys, counts, ratios)
def test_visible_and_masked_tokens_are_all_tokens_once_each_ascending(
    keys, num_tokens, ratio
):
    possible(num_tokens, ratio)
    mask = random_masking(torch.tensor(keys), num_tokens, ratio)
    assert len(mask.visible) == len(mask.masked) == len(keys)
    for visible, masked in zip(
        mask.visible.tolist(), mask.masked.tolist(), strict=True
    ):
        assert set(visible) | set(masked) == set(range(num_tokens))
        assert len(visible) + len(masked) == num_tokens
        assert all(a < b for a, b in pairwise(visible))
        assert all(a < b for a, b in pairwise(masked))


@given(counts, ratios)
def test_the_share_hidden_is_the_ratio_up_to_rounding(num_tokens, ratio):
    possible(num_tokens, ratio)
    mask = random_masking(torch.tensor([5]), num_tokens, ratio)
    assert abs(mask.masked.shape[1] - num_tokens * ratio) <= 0.5 + 1e-9


@given(keys, st.randoms(use_true_random=False))
def test_a_mask_depends_on_its_key_and_not_on_the_batch_around_it(keys, random):
    together = random_masking(torch.tensor(keys), 40, 0.75)
    shuffled = random.sample(range(len(keys)), len(keys))
    reordered = random_masking(torch.tensor([keys[i] for i in shuffled]), 40, 0.75)
    for row, position in enumerate(shuffled):
        alone = random_masking(torch.tensor([keys[position]]), 40, 0.75)
        for part in range(2):
            assert torch.equal(reordered[part][row], together[part][position])
            assert torch.equal(alone[part][0], together[part][position])


def test_neighbouring_keys_draw_different_masks():
    masked = random_masking(torch.arange(500), 192, 0.75).masked
    assert len({tuple(row) for row in masked.tolist()}) == 500


def hidden(num_keys: int, num_tokens: int, ratio: float) -> torch.Tensor:
    """Return (keys, N) float64, 1 where a token is hidden."""
    masked = random_masking(torch.arange(num_keys), num_tokens, ratio).masked
    return torch.zeros(num_keys, num_tokens).scatter_(1, masked, 1.0).double()


@pytest.mark.parametrize('ratio', [0.25, 0.5, 0.75])
def test_over_many_keys_every_token_is_hidden_as_often_as_the_ratio_says(ratio):
    num_keys = 20_000
    share = hidden(num_keys, 24, ratio).mean(0)
    sigma = math.sqrt(ratio * (1 - ratio) / num_keys)
    assert (share - ratio).abs().max() < 4.5 * sigma


def test_two_tokens_are_hidden_together_as_often_whatever_their_bands_and_cells():
    num_keys, tokens, masked = 20_000, 24, 18
    table = hidden(num_keys, tokens, 0.75)
    together = (table.T @ table / num_keys)[
        tuple(torch.triu_indices(tokens, tokens, offset=1))
    ]
    expected = masked * (masked - 1) / (tokens * (tokens - 1))
    sigma = math.sqrt(expected * (1 - expected) / num_keys)
    assert (together - expected).abs().max() < 5 * sigma  # 276 pairs


@pytest.mark.parametrize('group', ['band', 'cell'])
def test_the_hidden_tokens_of_a_band_or_cell_are_a_draw_without_replacement(group):
    num_keys, bands, cells, masked = 20_000, 4, 6, 12
    table = hidden(num_keys, bands * cells, 0.5)
    members = slice(0, cells) if group == 'band' else slice(0, None, cells)
    size = cells if group == 'band' else bands
    found = Counter(table[:, members].sum(1).int().tolist())
    chi_square = 0.0
    for number in range(size + 1):
        probability = (
            math.comb(size, number)
            * math.comb(bands * cells - size, masked - number)
            / math.comb(bands * cells, masked)
        )
        expected = num_keys * probability
        chi_square += (found[number] - expected) ** 2 / expected
    assert chi_square < size + 5 * math.sqrt(2 * size)  # mean and spread of chi-square


@pytest.mark.parametrize('ratio', [0, 1, -0.5, 1.5, float('nan')])
def test_a_ratio_outside_0_and_1_is_refused_in_one_line_that_names_it(ratio):
    with pytest.raises(ValueError, match=f'^mask_ratio {ratio} .*$') as error:
        random_masking(torch.tensor([0]), 100, ratio)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(('ratio', 'left'), [(0.01, '8 of 8'), (0.99, '0 of 8')])
def test_a_ratio_that_hides_none_or_all_is_refused_with_the_count(ratio, left):
    with pytest.raises(ValueError, match=f'^mask_ratio {ratio} .*{left} tokens') as e:
        random_masking(torch.tensor([0]), 8, ratio)
    assert '\n' not in str(e.value)
