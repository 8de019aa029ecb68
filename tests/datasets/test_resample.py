"""Resampling: one grid for all bands, normalized on the way."""

import pytest
import torch
import torch.nn.functional as F

from torchgeo_channelmae.datasets.resample import resample

BANDS = ('B02', 'B05', 'B08', 'B01')


@pytest.fixture
def groups():
    draws = torch.Generator().manual_seed(0)

    def pixels(count, side):
        return torch.randint(0, 65536, (3, count, side, side), generator=draws).to(
            torch.uint16
        )

    return {
        ('B02', 'B08'): pixels(2, 12),
        ('B05',): pixels(1, 6),
        ('B01',): pixels(1, 2),
    }


def by_hand(groups, side):
    rows = {}
    for names, pixels in groups.items():
        for row, name in enumerate(names):
            band = pixels[:, row : row + 1].to(torch.float64)
            rows[name] = F.interpolate(
                band,
                side,
                mode='bilinear',
                align_corners=False,
                antialias=side < band.shape[-1],
            )
    return torch.cat([rows[name] for name in BANDS], dim=1)


@pytest.mark.parametrize('side', [5, 12, 13])
def test_bands_come_in_order_at_one_size(groups, side):
    image = resample(groups, BANDS, (side, side))
    assert image.dtype == torch.float32
    torch.testing.assert_close(
        image, by_hand(groups, side).float(), rtol=1e-5, atol=0.1
    )


def test_pixels_that_fit_are_returned_bit_by_bit(groups):
    image = resample(groups, BANDS, (12, 12))
    assert torch.equal(image[:, 0], groups['B02', 'B08'][:, 0].float())
    assert image.max() > 32767  # uint16 all the way


def test_normalizing_first_is_normalizing_last(groups):
    mean = torch.tensor([100.0, 2000.0, -3.0, 40000.0])
    std = torch.tensor([30.0, 1000.0, 0.5, 20000.0])
    image = resample(groups, BANDS, (13, 13), mean, std)
    last = (by_hand(groups, 13) - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(image, last.float(), rtol=1e-4, atol=1e-3)


def test_images_need_not_be_square(groups):
    assert resample(groups, BANDS, (7, 20)).shape == (3, 4, 7, 20)
