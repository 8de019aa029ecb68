"""TorchGeo's real classes on tiny folders: band X has to arrive as X."""

import random

import numpy as np
import pytest
import torch
import torchgeo.datasets as tg

from tests import fabricate
from tests.fabricate import L1C, L2A, VALUES
from torchgeo_channelmae import sensors
from torchgeo_channelmae.config import build
from torchgeo_channelmae.datamodules.known_sources import FACTS, find_facts
from torchgeo_channelmae.datamodules.named_bands import NamedBands
from torchgeo_channelmae.datamodules.sources import Source
from torchgeo_channelmae.datasets import BigEarthNetLMDB

RADAR = ('VV', 'VH')
CASES = {  # class: writes it, further arguments, bands it has, tolerance of the values
    'EuroSAT': (fabricate.eurosat, {}, L1C, 0),
    'So2Sat': (fabricate.so2sat, {'checksum': False}, (*L2A[1:9], *L2A[10:]), 1e-2),
    'SEN12MS': (fabricate.sen12ms, {'checksum': False}, RADAR + L1C, 0),
    'SSL4EOS12': (fabricate.ssl4eo, {'split': 's2c'}, L1C, 0),
    'SSL4EOS12 s2a': (fabricate.ssl4eo, {'split': 's2a'}, L2A, 0),
    'SSL4EOS12 s1': (fabricate.ssl4eo, {'split': 's1'}, RADAR, 0),
    'SeasonalContrastS2': (fabricate.seco, {}, L2A, 20),
    'S2100k': (fabricate.s2100k, {}, L2A, 0),
    'MMEarth': (fabricate.mmearth, {'subset': 'MMEarth100k'}, RADAR + L2A, 1e-3),
}


def source_of(name, root, wanted=None, level=None, **arguments):
    facts = find_facts(getattr(tg, name))
    spec = {'class_path': name, 'init_args': {'root': str(root), **arguments}}
    return Source(build(spec, 'dataset', **facts.arguments(wanted)), facts, level)


def values(source, bands):
    image = NamedBands(source, bands, source.rows, (0,))[0]['image']
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
    assert values(source, shuffled) == pytest.approx(expected, abs=tolerance)


def test_bigearthnet_arrives_as_stored_with_its_names_tiles_and_scenes():
    dataset = BigEarthNetLMDB(bands=('VH', 'B8A'))
    source = Source(dataset, find_facts(BigEarthNetLMDB))
    data = NamedBands(source, ('B8A', 'VH'), source.rows)
    rows = np.arange(3, 6)
    columns = {key: source.column(key, rows) for key in ('names', 'scenes', 'tiles')}
    for row, name, scene, (tile,) in zip(rows, *columns.values(), strict=True):
        assert torch.equal(data[row]['image'], dataset[row]['image'].flip(0))
        assert data[row]['patch_id'] == name == dataset[row]['patch_id']
        assert name.startswith(f'{scene}_')
        assert f'_{tile}_' in dataset.table.s1_names[row].decode()


@pytest.mark.parametrize(('level', 'row', 'added'), [('L1C', 1, 1), ('L2A', 0, 0)])
def test_mmearth_uses_the_tiles_of_one_level_in_digital_numbers(
    level, row, added, tmp_path
):
    fabricate.mmearth(tmp_path)
    source = source_of('MMEarth', tmp_path, None, level, subset='MMEarth100k')
    assert source.rows.tolist() == [row]
    assert source.column('names', source.rows).tolist() == [str(10 + row)]
    assert {band.sensor for band in source.bands} == {f'Sentinel-2 {level}'}
    bands = L1C if level == 'L1C' else L2A
    assert values(source, bands) == [VALUES[band] + added for band in bands]
    radar = source_of('MMEarth', tmp_path, RADAR, level, subset='MMEarth100k')
    assert radar.rows.tolist() == [row]  # of the same places


