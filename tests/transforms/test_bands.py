"""Augmentations of bands do what they promise, for any number of bands."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.augmentation import AugmentationSequential
from scipy import stats

from torchgeo_channelmae.sensors import SENTINEL1_GRD, SENTINEL2_L2A, names
from torchgeo_channelmae.transforms import (
    RandomBandDropout,
    RandomBandGain,
    RandomBandNoise,
    RandomHaze,
    RandomSpeckle,
    RandomSpectralShift,
)

BOTH = SENTINEL2_L2A + SENTINEL1_GRD


def known(bands):
    """Names and statistics of bands, as an augmentation takes them."""
    return {
        'bands': list(names(bands)),
        'mean': [band.mean for band in bands],
        'std': [band.std for band in bands],
    }


def everything(bands=BOTH, **kwargs):
    kwargs = known(bands) | kwargs
    return [
        RandomBandDropout(count=(0, len(bands) - 1), **kwargs),
        RandomBandGain(**kwargs),
        RandomSpectralShift(**kwargs),
        RandomBandNoise(**kwargs),
        RandomHaze(thickness=(0.1, 0.4), **kwargs),
        RandomSpeckle(looks=(2, 9), **kwargs),
    ]


each = pytest.mark.parametrize(
    'number', range(6), ids=lambda n: type(everything()[n]).__name__
)


def images(samples=4, bands=14, side=16, dtype=torch.float32):
    drawn = torch.Generator().manual_seed(1)
    return torch.randn(samples, bands, side, side, generator=drawn).to(dtype)


# Kornia's conventions


@each
def test_a_draw_is_replayed_bit_for_bit(number):
    augmentation = everything(p=0.5)[number]
    x = images(16)
    first = augmentation(x)
    params = augmentation._params
    augmentation(x)  # draws anew
    assert torch.equal(augmentation(x, params=params), first)


@each
def test_draws_differ_from_call_to_call_and_sample_to_sample(number):
    augmentation = everything()[number]
    x = images(1).expand(8, -1, -1, -1)
    first, second = augmentation(x), augmentation(x)
    assert not torch.equal(first, second)
    assert len({row.numpy().tobytes() for row in first}) > 1


@each
def test_some_samples_are_left_alone_where_p_says_so(number):
    torch.manual_seed(0)
    x = images(200, side=4)
    alike = (everything(p=0.3)[number](x) == x).flatten(1).all(1).float().mean()
    assert 0.55 < alike < 0.9  # 0.7, and what a draw of 0 dropped bands leaves alone
    assert torch.equal(everything(p=0)[number](x), x)


@each
def test_all_samples_can_get_the_same_draw(number):
    augmentation = everything(same_on_batch=True)[number]
    out = augmentation(images(1).expand(5, -1, -1, -1))
    assert torch.equal(out, out[:1].expand_as(out))


@each
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_other_types_of_numbers_stay_and_are_computed_right(number, dtype):
    if number in (3, 5) and dtype == torch.float64:
        tolerance = None  # the field is drawn in its own type, so it is another
    else:
        tolerance = {'atol': 0.08, 'rtol': 0.02}
    augmentation = everything()[number]
    exact = augmentation(images())
    out = augmentation(images(dtype=dtype), params=augmentation._params)
    assert out.dtype == dtype
    if number != 3 and tolerance:
        torch.testing.assert_close(out.float(), exact, **tolerance)


@each
def test_it_works_in_a_sequence_over_a_dictionary(number):
    sequence = AugmentationSequential(everything()[number], data_keys=None)
    mask = torch.ones(4, 1, 16, 16)
    out = sequence({'image': images(), 'mask': mask})
    assert not torch.equal(out['image'], images())
    assert torch.equal(out['mask'], mask)


@pytest.mark.parametrize('count', range(1, 14))
def test_any_number_of_bands(count):
    bands = SENTINEL2_L2A[:count] if count < 13 else BOTH[:13]
    for augmentation in everything(bands):
        out = augmentation(images(3, count))
        assert out.shape == (3, count, 16, 16)
        assert out.isfinite().all()


# What each promises


@settings(max_examples=40, deadline=None)
@given(channels=st.integers(2, 13), data=st.data(), seed=st.integers(0, 2**31))
def test_dropped_bands_are_as_many_as_asked_and_never_protected(channels, data, seed):
    bands = BOTH[:channels]
    protect = data.draw(st.lists(st.sampled_from(names(bands))))
    most = min(channels - len(set(protect)), channels - 1)
    low = data.draw(st.integers(0, most))
    high = data.draw(st.integers(low, most))
    torch.manual_seed(seed)
    dropout = RandomBandDropout((low, high), protect, **known(bands))
    out = dropout(torch.ones(6, channels, 2, 2))
    gone = (out == 0).flatten(2).all(2)
    assert torch.equal(out, (~gone).float()[:, :, None, None].expand_as(out))
    assert ((gone.sum(1) >= low) & (gone.sum(1) <= high)).all()
    kept = [names(bands).index(name) for name in protect]
    assert not gone[:, kept].any()


def test_counts_and_bands_of_a_dropout_are_uniform():
    torch.manual_seed(0)
    drop = RandomBandDropout((0, 3)).draw(8000, 5)['drop']
    counts = np.bincount(drop.sum(1).numpy(), minlength=4)
    assert stats.chisquare(counts).pvalue > 1e-3
    assert stats.chisquare(drop.sum(0).numpy()).pvalue > 1e-3


def test_a_dropped_band_loses_even_what_is_no_number():
    x = images()
    x[:, 3] = torch.nan
    out = RandomBandDropout((13, 13), ['VH'], **known(BOTH))(x)
    assert torch.equal(out[:, :13], torch.zeros(4, 13, 16, 16))


def test_gain_and_bias_are_uniform_in_their_spans_and_apart_for_each_band():
    torch.manual_seed(0)
    x = images(3000, 2, side=2)
    out = RandomBandGain((0.5, 1.5), (-1, 2))(x)
    dx, dy = x[..., 0, 1] - x[..., 0, 0], out[..., 0, 1] - out[..., 0, 0]
    gain = dy / dx
    bias = (out - gain[..., None, None] * x)[..., 0, 0]
    clear = dx.abs() > 0.1  # a small difference divides badly
    assert stats.kstest(gain[clear].numpy(), stats.uniform(0.5, 1).cdf).pvalue > 1e-3
    assert stats.kstest(bias[clear].numpy(), stats.uniform(-1, 3).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(gain[clear.all(1)].numpy().T)[0, 1]) < 0.06


def test_shifts_of_bands_correlate_as_their_wavelengths_say():
    torch.manual_seed(0)
    shift = RandomSpectralShift(0.5, 0.4, **known(BOTH))
    out = shift(torch.zeros(20000, 14, 1, 1))[..., 0, 0].numpy()
    assert not out[:, 12:].any()  # radar has no wavelength here
    for i, j in [(0, 0), (1, 3), (3, 7), (0, 11), (7, 8)]:
        a, b = SENTINEL2_L2A[i].wavelength, SENTINEL2_L2A[j].wavelength
        expected = 0.25 * np.exp(-0.5 * (np.log(a / b) / 0.4) ** 2)
        assert abs(np.mean(out[:, i] * out[:, j]) - expected) < 0.012
    assert abs(out[:, :12].mean(0)).max() < 0.02


def test_noise_is_normal_white_and_as_strong_as_asked_in_each_band():
    torch.manual_seed(0)
    x = torch.zeros(8, 3, 64, 64)
    augmentation = RandomBandNoise((0.2, 0.6))
    out = augmentation(x)
    strength = augmentation._params['strength']
    torch.testing.assert_close(out.std((2, 3)), strength, rtol=0.06, atol=0)
    assert strength.min() >= 0.2
    assert strength.max() <= 0.6
    field = (out / strength[..., None, None]).double().numpy()
    assert stats.kstest(field[0].ravel(), 'norm').pvalue > 1e-3
    assert abs(np.corrcoef(field[:, 0].ravel(), field[:, 1].ravel())[0, 1]) < 0.03
    right = np.corrcoef(field[..., 1:].ravel(), field[..., :-1].ravel())[0, 1]
    assert abs(right) < 0.02


def test_haze_is_beers_law_with_light_from_the_air():
    torch.manual_seed(0)
    haze = RandomHaze((0.3, 0.3), (1.5, 1.5), 4000.0, **known(BOTH))
    reflectance = np.array([500.0, 3000.0])
    for i, band in enumerate(SENTINEL2_L2A):
        x = torch.zeros(1, 14, 1, 2)
        x[0, i, 0] = torch.tensor((reflectance - band.mean) / band.std)
        seen = haze(x)[0, i, 0].double().numpy() * band.std + band.mean
        through = np.exp(-0.3 * (band.wavelength / 550) ** -1.5)
        np.testing.assert_allclose(
            seen, through * reflectance + (1 - through) * 4000, rtol=1e-4
        )
    x = images()
    assert torch.equal(haze(x)[:, 12:], x[:, 12:])  # radar


@pytest.mark.parametrize('looks', [1.0, 4.4, 30.0])
def test_speckle_multiplies_power_by_gamma_noise_of_mean_1(looks):
    torch.manual_seed(0)
    speckle = RandomSpeckle((looks, looks), **known(SENTINEL1_GRD))
    std = torch.tensor([band.std for band in SENTINEL1_GRD])[:, None, None]
    x = torch.full((8, 2, 64, 64), 0.3)
    power = 10 ** ((speckle(x) - x) * std / 10).double().numpy()
    assert abs(power.mean() - 1) < 4 / np.sqrt(looks * power.size)
    assert abs(power.var() * looks - 1) < 0.05
    test = stats.kstest(power[:2].ravel(), stats.gamma(looks, scale=1 / looks).cdf)
    assert test.pvalue > 1e-3
    optical = images(bands=12)
    unchanged = RandomSpeckle(**known(SENTINEL2_L2A))(optical)
    assert torch.equal(unchanged, optical)


def test_a_sample_has_the_same_noise_in_any_batch():
    for augmentation in (RandomBandNoise(), RandomSpeckle((2, 5), **known(BOTH))):
        x = images(6)
        whole = augmentation(x)
        params = augmentation._params
        few = {k: v[2:4] if v.shape[:1] == (6,) else v for k, v in params.items()}
        assert torch.equal(augmentation(x[2:4], params=few), whole[2:4])


# Bad input


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda: RandomBandGain(gain=(-0.5, 1.0)), 'gain'),
        (lambda: RandomBandGain(bias=(1.2, 0.8)), 'bias'),
        (lambda: RandomSpeckle(looks=(0, 4)), 'looks'),
        (lambda: RandomHaze(airlight=-1), 'airlight'),
        (lambda: RandomSpectralShift(length=-1), 'length'),
        (lambda: RandomBandGain(p=1.5), 'p is'),
        (lambda: RandomBandDropout((0, 2.5)), 'count'),
        (lambda: RandomBandDropout(protect=['B99'], bands=['B02', 'VV']), "'B99'"),
        (lambda: RandomBandDropout((2, 2))(images(2, 2)), 'count'),
        (lambda: RandomHaze()(images(2, 12)), 'mean and std'),
        (lambda: RandomHaze()(images(2, 5)), '5 channels'),
        (lambda: RandomBandGain(bands=['VV'])(images(2, 2)), '1 bands'),
        (lambda: RandomBandGain(bands=['VV'], std=[1, 2]), 'std'),
        (lambda: RandomBandGain(bands=['VV'], std=[0]), 'std'),
        (lambda: RandomBandGain(bands=['VV']).bind(['VH']), 'VV'),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
