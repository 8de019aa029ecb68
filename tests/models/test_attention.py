"""Both implementations compute the same attention."""

import pytest
import torch
from timm.layers import Attention

from torchgeo_channelmae.models.attention import MOST_TOKENS, DeviceAttention


@pytest.fixture
def both():
    """Timm's attention and ours with the same weights."""
    torch.manual_seed(0)
    theirs, ours = (kind(64, 4, qkv_bias=True) for kind in (Attention, DeviceAttention))
    ours.load_state_dict(theirs.state_dict())  # strict: the names are the same
    return theirs, ours


def gradients(layer, x):
    x = x.clone().requires_grad_()
    out = layer(x)
    out.float().square().sum().backward()
    return out.float(), x.grad.float(), layer.qkv.weight.grad.float()


@pytest.mark.parametrize('tokens', [1, 49, MOST_TOKENS, MOST_TOKENS + 1])
def test_outputs_and_gradients_in_bfloat16_are_those_of_full_precision(both, tokens):
    theirs, ours = both
    x = torch.randn(2, tokens, 64)
    wanted = gradients(theirs, x)
    with torch.autocast('cpu', torch.bfloat16):
        found = gradients(ours, x)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=0.02 * other.abs().max().item())


def test_a_mask_is_applied(both):
    _, ours = both
    x = torch.randn(1, 5, 64)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.allclose(ours(x, is_causal=True)[:, :1], ours(x[:, :1]), atol=0.02)