def test_mmearth_scaled_by_extremes_is_refused(tmp_path):
    fabricate.mmearth(tmp_path)
    given = {'subset': 'MMEarth100k', 'normalization_mode': 'min-max'}
    with pytest.raises(ValueError, match='normalization_mode'):
        source_of('MMEarth', tmp_path, **given)


def test_each_draw_of_a_location_is_one_season(tmp_path):
    fabricate.ssl4eo(tmp_path, seasons=3)
    source = source_of('SSL4EOS12', tmp_path, split='s2a')
    data = NamedBands(source, ('B02',), source.rows, ('visit', 0))
    state = random.getstate()
    drawn = [data[number]['image'][0, 0, 0].item() for number in range(30)]
    assert random.getstate() == state
    assert set(drawn) == {VALUES['B02'] + season for season in range(3)}
    assert drawn == [data[number]['image'][0, 0, 0].item() for number in range(30)]


def test_stacked_seasons_are_refused(tmp_path):
    fabricate.ssl4eo(tmp_path)
    with pytest.raises(ValueError, match='seasons of SSL4EOS12 is 2'):
        source_of('SSL4EOS12', tmp_path, split='s2a', seasons=2)


def test_locations_are_those_on_disk_on_the_tiles_of_all_their_seasons(tmp_path):
    fabricate.ssl4eo(tmp_path, (3, 3007), ('43RCP', '10TEK'))
    season = next((tmp_path / 's2a' / '0000003').iterdir())
    season.rename(season.with_name('20200104T054639_20200104T054639_T43RCP'))
    fabricate.ssl4eo(tmp_path, (3,), ('43RDP',), seasons=2)
    source = source_of('SSL4EOS12', tmp_path, split='s2a')
    rows = source.rows
    assert rows.tolist() == [3, 3007]
    assert source.column('names', rows).tolist() == ['0000003', '0003007']
    assert source.column('tiles', rows).tolist() == [['43RCP', '43RDP'], ['10TEK', '']]


@pytest.mark.parametrize(('name', 'level'), [('EuroSAT', 'L2A'), ('S2100k', 'L1C')])
def test_a_level_that_a_dataset_does_not_have_is_refused(name, level, tmp_path):
    getattr(fabricate, name.lower())(tmp_path)
    with pytest.raises(ValueError, match=f"level is '{level}', but {name}"):
        source_of(name, tmp_path, None, level)


def test_no_data_is_where_all_bands_of_a_resolution_have_none():
    dataset = BigEarthNetLMDB()
    source = Source(dataset, find_facts(BigEarthNetLMDB))
    image = np.ones((12, 120, 120))
    bands = dataset.bands
    for band, rows in {'B02': 14, 'B03': 14, 'B04': 14, 'B08': 16, 'B01': 12}.items():
        image[bands.index(band), :rows] = 0
    empty = dict(zip(bands, source.missing(image).any(axis=2).sum(axis=1), strict=True))
    assert {empty[band] for band in ('B02', 'B03', 'B04', 'B08')} == {14}
    assert empty['B01'] == empty['B09'] == empty['B05'] == 0


def test_places_and_scenes_are_those_of_the_files(tmp_path):
    places = [(9.5, 50.25), (10.5, 48.75)]
    fabricate.eurosat(tmp_path, places)
    source = source_of('EuroSAT', tmp_path)
    assert 'places' not in source.columns
    center = np.array(places) + 4e-4 * np.array([1, -1])  # 8 px of 1e-4 degrees
    assert source.places(source.rows) == pytest.approx(center, abs=1e-9)
    (tmp_path / 'sen').mkdir()
    fabricate.sen12ms(tmp_path / 'sen')
    source = source_of('SEN12MS', tmp_path / 'sen', checksum=False)
    scenes = [f'ROIs1158_spring_{scene}' for scene in (1, 1, 2, 2, 3, 3)]
    assert source.column('scenes', source.rows).tolist() == scenes
    assert source.places(source.rows[:1]).shape == (1, 2)


def test_a_subclass_of_a_known_dataset_is_known():
    assert find_facts(tg.EuroSATSpatial) is FACTS[tg.EuroSAT]
