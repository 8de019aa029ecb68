"""Random places of scenes: right bands, blocks apart, no-data passed over."""

import numpy as np
import pytest
import shapely
import torch

from tests import fabricate
from tests.fabricate import L1C, L2A, VALUES
from torchgeo_channelmae.datamodules.geo import GeoPretrainingDataModule
from torchgeo_channelmae.datamodules.places import split_area


def module(root, name='Sentinel2', stage='fit', **arguments):
    init_args = arguments.pop('init_args', {})
    given = {'batch_size': 2, 'size': 16, 'bands': ['B02', 'B12'], **arguments}
    spec = {'class_path': name, 'init_args': init_args}
    datamodule = GeoPretrainingDataModule(dataset=spec, root=str(root), **given)
    datamodule.setup(stage)
    return datamodule


@pytest.fixture(scope='module')
def scene(tmp_path_factory):
    root = tmp_path_factory.mktemp('scene')
    fabricate.sentinel2_scenes(root, side=360)
    return root


def values(datamodule, count=None):
    data = datamodule.train_dataset
    samples = [data[number]['image'] for number in range(count or len(data))]
    return torch.stack(samples)


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


def test_a_batch_is_normalised_and_numbered(scene):
    datamodule = module(scene, block=900.0, gap=0.0)
    batch = next(iter(datamodule.train_dataloader()))
    assert set(batch) == {'image', 'index', 'visit'}
    image = datamodule.finish(batch, training=True)['image']
    expected = (VALUES['B12'] - 997.72) / 806.88
    assert image[:, 1].mean().item() == pytest.approx(expected, rel=1e-5)


def test_places_change_by_epoch_and_come_again(tmp_path):
    write_ramp(tmp_path)

    def epochs(workers=0):
        datamodule = module(
            tmp_path, val_fraction=0, samples_per_epoch=6, num_workers=workers
        )
        loader = datamodule.train_dataloader()
        found = []
        for epoch in (0, 1):
            loader.sampler.set_epoch(epoch)
            found.append(torch.cat([batch['image'] for batch in loader]))
        return found

    first, again = epochs(), epochs(workers=1)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], first[1])
    assert len({tuple(image[:, 0, 0].tolist()) for image in first[0]}) == 6


def test_a_worker_opens_files_anew_that_were_opened_before_it(scene, monkeypatch):
    data = module(scene, val_fraction=0).train_dataset
    opened = data.source.dataset._cached_load_warp_file
    first = data[0]['image']
    before = opened.cache_info()
    data[0]
    assert opened.cache_info().misses == before.misses  # open files are used again
    monkeypatch.setattr('os.getpid', lambda: -1)
    assert torch.equal(data[0]['image'], first)
    assert opened.cache_info().misses == 2  # counted from the start: B02 and B12
    assert opened.cache_info().hits == 0


def write_ramp(root, side=360):
    """Write a scene whose pixels tell their column and row."""
    fabricate.sentinel2_scenes(root, side=side)
    for band, axis in (('B02', 1), ('B12', 0)):
        path = next(root.rglob(f'*_{band}_*.tif'))
        meters = int(path.stem[-3:-1])
        cells = side * 10 // meters
        ramp = np.arange(cells)[None, :, None] * np.ones((1, 1, cells))
        if axis:
            ramp = ramp.transpose(0, 2, 1)
        ramp = (1 + ramp * meters / 10).astype('uint16')
        fabricate.write_tif(path, ramp, 300_000, 5_400_000, 'EPSG:32633', meters)


def test_training_and_validation_places_do_not_touch(tmp_path):
    write_ramp(tmp_path)
    datamodule = module(
        tmp_path, bands=['B02'], block=800.0, gap=100.0, val_fraction=0.3, split_seed=1
    )
    train, val = split_area(datamodule.source.area, 800.0, 0.3, 100.0, 1)
    assert train.distance(val) >= 100.0 - 1e-6
    sides = ((datamodule.train_dataset, train), (datamodule.val_dataset, val))
    for data, inside in sides:
        for number in range(20):
            x, y, _ = data.source.place(number)
            box = shapely.box(x.start, y.start, x.stop, y.stop)
            assert inside.buffer(1e-3).contains(box)
            column = data.source.dataset[x, y]['image'][0, 0, 0].item() - 1
            assert column * 10 + 300_000 == pytest.approx(x.start, abs=10)


def test_dates_of_a_place_are_never_on_both_sides(tmp_path):
    dates = ('20200604T101031', '20200704T101031', '20200804T101031')
    fabricate.sentinel2_scenes(tmp_path, dates, side=360)
    datamodule = module(tmp_path, block=800.0, gap=0.0, val_fraction=0.3)
    seen = {int(value) - VALUES['B02'] for value in values(datamodule, 40)[:, 0, 0, 0]}
    assert seen == {0, 1, 2}  # each place is of one date, all dates come
    areas = [d.source.area for d in (datamodule.train_dataset, datamodule.val_dataset)]
    assert areas[0].intersection(areas[1]).area == 0


def test_places_mostly_without_data_are_passed_over(tmp_path):
    fabricate.sentinel2_scenes(tmp_path, side=240, empty=192)
    datamodule = module(tmp_path, val_fraction=0, max_nodata=0.2)
    image = values(datamodule, 25)
    # Pixels without data in a used place are filled, with the mean of the others.
    assert (image[:, 0] == VALUES['B02']).all()


