"""TorchGeo's real classes on tiny folders: band X has to arrive as X."""

import numpy as np
import pytest
import torch
import torchgeo.datasets as tg

from tests import fabricate
from tests.fabricate import L1C, L2A, VALUES
from torchgeo_channelmae import sensors
from torchgeo_channelmae.config import build, find_class
from torchgeo_channelmae.datamodules.known import KNOWN, make_source, source_class
from torchgeo_channelmae.datamodules.visits import NamedBands
from torchgeo_channelmae.datasets import BigEarthNetLMDB

RADAR = ('VV', 'VH')
CASES = {  # class: writes it, further arguments, bands it has, tolerance of the values
    'EuroSAT': (fabricate.eurosat, {}, L1C, 0),
    'So2Sat': (
        fabricate.so2sat,
        {'checksum': False},
        tuple(band for band in L2A if band not in ('B01', 'B09')),
        1e-2,
    ),
    'SEN12MS': (fabricate.sen12ms, {'checksum': False}, RADAR + L1C, 0),
    'SSL4EOS12': (fabricate.ssl4eo, {'split': 's2c'}, L1C, 0),
    'SSL4EOS12 s2a': (fabricate.ssl4eo, {'split': 's2a'}, L2A, 0),
    'SSL4EOS12 s1': (fabricate.ssl4eo, {'split': 's1'}, RADAR, 0),
    'SeasonalContrastS2': (fabricate.seco, {}, L2A, 20),
    'S2100k': (fabricate.s2100k, {}, L2A, 0),
    'MMEarth': (fabricate.mmearth, {'subset': 'MMEarth100k'}, L2A, 0),
    'BigEarthNet': (fabricate.bigearthnet_v1, {}, L2A, 0),
    'BigEarthNet all': (fabricate.bigearthnet_v1, {}, RADAR + L2A, 0),
    'BigEarthNetV2': (fabricate.bigearthnet_v2, {}, L2A, 0),
    'BigEarthNetV2 all': (fabricate.bigearthnet_v2, {}, RADAR + L2A, 0),
    'CopernicusBenchBigEarthNetS1': (fabricate.copernicus_bench, {}, RADAR, 0),
    'CopernicusBenchBigEarthNetS2': (fabricate.copernicus_bench, {}, L2A, 0),
}


def source_of(name, root, wanted=None, level=None, **arguments):
    kind = getattr(tg, name)
    known = source_class(kind)
    spec = {'class_path': name, 'init_args': {'root': str(root), **arguments}}
    dataset = build(
        spec, 'dataset', known.dataset_class(kind), **known.arguments(wanted)
    )
    return make_source(dataset, level)


def values(source, bands):
    image = NamedBands(source, bands, source.rows(), (0,))[0]['image']
    assert image.dtype == torch.float32
    assert (image == image[:, :1, :1]).all()
    return image[:, 0, 0].tolist()


@pytest.mark.parametrize('case', CASES)
def test_every_band_arrives_under_its_own_name(case, tmp_path):
    write, arguments, bands, tolerance = CASES[case]
    write(tmp_path)
    shuffled = [bands[i] for i in np.random.default_rng(0).permutation(len(bands))]
    source = source_of(case.split()[0], tmp_path, shuffled, **arguments)
    assert set(sensors.names(source.bands)) == set(bands)
    expected = [VALUES[band] for band in shuffled]
    assert values(source, shuffled) == pytest.approx(expected, abs=tolerance + 1e-3)


def test_our_own_bigearthnet_is_known():
    source = make_source(BigEarthNetLMDB(bands=('VH', 'B8A')))
    sample = NamedBands(source, ('B8A', 'VH'), source.rows())[3]
    own = source.dataset[3]
    assert torch.equal(sample['image'], own['image'].flip(0))
    assert sample['patch_id'] == own['patch_id']


@pytest.mark.parametrize(
    ('name', 'bands', 'expected'),
    [
        ('BigEarthNet', ('VV',), 's1'),
        ('BigEarthNet', ('B02', 'B03'), 's2'),
        ('BigEarthNetV2', ('B02', 'VH'), 'all'),
    ],
)
def test_only_the_archives_that_the_bands_need_are_read(name, bands, expected):
    assert source_class(getattr(tg, name)).arguments(bands) == {'bands': expected}


