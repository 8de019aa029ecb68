"""Random places of scenes: right bands, blocks apart, no-data passed over."""

from pathlib import Path

import numpy as np
import pytest
import shapely
import torch

from tests import fabricate
from tests.fabricate import L1C, L2A, VALUES
from torchgeo_channelmae.datamodules import GeoPretrainingDataModule
from torchgeo_channelmae.experiments.configuration import read_datamodule

CONF = Path(__file__).parents[2] / 'conf'


def module(root, name='Sentinel2', stage='fit', **arguments):
    given = {'batch_size': 2, 'size': 16, 'bands': ['B02', 'B12'], **arguments}
    datamodule = GeoPretrainingDataModule({'class_path': name}, root=str(root), **given)
    datamodule.setup(stage)
    return datamodule


@pytest.fixture(scope='module')
def scene(tmp_path_factory):
    """A scene whose pixels of B02 and B12 are their column and row, in 10 m, plus 1."""
    root = tmp_path_factory.mktemp('scene')
    fabricate.sentinel2_scenes(root, side=360)
    for band, axis in (('B02', 2), ('B12', 1)):
        path = next(root.rglob(f'*_{band}_*.tif'))
        meters = int(path.stem[-3:-1])
        cells = 3600 // meters
        ramp = 1 + np.indices((1, cells, cells))[axis].astype('uint16') * meters // 10
        fabricate.write_tif(path, ramp, 300_000, 5_400_000, 'EPSG:32633', meters)
    return root


def images(datamodule, count):
    data = datamodule.train_dataset
    return torch.stack([data[number]['image'] for number in range(count)])


def boxes(data, count):
    """Return the outlines of places that a dataset tries."""
    places = [next(data.source.draw_places(seed)) for seed in range(count)]
    return [shapely.box(x.start, y.start, x.stop, y.stop) for x, y, _ in places]


@pytest.mark.parametrize(('level', 'bands'), [('L2A', L2A), ('L1C', L1C)])
def test_every_band_arrives_under_its_own_name(level, bands, tmp_path):
    fabricate.sentinel2_scenes(tmp_path, side=180, level=level)
    shuffled = [bands[i] for i in np.random.default_rng(0).permutation(len(bands))]
    datamodule = module(tmp_path, bands=shuffled, val_fraction=0)
    image = datamodule.train_dataset[0]['image']
    assert image.shape == (len(bands), 16, 16)
    assert (image == image[:, :1, :1]).all()
    assert image[:, 0, 0].tolist() == [VALUES[band] for band in shuffled]
    assert datamodule.record.sensors == (f'Sentinel-2 {level}',)


def test_places_change_by_epoch_and_come_again_with_any_number_of_workers(scene):
    def epochs(workers):
        given = {'val_fraction': 0, 'samples_per_epoch': 6, 'num_workers': workers}
        datamodule = module(scene, **given)
        assert datamodule.plot(datamodule.train_dataset[0]).axes  # opens files
        loader = datamodule.train_dataloader()
        found = []
        for epoch in (0, 1):
            loader.sampler.set_epoch(epoch)
            found.append(torch.cat([batch['image'] for batch in loader]))
        return found

    first, again = epochs(0), epochs(1)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], first[1])
    assert len({tuple(image[:, 0, 0].tolist()) for image in first[0]}) == 6


def test_training_and_validation_places_keep_the_gap(scene):
    given = {'block': 800.0, 'gap': 100.0, 'val_fraction': 0.3, 'split_seed': 1}
    datamodule = module(scene, bands=['B02'], **given)
    train, val = datamodule.train_dataset, datamodule.val_dataset
    assert train.source.area.distance(val.source.area) >= 100.0 - 1e-6
    for data in (train, val):
        outlines = boxes(data, 20)
        assert all(data.source.area.buffer(1e-3).contains(outlines))
    x, y, _ = next(val.source.draw_places(0))
    column = val.source.dataset[x, y]['image'][0, 0, 0].item() - 1
    assert column * 10 + 300_000 == pytest.approx(x.start, abs=10)


def test_dates_of_a_place_are_never_on_both_sides(tmp_path):
    dates = ('20200604T101031', '20200704T101031', '20200804T101031')
    fabricate.sentinel2_scenes(tmp_path, dates, side=360)
    datamodule = module(tmp_path, block=800.0, gap=0.0, val_fraction=0.3)
    seen = {int(value) - VALUES['B02'] for value in images(datamodule, 20)[:, 0, 0, 0]}
    assert seen == {0, 1, 2}  # each place is of one date, all dates come
    train, val = datamodule.train_dataset, datamodule.val_dataset
    assert train.source.area.intersection(val.source.area).area == 0


def test_places_mostly_without_data_are_passed_over_and_others_filled(tmp_path):
    fabricate.sentinel2_scenes(tmp_path, side=240, empty=192)
    datamodule = module(tmp_path, val_fraction=0, max_nodata=0.2)
    assert (images(datamodule, 15)[:, 0] == VALUES['B02']).all()


