"""Samples of any dataset become batches as BigEarthNet's, with nothing leaking."""

import os
import shutil

import numpy as np
import pytest
import torch
from pyproj import Transformer
from torchgeo.datasets import unbind_samples

from tests import fabricate
from tests.datamodules.test_grouping import kilometres
from tests.fabricate import L1C, L2A, VALUES
from torchgeo_channelmae import sensors
from torchgeo_channelmae.datamodules.common import keep_apart
from torchgeo_channelmae.datamodules.pretraining import PretrainingDataModule
from torchgeo_channelmae.samplers import EpochSampler
from torchgeo_channelmae.samplers.shares import ClassShares, write_shares

ROOM = np.random.default_rng(5)
PLACES = np.stack([ROOM.uniform(5, 15, 60), ROOM.uniform(45, 55, 60)], axis=1)


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


def test_a_batch_is_normalised_band_by_band(eurosat):
    bands = ['B8A', 'B10', 'B02']
    datamodule = module('EuroSAT', eurosat, bands=bands, val_by='random')
    assert datamodule.bands == tuple(bands)
    batch = next(iter(datamodule.train_dataloader()))
    assert set(batch) == {'image', 'index', 'patch_id', 'visit'}
    image = datamodule.finish(batch, training=True)['image']
    assert image.shape == (2, 3, 8, 8)
    known = {band.name: band for band in sensors.SENTINEL2_L1C}
    expected = [(VALUES[b] - known[b].mean) / known[b].std for b in bands]
    assert image.mean(dim=(0, 2, 3)).tolist() == pytest.approx(expected, rel=1e-5)


def test_all_bands_are_those_of_the_dataset_in_its_order(eurosat):
    datamodule = module('EuroSAT', eurosat, val_by='random')
    assert datamodule.bands == (*(b for b in L1C if b != 'B8A'), 'B8A')


def test_statistics_come_from_a_file_if_there_is_one(eurosat, tmp_path):
    path = tmp_path / 'own.yaml'
    path.write_text('bands: {B03: {mean: 1100, std: 2}, B02: {mean: 0, std: 11}}')
    datamodule = module(
        'EuroSAT', eurosat, bands=['B02', 'B03'], val_by='random', statistics=str(path)
    )
    assert datamodule.mean.tolist() == [0, 1100]
    assert datamodule.std.tolist() == [11, 2]


def test_whole_scenes_validate(tmp_path):
    fabricate.sen12ms(tmp_path, scenes=range(1, 9), patches=3)
    datamodule = module(
        'SEN12MS', tmp_path, init_args={'checksum': False}, val_fraction=0.25
    )
    scenes = [
        {name.rsplit('_', 1)[0] for name in data.names}
        for data in (datamodule.train_dataset, datamodule.val_dataset)
    ]
    assert len(scenes[0]) == 6
    assert len(scenes[1]) == 2
    assert not scenes[0] & scenes[1]
    assert datamodule.num_patches == {'val': 6, 'train': 18}


def test_no_training_sample_is_near_one_that_validates(s2100k):
    datamodule = module('S2100k', s2100k, val_fraction=0.2, gap_km=40.0)
    train, val = datamodule.train_dataset.rows, datamodule.val_dataset.rows
    assert not set(train) & set(val)
    assert len(train) + len(val) < len(PLACES)
    assert kilometres(PLACES[train], PLACES[val]).min() > 40


def test_another_seed_holds_out_other_groups(s2100k):
    rows = [
        set(module('S2100k', s2100k, split_seed=seed).val_dataset.rows)
        for seed in (0, 0, 1)
    ]
    assert rows[0] == rows[1] != rows[2]


def test_another_dataset_can_validate(eurosat):
    fabricate.eurosat(eurosat, PLACES[6:8], 'val')
    other = {'class_path': 'EuroSAT', 'init_args': {'split': 'val'}}
    datamodule = module('EuroSAT', eurosat, val_dataset=other)
    assert datamodule.num_patches == {'val': 2, 'train': 6}
    assert datamodule.val_dataset.names.tolist() == ['Val1_1', 'Val2_2']


def test_there_may_be_no_validation(eurosat):
    datamodule = module('EuroSAT', eurosat, val_fraction=0)
    assert datamodule.num_patches == {'train': 6}
    assert datamodule.val_dataloader() == []


