"""Decoding some cells estimates both losses of all cells, without bias."""

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchgeo_channelmae.cell_sampling import count_cells, sample_cells
from torchgeo_channelmae.losses import spectral_to_spectral, token_to_token
from torchgeo_channelmae.masking import make_masking
from torchgeo_channelmae.models.tokens import gather_tokens

MASKINGS = {
    's1': ('random', None),
    's2': ('same_band', None),
    's2, the whole band': ('same_band', {'visible': 'all'}),
    's3': ('cross_band', None),
    's4': ('cross_band', {'bands': 2}),
    'columns': ('columns', None),
    'channels and patches': ('channels_and_patches', None),
}
every_masking = pytest.mark.parametrize(
    ('masking', 'options'), MASKINGS.values(), ids=MASKINGS
)
BANDS = 3
keys = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5)


def masked(masking, options, keys, cells):
    return make_masking(masking, 0.75, options)(keys, 3, BANDS, cells)


@every_masking
@given(keys=keys, cells=st.integers(4, 40), share=st.floats(0.01, 1))
def test_what_is_produced_is_known_to_the_decoder_and_no_token_is_carried_twice(
    masking, options, keys, cells, share
):
    keys = torch.tensor(keys)
    mask = masked(masking, options, keys, cells)
    sampled = sample_cells(mask, keys, share, BANDS, cells)
    count = max(1, round(cells * share))
    for row in range(len(keys)):
        filled, produced = sampled.filled[row].tolist(), sampled.produced[row].tolist()
        visible, hidden = mask.visible[row].tolist(), mask.hidden[row].tolist()
        assert len({*filled}) == len(filled) <= len(produced)
        assert {*filled} <= {*hidden}
        assert {*produced} <= {*visible, *filled}
        kept = sorted({number % cells for number in produced})
        assert len(kept) == count
        assert produced == [
            band * cells + cell for band in mask.bands[row].tolist() for cell in kept
        ]


@every_masking
def test_over_all_ways_to_sample_cells_the_mean_of_both_losses_is_that_of_all(
    masking, options
):
    cells = 6
    draw = torch.Generator().manual_seed(1)
    truth, guess = torch.randn(2, 1, BANDS * cells, 16, generator=draw).double()
    mask = masked(masking, options, torch.tensor([11]), cells)
    num_bands = mask.bands.shape[1]

    def losses(key, share):
        sampled = sample_cells(mask, torch.tensor([key]), share, BANDS, cells)
        made, wanted = (gather_tokens(x, sampled.produced) for x in (guess, truth))
        token = token_to_token(made, wanted, sampled.weight)
        spectral = spectral_to_spectral(made, wanted, num_bands)
        chosen = tuple(sorted({n % cells for n in sampled.produced[0].tolist()}))
        return chosen, torch.cat([token, spectral])

    by_choice = dict(losses(key, 1 / 3) for key in range(300))
    assert {*by_choice} == {*combinations(range(cells), 2)}
    mean = torch.stack(list(by_choice.values())).mean(0)
    torch.testing.assert_close(mean, losses(0, 1.0)[1], rtol=1e-6, atol=0)
    # Of one choice they are others: the mean is no accident.
    assert len({round(float(token), 9) for token, _ in by_choice.values()}) > 1


def test_the_choice_is_the_samples_own_and_not_that_of_its_mask():
    keys = torch.arange(2000)
    mask = masked('columns', None, keys, 4)
    together = sample_cells(mask, keys, 0.25, BANDS, 4)
    alone = sample_cells(
        masked('columns', None, keys[7:8], 4), keys[7:8], 0.25, BANDS, 4
    )
    assert torch.equal(alone.produced[0], together.produced[7])
    assert torch.equal(alone.filled[0], together.filled[7])
    # One cell of four is visible: as often among the sampled ones as anywhere.
    is_visible = (together.produced[:, :1] == mask.visible[:, :1]).double().mean()
    assert is_visible == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize('share', [0.0, 1.5, float('nan')])
def test_a_share_is_above_0_and_leaves_at_least_one_cell(share):
    with pytest.raises(ValueError, match='decode_share'):
        count_cells(64, share)
    assert count_cells(16, 0.001) == 1
