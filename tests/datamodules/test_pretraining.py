"""Samples of any dataset become batches of named bands, with nothing leaking."""

import os
from pathlib import Path

import numpy as np
import pytest
from pyproj import Transformer
from torchgeo.datasets import unbind_samples

from tests import fabricate
from tests.datamodules.test_holdout import kilometers, scattered
from tests.fabricate import L2A, VALUES
from torchgeo_channelmae import sensors
from torchgeo_channelmae.datamodules import PretrainingDataModule
from torchgeo_channelmae.datasets.encode import encode
from torchgeo_channelmae.experiments.configuration import read_datamodule
from torchgeo_channelmae.provenance.record import patch_hashes
from torchgeo_channelmae.samplers import EpochSampler
from torchgeo_channelmae.samplers.shares import ClassShares, write_shares

CONF = Path(__file__).parents[2] / 'conf'
PLACES = scattered(60, 5)


def module(name, root=None, stage='fit', **arguments):
    init_args = arguments.pop('init_args', {})
    given = {'batch_size': 2, 'size': 8, **arguments}
    spec = {'class_path': name, 'init_args': init_args}
    datamodule = PretrainingDataModule(dataset=spec, root=root and str(root), **given)
    datamodule.setup(stage)
    return datamodule


@pytest.fixture
def eurosat(tmp_path):
    fabricate.eurosat(tmp_path, PLACES[:6])
    return tmp_path


@pytest.fixture
def s2100k(tmp_path):
    fabricate.s2100k(tmp_path, PLACES)
    return tmp_path


def test_a_batch_is_normalized_band_by_band(eurosat):
    bands = ['B8A', 'B10', 'B02']
    datamodule = module('EuroSAT', eurosat, bands=bands, val_by='random')
    batch = next(iter(datamodule.train_dataloader()))
    assert set(batch) == {'image', 'index', 'patch_id', 'visit'}
    image = datamodule.finish(batch, training=True)['image']
    assert image.shape == (2, 3, 8, 8)
    known = {band.name: band for band in sensors.SENTINEL2_L1C}
    expected = [(VALUES[b] - known[b].mean) / known[b].std for b in bands]
    assert image.mean(dim=(0, 2, 3)).tolist() == pytest.approx(expected, rel=1e-5)
    row = unbind_samples(datamodule.finish(batch, training=False))[0]
    physical = datamodule.physical(row)['image'].mean(dim=(1, 2))
    assert physical.tolist() == pytest.approx([VALUES[b] for b in bands], rel=1e-5)
    assert datamodule.plot(row).axes


def test_statistics_come_from_a_file_if_there_is_one(eurosat, tmp_path):
    path = tmp_path / 'own.yaml'
    path.write_text('bands: {B03: {mean: 1100, std: 2}, B02: {mean: 0, std: 11}}')
    datamodule = module(
        'EuroSAT', eurosat, bands=['B02', 'B03'], val_by='random', statistics=str(path)
    )
    assert datamodule.facts.mean.tolist() == [0, 1100]
    assert datamodule.facts.std.tolist() == [11, 2]


def test_no_training_sample_is_near_one_that_validates(s2100k):
    datamodule = module('S2100k', s2100k, val_fraction=0.2, gap_km=80.0)
    train, val = datamodule.train_dataset.rows, datamodule.val_dataset.rows
    assert len(train) + len(val) < len(PLACES)
    assert kilometers(PLACES[train], PLACES[val]).min() > 80