OWN = """
import torch
from torchgeo.datasets import NonGeoDataset

class Own(NonGeoDataset):
    farms = list('aabbcc')

    def __init__(self, root=None, key='pixels'):
        self.key = key

    def __len__(self):
        return 6

    def __getitem__(self, index):
        image = torch.arange(3.0)[:, None, None].expand(3, 8, 8)
        return {self.key: image, 'farm': 'xxyyzz'[index], 'crop': torch.tensor(index)}
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


def test_a_user_describes_a_dataset_that_is_not_known(own):
    datamodule = module('own_dataset.Own', **own)
    image = datamodule.train_dataset[0]['image']
    assert image[:, 0, 0].tolist() == [2, 0]
    assert datamodule.record.sensors == ('Sentinel-1 GRD', 'Sentinel-2 L2A')
    assert 'patch_id' not in next(iter(datamodule.train_dataloader()))


@pytest.mark.parametrize('key', ['farm', 'farms'])
def test_groups_come_from_a_key_of_the_samples_or_the_dataset(key, own):
    datamodule = module(
        'own_dataset.Own', **own | {'val_by': 'key', 'val_key': key}, val_fraction=0.4
    )
    farms = [
        {'xxyyzz'[row] for row in data.rows}
        for data in (datamodule.train_dataset, datamodule.val_dataset)
    ]
    assert (len(farms[0]), len(farms[1])) == (2, 1)
    assert not farms[0] & farms[1]


@pytest.mark.parametrize(
    ('changed', 'said'),
    [
        ({'dataset_bands': None}, 'The bands of Own are not known'),
        ({'level': None}, 'B04, of which product level is not said'),
        ({'bands': ['NIR']}, 'of band NIR are not known: write them with'),
        ({'bands': ['B05']}, "Unknown band 'B05'"),
        ({'dataset_bands': ['B04', 'B04', 'VH']}, "'B04' is named twice"),
        ({'val_by': 'auto'}, 'has no scenes that lie apart, tiles and coord'),
        ({'val_by': 'block'}, 'Own has no coordinates'),
        ({'val_by': 'scene'}, 'Own has no scenes'),
        ({'val_by': 'key', 'val_key': 'color'}, "no val_key 'color': .*pixels, farm"),
        ({'val_by': 'key'}, 'needs val_key'),
        ({'val_fraction': 0.01}, 'holds out none or all'),
    ],
)
def test_what_is_not_known_is_asked_for_in_one_sentence(changed, said, own):
    with pytest.raises(ValueError, match=said) as error:
        module('own_dataset.Own', **own | changed)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('changed', 'said'),
    [
        ({'image_key': 'image'}, "have no 'image'.* one of pixels, farm"),
        ({'dataset_bands': ['B04', 'VH']}, r'shape \(3, 8, 8\), not the 2 channels'),
    ],
)
def test_samples_that_are_not_as_described_are_one_sentence(changed, said, own):
    datamodule = module('own_dataset.Own', **own | changed)
    with pytest.raises(ValueError, match=said):
        datamodule.train_dataset[0]


@pytest.mark.parametrize(
    ('changed', 'said'),
    [
        ({'level': 'L3'}, 'level is .L3.: use one of L1C, L2A'),
        ({'overlap': 'maybe'}, 'overlap is .maybe.'),
        ({'val_by': 'luck'}, 'val_by is .luck.'),
        ({'val_fraction': 1.0}, 'val_fraction is 1.0'),
        ({'max_nodata': 2.0}, 'max_nodata is 2.0'),
        ({'on_error': 'hide'}, 'on_error is .hide.'),
        ({'gap_km': 80.0}, 'at least twice the gap'),
        ({'size_by': 'stretch'}, 'Unknown size_by'),
        ({'batch_size': 9}, 'batch_size 9 is larger than the 5'),
        ({'statistics': 'none.yaml'}, 'no statistics file none.yaml'),
        ({'transfer_test': 'nowhere'}, 'nowhere'),
        ({'sampler': {'class_path': 'Fair'}}, "'Fair', the class of sampler"),
        (
            {'sampler': {'class_path': 'EpochSampler', 'init_args': {'speed': 1}}},
            "EpochSampler, which takes .*'speed'",
        ),
    ],
)
def test_a_wrong_argument_is_one_sentence(changed, said, eurosat):
    with pytest.raises((ValueError, OSError), match=said) as error:
        module('EuroSAT', eurosat, **{'val_by': 'random', **changed})
    assert '\n' not in str(error.value)


def test_a_geodataset_is_sent_to_its_own_datamodule(tmp_path):
    with pytest.raises(ValueError, match='use GeoPretrainingDataModule'):
        module('Sentinel2', tmp_path)


@pytest.fixture
def overlapping(tmp_path):
    """SSL4EO-S12 on two tiles, one of which has the transfer's test patch."""
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


