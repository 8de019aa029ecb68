"""The linear guess is the textbook's conditional mean, written here pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchgeo_channelmae.band_guess import (
    BandGuess,
    band_reconstruction,
    mean_and_covariance,
    pixel_moments,
)
from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.losses import trivial_reconstruction

BANDS, CELLS, P = 12, 4, 30  # 60 px in patches of 30 px


@pytest.fixture(scope='module')
def images():
    """Three real patches, in reflectance."""
    dataset = BigEarthNetLMDB(split='train')
    return torch.stack([dataset[i]['image'][:, :60, :60] / 10_000 for i in range(3)])


def tokens_of(images):
    cells = images.unflatten(3, (-1, P)).unflatten(2, (-1, P)).transpose(3, 4)
    return cells.flatten(4).flatten(1, 3)


def draw(seed, count=12):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randperm(BANDS * CELLS, generator=generator) for _ in range(3)]
    return torch.stack(rows)[:, :count].sort().values


def test_mean_and_covariance_are_those_of_the_pixels_of_all_batches(images):
    guess = BandGuess()
    for image in images.split((1, 2)):
        guess.update(image, 0, gather=lambda moments: moments)
    guess.update(images, 1, gather=None)  # of another epoch, so without effect
    mean, covariance = mean_and_covariance(guess.moments, ridge=0)
    pixels = images.double().transpose(0, 1).flatten(1).numpy()
    np.testing.assert_allclose(mean, pixels.mean(1))
    np.testing.assert_allclose(covariance, np.cov(pixels, bias=True), atol=1e-12)


def test_each_hidden_pixel_is_its_conditional_mean(images):
    mean, covariance = mean_and_covariance(pixel_moments(images))
    tokens, visible = tokens_of(images), draw(seed=1, count=8)
    found = band_reconstruction(tokens, visible, mean, covariance)
    assert found.dtype == tokens.dtype
    trivial = trivial_reconstruction(tokens, visible, BANDS)
    mean, covariance, without = mean.numpy(), covariance.numpy(), 0
    for sample in range(3):
        for cell in range(CELLS):
            numbers = np.arange(BANDS) * CELLS + cell
            seen = np.isin(numbers, visible[sample])
            if not seen.any():
                without += 1
                expected = trivial[sample, numbers].expand(-1, P * P)
                np.testing.assert_allclose(found[sample, numbers], expected)
                continue
            pixels = tokens[sample, numbers].double().numpy()
            for place in range(0, P * P, 97):
                known = pixels[seen, place] - mean[seen]
                own = covariance[np.ix_(seen, seen)]
                weights = covariance[:, seen] @ np.linalg.inv(own)
                expected = np.where(seen, pixels[:, place], mean + weights @ known)
                np.testing.assert_allclose(
                    found[sample, numbers, place], expected, rtol=1e-4, atol=1e-6
                )
    assert without  # cells with no visible band, which get the trivial guess


@given(seed=st.integers(0, 99), hidden=st.integers(0, BANDS - 1))
@settings(max_examples=20, deadline=None)
def test_a_band_that_is_a_sum_of_the_others_is_guessed_exactly(seed, hidden):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(3, BANDS, 60, 60, generator=generator)
    others = [band for band in range(BANDS) if band != hidden]
    weights = torch.randn(BANDS - 1, generator=generator)
    image[:, hidden] = torch.einsum('k,bkhw->bhw', weights, image[:, others]) + 3
    tokens, fitted = tokens_of(image), mean_and_covariance(pixel_moments(image))
    visible = torch.tensor([band * CELLS + i for band in others for i in range(CELLS)])
    found = band_reconstruction(tokens, visible.expand(3, -1), *fitted)
    torch.testing.assert_close(found, tokens, rtol=1e-4, atol=1e-3)


@given(order=st.permutations(range(BANDS)), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_another_order_of_bands_is_another_order_of_guesses(images, order, seed):
    numbers = (torch.tensor(order)[:, None] * CELLS + torch.arange(CELLS)).flatten()
    visible = draw(seed)
    guess = BandGuess(pixel_moments(images))(tokens_of(images), visible)
    moved = numbers.argsort()[visible].sort().values
    permuted = images[:, list(order)]
    found = BandGuess(pixel_moments(permuted))(tokens_of(permuted), moved)
    torch.testing.assert_close(found, guess[:, numbers], rtol=1e-4, atol=1e-5)


def test_constant_zero_and_repeated_bands_do_not_spoil_the_others(images):
    images = images[:, :BANDS].clone()
    images[:, 1], images[:, 2], images[:, 3] = 7, 0, images[:, 4]
    guess = BandGuess(pixel_moments(images))
    tokens, visible = tokens_of(images), torch.arange(BANDS * CELLS - 4).expand(3, -1)
    other = tokens.clone()
    other[:, CELLS : 3 * CELLS] += 1e-3  # where training saw one value only
    for each in (tokens, other):
        error = (guess(each, visible) - each)[:, -4:].square().mean()
        assert error < 0.5 * tokens[:, -4:].var()
