"""Pooled features are those of the tokens, depth by depth, sample by sample."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import Dataset
from torchgeo.datamodules import NonGeoDataModule

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.experiments.probes.features import (
    check_pool,
    depths_of,
    extract,
    pooled_depths,
)
from torchgeo_channelmae.models import ChannelViT

BANDS = ['B04', 'VV', 'VH']


def encoder(bands=BANDS, **kwargs):
    torch.manual_seed(0)
    small = {'img_size': 32, 'embed_dim': 24, 'depth': 3, 'num_heads': 2}
    return ChannelViT(bands=bands, **small, **kwargs).eval()


@pytest.fixture(scope='module')
def data():
    datamodule = BigEarthNetS1S2DataModule(bands=BANDS, size=32, batch_size=8)
    datamodule.setup('fit')
    datamodule.setup('test')
    return datamodule


def out_of(found):
    return torch.from_numpy(found.depths['out'])


def test_depths_are_the_mean_of_timms_intermediate_tokens():
    model, image = encoder(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found = pooled_depths(model, image, depths_of(model))
        last, tokens = model.forward_intermediates(image, output_fmt='NLC')
        embedded = model._pos_embed(model.patch_embed(image))[:, 1:]
    expected = [each.mean(1) for each in (embedded, *tokens, last[:, 1:])]
    assert list(found) == ['0', '1', '2', '3', 'out']
    torch.testing.assert_close(list(found.values()), expected)
    assert not any(block._forward_hooks for block in model.blocks)


def test_each_bands_tokens_or_the_class_token_can_be_the_feature():
    model, image = encoder(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = model.forward_features(image)
        apart = pooled_depths(model, image, ['out'], 'bands')['out']
        first = pooled_depths(model, image, ['out'], 'token')['out']
    assert apart.shape == (2, 3 * 24)
    torch.testing.assert_close(apart[:, 24:48], tokens[:, 5:9].mean(1))  # VV
    torch.testing.assert_close(first, tokens[:, 0])


def test_samples_are_those_of_validation_in_the_order_of_the_dataset(data):
    model = encoder()
    found = extract({'it': model}, data, 'train')['it']
    dataset = data.make_dataset('train')
    assert torch.equal(found.labels, dataset.labels)
    image = torch.stack([dataset[i]['image'] for i in range(23)])
    images = data.finish({'image': image, 'visit': range(23)}, training=False)['image']
    with torch.no_grad():
        torch.testing.assert_close(out_of(found), model(images), atol=1e-4, rtol=1e-3)


def test_encoders_see_their_own_channels_of_the_same_samples(data):
    radar = encoder(bands=['VV', 'VH'])
    found = extract({'all': encoder(), 'radar': radar}, data, 'test')
    own = BigEarthNetS1S2DataModule(bands=['VV', 'VH'], size=32, batch_size=21)
    own.setup('test')
    expected = extract({'radar': radar}, own, 'test')['radar']
    torch.testing.assert_close(out_of(found['radar']), out_of(expected))
    assert len(found['all']) == 21


def test_fewer_samples_are_the_same_part_each_time(data):
    models = {'': encoder()}
    full = extract(models, data, 'train')['']
    first, again, other = (
        out_of(extract(models, data, 'train', samples=7, seed=seed)[''])
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (torch.cdist(first, out_of(full)).min(1).values < 1e-4).all()


def test_processes_share_the_samples_and_all_get_them(data, monkeypatch):
    models = {'': encoder()}
    expected = extract(models, data, 'train')['']
    sent = []

    def gather(received, batches):
        sent.append(batches)
        received[:] = (2 * sent)[:2]

    monkeypatch.setattr(dist, 'is_initialized', lambda: True)
    monkeypatch.setattr(dist, 'get_world_size', lambda *_: 2)
    monkeypatch.setattr(dist, 'all_gather_object', gather)
    for rank in (0, 1):
        monkeypatch.setattr(dist, 'get_rank', lambda *_, rank=rank: rank)
        found = extract(models, data, 'train')['']
    counts = [sum(len(batch['index']) for batch in batches) for batches in sent]
    assert counts == [12, 12]  # of 23: one twice
    torch.testing.assert_close(out_of(found), out_of(expected))
    assert torch.equal(found.labels, expected.labels)


@pytest.mark.filterwarnings('ignore:Skipped')
def test_samples_that_cannot_be_read_are_left_out(data, broken_sample):
    bad = data.test_dataset.patch_ids[2]
    root = broken_sample(lambda key, value: b'broken' if key == bad else value)
    options = {'bands': BANDS, 'size': 32, 'batch_size': 1, 'on_error': 'skip'}
    broken = BigEarthNetS1S2DataModule(root=str(root), **options)
    broken.setup('test')
    found = extract({'': encoder()}, broken, 'test')['']
    kept = [i for i in range(21) if i != 2]
    assert torch.equal(found.labels, data.test_dataset.labels[kept])


class Tiny(Dataset):
    """A dataset in TorchGeo's manner: no index, one class per sample."""

    def __init__(self, split='train', **kwargs):
        pass

    def __len__(self):
        return 6

    def __getitem__(self, index):
        image = torch.full((3, 32, 32), float(index))
        return {'image': image, 'label': torch.tensor(index % 3)}


def test_datamodules_of_torchgeo_use_their_augmentations_of_validation():
    data = NonGeoDataModule(Tiny, batch_size=4)
    data.setup('fit')
    data.train_aug = None  # fails if it is used
    data.aug = lambda batch: batch | {'image': batch['image'] * 10}
    data.trainer = trainer = object()
    seen = []
    model = encoder()
    forward = model.forward_features
    model.forward_features = lambda image: seen.append(image) or forward(image)
    found = extract({'': model}, data, 'train')['']
    assert torch.cat(seen)[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50]
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.trainer is trainer
    with pytest.raises(ValueError, match='NonGeoDataModule has no test samples'):
        extract({'': model}, data, 'test')


@pytest.mark.parametrize(
    ('model', 'pool'), [(nn.Identity(), 'bands'), (encoder(class_token=False), 'token')]
)
def test_a_pooling_without_its_tokens_is_an_error(model, pool):
    with pytest.raises(ValueError, match=f'{pool}.*{type(model).__name__}'):
        check_pool(model, pool)