def test_a_scene_without_data_is_one_sentence(tmp_path):
    fabricate.sentinel2_scenes(tmp_path, side=120, empty=120)
    datamodule = module(tmp_path, val_fraction=0)
    with pytest.raises(ValueError, match='no data in more than max_nodata=10%'):
        datamodule.train_dataset[0]


def test_the_offset_of_newer_processing_baselines_is_undone(tmp_path):
    fabricate.sentinel2_scenes(tmp_path, side=180, baseline='N0509', add=1000, empty=60)
    fabricate.sentinel2_scenes(tmp_path, ('20200704T101031',), side=180, empty=60)
    image = values(module(tmp_path, val_fraction=0, max_nodata=0.05), 30)
    assert set(image[:, 0].flatten().tolist()) == {VALUES['B02']}


def test_its_own_samples_are_plotted(scene):
    datamodule = module(scene, val_fraction=0)
    assert datamodule.plot(datamodule.train_dataset[0]).axes


def test_the_record_has_the_tiles_of_the_area(scene):
    # 3.6 km at the upper left of 33UUP, 50 km from the border of zone 32.
    tiles = set(module(scene, val_fraction=0).record.tiles)
    assert {'33UUP', '33UTP', '33UUQ', '33UTQ'} <= tiles
    assert not {'33UVP', '33UUN', '33UVQ', '33TUN'} & tiles


def test_a_tile_with_a_sliver_of_the_area_is_among_its_tiles(tmp_path):
    # From 30 m inside 33UUP's 109.8 km on, where places are 160 m wide.
    fabricate.sentinel2_scenes(
        tmp_path, side=360, tile='33UVP', origin=(409_770, 5_350_000)
    )
    datamodule = module(tmp_path, val_fraction=0)
    assert '33UUP' in datamodule.record.tiles
    datamodule.source.avoid = np.array(['33UUP'])
    x = np.array([410_100.0, 409_800.0])
    places = [
        (slice(left, left + 160), slice(5.34e6, 5.34e6 + 160), None) for left in x
    ]
    assert [datamodule.source._is_to_avoid(place) for place in places] == [False, True]


def test_pretraining_on_tiles_of_the_transfer_test_is_refused(scene, tmp_path):
    fabricate.bigearthnet_table(tmp_path, ('test', 'train'))  # 33UUP tests
    given = {'val_fraction': 0, 'transfer_test': str(tmp_path)}
    with pytest.raises(
        ValueError, match='may have 1 tiles of the transfer test, such as 33U'
    ):
        module(scene, **given)
    with pytest.warns(UserWarning, match='they are used'):
        module(scene, overlap='allow', **given)
    with pytest.warns(UserWarning, match='they are left out'):
        datamodule = module(scene, overlap='drop', **given)
    with pytest.raises(ValueError, match='100 random places'):
        datamodule.train_dataset[0]


def test_a_raster_that_is_not_known_is_described(tmp_path, monkeypatch):
    code = 'from torchgeo.datasets import RasterDataset\nclass Site(RasterDataset): ...'
    (tmp_path / 'own_raster.py').write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    pixels = np.stack([np.full((80, 80), value, 'float32') for value in (3, 4)])
    path = tmp_path / 'site' / 'a.tif'
    fabricate.write_tif(path, pixels, 3e5, 5.4e6, 'EPSG:32633', 10)
    given = {'name': 'own_raster.Site', 'val_fraction': 0, 'bands': ['VH']}
    with pytest.raises(ValueError, match='The bands of Site are not known'):
        module(tmp_path / 'site', **given)
    datamodule = module(tmp_path / 'site', dataset_bands=['VV', 'VH'], **given)
    assert datamodule.train_dataset[0]['image'].unique().tolist() == [4]


@pytest.mark.parametrize(
    ('changed', 'said'),
    [
        ({'size': 400}, 'No place of 400 px fits into the training area'),
        (
            {'block': 5e5},
            '1 groups holds out none or all: choose another val_fraction, '
            'or a smaller block',
        ),
        ({'block': 0.0}, 'block is 0.0'),
        ({'gap': -1.0}, 'gap is -1.0'),
        ({'val_samples': 0}, 'val_samples is 0'),
        ({'bands': ['B02', 'B22']}, 'B22'),
        ({'name': 'EuroSAT'}, 'use PretrainingDataModule'),
        ({'level': 'L3'}, 'level is .L3.'),
    ],
)
def test_a_wrong_argument_is_one_sentence(changed, said, scene):
    given = {'val_fraction': 0.0 if 'size' in changed else 0.1, **changed}
    with pytest.raises(ValueError, match=said) as error:
        module(scene, **given)
    assert '\n' not in str(error.value)


def test_an_empty_folder_is_one_sentence(tmp_path):
    said = 'The files of dataset Sentinel2 are not in'
    with pytest.raises(FileNotFoundError, match=said) as error:
        module(tmp_path)
    assert '\n' not in str(error.value)


def test_the_example_configuration_trains(torchgeo, conf, tmp_path):
    fabricate.sentinel2_scenes(tmp_path / 'scenes', side=480)
    command = torchgeo(
        'fit',
        '--config',
        conf / 'pretrain.yaml',
        '--config',
        conf / 'any' / 'scenes.yaml',
        f'--data.init_args.root={tmp_path / "scenes"}',
        '--data.init_args.num_workers=0',
        '--data.init_args.block=2400',
        '--data.init_args.gap=0',
        '--data.init_args.val_fraction=0.25',
        '--trainer.fast_dev_run=true',
        '--trainer.accelerator=cpu',
        folder=tmp_path,
    )
    assert command.code == 0, command.output[-3000:]
    assert 'of their area trains' in command.output