def test_pretraining_on_tiles_of_the_transfer_test_is_refused(overlapping):
    said = '1 of 3 samples of SSL4EOS12 may be on 1 tiles .* such as 35VNL'
    with pytest.raises(ValueError, match=said):
        module(**overlapping)


def test_such_samples_can_be_left_out_or_used(overlapping):
    with pytest.warns(UserWarning, match='35VNL: they are left out'):
        datamodule = module(**overlapping, overlap='drop')
    assert datamodule.train_dataset.names.tolist() == ['0000004', '0000005']
    assert {'10TEK', '43RCP'} <= set(datamodule.record.tiles)
    assert '35VNL' not in datamodule.record.tiles
    with pytest.warns(UserWarning, match='they are used'):
        datamodule = module(**overlapping, overlap='allow')
    assert {'10TEK', '35VNL', '43RCP'} <= set(datamodule.record.tiles)


def test_training_tiles_of_the_transfer_are_no_matter(overlapping, tmp_path):
    (tmp_path / 'transfer' / 'metadata.parquet').unlink()
    fabricate.bigearthnet_table(tmp_path / 'transfer', ('test', 'train'))
    assert len(module(**overlapping).train_dataset) == 3  # 33UUP tests, none is on it


def test_an_overlap_that_can_not_be_checked_is_said(tmp_path):
    fabricate.so2sat(tmp_path)
    fabricate.bigearthnet_table(tmp_path, ('train', 'test'))
    with pytest.warns(UserWarning, match='So2Sat does not name its tiles'):
        datamodule = module(
            'So2Sat',
            tmp_path,
            init_args={'checksum': False},
            val_fraction=0,
            transfer_test=str(tmp_path),
        )
    assert datamodule.record.tiles is None
    assert len(datamodule.train_dataset) == 4


def test_tiles_come_from_coordinates_where_names_do_not_tell_them(overlapping):
    overlapping['init_args'] = {'split': 's1'}
    for path in (overlapping['root'] / 's1' / '0000004').rglob('*.tif'):
        fabricate.write_tif(path, np.zeros((1, 264, 264), 'float32'), 27.2, 63.5)
    with pytest.raises(ValueError, match=r'1 of 3 samples of SSL4EOS12 .* 35VNL'):
        module(**overlapping)


def test_the_record_of_bigearthnet_knows_patches_and_tiles(tmp_path):
    from torchgeo_channelmae.provenance.record import patch_hashes

    fabricate.bigearthnet_v2(tmp_path)
    datamodule = module('BigEarthNetV2', tmp_path, val_fraction=0, bands=['B04'])
    record = datamodule.record
    assert record.dataset == 'BigEarthNetV2'
    assert record.tiles == ('33UUP', '35VNL')
    own = datamodule.train_dataset.names.tolist()
    assert len(own) == len(fabricate.V1_NAMES)
    names = np.array([name.encode() for name in [*fabricate.V1_NAMES, *own]])
    assert record.patches.tolist() == sorted(patch_hashes(names).tolist())
    assert record.labels_steered is False


@pytest.mark.parametrize('uses_labels', [True, False])
def test_a_balanced_sampler_can_choose_and_the_record_says_so(uses_labels, eurosat):
    values = np.eye(2, dtype=np.float32)[[0, 0, 0, 0, 0, 1]]
    shares = ClassShares(values, ('forest', 'sea'), 'made up', 'EuroSAT', uses_labels)
    write_shares(eurosat / 'shares.parquet', shares)
    sampler = {
        'class_path': 'LandCoverBalancedSampler',
        'init_args': {'shares': str(eurosat / 'shares.parquet'), 'max_repeats': 50},
    }
    datamodule = module(
        'EuroSAT', eurosat, val_fraction=0, sampler=sampler, samples_per_epoch=8
    )
    assert datamodule.record.labels_steered is uses_labels
    numbers = list(datamodule.train_dataloader().sampler)
    assert len(numbers) == 8
    sea = sum(number % 6 == 5 for number in numbers)
    assert sea > 8 / 6  # its share of the samples


