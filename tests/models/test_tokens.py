"""One band at one grid cell is one token, and tokens are numbered band by band."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchgeo_channelmae.models.tokens import (
    check_size,
    patchify,
    separable_positions,
    spectral_parameters,
    unpatchify,
)

sides = st.integers(1, 4)


def numbered(batch, bands, height, width):
    """An image in which every pixel has its own value."""
    count = batch * bands * height * width
    return torch.arange(count, dtype=torch.float64).view(batch, bands, height, width)


@given(st.integers(1, 2), sides, sides, sides, st.integers(1, 5))
def test_token_c_l_holds_the_pixels_of_band_c_at_cell_l_row_by_row(
    batch, bands, down, across, side
):
    image = numbered(batch, bands, down * side, across * side)
    tokens = patchify(image, side)
    assert tokens.shape == (batch, bands * down * across, side**2)
    for b in range(batch):
        for c in range(bands):
            for y in range(down):
                for x in range(across):
                    expected = [
                        image[b, c, y * side + i, x * side + j].item()
                        for i in range(side)
                        for j in range(side)
                    ]
                    token = c * down * across + y * across + x
                    assert tokens[b, token].tolist() == expected
    assert torch.equal(unpatchify(tokens, bands, (down, across)), image)


@pytest.mark.parametrize(
    ('height', 'width', 'wrong', 'usable'),
    [(120, 128, 120, '112 or 128'), (128, 120, 120, '112 or 128'), (12, 16, 12, '16')],
)
def test_a_size_that_patches_do_not_tile_is_refused_with_sizes_that_work(
    height, width, wrong, usable
):
    with pytest.raises(ValueError, match=f'{wrong} px.*{usable} px'):
        check_size(height, width, 16)


def test_the_position_of_a_token_is_that_of_its_cell_plus_that_of_its_band():
    positions = torch.randn(6, 4)
    spectral = spectral_parameters(('VV', 'B02', 'VH'), 4)
    table = separable_positions(positions, spectral)
    assert table.shape == (18, 4)
    for c, name in enumerate(('VV', 'B02', 'VH')):
        for cell in range(6):
            expected = positions[cell] + spectral[name]
            assert torch.equal(table[c * 6 + cell], expected)


def test_spectral_parameters_keep_the_order_of_the_bands_and_start_small_and_distinct():
    spectral = spectral_parameters(('B08', 'B02', 'VV'), 512)
    assert list(spectral) == ['B08', 'B02', 'VV']
    table = torch.stack(list(spectral.values()))
    assert table.std(1).tolist() == pytest.approx([0.02] * 3, rel=0.15)
    assert not torch.equal(table[0], table[1])
