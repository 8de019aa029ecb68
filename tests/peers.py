"""Small versions of TorchGeo's foundation models, quick to make and to train."""

from functools import partial
from unittest.mock import patch

import timm
from torchgeo.models import CROMA, DOFA, CopernicusFM, Panopticon, ScaleMAE

from torchgeo_channelmae.models.peers import (
    PEERS,
    copernicusfm,
    croma,
    dofa,
    panopticon,
    registry,
    scalemae,
)

SIDE = {'panopticon_vitb14': 28}  # px; 32 for others
DEPTH = 2
NAMES = (
    'dofa_base_patch16_224',
    'croma_base',
    'copernicusfm_base',
    'panopticon_vitb14',
    'scalemae_large_patch16',
)


def small_panopticon(img_size):
    size = {'embed_dim': 48, 'depth': DEPTH, 'num_heads': 4}
    make = partial(timm.create_model, **size)  # it makes a large one before all else
    with patch('torchgeo.models.panopticon.timm.create_model', make):
        return Panopticon(attn_dim=48, embed_dim=48, img_size=img_size)


def shrink(monkeypatch):
    """Make one model of each family small, whoever makes it."""
    size = {'embed_dim': 48, 'depth': DEPTH, 'num_heads': 4}
    monkeypatch.setattr(
        copernicusfm, 'copernicusfm_base', partial(CopernicusFM, **size)
    )
    monkeypatch.setattr(
        scalemae, 'scalemae_large_patch16', partial(ScaleMAE, patch_size=16, **size)
    )
    monkeypatch.setattr(panopticon, 'panopticon_vitb14', small_panopticon)
    builders = {
        'dofa_base_patch16_224': (dofa.DOFAPeer, partial(DOFA, **size)),
        'croma_base': (
            croma.CROMAPeer,
            partial(CROMA, encoder_dim=64, encoder_depth=4),
        ),
    }
    for name, (kind, builder) in builders.items():
        entry = registry.Entry(partial(kind, builder=builder), PEERS[name].weights)
        monkeypatch.setitem(PEERS, name, entry)
