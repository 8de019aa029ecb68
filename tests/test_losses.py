"""The losses are their papers' formulas, written here as loops over Python numbers."""

import math
from statistics import fmean, variance

import pytest
import torch

from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.losses import (
    normalize_tokens,
    spectral_to_spectral,
    token_to_token,
    trivial_reconstruction,
)

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def squared_norm(one, other):
    return math.fsum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def slow_token_to_token(prediction, target):
    losses = []
    for guesses, truths in zip(prediction.tolist(), target.tolist(), strict=True):
        total = 0.0
        for guess, truth in zip(guesses, truths, strict=True):
            total += squared_norm(guess, truth) / len(truth)
        losses.append(total / len(truths))
    return losses


def slow_spectral_to_spectral(prediction, target, num_bands, reduction):
    losses = []
    for guesses, truths in zip(prediction.tolist(), target.tolist(), strict=True):
        cells, pixels = len(truths) // num_bands, len(truths[0])
        share = 1 if reduction == 'sum' else 1 / num_bands
        total = 0.0
        for cell in range(cells):
            tokens = [band * cells + cell for band in range(num_bands)]
            guess, truth = (
                [share * math.fsum(rows[i][p] for i in tokens) for p in range(pixels)]
                for rows in (guesses, truths)
            )
            total += squared_norm(guess, truth) / pixels
        losses.append(total / cells)
    return losses


def random_pair(dtype):
    """A batch of 3 with 4 bands of 5 cells of 2 x 2 px, not centerd on 0."""
    draw = torch.Generator().manual_seed(0)
    prediction = torch.randn(3, 20, 4, generator=draw, dtype=torch.float64) + 2
    target = 3 * torch.randn(3, 20, 4, generator=draw, dtype=torch.float64) - 1
    return prediction.to(dtype), target.to(dtype), 4


@pytest.fixture(scope='module')
def patches():
    """The tokens of two real patches in reflectance, cut by hand, (2, 12 * 64, 225)."""
    dataset = BigEarthNetLMDB(split='train')
    tokens = [
        (dataset[index]['image'][c, y : y + 15, x : x + 15] / 10_000).flatten()
        for index in (0, 1)
        for c in range(12)
        for y in range(0, 120, 15)
        for x in range(0, 120, 15)
    ]
    return torch.stack(tokens).unflatten(0, (2, -1))


@pytest.fixture(params=['random', 'real'])
def pair(request, patches):
    """Prediction, target and the number of bands, in a given type."""

    def make(dtype):
        if request.param == 'random':
            return random_pair(dtype)
        return patches[:1].to(dtype), patches[1:].to(dtype), 12

    return make


@pytest.mark.parametrize('reduction', [None, 'mean', 'sum'])
@pytest.mark.parametrize('dtype', TOLERANCE)
def test_both_losses_are_their_formulas(pair, dtype, reduction):
    prediction, target, bands = pair(dtype)
    if reduction is None:
        expected = slow_token_to_token(prediction, target)
        found = token_to_token(prediction, target)
    else:
        arguments = prediction, target, bands, reduction
        expected = slow_spectral_to_spectral(*arguments)
        found = spectral_to_spectral(*arguments)
    assert found.dtype == dtype
    assert found.tolist() == pytest.approx(expected, rel=TOLERANCE[dtype])


def test_errors_that_cancel_over_the_bands_are_no_spectral_error():
    target = torch.zeros(1, 2 * 3, 4)
    prediction = torch.cat([torch.ones(1, 3, 4), -torch.ones(1, 3, 4)], dim=1)
    assert spectral_to_spectral(prediction, target, 2).item() == 0
    assert token_to_token(prediction, target).item() == 1
    with pytest.raises(ValueError, match="'median'"):
        spectral_to_spectral(prediction, target, 2, 'median')


def test_each_token_is_standardized_by_its_own_pixels(pair):
    _, tokens, _ = pair(torch.float64)
    tokens = tokens[:, ::40] if tokens.shape[1] > 40 else tokens
    eps = 1e-3
    found = normalize_tokens(tokens, eps=eps)
    for found_rows, rows in zip(found.tokens.tolist(), tokens.tolist(), strict=True):
        for found_token, token in zip(found_rows, rows, strict=True):
            std = math.sqrt(variance(token) + eps)
            expected = [(pixel - fmean(token)) / std for pixel in token]
            assert found_token == pytest.approx(expected, rel=1e-9, abs=1e-12)
    restored = found.tokens * found.std + found.mean
    torch.testing.assert_close(restored, tokens, rtol=1e-12, atol=1e-12)
    constant = normalize_tokens(torch.full((1, 2, 9), 7.5))
    assert not constant.tokens.any()
    assert (constant.std > 0).all()


def test_the_trivial_guess_is_the_mean_of_the_visible_pixels_of_the_band():
    tokens, _, bands = random_pair(torch.float64)
    cells = 5
    # Band 1 has no visible token in the first sample; visible are bands 0, 2, 3.
    visible = torch.tensor([[0, 3, 11, 19], [2, 5, 12, 17], [0, 7, 14, 15]])
    found = trivial_reconstruction(tokens, visible, bands)
    assert found.shape == (3, 20, 1)
    for sample in range(3):
        pixels = {
            token: tokens[sample, token].tolist() for token in visible[sample].tolist()
        }
        for token in range(20):
            band = token // cells
            own = [p for t, ps in pixels.items() if t // cells == band for p in ps]
            every = [p for ps in pixels.values() for p in ps]
            expected = fmean(own or every)
            assert found[sample, token].item() == pytest.approx(expected, rel=1e-12)