def test_an_epoch_visits_as_the_epoch_sampler_says_under_numbers_of_its_own(eurosat):
    datamodule = module('EuroSAT', eurosat, val_fraction=0, samples_per_epoch=10)
    sampler = datamodule.train_dataloader().sampler
    numbers = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        plain = EpochSampler(range(6), 10, seed=0, num_replicas=1, rank=0)
        plain.set_epoch(epoch)
        drawn = list(sampler)
        assert [number % 6 for number in drawn] == [n % 6 for n in plain.order()]
        numbers += drawn
    assert len(set(numbers)) == len(numbers)


def test_each_epoch_draws_seasons_anew_and_a_rerun_draws_them_again(tmp_path):
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
    image = module('S2100k', tmp_path, val_fraction=0, batch_size=1).train_dataset[0]
    rest = pixels[1, 2:].astype(float)
    assert image['image'][1, 0].tolist() == pytest.approx([rest.mean()] * 8)
    assert image['image'][0, 7].tolist() == [0] * 8
    datamodule = module(
        'S2100k', tmp_path, val_fraction=0, batch_size=1, max_nodata=0.2
    )
    with pytest.raises(ValueError, match=r'no data in 25\.0% of its pixels'):
        datamodule.train_dataset[0]


@pytest.mark.parametrize('on_error', ['raise', 'skip'])
def test_a_damaged_file_is_named_or_skipped(on_error, eurosat):
    damaged = next(eurosat.rglob('Train1_1.tif'))
    os.truncate(damaged, 100)
    datamodule = module(
        'EuroSAT', eurosat, val_fraction=0, batch_size=6, on_error=on_error
    )
    loader = iter(datamodule.train_dataloader())
    if on_error == 'raise':
        with pytest.raises(ValueError, match=r'Sample 0 \(Train1_1\) of EuroSAT'):
            next(loader)
        return
    batch = next(loader)
    assert len(batch['image']) == 5
    [(name, reason)] = batch['skipped']
    assert name == 'Train1_1'
    assert '\n' not in reason


def test_the_dataset_is_built_once(eurosat, monkeypatch):
    import torchgeo.datasets as tg

    built = []
    original = tg.EuroSAT.__init__

    def counting(self, *args, **kwargs):
        built.append(1)
        original(self, *args, **kwargs)

    monkeypatch.setattr(tg.EuroSAT, '__init__', counting)
    spec = {'class_path': 'EuroSAT', 'init_args': {'root': str(eurosat)}}
    datamodule = PretrainingDataModule(spec, batch_size=2, val_by='random')
    assert not built
    datamodule.prepare_data()
    datamodule.setup('fit')
    datamodule.setup('validate')
    assert len(built) == 1


def test_the_plot_shows_a_sample(eurosat):
    datamodule = module('EuroSAT', eurosat, val_by='random')
    sample = datamodule.train_dataset[0]
    batch = datamodule.finish(datamodule.collate_fn([sample]), training=False)
    row = unbind_samples(batch)[0]
    assert datamodule.plot(sample).axes
    assert datamodule.plot(row).axes
    restored = datamodule.physical(row)['image']  # both 8 x 8
    torch.testing.assert_close(restored, sample['image'], rtol=1e-4, atol=0.01)


def test_a_plot_before_setup_asks_for_it(eurosat):
    datamodule = PretrainingDataModule({'class_path': 'EuroSAT'}, root=str(eurosat))
    with pytest.raises(RuntimeError, match='call setup first'):
        datamodule.plot({'image': torch.zeros(13, 8, 8)})


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('mmearth')
    fabricate.mmearth(root, ('l2a',) * 40, [tuple(place) for place in PLACES[:40]])
    return root


def fit(torchgeo, conf, root, where, *options):
    return torchgeo(
        'fit',
        '--config',
        conf / 'pretrain.yaml',
        '--config',
        conf / 'any' / 'samples.yaml',
        f'--data.init_args.root={root}',
        '--data.init_args.num_workers=0',
        '--trainer.fast_dev_run=true',
        '--trainer.accelerator=cpu',
        *options,
        folder=where,
    )