def test_the_radar_of_mmearth_is_that_of_ascending_orbits_in_decibels(tmp_path):
    fabricate.mmearth(tmp_path)
    source = source_of('MMEarth', tmp_path, RADAR, subset='MMEarth100k')
    assert values(source, ('VH', 'VV')) == pytest.approx([-18, -11], abs=1e-4)
    assert len(source.rows()) == 2


@pytest.mark.parametrize(('level', 'row', 'added'), [('L1C', 1, 1), ('L2A', 0, 0)])
def test_mmearth_gives_the_tiles_of_one_level_in_digital_numbers(
    level, row, added, tmp_path
):
    fabricate.mmearth(tmp_path)
    source = source_of('MMEarth', tmp_path, None, level, subset='MMEarth100k')
    assert source.rows().tolist() == [row]
    assert source.names(source.rows()).tolist() == [str(10 + row)]
    assert {band.sensor for band in source.bands} == {f'Sentinel-2 {level}'}
    bands = L1C if level == 'L1C' else L2A
    assert values(source, bands) == [VALUES[band] + added for band in bands]


def test_mmearth_scaled_by_extremes_is_refused(tmp_path):
    fabricate.mmearth(tmp_path)
    with pytest.raises(ValueError, match='leave it at z-score'):
        source_of(
            'MMEarth', tmp_path, subset='MMEarth100k', normalization_mode='min-max'
        )


@pytest.mark.parametrize('seasons', [2, 4])
def test_a_location_gives_one_season_a_visit(seasons, tmp_path):
    fabricate.ssl4eo(tmp_path, seasons=seasons)
    source = source_of('SSL4EOS12', tmp_path, split='s2a')
    data = NamedBands(source, ('B02',), source.rows(), ('visit', 0))
    drawn = [data[number]['image'][0, 0, 0].item() for number in range(40)]
    assert set(drawn) == {VALUES['B02'] + season for season in range(seasons)}
    assert drawn == [data[number]['image'][0, 0, 0].item() for number in range(40)]


def test_drawing_a_season_leaves_the_global_generator_alone(tmp_path):
    import random

    fabricate.ssl4eo(tmp_path, seasons=2)
    source = source_of('SSL4EOS12', tmp_path, split='s2a')
    random.seed(3)
    expected = random.random()
    random.seed(3)
    source.sample(0, 'any')
    assert random.random() == expected


def test_stacked_seasons_are_refused(tmp_path):
    fabricate.ssl4eo(tmp_path, seasons=2)
    with pytest.raises(ValueError, match='seasons of SSL4EOS12 is 2: leave it at 1'):
        source_of('SSL4EOS12', tmp_path, split='s2a', seasons=2)


def test_a_location_is_on_the_tiles_of_all_its_seasons(tmp_path):
    fabricate.ssl4eo(tmp_path, (3, 4), ('43RCP', '10TEK'))
    season = next((tmp_path / 's2a' / '0000003').iterdir())
    season.rename(season.with_name('20200104T054639_20200104T054639_T43RCP'))
    fabricate.ssl4eo(tmp_path, (3,), ('43RDP',), seasons=2)
    source = source_of('SSL4EOS12', tmp_path, split='s2a')
    tiles = source.tiles(source.rows())
    assert tiles.tolist() == [['43RCP', '43RDP'], ['10TEK', '']]


@pytest.mark.parametrize(
    ('name', 'level', 'said'),
    [
        ('EuroSAT', 'L2A', 'the bands of EuroSAT are Sentinel-2 L1C: leave level out'),
        ('S2100k', 'L1C', 'the bands of S2100k are Sentinel-2 L2A: leave level out'),
    ],
)
def test_a_level_that_a_dataset_does_not_have_is_refused(name, level, said, tmp_path):
    getattr(fabricate, name.lower())(tmp_path)
    with pytest.raises(ValueError, match=said):
        source_of(name, tmp_path, None, level)


def test_no_data_is_where_all_bands_of_a_resolution_have_none(tmp_path):
    fabricate.bigearthnet_v2(tmp_path)
    source = source_of('BigEarthNetV2', tmp_path)
    image = np.ones((12, 120, 120))
    bands = sensors.names(source.bands)
    for band, rows in {'B02': 14, 'B03': 14, 'B04': 14, 'B08': 16, 'B01': 12}.items():
        image[bands.index(band), :rows] = 0
    empty = dict(zip(bands, source.missing(image).any(axis=2).sum(axis=1), strict=True))
    assert {empty[band] for band in ('B02', 'B03', 'B04', 'B08')} == {14}
    assert empty['B01'] == empty['B09'] == empty['B05'] == 0