def test_a_scene_without_data_is_refused(tmp_path):
    fabricate.sentinel2_scenes(tmp_path, side=120, empty=120)
    datamodule = module(tmp_path, val_fraction=0)
    with pytest.raises(ValueError, match='max_nodata=10%'):
        datamodule.train_dataset[0]


def test_the_offset_of_newer_processing_baselines_is_undone(tmp_path):
    given = {'side': 180, 'empty': 60}
    fabricate.sentinel2_scenes(tmp_path, baseline='N0509', add=1000, **given)
    fabricate.sentinel2_scenes(tmp_path, ('20200704T101031',), **given)
    found = images(module(tmp_path, val_fraction=0, max_nodata=0.05), 15)
    assert set(found[:, 0].flatten().tolist()) == {VALUES['B02']}


def test_the_record_has_the_tiles_of_the_area(scene):
    # 3.6 km at the upper left of 33UUP, 50 km from the border of zone 32.
    tiles = set(module(scene, val_fraction=0).record.tiles)
    assert {'33UUP', '33UTP', '33UUQ', '33UTQ'} <= tiles
    assert not {'33UVP', '33UUN', '33UVQ', '33TUN'} & tiles


def test_a_tile_with_a_sliver_of_the_area_is_among_its_tiles(tmp_path):
    # From 30 m inside 33UUP's 109.8 km on, where places are 160 m wide.
    origin = (409_770, 5_350_000)
    fabricate.sentinel2_scenes(tmp_path, side=360, tile='33UVP', origin=origin)
    assert '33UUP' in module(tmp_path, val_fraction=0).record.tiles
    test = tmp_path / 'test'
    test.mkdir()
    fabricate.bigearthnet_table(test, ('test', 'train'))  # 33UUP tests
    given = {'val_fraction': 0, 'transfer_test': str(test)}
    with pytest.warns(UserWarning, match='33UUP: left out'):
        datamodule = module(tmp_path, overlap='drop', **given)
    assert '33UUP' not in datamodule.record.tiles
    data = datamodule.train_dataset
    assert all(data[number]['image'].min() > 0 for number in range(5))


def test_an_area_on_tiles_of_the_transfer_test_is_refused(scene, tmp_path):
    fabricate.bigearthnet_table(tmp_path, ('test', 'train'))  # 33UUP tests
    given = {'val_fraction': 0, 'transfer_test': str(tmp_path)}
    with pytest.raises(ValueError, match='33UUP'):
        module(scene, **given)
    with pytest.warns(UserWarning, match='33UUP: used'):
        module(scene, overlap='allow', **given)
    with pytest.warns(UserWarning, match='33UUP: left out'):
        datamodule = module(scene, overlap='drop', **given)
    with pytest.raises(ValueError, match='transfer_test'):
        datamodule.train_dataset[0]


def test_an_unknown_raster_is_described(tmp_path, monkeypatch):
    code = 'from torchgeo.datasets import RasterDataset\nclass Site(RasterDataset): ...'
    (tmp_path / 'own_raster.py').write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    pixels = np.stack([np.full((80, 80), value, 'float32') for value in (3, 4)])
    path = tmp_path / 'site' / 'a.tif'
    fabricate.write_tif(path, pixels, 3e5, 5.4e6, 'EPSG:32633', 10)
    given = {'name': 'own_raster.Site', 'val_fraction': 0, 'bands': ['VH']}
    with pytest.raises(ValueError, match=r'Site .* dataset_bands'):
        module(tmp_path / 'site', **given)
    datamodule = module(tmp_path / 'site', dataset_bands=['VV', 'VH'], **given)
    assert datamodule.train_dataset[0]['image'].unique().tolist() == [4]


@pytest.mark.parametrize(
    'wrong', [{'block': -1.0}, {'gap': -1.0}, {'val_samples': -1}, {'level': 'L3'}]
)
def test_a_wrong_argument_raises_in_the_constructor(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GeoPretrainingDataModule({'class_path': 'Sentinel2'}, **wrong)


@pytest.mark.parametrize(
    ('changed', 'named'),
    [
        ({'size': 400}, '400 px'),
        ({'block': 5e5}, 'groups'),
        ({'bands': ['B02', 'B22']}, 'B22'),
        ({'name': 'EuroSAT'}, 'EuroSAT. Use PretrainingDataModule'),
    ],
)
def test_what_does_not_fit_the_data_raises_in_setup(changed, named, scene):
    with pytest.raises(ValueError, match=named):
        module(scene, **changed)


def test_the_example_configuration_is_read(scene):
    config = [CONF / 'pretrain.yaml', CONF / 'any' / 'scenes.yaml']
    changes = {'root': str(scene), 'size': 16, 'block': 900.0, 'gap': 0.0}
    datamodule, _ = read_datamodule(config, changes)
    datamodule.setup('fit')
    batch = next(iter(datamodule.train_dataloader()))
    assert datamodule.finish(batch, training=True)['image'].shape == (16, 12, 16, 16)