def test_the_example_configuration_trains(torchgeo, conf, folder, tmp_path):
    command = fit(torchgeo, conf, folder, tmp_path)
    assert command.code == 0, command.output[-3000:]
    assert 'val_by block' in command.output


@pytest.mark.parametrize(
    ('option', 'said'),
    [
        ('--data.init_args.root=nowhere', 'The files of dataset MMEarth are not in'),
        ('--data.init_args.bands=[B02,B99]', "bands of MMEarth: Unknown band 'B99'"),
        ('--data.init_args.val_by=luck', "val_by is 'luck'"),
    ],
)
def test_a_mistake_is_the_last_line_on_the_terminal(
    option, said, torchgeo, conf, folder, tmp_path
):
    command = fit(torchgeo, conf, folder, tmp_path, option)
    assert command.code != 0
    assert said in command.last_line, command.output[-3000:]


def test_a_folder_in_the_arguments_of_a_dataset_is_its_own(eurosat, tmp_path):
    other = tmp_path / 'other'
    other.mkdir()
    fabricate.eurosat(other, PLACES[6:9])
    datamodule = module(
        'EuroSAT',
        eurosat,
        val_dataset={'class_path': 'EuroSAT', 'init_args': {'root': str(other)}},
    )
    roots = [
        str(data.source.dataset.root)
        for data in (datamodule.train_dataset, datamodule.val_dataset)
    ]
    assert [root.startswith(str(other)) for root in roots] == [False, True]


@pytest.mark.parametrize(
    ('size_by', 'size', 'message'),
    [('pad', 4, 'less than the 8 px to pad'), ('crop', 16, 'more than the 8 px to')],
)
def test_a_size_that_the_images_do_not_allow_is_refused(
    eurosat, size_by, size, message
):
    datamodule = module('EuroSAT', eurosat, val_by='random', size_by=size_by, size=size)
    batch = next(iter(datamodule.train_dataloader()))
    with pytest.raises(ValueError, match=message):
        datamodule.finish(batch, training=True)


def test_the_epoch_of_a_sampler_is_what_a_batch_has_to_fit_in(eurosat):
    def epoch_of(count):
        return {'class_path': 'EpochSampler', 'init_args': {'samples_per_epoch': count}}

    given = {'val_by': 'random', 'batch_size': 8}
    with pytest.raises(ValueError, match='batch_size 8 is larger than the 4'):
        module('EuroSAT', eurosat, sampler=epoch_of(4), **given)
    loader = module('EuroSAT', eurosat, sampler=epoch_of(16), **given)
    assert len(loader.train_dataloader()) == 2


def test_unknown_tiles_are_no_proof_of_being_apart():
    tiles = np.array([['33UUP', ''], ['', ''], ['32TLT', '32TMT']])
    with pytest.warns(UserWarning, match='left out') as told:
        kept = keep_apart(np.arange(3), tiles, np.array(['32TMT']), 'drop', 'Toy')
    assert kept.tolist() == [0]
    assert [str(warning.message) for warning in told] == [
        'The tiles of 1 of 3 samples of Toy are not known: they are left out.',
        '1 of 3 samples of Toy may be on 1 tiles of the transfer test, such as 32TMT: '
        'they are left out.',
    ]
    with pytest.warns(UserWarning, match='The tiles of 1 of 3 samples of Toy are not'):
        keep_apart(np.arange(3), tiles, np.array(['31UDQ']), 'raise', 'Toy')
    with pytest.raises(ValueError, match='All 1 samples of Toy are on tiles of the tr'):
        keep_apart(np.arange(1), tiles[1:2], np.array(['32TMT']), 'drop', 'Toy')


def within_33uup_but_in_another_square():
    """Longitude and latitude of a place in the lowest 9 km of the tile T33UUP."""
    back = Transformer.from_crs('EPSG:32633', 'EPSG:4326', always_xy=True)
    return back.transform(350_000, 5_295_000)


