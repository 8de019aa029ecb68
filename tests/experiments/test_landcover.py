"""``channelmae landcover`` finds the land cover of samples, wherever it is known."""

import h5py
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio.shutil
import torch
from pyproj import Transformer
from pyproj.exceptions import CRSError
from rasterio.vrt import WarpedVRT
from torch.utils.data import Subset
from torchgeo.datasets import MMEarth, RasterDataset

from tests import fabricate
from torchgeo_channelmae.cli import main
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT, BigEarthNetLMDB
from torchgeo_channelmae.datasets.metadata import CLASSES
from torchgeo_channelmae.experiments.landcover import landcover, plot_balance
from torchgeo_channelmae.samplers import LandCoverBalancedSampler
from torchgeo_channelmae.samplers.shares import ClassShares, read_shares

HERE = 'tests.experiments.test_landcover'
PLACES = {'lon': [8.5, 9.5, 9.0, 9.5], 'lat': [50.0, 50.0, 50.0, 50.7]}
SHARES = [[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [0, 0, 1]]


class LandCover(RasterDataset):
    """A raster of classes."""

    filename_glob = '*.tif'
    is_image = False

    def __init__(self, paths, crs=None):
        super().__init__(paths, crs=crs and pyproj.CRS(crs))


class Samples(torch.utils.data.Dataset):
    """Samples with nothing but the keys given."""

    def __init__(self, **keys):
        self.keys = keys

    def __getitem__(self, index):
        return {key: torch.tensor(value[index]) for key, value in self.keys.items()}

    def __len__(self):
        return len(next(iter(self.keys.values())))


def spec(name, **arguments):
    return {'class_path': name, 'init_args': arguments}


def samples(**keys):
    return spec(f'{HERE}.Samples', **keys)


def write_raster(folder, crs='EPSG:4326', dtype='uint8', parts=1):
    """Write 2 x 2 degrees around 9 E, 50 N: 1 in the west, 2 in the east.

    North of 50.5 N everything is 3, north of 50.9 N is no data.
    """
    steps = 0.005 * np.arange(400)
    lon, lat = np.meshgrid(8.0025 + steps, 50.9975 - steps)
    values = np.where(lat > 50.5, 3, np.where(lon < 9, 1, 2))
    values = np.where(lat > 50.9, 0, values).astype(dtype)
    for number, part in enumerate(np.split(values, parts, axis=1)):
        place = {'lon': 8 + 2 * number / parts, 'lat': 51, 'res': 0.005, 'nodata': 0}
        fabricate.write_tif(folder / f'{number}.tif', part[None], **place)
        if crs != 'EPSG:4326':
            with WarpedVRT(rasterio.open(folder / f'{number}.tif'), crs=crs) as warped:
                rasterio.shutil.copy(warped, folder / f'{crs[5:]}.tif', driver='GTiff')
            (folder / f'{number}.tif').unlink()
    return spec(f'{HERE}.LandCover', paths=str(folder))


def shares_of(tmp_path, dataset, source='raster', **kwargs):
    landcover(dataset, source, tmp_path / 'out.parquet', **kwargs)
    return read_shares(tmp_path / 'out.parquet')


def columns(shares):
    return dict(zip(shares.classes, shares.values.T.tolist(), strict=True))


def write_mmearth(root, worldcover, dynamic_world):
    """Write an MMEarth with the given maps (tiles, 8, 8)."""
    fabricate.mmearth(root, levels=('l2a',) * len(worldcover))
    with h5py.File(root / 'data_100k_v001' / 'data_100k_v001.h5', 'a') as file:
        file['esa_worldcover'] = np.array(worldcover, dtype='uint8')[:, None]
        file['dynamic_world'] = np.array(dynamic_world, dtype='uint8')[:, None]
    return spec('MMEarth', root=str(root), subset='MMEarth100k')


# Labels


def test_labels_of_bigearthnet_count_by_their_number(tmp_path, capsys):
    shares = shares_of(tmp_path, spec('BigEarthNetLMDB', split='test'), 'labels')
    table = pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')
    table = table[table['split'] == 'test'].set_index('patch_id')
    assert shares.patch_ids.tolist() == table.index.tolist()
    for row, labels in zip(shares.values, table['labels'], strict=True):
        named = zip(shares.classes, row, strict=True)
        found = {name: share for name, share in named if share}
        assert found == pytest.approx({label: 1 / len(labels) for label in labels})
    assert shares.uses_labels
    absent = [name for name in CLASSES if name not in set(table['labels'].explode())]
    assert ', '.join(absent) in capsys.readouterr().out


@pytest.mark.parametrize(
    ('labels', 'expected', 'workers'),
    [
        ([2, 0, 2], [[0, 0, 1], [1, 0, 0], [0, 0, 1]], 2),
        ([[1, 1, 0], [0, 0, 1]], [[0.5, 0.5, 0], [0, 0, 1]], 0),
    ],
)
def test_labels_of_any_dataset_are_read_from_its_samples(
    labels, expected, workers, tmp_path
):
    shares = shares_of(tmp_path, samples(label=labels), 'labels', workers=workers)
    np.testing.assert_array_equal(shares.values, expected)


def test_labels_of_folders_are_read_without_opening_an_image(tmp_path):
    fabricate.eurosat(tmp_path, [(9.0, 50.0), (10.0, 50.0)])
    folder = tmp_path / 'ds/images/remote_sensing/otherDatasets/sentinel_2/tif'
    (folder / 'River').mkdir()
    (folder / 'Forest' / 'Train2_2.tif').rename(folder / 'River' / 'Train2_2.tif')
    for path in folder.rglob('*.tif'):
        path.write_bytes(b'')
    found = columns(shares_of(tmp_path, spec('EuroSAT', root=str(tmp_path)), 'labels'))
    assert (found['Forest'], found['River']) == ([1, 0], [0, 1])


# Maps of MMEarth


def test_maps_of_mmearth_are_counted_by_pixel(tmp_path):
    cover, dynamic = np.full((2, 2, 8, 8), 0)
    cover[0], cover[0, :2], cover[0, 0, 0] = 10, 95, 255  # trees, mangroves, no data
    cover[1] = 80
    dynamic[0], dynamic[0, 0] = 1, 9  # water, snow
    dynamic[1], dynamic[1, :3] = 4, 0  # flooded vegetation, no data
    data = write_mmearth(tmp_path / 'data', cover, dynamic)
    shares = shares_of(tmp_path, data, 'worldcover', workers=2)
    found = columns(shares)
    assert found['tree cover'] == pytest.approx([48 / 63, 0])
    assert found['mangroves'] == pytest.approx([15 / 63, 0])
    assert found['permanent water bodies'] == [0, 1]
    assert shares.patch_ids.tolist() == ['10', '11']
    assert not shares.uses_labels
    landcover(data, 'dynamic_world', tmp_path / 'dynamic.parquet')
    found = columns(read_shares(tmp_path / 'dynamic.parquet'))
    assert found['water'] == pytest.approx([7 / 8, 0])
    assert found['snow and ice'] == pytest.approx([1 / 8, 0])
    assert found['flooded vegetation'] == [0, 1]


def test_mmearth_as_torchgeo_reads_it_has_the_classes_named_here(tmp_path):
    values = [10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100]
    cover = np.zeros((11, 8, 8)) + np.array(values)[:, None, None]
    data = write_mmearth(tmp_path / 'data', cover, np.ones((11, 8, 8)))
    dataset = MMEarth(**data['init_args'], modalities=['esa_worldcover'])
    read = [int(dataset[i]['mask_esa_worldcover'].unique()) for i in range(11)]
    shares = shares_of(tmp_path, data, 'worldcover')
    assert shares.values.argmax(axis=1).tolist() == read == list(range(11))


# Rasters


@pytest.mark.parametrize('crs', ['EPSG:4326', 'EPSG:32632', 'EPSG:3035'])
def test_a_raster_in_any_crs_is_looked_up_at_longitude_and_latitude(tmp_path, crs):
    land = write_raster(tmp_path / 'land', crs)
    shares = shares_of(tmp_path, samples(**PLACES), raster=land, size=10_000.0)
    np.testing.assert_allclose(shares.values, SHARES, atol=0.06)
    assert shares.classes == ('class 1', 'class 2', 'class 3')
    assert shares.source == f'raster {HERE}.LandCover'


def test_several_files_of_a_raster_cover_a_sample_together(tmp_path):
    land = write_raster(tmp_path / 'land', parts=2)
    options = {'raster': land, 'size': 10_000.0, 'workers': 2}
    shares = shares_of(tmp_path, samples(**PLACES), **options)
    np.testing.assert_allclose(shares.values, SHARES, atol=0.06)


@pytest.mark.parametrize('crs', ['EPSG:4326', 'EPSG:3035', None])
def test_a_raster_in_another_crs_covers_no_more_than_its_file_does(tmp_path, crs):
    """A file of 100 km in UTM is tilted in another CRS, and its rectangle larger."""
    pixels, path = np.full((1, 200, 200), 7, 'uint8'), tmp_path / 'land' / 'land.tif'
    fabricate.write_tif(path, pixels, 700_000, 6_600_000, 'EPSG:32633', 500)
    back = Transformer.from_crs('EPSG:32633', 'EPSG:4326', always_xy=True)
    # The middle, and 2 km outside near each corner, inside the upright rectangle.
    x = [750_000, 698_000, 802_000, 702_000, 798_000]
    y = [6_550_000, 6_502_000, 6_598_000, 6_602_000, 6_498_000]
    lon, lat = map(list, back.transform(x, y))
    land = spec(f'{HERE}.LandCover', paths=str(path.parent), crs=crs)
    options = {'raster': land, 'size': 1000.0, 'uncovered': 'drop'}
    shares = shares_of(tmp_path, samples(lon=lon, lat=lat), **options)
    assert shares.classes == ('class 7',)
    np.testing.assert_array_equal(shares.values[:, 0], [1, 0, 0, 0, 0])


@pytest.mark.parametrize('kind', ['xy', 'bounds'])
def test_coordinates_in_another_crs_and_bounds_are_looked_up(kind, tmp_path):
    land = write_raster(tmp_path / 'land')
    move = Transformer.from_crs('EPSG:4326', 'EPSG:32632', always_xy=True)
    x, y = map(list, move.transform(*PLACES.values()))
    boxes = [
        [e - 5e3, e + 5e3, 10, n - 5e3, n + 5e3, 10, 0, 1, 1]
        for e, n in zip(x, y, strict=True)
    ]
    data = samples(x=x, y=y) if kind == 'xy' else samples(bounds=boxes)
    size = 10_000.0 if kind == 'xy' else None
    shares = shares_of(tmp_path, data, raster=land, size=size, crs='EPSG:32632')
    np.testing.assert_allclose(shares.values, SHARES, atol=0.06)


def test_a_sample_smaller_than_a_pixel_has_the_class_of_its_pixel(tmp_path):
    land = write_raster(tmp_path / 'land')
    places = {'lon': [8.5, 9.5], 'lat': [50.0, 50.7]}
    shares = shares_of(tmp_path, samples(**places), raster=land, size=10.0)
    np.testing.assert_array_equal(shares.values, [[1, 0], [0, 1]])


@pytest.mark.parametrize('name', ['S2100k', 'MMEarth'])
def test_known_datasets_are_looked_up_without_reading_their_images(tmp_path, name):
    land, root = write_raster(tmp_path / 'land'), tmp_path / 'data'
    places = list(zip(*PLACES.values(), strict=True))
    if name == 'S2100k':
        fabricate.s2100k(root, places)
        for image in (root / 'images').iterdir():
            image.write_bytes(b'')
        data = spec(name, root=str(root))
    else:
        fabricate.mmearth(root, levels=('l2a', 'l1c') * 2, places=places)
        data = spec(name, root=str(root), subset='MMEarth100k')
    shares = shares_of(tmp_path, data, raster=land, size=10_000.0)
    assert shares.dataset == name
    np.testing.assert_allclose(shares.values, SHARES, atol=0.06)


def test_locations_that_are_not_on_disk_are_never_drawn(tmp_path):
    fabricate.ssl4eo(tmp_path / 'data', locations=(7, 9), tiles=('43RCP',) * 2)
    data = spec('SSL4EOS12', root=str(tmp_path / 'data'), split='s2a')
    land = write_raster(tmp_path / 'land')
    shares = shares_of(tmp_path, data, raster=land, size=2640.0)
    assert np.flatnonzero(shares.values.sum(axis=1)).tolist() == [7, 9]
    subset = Subset(range(len(shares)), [7, 9, 11])
    sampler = LandCoverBalancedSampler(
        subset, tmp_path / 'out.parquet', samples_per_epoch=4
    )
    assert {number % 3 for number in sampler.order()} == {0, 1}


def test_names_of_values_and_values_that_are_no_class_can_be_given(tmp_path):
    land = write_raster(tmp_path / 'land')
    data = samples(lon=[8.5, 9.0], lat=[50.0, 50.5])
    options = {'classes': {1: 'west', 2: 'east'}, 'ignore': [3], 'size': 10_000.0}
    shares = shares_of(tmp_path, data, raster=land, **options)
    assert shares.classes == ('west', 'east')
    np.testing.assert_allclose(shares.values, [[1, 0], [0.5, 0.5]], atol=0.06)


def test_esri2020_has_its_own_names_and_clouds_are_no_class(tmp_path):
    path = tmp_path / 'land' / '32U_20200101-20210101.tif'
    pixels = np.repeat([[[7, 10, 4, 4]]], 4, axis=1).astype('uint8')
    fabricate.write_tif(path, pixels, lon=9, lat=50, res=0.01)
    land = spec('Esri2020', paths=str(path.parent))
    place = samples(bounds=[[9.0, 9.04, 0, 49.96, 50.0, 0, 0, 1, 1]])
    found = columns(shares_of(tmp_path, place, raster=land))
    assert found['built area'] == pytest.approx([1 / 3])
    assert found['flooded vegetation'] == pytest.approx([2 / 3])


@pytest.mark.parametrize(('uncovered', 'rest'), [('drop', 0), ('keep', np.nan)])
def test_samples_that_are_not_covered_are_left_out_or_kept(tmp_path, uncovered, rest):
    land = write_raster(tmp_path / 'land')
    # covered, over the edge, far away, mostly no data, beyond the projection
    dataset = samples(lon=[8.5, 10.0, -70, 9, 9], lat=[50.0, 50, 10, 50.93, 90])
    options = {'raster': land, 'size': 10_000.0, 'uncovered': uncovered}
    shares = shares_of(tmp_path, dataset, **options)
    np.testing.assert_array_equal(shares.values, [[1], [rest], [rest], [rest], [rest]])


# The command


def test_the_picture_shows_the_classes_before_and_after():
    values = np.eye(2, dtype=np.float32)[[0, 0, 0, 1]]
    figure = plot_balance(ClassShares(values, ('wood', 'sea'), 'labels', 'Any', True))
    (axes,) = figure.axes
    drawn, stored = ([bar.get_width() for bar in bars] for bars in axes.containers)
    assert [text.get_text() for text in axes.get_yticklabels()] == ['sea', 'wood']
    assert stored == [25, 75]
    assert drawn == pytest.approx([50, 50])


def test_the_command_writes_a_file_for_the_sampler_and_overwrites_nothing(
    tmp_path, capsys
):
    out = tmp_path / 'shares.parquet'
    options = ['--dataset', '{class_path: BigEarthNetLMDB}', '--source', 'labels']
    assert main(['landcover', *options, '--out', str(out)]) == 0
    sampler = LandCoverBalancedSampler(BigEarthNetLMDB(), out, absent='ignore')
    assert sampler.uses_labels
    assert len(sampler.classes) == 13
    before = out.read_bytes()
    out.with_suffix('.png').rename(tmp_path / 'other.png')
    assert main(['landcover', *options, '--out', str(out)]) == 1
    assert capsys.readouterr().err.count('\n') == 1
    out.rename(tmp_path / 'other.parquet')
    (tmp_path / 'shares.png').write_bytes(b'mine')
    assert main(['landcover', *options, '--out', str(out)]) == 1
    assert (tmp_path / 'other.parquet').read_bytes() == before
    assert not out.exists()


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'raster': None}, 'raster'),
        ({'size': None}, 'size'),
        ({'crs': 'UTM'}, 'UTM'),
        ({'dataset': samples(a=[1, 2])}, 'Sample 0 of Samples has no coordinates'),
        ({'dataset': samples(a=[1, 2]), 'workers': 1}, 'no coordinates'),
        ({'dataset': samples(x=[5e5], y=[5e6])}, 'crs'),
        ({'dataset': samples(lon=[9.5, 20], lat=[50.0, 50])}, '1 of 2 samples'),
        ({'dataset': samples(a=[1]), 'source': 'labels', 'raster': None}, 'no label'),
        ({'source': 'worldcover', 'raster': None}, 'MMEarth'),
        ({'classes': {1: 'west', 2: 'east'}}, 'value 3'),
        ({'raster': samples(a=[1])}, 'raster is a Samples'),
    ],
)
def test_a_mistake_is_named_and_writes_nothing(tmp_path, changes, named):
    land = write_raster(tmp_path / 'land')
    request = {'dataset': samples(**PLACES), 'source': 'raster', 'raster': land}
    request |= {'size': 10_000.0} | changes
    with pytest.raises((ValueError, CRSError), match=named):
        landcover(out=tmp_path / 'out.parquet', **request)
    assert [path.name for path in tmp_path.iterdir()] == ['land']


def test_a_raster_of_measurements_is_no_land_cover(tmp_path):
    land = write_raster(tmp_path / 'land', dtype='float32')
    with pytest.raises(ValueError, match='float32 pixels'):
        shares_of(tmp_path, samples(**PLACES), raster=land, size=10.0)