def test_a_part_of_the_locations_is_enough(tmp_path):
    fabricate.ssl4eo(tmp_path, locations=(200, 3007), tiles=('43RCP', '10TEK'))
    source = source_of('SSL4EOS12', tmp_path, split='s2a')
    rows = source.rows()
    assert rows.tolist() == [200, 3007]
    assert source.tiles(rows).tolist() == [['43RCP'], ['10TEK']]
    assert source.names(rows).tolist() == ['0000200', '0003007']


def test_places_and_scenes_are_those_of_the_files(tmp_path):
    places = [(9.5, 50.25), (10.5, 48.75)]
    fabricate.eurosat(tmp_path, places)
    source = source_of('EuroSAT', tmp_path)
    centre = np.array(places) + 4e-4 * np.array([1, -1])  # 8 px of 1e-4 degrees
    assert source.coordinates(source.rows()) == pytest.approx(centre, abs=1e-9)
    (tmp_path / 'sen').mkdir()
    fabricate.sen12ms(tmp_path / 'sen')
    source = source_of('SEN12MS', tmp_path / 'sen', checksum=False)
    scenes = [f'ROIs1158_spring_{scene}' for scene in (1, 1, 2, 2, 3, 3)]
    assert source.scenes(source.rows()).tolist() == scenes


@pytest.mark.parametrize('version', ['BigEarthNet', 'BigEarthNetV2'])
def test_bigearthnet_names_its_tiles_scenes_and_v1_patches(version, tmp_path):
    write = {'BigEarthNet': fabricate.bigearthnet_v1}
    write.get(version, fabricate.bigearthnet_v2)(tmp_path)
    source = source_of(version, tmp_path)
    rows = source.rows()
    assert source.tiles(rows).tolist() == [['33UUP'], ['35VNL']]
    names = fabricate.V1_NAMES if version == 'BigEarthNet' else fabricate.S2_NAMES
    assert source.names(rows).tolist() == list(names)
    assert source.scenes(rows).tolist() == [name.rsplit('_', 2)[0] for name in names]
    assert source.patches(rows).tolist() == [n.encode() for n in fabricate.V1_NAMES]


def test_a_subclass_of_a_known_dataset_is_known():
    assert source_class(tg.EuroSATSpatial) is KNOWN[tg.EuroSAT]


@pytest.mark.parametrize(
    ('spec', 'said'),
    [
        (None, 'give a class, such as'),
        ({'class_path': 'EuroSAT', 'root': 'x'}, "has the key 'root'"),
        ({'class_path': 'EuroSat'}, "'EuroSat', the class of dataset, is none of"),
        ({'class_path': 'no.such.Thing'}, "Cannot import 'no.such.Thing'"),
        ({'class_path': 'EuroSAT', 'init_args': 3}, 'a mapping init_args'),
    ],
)
def test_a_wrong_class_is_one_sentence(spec, said):
    with pytest.raises(ValueError, match='dataset') as error:
        find_class(spec, 'dataset')
    assert said in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ({'root': 'nowhere'}, 'The files of dataset EuroSAT are not in nowhere: give'),
        (
            {},
            'dataset EuroSAT are not in its default folder, as no root is given: give',
        ),
        ({'rot': 'x'}, "which takes root, split, bands, .*'rot'"),
        ({'root': 'x', 'bands': ['B99']}, "'B99' is an invalid band name"),
        ({'root': 'x', 'split': 'tset'}, 'AssertionError'),
    ],
)
def test_a_dataset_that_can_not_be_built_is_one_sentence(arguments, said):
    spec = {'class_path': 'EuroSAT', 'init_args': arguments}
    with pytest.raises((ValueError, FileNotFoundError), match=said) as error:
        build(spec, 'dataset')
    assert '\n' not in str(error.value)


def test_an_error_of_our_own_datasets_stays_the_sentence_it_is():
    spec = {'class_path': 'BigEarthNetLMDB', 'init_args': {'bands': ['B99']}}
    with pytest.raises(ValueError, match=r"^Unknown band 'B99'"):
        build(spec, 'dataset')