@pytest.mark.parametrize('name', ['S2100k', 'MMEarth'])
def test_coordinates_are_on_all_tiles_that_may_cover_them(name, tmp_path):
    places = [within_33uup_but_in_another_square(), (9.0, 50.0)]
    init_args = {}
    if name == 'MMEarth':
        fabricate.mmearth(tmp_path, ('l2a',) * 2, places)
        init_args = {'subset': 'MMEarth100k'}
    else:
        fabricate.s2100k(tmp_path, places)
    fabricate.bigearthnet_table(tmp_path, ('test', 'train'))  # 33UUP tests
    given = {'init_args': init_args, 'val_fraction': 0, 'batch_size': 1}
    test = {'transfer_test': str(tmp_path)}
    with pytest.raises(ValueError, match=r'1 of 2 samples .* such as 33UUP: leave'):
        module(name, tmp_path, **given, **test)
    with pytest.warns(UserWarning, match='33UUP: they are left out'):
        kept = module(name, tmp_path, **given, **test, overlap='drop')
    assert kept.num_patches == {'train': 1}
    assert '33UUP' not in kept.record.tiles
    assert '33UUP' in module(name, tmp_path, **given).record.tiles


def test_validation_is_kept_off_the_tiles_of_the_transfer_test_too(overlapping):
    other = overlapping['root'] / 'other'
    fabricate.ssl4eo(other, (9,), ('35VNL',))
    fabricate.ssl4eo(overlapping['root'], (3,), ('10TEK',))
    shutil.rmtree(overlapping['root'] / 's2a' / '0000003')
    fabricate.ssl4eo(overlapping['root'], (3,), ('10TEK',))
    init_args = {'split': 's2a', 'root': str(other)}
    val = {'class_path': 'SSL4EOS12', 'init_args': init_args}
    with pytest.raises(ValueError, match='1 of 1 samples of SSL4EOS12 may be on 1 ti'):
        module(**overlapping, val_dataset=val)


@pytest.mark.parametrize('name', ['EuroSAT', 'So2Sat'])
def test_validating_on_what_trains_is_refused(name, tmp_path):
    write = {'EuroSAT': fabricate.eurosat, 'So2Sat': fabricate.so2sat}[name]
    write(tmp_path)
    init_args = {} if name == 'EuroSAT' else {'checksum': False}
    val = {'class_path': name, 'init_args': init_args}
    with pytest.raises(ValueError, match='samples of val_dataset are also trained on'):
        module(name, tmp_path, init_args=init_args, val_dataset=val, batch_size=1)


def test_the_epoch_sampler_is_not_steered_by_labels(eurosat):
    sampler = {'class_path': 'EpochSampler'}
    datamodule = module('EuroSAT', eurosat, val_fraction=0, sampler=sampler)
    assert datamodule.record.labels_steered is False


def balanced_by(path, **init_args):
    given = {'shares': path and str(path), 'max_repeats': 50, **init_args}
    return {'class_path': 'LandCoverBalancedSampler', 'init_args': given}


def test_shares_are_those_of_the_samples_by_name_in_any_order(eurosat):
    names = np.array([f'Train{number}_{number}' for number in range(1, 7)])
    values = np.eye(2, dtype=np.float32)[[0, 0, 0, 0, 0, 1]]
    for order in (np.arange(6), np.arange(6)[::-1]):
        path = eurosat / f'{order[0]}.parquet'
        shares = ClassShares(
            values[order], ('a', 'b'), 'made up', 'EuroSAT', False, names[order]
        )
        write_shares(path, shares)
        datamodule = module(
            'EuroSAT', eurosat, val_fraction=0, sampler=balanced_by(path)
        )
        sampler = datamodule.train_dataloader().sampler.sampler
        assert sampler.expected.argmax() == 5


def test_shares_of_other_samples_are_refused_even_if_they_are_as_many(eurosat):
    names = np.array([f'Test{number}_{number}' for number in range(1, 7)])
    values = np.eye(2, dtype=np.float32)[[0, 0, 0, 0, 0, 1]]
    path = eurosat / 'shares.parquet'
    write_shares(
        path, ClassShares(values, ('a', 'b'), 'made up', 'EuroSAT', False, names)
    )
    said = r"^6 of 6 samples, such as 'Train1_1', have no row in the land-cover shares"
    with pytest.raises(ValueError, match=said):
        module('EuroSAT', eurosat, val_fraction=0, sampler=balanced_by(path))
    with pytest.raises(ValueError, match=r'^shares is not given: give shares, the Pa'):
        module('EuroSAT', eurosat, val_fraction=0, sampler=balanced_by(None))
