"""Small versions of TorchGeo's foundation models, quick to make and to train."""

from dataclasses import replace
from functools import partial
from unittest.mock import patch

import timm
from torchgeo.models import CROMA, DOFA, CopernicusFM, Panopticon, ScaleMAE

from torchgeo_channelmae.models.peers import PEERS

DEPTH = 2
_SIZE = {'embed_dim': 48, 'depth': DEPTH, 'num_heads': 4}
SIDE = {'panopticon_vitb14': 28}  # px; 32 for others


def _small_panopticon(img_size):
    make = partial(timm.create_model, **_SIZE)  # it makes a large one before all else
    with patch('torchgeo.models.panopticon.timm.create_model', make):
        return Panopticon(attn_dim=48, embed_dim=48, img_size=img_size)


BUILDERS = {
    'dofa_base_patch16_224': partial(DOFA, **_SIZE),
    'croma_base': partial(CROMA, encoder_dim=64, encoder_depth=4),
    'copernicusfm_base': partial(CopernicusFM, **_SIZE),
    'panopticon_vitb14': _small_panopticon,
    'scalemae_large_patch16': partial(ScaleMAE, patch_size=16, **_SIZE),
}


def shrink(monkeypatch):
    """Make one model of each family small, whoever makes it."""
    for name, builder in BUILDERS.items():
        monkeypatch.setitem(PEERS, name, replace(PEERS[name], builder=builder))
