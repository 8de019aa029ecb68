"""Pooled features are those of the tokens, depth by depth, sample by sample."""

from types import SimpleNamespace

import pytest
import timm
import torch
from torch import nn
from torch.utils.data import Dataset
from torchgeo.datamodules import NonGeoDataModule

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.experiments.probes.features import (
    check_pool,
    depths_of,
    extract,
    pooled_depths,
    split_size,
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


def test_depths_are_before_and_after_each_block_and_after_the_last_norm():
    assert depths_of(encoder()) == ['0', '1', '2', '3', 'out']
    assert depths_of(timm.create_model('resnet18')) == ['out']


def test_depths_are_the_mean_of_timms_intermediate_tokens():
    model, image = encoder(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found = pooled_depths(model, image, depths_of(model))
        last, tokens = model.forward_intermediates(image, output_fmt='NLC')
        embedded = model._pos_embed(model.patch_embed(image))[:, 1:]
        torch.testing.assert_close(found['0'], embedded.mean(1))
        for depth, each in enumerate(tokens, 1):
            torch.testing.assert_close(found[str(depth)], each.mean(1))
        torch.testing.assert_close(found['out'], last[:, 1:].mean(1))
        torch.testing.assert_close(found['out'], model(image))  # as the head reads it
    assert not any(block._forward_hooks for block in model.blocks)


def test_each_bands_tokens_can_be_pooled_apart_and_the_class_token_taken():
    model, image = encoder(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = model.forward_features(image)
        apart = pooled_depths(model, image, ['out'], 'bands')['out']
        first = pooled_depths(model, image, ['out'], 'token')['out']
    assert apart.shape == (2, 3 * 24)
    torch.testing.assert_close(apart[:, 24:48], tokens[:, 5:9].mean(1))  # VV
    torch.testing.assert_close(first, tokens[:, 0])


def test_a_residual_network_is_pooled_as_it_pools():
    model, image = timm.create_model('resnet18').eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = pooled_depths(model, image, ['out'])['out']
        expected = model.forward_head(model.forward_features(image), pre_logits=True)
    torch.testing.assert_close(found, expected)


def test_samples_are_those_of_validation_in_the_order_of_the_dataset(data):
    model = encoder()
    found = extract({'it': (model, None)}, data, 'train', ['out'])['it']
    dataset = data.make_dataset('train')
    assert len(found) == 23
    assert torch.equal(found.labels, dataset.labels)
    image = torch.stack([dataset[i]['image'] for i in range(23)])
    images = data.finish({'image': image, 'visit': range(23)}, training=False)['image']
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(
        torch.from_numpy(found.depths['out']), expected, atol=1e-4, rtol=1e-3
    )


def test_encoders_see_their_own_channels_of_the_same_samples(data):
    radar = encoder(bands=['VV', 'VH'])
    both = extract(
        {'all': (encoder(), None), 'radar': (radar, [1, 2])}, data, 'test', ['out']
    )
    alone = BigEarthNetS1S2DataModule(bands=['VV', 'VH'], size=32, batch_size=21)
    alone.setup('test')
    expected = extract({'radar': (radar, None)}, alone, 'test', ['out'])['radar']
    torch.testing.assert_close(
        torch.from_numpy(both['radar'].depths['out']),
        torch.from_numpy(expected.depths['out']),
    )
    assert len(both['all']) == len(both['radar']) == 21


def test_fewer_samples_are_the_same_part_each_time(data):
    model = encoder()
    whole = extract({'': (model, None)}, data, 'train', ['out'])['']
    first = extract({'': (model, None)}, data, 'train', ['out'], samples=7)['']
    again = extract({'': (model, None)}, data, 'train', ['out'], samples=7)['']
    assert len(first) == 7
    assert (first.depths['out'] == again.depths['out']).all()
    distance = torch.cdist(
        torch.from_numpy(first.depths['out']), torch.from_numpy(whole.depths['out'])
    )
    assert (distance.min(1).values < 1e-4).all()
    other = extract({'': (model, None)}, data, 'train', ['out'], samples=7, seed=1)['']
    assert (first.depths['out'] != other.depths['out']).any()


def test_processes_share_the_samples_with_as_many_each(data):
    model = encoder()
    whole = extract({'': (model, None)}, data, 'train', ['out'])['']
    parts = [
        extract({'': (model, None)}, data, 'train', ['out'], ranks=(rank, 2))['']
        for rank in (0, 1)
    ]
    assert [len(part) for part in parts] == [12, 12]  # of 23: one twice
    rows = {tuple(row) for part in parts for row in part.depths['out'].round(3)}
    assert len(rows) == len({tuple(row) for row in whole.depths['out'].round(3)}) == 23


def test_modes_and_the_datamodules_trainer_are_left_as_they_were(data):
    model = encoder().train()
    model.blocks[1].eval()
    modes = [module.training for module in model.modules()]
    data.trainer = trainer = SimpleNamespace(training=True)
    try:
        extract({'': (model, None)}, data, 'val', ['out'])
        assert data.trainer is trainer
    finally:
        data.trainer = None
    assert [module.training for module in model.modules()] == modes
    assert not any(p.grad is not None for p in model.parameters())


def test_bfloat16_is_nearly_the_same_and_stored_in_float32(data):
    model = encoder()
    found = extract(
        {'': (model, None)},
        data,
        'val',
        ['out'],
        precision=lambda: torch.autocast('cpu', torch.bfloat16),
    )['']
    plain = extract({'': (model, None)}, data, 'val', ['out'])['']
    assert found.depths['out'].dtype == plain.depths['out'].dtype
    assert abs(found.depths['out'] - plain.depths['out']).max() < 0.1
    assert (found.depths['out'] != plain.depths['out']).any()


def test_samples_that_cannot_be_read_are_left_out(broken_sample):
    names = BigEarthNetS1S2DataModule(bands=BANDS, batch_size=1)
    names.setup('test')
    bad = names.test_dataset.patch_ids[2]
    root = broken_sample(lambda key, value: b'broken' if key == bad else value)
    data = BigEarthNetS1S2DataModule(
        root=str(root), bands=BANDS, size=32, batch_size=1, on_error='skip'
    )
    data.setup('test')
    with pytest.warns(UserWarning, match='Skipped patch'):
        found = extract({'': (encoder(), None)}, data, 'test', ['out'])['']
    kept = [i for i in range(21) if i != 2]
    assert torch.equal(found.labels, names.test_dataset.labels[kept])


class Tiny(Dataset):
    """A dataset of TorchGeo's manner: no index, one class a sample."""

    def __init__(self, split='train', **kwargs):
        self.shift = ('train', 'val', 'test').index(split)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        image = torch.full((3, 32, 32), float(index + self.shift))
        return {'image': image, 'label': torch.tensor(index % 3)}


def test_datamodules_of_torchgeo_are_read_with_their_own_augmentations():
    data = NonGeoDataModule(Tiny, batch_size=4)
    data.setup('fit')
    data.train_aug = None  # of training: not to be used
    data.aug = lambda batch: batch | {'image': batch['image'] * 10}
    seen = []
    model = encoder()
    forward = model.forward_features
    model.forward_features = lambda image: seen.append(image) or forward(image)
    found = extract({'': (model, None)}, data, 'train', ['out'])['']
    assert torch.cat(seen)[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50]
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert split_size(data, 'test') == 0
    with pytest.raises(ValueError, match='NonGeoDataModule has no test samples'):
        extract({'': (model, None)}, data, 'test', ['out'])


@pytest.mark.parametrize(
    ('model', 'pool', 'words'),
    [
        (encoder(), 'max', "pool is 'max': use one of mean, bands, token"),
        (nn.Identity(), 'bands', 'Identity has no tokens of its bands'),
        (encoder(class_token=False), 'token', 'has no class token'),
    ],
)
def test_a_way_of_pooling_that_does_not_fit_is_told(model, pool, words):
    with pytest.raises(ValueError, match=words):
        check_pool(model, pool)
