"""The decoder puts mask tokens where tokens are hidden and returns pixels in order."""

import pytest
import torch
from timm.layers import resample_abs_pos_embed

from torchgeo_channelmae.masking import RandomTokens
from torchgeo_channelmae.models import ChannelMAEDecoder

BANDS = ('B02', 'B08', 'VV')
GRID = (2, 3)
TOKENS = len(BANDS) * 6
ALL = torch.arange(TOKENS).expand(2, -1)


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    model = ChannelMAEDecoder(
        BANDS, GRID, patch_size=4, encoder_dim=12, embed_dim=16, depth=1, num_heads=2
    ).eval()
    for parameter in model.parameters():  # so that each of them has an effect
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def inputs(prefix=1, num_tokens=TOKENS):
    mask = RandomTokens(0.6)(torch.arange(2), 0, 1, num_tokens)
    draw = torch.Generator().manual_seed(3)
    encoded = torch.randn(2, prefix + mask.visible.shape[1], 12, generator=draw)
    return encoded, mask


def in_plain_order(decoder, encoded, mask, positions):
    """Run the decoder over the tokens 0..N-1 (attention has no order)."""
    samples = []
    for sample in range(len(encoded)):
        visible = mask.visible[sample].tolist()
        prefix = encoded.shape[1] - len(visible)
        sequence = [decoder.embed(token) for token in encoded[sample, :prefix]]
        cells = len(positions)
        for token in range(len(BANDS) * cells):
            if token in visible:
                place = prefix + visible.index(token)
                content = decoder.embed(encoded[sample, place])
            else:
                content = decoder.mask_token[0, 0]
            band = decoder.spectral_embed[BANDS[token // cells]]
            sequence.append(content + positions[token % cells] + band)
        states = torch.stack(sequence)[None]
        for block in decoder.blocks:
            states = block(states)
        samples.append(decoder.pixels(decoder.norm(states[0, prefix:])))
    return torch.stack(samples)


@pytest.mark.parametrize('prefix', [0, 1, 3])
@torch.no_grad()
def test_pixels_come_in_the_order_of_the_tokens(decoder, prefix):
    encoded, mask = inputs(prefix=prefix)
    found = decoder(encoded, mask.visible, mask.hidden, GRID, ALL)
    assert found.shape == (2, TOKENS, 16)
    expected = in_plain_order(decoder, encoded, mask, decoder.pos_embed[0])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('order', [1, -1])
@torch.no_grad()
def test_hidden_tokens_are_produced_in_any_order(decoder, order):
    encoded, mask = inputs()
    every = decoder(encoded, mask.visible, mask.hidden, GRID, ALL)
    hidden = mask.hidden if order == 1 else mask.hidden.flip(1)
    some = decoder(encoded, mask.visible, hidden, GRID)
    expected = torch.stack([every[row, hidden[row].tolist()] for row in range(2)])
    torch.testing.assert_close(some, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_positions_are_resampled_to_the_grid_of_the_image(decoder):
    encoded, mask = inputs(num_tokens=len(BANDS) * 20)
    produce = torch.arange(60).expand(2, -1)
    found = decoder(encoded, mask.visible, mask.hidden, (4, 5), produce)
    positions = resample_abs_pos_embed(
        decoder.pos_embed, [4, 5], list(GRID), num_prefix_tokens=0
    )[0]
    expected = in_plain_order(decoder, encoded, mask, positions)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_every_parameter_gets_a_gradient_and_embeddings_no_weight_decay(decoder):
    names = {name for name, _ in decoder.named_parameters()}
    without = {name for name in names if 'token' in name or '_embed' in name}
    assert decoder.no_weight_decay() == without
    encoded, mask = inputs()
    decoder(encoded, mask.visible, mask.hidden, GRID, ALL).square().sum().backward()
    assert all(parameter.grad.any() for parameter in decoder.parameters())


@pytest.mark.parametrize(('dim', 'depth', 'heads'), [(16, 1, 3), (16, 0, 2)])
def test_a_decoder_that_cannot_be_built_is_refused(dim, depth, heads):
    with pytest.raises(ValueError, match=f'depth {depth} and {heads} heads'):
        ChannelMAEDecoder(BANDS, GRID, 4, 12, dim, depth, heads)
