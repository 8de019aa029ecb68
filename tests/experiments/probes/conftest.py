"""The shipped configurations with an encoder of two blocks and images of 32 px."""

import pytest
import torch
import yaml

from torchgeo_channelmae.models import ChannelViT
from torchgeo_channelmae.models.registry import register_variant

SHALLOW = 'channelmae_probed'
register_variant(SHALLOW, 'channelmae_tiny_patch16', depth=2)


@pytest.fixture(scope='session')
def small(conf, tmp_path_factory):
    """Write a shipped configuration with the small encoder, without weights."""

    def write(name, model=None, **data):
        content = yaml.safe_load((conf / name).read_text())
        model = {'model': SHALLOW, 'size': 32, 'weights': None} | (model or {})
        if name == 'pretrain.yaml':
            del model['weights']
        content['model']['init_args'] |= model
        content['data']['init_args'] |= {'size': 32, 'size_by': 'resize'} | data
        path = tmp_path_factory.mktemp('conf') / name
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture(scope='session')
def weights(tmp_path_factory):
    """Write weights of an encoder of some bands; the paths in the order of training."""
    folder = tmp_path_factory.mktemp('weights')
    paths = []
    for seed, bands in enumerate([('B04', 'B08'), ('VV', 'VH')]):
        torch.manual_seed(seed)
        small = {'img_size': 32, 'embed_dim': 192, 'depth': 2, 'num_heads': 3}
        torch.save(ChannelViT(bands=bands, **small).state_dict(), folder / f'{seed}.pt')
        paths.append(str(folder / f'{seed}.pt'))
    return paths