def test_another_seed_holds_out_other_groups(s2100k):
    first, again, other = (
        set(module('S2100k', s2100k, split_seed=seed).val_dataset.rows)
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_there_may_be_no_validation(eurosat):
    datamodule = module('EuroSAT', eurosat, val_fraction=0)
    assert datamodule.num_patches == {'train': 6}
    assert datamodule.val_dataloader() == []


OWN = """
import torch
from torchgeo.datasets import NonGeoDataset

class Own(NonGeoDataset):
    farms = list('aabbcc')

    def __init__(self, root=None):
        pass

    def __len__(self):
        return 6

    def __getitem__(self, index):
        image = torch.arange(3.0)[:, None, None].expand(3, 8, 8)
        return {'pixels': image, 'farm': 'xxyyzz'[index], 'crop': torch.tensor(index)}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / 'own_dataset.py').write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return {
        'dataset_bands': ['B04', 'NIR', 'VH'],
        'image_key': 'pixels',
        'level': 'L2A',
        'val_by': 'random',
        'bands': ['VH', 'B04'],
    }


def test_a_user_describes_an_unknown_dataset(own):
    datamodule = module('own_dataset.Own', **own)
    image = datamodule.train_dataset[0]['image']
    assert image[:, 0, 0].tolist() == [2, 0]
    assert datamodule.record.sensors == ('Sentinel-1 GRD', 'Sentinel-2 L2A')
    assert 'patch_id' not in next(iter(datamodule.train_dataloader()))


@pytest.mark.parametrize('key', ['farm', 'farms'])
def test_groups_come_from_a_key_of_the_samples_or_the_dataset(key, own):
    given = own | {'val_by': 'key', 'val_key': key, 'val_fraction': 0.4}
    datamodule = module('own_dataset.Own', **given)
    train, val = (
        {'xxyyzz'[row] for row in data.rows}
        for data in (datamodule.train_dataset, datamodule.val_dataset)
    )
    assert (len(train), len(val)) == (2, 1)
    assert not train & val


@pytest.mark.parametrize(
    ('changed', 'named'),
    [
        ({'dataset_bands': None}, 'Own .* dataset_bands'),
        ({'level': None}, 'B04'),
        ({'bands': ['NIR']}, 'NIR'),
        ({'bands': ['B05']}, 'B05'),
        ({'dataset_bands': ['B04', 'B04', 'VH']}, 'B04'),
        ({'val_by': 'auto'}, 'val_by'),
        ({'val_by': 'key', 'val_key': 'color'}, "val_key 'color'.*pixels, farm"),
        ({'val_by': 'key'}, 'val_key'),
        ({'val_fraction': 0.01}, 'groups'),
    ],
)
def test_what_is_unknown_is_asked_for(changed, named, own):
    with pytest.raises(ValueError, match=named):
        module('own_dataset.Own', **own | changed)


@pytest.mark.parametrize(
    ('changed', 'named'),
    [
        ({'image_key': 'image'}, 'image_key'),
        ({'dataset_bands': ['B04', 'VH']}, r'\(3, 8, 8\).*dataset_bands'),
    ],
)
def test_samples_that_are_not_as_described_are_refused(changed, named, own):
    datamodule = module('own_dataset.Own', **own | changed)
    with pytest.raises(ValueError, match=named):
        datamodule.train_dataset[0]


@pytest.mark.parametrize(
    'wrong',
    [
        {'level': 'L3'},
        {'overlap': 'maybe'},
        {'val_by': 'luck'},
        {'val_fraction': 1.0},
        {'max_nodata': 2.0},
        {'on_error': 'hide'},
        {'gap_km': -1.0},
        {'size_by': 'stretch'},
        {'clip_pixels': -5.0},
    ],
)
def test_a_wrong_argument_raises_in_the_constructor(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PretrainingDataModule({'class_path': 'EuroSAT'}, **wrong)


@pytest.mark.parametrize(
    ('wrong', 'named'),
    [
        ({'batch_size': 9}, 'batch_size'),
        ({'statistics': 'none.yaml'}, 'none.yaml'),
        ({'transfer_test': 'nowhere'}, 'nowhere'),
        ({'sampler': {'class_path': 'Fair'}}, 'Fair'),
        (
            {'sampler': {'class_path': 'EpochSampler', 'init_args': {'speed': 1}}},
            'speed',
        ),
    ],
)
def test_an_argument_that_does_not_fit_the_data_raises_in_setup(wrong, named, eurosat):
    with pytest.raises((ValueError, OSError), match=named):
        module('EuroSAT', eurosat, **{'val_by': 'random', **wrong})


def test_a_geodataset_is_sent_to_its_own_datamodule(tmp_path):
    with pytest.raises(ValueError, match='GeoPretrainingDataModule'):
        module('Sentinel2', tmp_path)


@pytest.fixture
def overlapping(tmp_path):
    """SSL4EO-S12 on three tiles, one of which has the transfer's test patch."""
    fabricate.ssl4eo(tmp_path, (3, 4, 5), ('35VNL', '43RCP', '10TEK'))
    test = tmp_path / 'transfer'
    test.mkdir()
    fabricate.bigearthnet_table(test, ('train', 'test'))
    return {
        'name': 'SSL4EOS12',
        'root': tmp_path,
        'init_args': {'split': 's2a'},
        'val_fraction': 0,
        'transfer_test': str(test),
    }


def test_samples_on_tiles_of_the_transfer_test_are_refused_dropped_or_used(overlapping):
    with pytest.raises(ValueError, match=r'1 of 3 samples .* 35VNL'):
        module(**overlapping)
    with pytest.warns(UserWarning, match='35VNL: left out'):
        datamodule = module(**overlapping, overlap='drop')
    assert datamodule.train_dataset.names.tolist() == ['0000004', '0000005']
    assert {'10TEK', '43RCP'} <= set(datamodule.record.tiles)
    assert '35VNL' not in datamodule.record.tiles
    with pytest.warns(UserWarning, match='35VNL: used'):
        datamodule = module(**overlapping, overlap='allow')
    assert {'10TEK', '35VNL', '43RCP'} <= set(datamodule.record.tiles)


def test_validation_is_kept_off_the_tiles_of_the_transfer_test_too(overlapping):
    given = overlapping | {'val_fraction': 0.5, 'gap_km': 0, 'overlap': 'drop'}
    with pytest.warns(UserWarning, match='35VNL: left out'):
        datamodule = module(**given, batch_size=1)
    assert datamodule.num_patches == {'val': 1, 'train': 1}
    assert '0000003' not in datamodule.val_dataset.names


def test_tiles_come_from_coordinates_where_names_have_none(overlapping):
    overlapping['init_args'] = {'split': 's1'}
    for path in (overlapping['root'] / 's1' / '0000004').rglob('*.tif'):
        fabricate.write_tif(path, np.zeros((1, 264, 264), 'float32'), 27.2, 63.5)
    with pytest.raises(ValueError, match=r'1 of 3 samples of SSL4EOS12 .* 35VNL'):
        module(**overlapping)


def test_an_overlap_that_cannot_be_checked_is_reported(tmp_path):
    fabricate.so2sat(tmp_path)
    fabricate.bigearthnet_table(tmp_path, ('train', 'test'))
    given = {'init_args': {'checksum': False}, 'val_fraction': 0}
    with pytest.warns(UserWarning, match='So2Sat .* unchecked'):
        datamodule = module('So2Sat', tmp_path, transfer_test=str(tmp_path), **given)
    assert datamodule.record.tiles is None
    assert len(datamodule.train_dataset) == 4


@pytest.mark.parametrize('name', ['S2100k', 'MMEarth'])
def test_coordinates_are_on_all_tiles_that_may_cover_them(name, tmp_path):
    back = Transformer.from_crs('EPSG:32633', 'EPSG:4326', always_xy=True)
    # In the lowest 9 km of the tile T33UUP, which are in another square.
    places = [back.transform(350_000, 5_295_000), (9.0, 50.0)]
    init_args = {}
    if name == 'MMEarth':
        fabricate.mmearth(tmp_path, ('l2a',) * 2, places)
        init_args = {'subset': 'MMEarth100k'}
    else:
        fabricate.s2100k(tmp_path, places)
    fabricate.bigearthnet_table(tmp_path, ('test', 'train'))  # 33UUP tests
    given = {'init_args': init_args, 'val_fraction': 0, 'batch_size': 1}
    test = {'transfer_test': str(tmp_path)}
    with pytest.raises(ValueError, match=r'1 of 2 samples .* 33UUP'):
        module(name, tmp_path, **given, **test)
    with pytest.warns(UserWarning, match='33UUP: left out'):
        kept = module(name, tmp_path, **given, **test, overlap='drop')
    assert kept.num_patches == {'train': 1}
    assert '33UUP' not in kept.record.tiles
    assert '33UUP' in module(name, tmp_path, **given).record.tiles


def test_the_record_of_bigearthnet_has_patches_under_all_names_and_tiles(tmp_path):
    fabricate.bigearthnet_v2(tmp_path)
    encode(tmp_path, tmp_path / 'out', workers=0)
    name = 'torchgeo_channelmae.datasets.BigEarthNetLMDB'
    datamodule = module(name, tmp_path / 'out', val_fraction=0, bands=['B04'])
    record = datamodule.record
    assert record.dataset == 'BigEarthNetLMDB'
    assert record.tiles == ('33UUP', '35VNL')
    names = [*fabricate.V1_NAMES, *fabricate.S2_NAMES]
    encoded = np.array([name.encode() for name in names])
    assert record.patches.tolist() == sorted(patch_hashes(encoded).tolist())
    assert record.name_spaces == ('v1', 'v2')
    assert record.labels_steered is False


@pytest.mark.parametrize('uses_labels', [True, False])
def test_a_balanced_sampler_can_choose_and_the_record_says_so(uses_labels, eurosat):
    values = np.eye(2, dtype=np.float32)[[1, 0, 0, 0, 0, 0]]  # the last is of the sea
    names = np.array([f'Train{number}_{number}' for number in range(6, 0, -1)])
    about = (('forest', 'sea'), 'made up', 'EuroSAT', uses_labels)
    path = eurosat / 'shares.parquet'
    write_shares(path, ClassShares(values, *about, names))
    init_args = {'shares': str(path), 'max_repeats': 50}
    sampler = {'class_path': 'LandCoverBalancedSampler', 'init_args': init_args}
    given = {'val_fraction': 0, 'samples_per_epoch': 8}
    datamodule = module('EuroSAT', eurosat, sampler=sampler, **given)
    assert datamodule.record.labels_steered is uses_labels
    numbers = list(datamodule.train_dataloader().sampler)
    assert len(numbers) == 8
    assert sum(number % 6 == 5 for number in numbers) > 8 / 6  # its share


def test_an_epoch_has_the_order_of_the_epoch_sampler_and_numbers_of_its_own(eurosat):
    datamodule = module('EuroSAT', eurosat, val_fraction=0, samples_per_epoch=10)
    sampler = datamodule.train_dataloader().sampler
    numbers = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        plain = EpochSampler(range(6), 10, seed=0, num_replicas=1, rank=0)
        plain.set_epoch(epoch)
        drawn = list(sampler)
        assert [number % 6 for number in drawn] == [n % 6 for n in plain]
        numbers += drawn
    assert len(set(numbers)) == len(numbers)


def test_the_epoch_of_a_sampler_is_what_a_batch_has_to_fit_in(eurosat):
    def epoch_of(count):
        return {'class_path': 'EpochSampler', 'init_args': {'samples_per_epoch': count}}

    given = {'val_by': 'random', 'batch_size': 8}
    with pytest.raises(ValueError, match='batch_size'):
        module('EuroSAT', eurosat, sampler=epoch_of(4), **given)
    datamodule = module('EuroSAT', eurosat, sampler=epoch_of(16), **given)
    assert len(datamodule.train_dataloader()) == 2
    assert datamodule.record.labels_steered is False


def test_each_epoch_draws_other_seasons_and_a_rerun_draws_them_again(tmp_path):
    fabricate.ssl4eo(tmp_path, (0, 1, 2), ('35VNL', '43RCP', '10TEK'), seasons=3)

    def epochs(workers):
        datamodule = module(
            'SSL4EOS12',
            tmp_path,
            init_args={'split': 's2a'},
            bands=['B02'],
            val_fraction=0,
            batch_size=1,
            samples_per_epoch=6,
            num_workers=workers,
        )
        loader = datamodule.train_dataloader()
        found = []
        for epoch in (0, 1):
            loader.sampler.set_epoch(epoch)
            found.append(
                [(b['patch_id'][0], b['image'][0, 0, 0, 0].item()) for b in loader]
            )
        return found

    first, again = epochs(0), epochs(1)
    assert first == again
    assert first[0] != first[1]
    assert len({value for _, value in first[0] + first[1]}) == 3


def test_pixels_without_data_are_filled_with_the_mean_of_the_others(tmp_path):
    fabricate.s2100k(tmp_path)
    pixels = fabricate.constant(L2A, 8).copy()
    pixels[:, :4] *= 2
    pixels[:, :2, :] = 0  # in all bands: no data
    pixels[0, 7, :] = 0  # in one band: dark
    fabricate.write_tif(tmp_path / 'images' / 'patch_0.tif', pixels)
    given = {'val_fraction': 0, 'batch_size': 1}
    image = module('S2100k', tmp_path, **given).train_dataset[0]['image']
    assert image[1, 0].tolist() == pytest.approx([pixels[1, 2:].mean()] * 8)
    assert image[0, 7].tolist() == [0] * 8
    datamodule = module('S2100k', tmp_path, max_nodata=0.2, **given)
    with pytest.raises(ValueError, match=r'25\.0%.*max_nodata'):
        datamodule.train_dataset[0]


@pytest.mark.parametrize('on_error', ['raise', 'skip'])
def test_a_damaged_file_is_named_or_skipped(on_error, eurosat):
    os.truncate(next(eurosat.rglob('Train1_1.tif')), 100)
    given = {'val_fraction': 0, 'batch_size': 6, 'on_error': on_error}
    loader = iter(module('EuroSAT', eurosat, **given).train_dataloader())
    if on_error == 'raise':
        with pytest.raises(ValueError, match='Train1_1'):
            next(loader)
        return
    batch = next(loader)
    assert len(batch['image']) == 5
    [(name, _)] = batch['skipped']
    assert name == 'Train1_1'


def test_a_configuration_is_read_with_all_its_options(tmp_path):
    fabricate.mmearth(tmp_path, ('l2a',) * 40, [tuple(place) for place in PLACES[:40]])
    config = [CONF / 'pretrain.yaml', CONF / 'any' / 'samples.yaml']
    datamodule, _ = read_datamodule(config, {'root': str(tmp_path)})
    datamodule.setup('fit')
    assert datamodule.facts.bands == L2A
    assert 0 < len(datamodule.val_dataset) < len(datamodule.train_dataset) < 40
    with pytest.raises(ValueError, match='val_by'):
        read_datamodule(config, {'val_by': 'luck'})
