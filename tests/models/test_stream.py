"""Weights whose residual stream grew out of proportion are noticed at loading."""

import pytest
import timm
import torch

from torchgeo_channelmae.models import load_encoder
from torchgeo_channelmae.models.stream import stream_norm, watched_stream


def encoder(seed, **kwargs):
    torch.manual_seed(seed)
    return timm.create_model(
        'channelmae_tiny_patch16', in_chans=3, depth=2, img_size=64, **kwargs
    )


def grow(model, factor):
    """Multiply all that adds to the stream; the norms before each layer undo it."""
    adds = ('proj.', 'fc2.', 'pos_embed', 'spectral_embed', 'cls_token')
    for name, parameter in model.named_parameters():
        if any(part in name for part in adds):
            parameter.data *= factor
    return model


def load(source):
    model = encoder(0)
    with watched_stream(model, 'weights W'):
        load_encoder(model, source.state_dict())
    return model


def test_the_norm_is_that_of_tokens_before_the_final_norm():
    model = encoder(0).train()
    state = torch.get_rng_state()
    norm = stream_norm(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    images = torch.randn(4, 3, 64, 64)
    (tokens,) = model.forward_intermediates(
        images, [1], norm=False, intermediates_only=True, output_fmt='NLC'
    )
    assert norm == pytest.approx(tokens.norm(dim=-1).mean().item(), rel=0.1)


def test_a_stream_of_31_times_its_start_warns_though_the_function_is_the_same(recwarn):
    usual, grown = encoder(1).eval(), grow(encoder(1), 31).eval()
    image = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(grown(image), usual(image), rtol=0, atol=1e-3)
    loaded = load(grown)
    [warning] = recwarn
    assert 'weights W' in str(warning.message)
    assert '31 times' in str(warning.message)
    for name, tensor in grown.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_usual_stream_is_silent(recwarn):
    load(encoder(1, embed_std=0.5))
    load(grow(encoder(1), 5))
    assert not recwarn.list
