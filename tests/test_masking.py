"""A mask is a random split of the tokens that its key alone decides."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from torchgeo_channelmae.masking import (
    STRATEGIES,
    ChannelsAndPatches,
    Columns,
    CrossBand,
    RandomTokens,
    SameBand,
    make_masking,
)

keys = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6)


# All strategies

MASKINGS = {
    's1': RandomTokens(0.75),
    's2': SameBand(0.75),
    's2, the whole band': SameBand(visible='all'),
    's3': CrossBand(1),
    's4': CrossBand(3),
    'columns': Columns(0.75),
    'channels and patches': ChannelsAndPatches(0.5, 0.4),
}
BANDS, CELLS, DRAWS = 6, 8, 10_000
every_masking = pytest.mark.parametrize('masking', MASKINGS.values(), ids=MASKINGS)


def sets(rows: torch.Tensor) -> list[set[int]]:
    return [set(row) for row in rows.tolist()]


@every_masking
def test_the_sets_are_what_the_strategy_is_defined_as_over_10_000_draws(masking):
    masking.check(BANDS, CELLS)
    mask = masking(torch.arange(DRAWS), 0, BANDS, CELLS)
    for rows in mask:
        assert rows.dtype == torch.int64
        assert (rows.diff(dim=1) > 0).all()  # ascending, none twice
    for visible, hidden, target, bands in zip(*map(sets, mask), strict=True):
        assert not visible & hidden
        compared = {band * CELLS + cell for band in bands for cell in range(CELLS)}
        assert target <= compared <= visible | hidden
        seen_bands = {token // CELLS for token in visible}
        match masking:
            case RandomTokens():
                assert visible | hidden == set(range(BANDS * CELLS))
                assert len(hidden) == 36
                assert target == hidden
                assert len(bands) == BANDS
            case SameBand(visible='some'):
                assert len(visible) == 2
                assert len(hidden) == 6
                assert target == hidden
                assert seen_bands == bands
                assert visible | hidden == compared
            case SameBand(visible='all'):
                assert visible == target == compared
                assert not hidden
                assert len(bands) == 1
            case CrossBand(bands=shown):
                assert len(seen_bands) == shown
                assert len(visible) == shown * CELLS
                assert bands == set(range(BANDS)) - seen_bands
                assert target == hidden == compared
            case Columns():
                cells = {token % CELLS for token in visible}
                assert len(cells) == 2
                assert visible == {b * CELLS + c for b in range(BANDS) for c in cells}
                assert hidden == target == set(range(BANDS * CELLS)) - visible
                assert len(bands) == BANDS
            case ChannelsAndPatches():
                assert len(visible) == 16  # half of the 4 bands that are not hidden
                assert len(seen_bands) <= 4
                assert hidden == target == set(range(BANDS * CELLS)) - visible
                assert len(bands) == BANDS


@every_masking
@pytest.mark.parametrize('of', ['bands', 'cells'])
def test_bands_and_cells_are_visible_equally_often(masking, of):
    """Chi-square, from draws that are independent: one token of each."""
    mask = masking(torch.arange(DRAWS), 0, BANDS, CELLS)
    pick = torch.arange(DRAWS) % mask.visible.shape[1]  # any place in the row
    tokens = mask.visible.gather(1, pick[:, None]).flatten()
    values = tokens // CELLS if of == 'bands' else tokens % CELLS
    found = values.bincount(minlength=BANDS if of == 'bands' else CELLS)
    assert chisquare(found.numpy()).pvalue > 1e-3


@pytest.mark.parametrize(
    'masking', [SameBand(), CrossBand(3), ChannelsAndPatches(0.5, 0.4)]
)
def test_bands_are_compared_or_shown_in_all_combinations_equally_often(masking):
    mask = masking(torch.arange(DRAWS), 0, BANDS, CELLS)
    seen = [frozenset(token // CELLS for token in row) for row in mask.visible.tolist()]
    if isinstance(masking, ChannelsAndPatches):  # two whole bands are out, at least
        seen = [bands for bands in seen if len(bands) == 4]
    number = {SameBand: 1, CrossBand: 3, ChannelsAndPatches: 4}[type(masking)]
    found = Counter(seen)
    assert len(found) == math.comb(BANDS, number)
    assert chisquare(list(found.values())).pvalue > 1e-3


@every_masking
@given(keys=keys, random=st.randoms(use_true_random=False))
def test_a_sample_has_its_mask_in_any_batch(masking, keys, random):
    shuffled = random.sample(range(len(keys)), len(keys))
    together = masking(torch.tensor(keys), 5, BANDS, CELLS)
    reordered = masking(torch.tensor([keys[i] for i in shuffled]), 5, BANDS, CELLS)
    for row, position in enumerate(shuffled):
        alone = masking(torch.tensor([keys[position]]), 5, BANDS, CELLS)
        for part in range(4):
            assert torch.equal(reordered[part][row], together[part][position])
            assert torch.equal(alone[part][0], together[part][position])


@pytest.mark.parametrize('masking', [SameBand, CrossBand, ChannelsAndPatches])
def test_shared_bands_are_those_of_the_step_for_every_sample(masking):
    drawn = []
    for step in range(50):
        mask = masking(shared=True)(torch.arange(20), step, BANDS, CELLS)
        seen = {
            frozenset(token // CELLS for token in row) for row in mask.visible.tolist()
        }
        bands = max(seen, key=len)
        if masking is not ChannelsAndPatches:  # which may show none of a band's tokens
            assert seen == {bands}
        assert all(each <= bands for each in seen)
        drawn.append(bands)
    assert len(set(drawn)) > 4
    cells = SameBand(shared=True)(torch.arange(20), 0, BANDS, CELLS).visible % CELLS
    assert len({tuple(row) for row in cells.tolist()}) > 5  # of each sample its own


@given(st.integers(2, 13), st.integers(2, 40), st.sampled_from(sorted(STRATEGIES)))
def test_any_image_that_passes_the_check_can_be_masked(bands, cells, name):
    masking = make_masking(name, 0.6)
    masking.check(bands, cells)
    mask = masking(torch.arange(3), 0, bands, cells)
    assert mask.visible.shape[1] > 0
    assert mask.target.shape[1] > 0
    assert max(mask.visible.max(), mask.target.max()) < bands * cells


@pytest.mark.parametrize(
    ('name', 'ratio', 'options', 'bands', 'named'),
    [
        ('random', 0, None, 3, 'mask_ratio 0'),
        ('random', float('nan'), None, 3, 'mask_ratio nan'),
        ('random', 0.01, None, 2, '32 of 32'),
        ('same_band', 0.99, None, 3, '0 of 16'),
        ('cross_band', 0.75, {'bands': 3}, 3, '3 bands'),
        ('cross_band', 0.75, {'bands': '3'}, 3, "bands is '3'"),
        ('cross_band', 0.75, {'cells': 3}, 3, "'cells'"),
        ('same_band', 0.75, {'visible': 'none'}, 3, "visible is 'none'"),
        ('channels_and_patches', 0.75, None, 1, '2 bands'),
        ('channels_and_patches', 0.75, {'hidden_bands': 1}, 3, 'hidden_bands is 1'),
        ('everything', 0.75, None, 3, "'everything'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name, ratio, options, bands, named):
    with pytest.raises(ValueError, match=named):
        make_masking(name, ratio, options).check(bands, 16)
