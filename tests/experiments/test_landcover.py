"""``channelmae landcover`` finds the land cover of samples, wherever it is known."""

import h5py
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import torch
from matplotlib.image import imread
from pyproj import Transformer
from torch.utils.data import Subset
from torchgeo.datasets import MMEarth, RasterDataset

from tests import fabricate
from torchgeo_channelmae.cli import main
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT, BigEarthNetLMDB
from torchgeo_channelmae.datasets.metadata import CLASSES
from torchgeo_channelmae.experiments import landcover as module
from torchgeo_channelmae.experiments.landcover import landcover
from torchgeo_channelmae.samplers import LandCoverBalancedSampler
from torchgeo_channelmae.samplers.shares import read_shares

HERE = 'tests.experiments.test_landcover'


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
        return {
            key: value[index] if isinstance(value[index], str) else
            torch.tensor(value[index])
            for key, value in self.keys.items()
        }  # fmt: skip

    def __len__(self):
        return len(next(iter(self.keys.values())))


def samples(**keys):
    return {'class_path': f'{HERE}.Samples', 'init_args': keys}


def raster(folder):
    return {
        'class_path': f'{HERE}.LandCover',
        'init_args': {'paths': str(folder)},
    }


def write_raster(folder, crs='EPSG:4326', dtype='uint8', nodata=0, name='land.tif'):
    """Write 2 x 2 degrees around 9 E, 50 N: 1 in the west, 2 in the east.

    North of 50.5 N everything is 3, north of 50.9 N is no data.
    """
    folder.mkdir(exist_ok=True)
    lon, lat = np.meshgrid(8.0025 + 0.005 * np.arange(400), 50.9975 - 0.005 * np.arange(
        400
    ))  # fmt: skip
    values = np.where(lon < 9, 1, 2)
    values = np.where(lat > 50.5, 3, values)
    values = np.where(lat > 50.9, nodata, values).astype(dtype)
    profile = {'driver': 'GTiff', 'count': 1, 'dtype': dtype, 'nodata': nodata}
    transform = rasterio.transform.from_origin(8, 51, 0.005, 0.005)
    if crs != 'EPSG:4326':
        values, transform = rasterio.warp.reproject(
            values[None],
            src_transform=transform,
            src_crs='EPSG:4326',
            dst_crs=crs,
            src_nodata=nodata,
            dst_nodata=nodata,
        )
        values = values[0]
    height, width = values.shape
    with rasterio.open(
        folder / name,
        'w',
        crs=crs,
        transform=transform,
        width=width,
        height=height,
        **profile,
    ) as file:
        file.write(values, 1)
    return raster(folder)


PLACES = {'lon': [8.5, 9.5, 9.0, 9.5], 'lat': [50.0, 50.0, 50.0, 50.7]}
SHARES = [[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [0, 0, 1]]


def shares_of(tmp_path, dataset, source='raster', **kwargs):
    landcover(dataset, source, tmp_path / 'out.parquet', **kwargs)
    return read_shares(tmp_path / 'out.parquet')


def write_mmearth(root, worldcover, dynamic_world):
    """Write an MMEarth with the given maps (tiles, 8, 8)."""
    fabricate.mmearth(root, levels=('l2a',) * len(worldcover))
    with h5py.File(root / 'data_100k_v001' / 'data_100k_v001.h5', 'a') as file:
        file['esa_worldcover'] = np.array(worldcover, dtype='uint8')[:, None]
        file['dynamic_world'] = np.array(dynamic_world, dtype='uint8')[:, None]
    return {
        'class_path': 'MMEarth',
        'init_args': {'root': str(root), 'subset': 'MMEarth100k'},
    }


def test_labels_of_bigearthnet_count_by_their_number(tmp_path, capsys):
    spec = {'class_path': 'BigEarthNetLMDB', 'init_args': {'split': 'test'}}
    shares = shares_of(tmp_path, spec, 'labels')
    table = pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')
    table = table[table['split'] == 'test'].set_index('patch_id')
    assert shares.patch_ids.tolist() == table.index.tolist()
    for row, labels in zip(shares.values, table['labels'], strict=True):
        found = {
            name: share
            for name, share in zip(shares.classes, row, strict=True)
            if share
        }
        assert found == pytest.approx({label: 1 / len(labels) for label in labels})
    assert shares.uses_labels
    printed = capsys.readouterr().out
    absent = [name for name in CLASSES if name not in set(table['labels'].explode())]
    assert f'No sample has {", ".join(map(repr, absent))}: the sampler' in printed
    assert "unless told absent: 'ignore'" in printed


def test_labels_of_any_dataset_are_read_from_its_samples(tmp_path):
    shares = shares_of(tmp_path, samples(label=[2, 0, 2]), 'labels')
    np.testing.assert_array_equal(shares.values, np.eye(3)[[2, 0, 2]])
    hot = samples(label=[[1, 1, 0], [0, 0, 1]])
    (tmp_path / 'hot').mkdir()
    shares = shares_of(tmp_path / 'hot', hot, 'labels')
    np.testing.assert_array_equal(shares.values, [[0.5, 0.5, 0], [0, 0, 1]])


@pytest.mark.parametrize('workers', [0, 2])
def test_maps_of_mmearth_are_counted_by_pixel(tmp_path, workers):
    cover, dynamic = np.full((2, 2, 8, 8), 0)
    cover[0], cover[0, :2], cover[0, 0, 0] = 10, 95, 255  # trees, mangroves, no data
    cover[1] = 80
    dynamic[0], dynamic[0, 0] = 1, 9  # water, snow
    dynamic[1], dynamic[1, :3] = 4, 0  # flooded vegetation, no data
    spec = write_mmearth(tmp_path / 'data', cover, dynamic)
    shares = shares_of(tmp_path, spec, 'worldcover', workers=workers)
    found = dict(zip(shares.classes, shares.values.T, strict=True))
    np.testing.assert_allclose(found.pop('tree cover'), [48 / 63, 0])
    np.testing.assert_allclose(found.pop('mangroves'), [15 / 63, 0])
    np.testing.assert_allclose(found.pop('permanent water bodies'), [0, 1])
    assert len(found) == 8
    assert not np.any(list(found.values()))
    assert shares.patch_ids.tolist() == ['10', '11']
    assert not shares.uses_labels
    landcover(spec, 'dynamic_world', tmp_path / 'dynamic.parquet', workers=workers)
    shares = read_shares(tmp_path / 'dynamic.parquet')
    found = dict(zip(shares.classes, shares.values.T, strict=True))
    np.testing.assert_allclose(found['water'], [7 / 8, 0])
    np.testing.assert_allclose(found['snow and ice'], [1 / 8, 0])
    np.testing.assert_allclose(found['flooded vegetation'], [0, 1])


@pytest.mark.parametrize(
    ('crs', 'workers'),
    [('EPSG:4326', 0), ('EPSG:32632', 0), ('EPSG:3035', 0), ('EPSG:3035', 2)],
)
def test_a_raster_in_any_crs_is_looked_up_at_longitude_and_latitude(
    tmp_path, crs, workers
):
    land = write_raster(tmp_path / 'land', crs)
    shares = shares_of(
        tmp_path, samples(**PLACES), raster=land, size=10_000.0, workers=workers
    )
    np.testing.assert_allclose(shares.values, SHARES, atol=0.06)
    assert shares.classes == ('class 1', 'class 2', 'class 3')
    assert shares.source == f'raster {HERE}.LandCover'


def write_tilted(folder):
    """Write 100 km of class 7 in UTM zone 33, without a no-data value."""
    pixels = np.full((1, 200, 200), 7, 'uint8')
    path = folder / 'land.tif'
    fabricate.write_tif(path, pixels, 700_000, 6_600_000, 'EPSG:32633', 500)
    back = Transformer.from_crs('EPSG:32633', 'EPSG:4326', always_xy=True)
    # The middle, and 2 km outside near each corner, inside the upright rectangle.
    x = [750_000, 698_000, 802_000, 702_000, 798_000]
    y = [6_550_000, 6_502_000, 6_598_000, 6_602_000, 6_498_000]
    return dict(zip(('lon', 'lat'), map(list, back.transform(x, y)), strict=True))


@pytest.mark.parametrize('crs', ['EPSG:4326', 'EPSG:3035', None])
def test_a_raster_in_another_crs_covers_no_more_than_its_file_does(tmp_path, crs):
    places = write_tilted(tmp_path / 'land')
    land = raster(tmp_path / 'land')
    if crs is not None:
        land['init_args']['crs'] = crs
    shares = shares_of(
        tmp_path, samples(**places), raster=land, size=1000.0, uncovered='drop'
    )
    assert shares.classes == ('class 7',)
    np.testing.assert_array_equal(shares.values[:, 0], [1, 0, 0, 0, 0])


def test_coordinates_in_another_crs_and_bounds_are_looked_up(tmp_path):
    land = write_raster(tmp_path / 'land')
    x, y = Transformer.from_crs('EPSG:4326', 'EPSG:32632', always_xy=True).transform(
        PLACES['lon'], PLACES['lat']
    )
    xy = samples(x=list(x), y=list(y))
    shares = shares_of(tmp_path, xy, raster=land, size=10_000.0, crs='EPSG:32632')
    np.testing.assert_allclose(shares.values, SHARES, atol=0.06)
    boxes = [
        [e - 5e3, e + 5e3, 10, n - 5e3, n + 5e3, 10, 0, 1, 1]
        for e, n in zip(x, y, strict=True)
    ]
    landcover(
        samples(bounds=boxes),
        'raster',
        tmp_path / 'bounds.parquet',
        raster=land,
        crs='EPSG:32632',
    )
    read = read_shares(tmp_path / 'bounds.parquet')
    np.testing.assert_allclose(read.values, SHARES, atol=0.06)


def test_a_sample_smaller_than_a_pixel_has_the_class_of_its_pixel(tmp_path):
    land = write_raster(tmp_path / 'land')
    places = {'lon': [8.5, 9.5], 'lat': [50.0, 50.7]}
    shares = shares_of(tmp_path, samples(**places), raster=land, size=10.0)
    np.testing.assert_array_equal(shares.values, [[1, 0], [0, 1]])


def test_several_files_of_a_raster_cover_a_sample_together(tmp_path):
    land = write_raster(tmp_path / 'land')
    with rasterio.open(tmp_path / 'land' / 'land.tif') as file:
        values, profile = file.read(), file.profile
    (tmp_path / 'land' / 'land.tif').unlink()
    for part, left in ((values[..., :200], 8), (values[..., 200:], 9)):
        origin = rasterio.transform.from_origin(left, 51, 0.005, 0.005)
        path = tmp_path / 'land' / f'{left}.tif'
        with rasterio.open(
            path, 'w', **{**profile, 'transform': origin, 'width': 200}
        ) as file:
            file.write(part)
    shares = shares_of(tmp_path, samples(**PLACES), raster=land, size=10_000.0)
    np.testing.assert_allclose(shares.values, SHARES, atol=0.06)


def test_datasets_that_are_known_are_looked_up_without_reading_their_images(tmp_path):
    land = write_raster(tmp_path / 'land')
    places = list(zip(*PLACES.values(), strict=True))
    fabricate.s2100k(tmp_path / 's2', places)
    for image in (tmp_path / 's2' / 'images').iterdir():
        image.write_bytes(b'')
    fabricate.mmearth(tmp_path / 'mm', levels=('l2a', 'l1c') * 2, places=places)
    mm = {'root': str(tmp_path / 'mm'), 'subset': 'MMEarth100k'}
    for spec in (
        {'class_path': 'S2100k', 'init_args': {'root': str(tmp_path / 's2')}},
        {'class_path': 'MMEarth', 'init_args': mm},
    ):
        out = tmp_path / f'{spec["class_path"]}.parquet'
        landcover(spec, 'raster', out, raster=land, size=10_000.0)
        shares = read_shares(out)
        assert shares.dataset == spec['class_path']
        np.testing.assert_allclose(shares.values, SHARES, atol=0.06)


def test_locations_that_are_not_on_disk_are_never_drawn(tmp_path):
    fabricate.ssl4eo(tmp_path / 'data', locations=(7, 9), tiles=('43RCP',) * 2)
    spec = {
        'class_path': 'SSL4EOS12',
        'init_args': {'root': str(tmp_path / 'data'), 'split': 's2a'},
    }
    land = write_raster(tmp_path / 'land')
    shares = shares_of(tmp_path, spec, raster=land, size=2640.0)
    assert np.flatnonzero(shares.values.sum(axis=1)).tolist() == [7, 9]
    sampler = LandCoverBalancedSampler(
        Subset(range(len(shares)), [7, 9, 11]),
        tmp_path / 'out.parquet',
        samples_per_epoch=4,
    )
    assert {number % 3 for number in sampler.order()} == {0, 1}


def test_names_of_values_and_values_that_are_no_class_can_be_given(tmp_path):
    land = write_raster(tmp_path / 'land')
    shares = shares_of(
        tmp_path,
        samples(lon=[8.5, 9.0], lat=[50.0, 50.5]),
        raster=land,
        size=10_000.0,
        classes={1: 'west', 2: 'east'},
        ignore=[3],
    )
    assert shares.classes == ('west', 'east')
    np.testing.assert_allclose(shares.values, [[1, 0], [0.5, 0.5]], atol=0.06)


def test_esri2020_has_its_own_names_and_clouds_are_no_class(tmp_path):
    fabricate.write_tif(
        tmp_path / 'land' / '32U_20200101-20210101.tif',
        np.repeat([[[7, 10, 4, 4]]], 4, axis=1).astype('uint8'),
        lon=9,
        lat=50,
        res=0.01,
    )
    spec = {'class_path': 'Esri2020', 'init_args': {'paths': str(tmp_path / 'land')}}
    place = samples(bounds=[[9.0, 9.04, 0, 49.96, 50.0, 0, 0, 1, 1]])
    shares = shares_of(tmp_path, place, raster=spec)
    found = {
        name: share
        for name, share in zip(shares.classes, shares.values[0], strict=True)
        if share
    }
    assert found == pytest.approx({'built area': 1 / 3, 'flooded vegetation': 2 / 3})


@pytest.mark.parametrize('uncovered', ['drop', 'keep'])
def test_samples_that_are_not_covered_are_left_out_or_kept(tmp_path, uncovered, capsys):
    land = write_raster(tmp_path / 'land')
    # covered, over the edge, far away, mostly no data, beyond the projection
    dataset = samples(lon=[8.5, 10.0, -70, 9, 9], lat=[50.0, 50, 10, 50.93, 90])
    shares = shares_of(
        tmp_path, dataset, raster=land, size=10_000.0, uncovered=uncovered
    )
    rest = np.nan if uncovered == 'keep' else 0
    np.testing.assert_array_equal(shares.values, [[1], [rest], [rest], [rest], [rest]])
    told = {'keep': '4 samples are of unknown land cover', 'drop': '4 samples are left'}
    assert told[uncovered] in capsys.readouterr().out


def test_the_picture_shows_the_classes_before_and_after(tmp_path):
    shares_of(tmp_path, {'class_path': 'BigEarthNetLMDB'}, 'labels')
    pixels = imread(tmp_path / 'out.png')[..., :3]
    assert min(pixels.shape[:2]) > 600
    pixels = pixels[: int(0.88 * len(pixels))]  # without the legend
    bars = []
    for colour in (0xA3ADB8, 0x1F6F54):
        rgb = [(colour >> shift & 255) / 255 for shift in (16, 8, 0)]
        drawn = np.abs(pixels - rgb).max(axis=-1) < 0.02
        widths = drawn[:, 400:].sum(axis=1)
        bars.append(widths[widths > 0])
    before, after = bars
    assert before.max() > after.max()  # bars of even classes are not so long
    assert before.min() < after.min()


def test_a_balanced_sampler_uses_the_file_for_the_dataset_it_was_made_of(tmp_path):
    shares_of(tmp_path, {'class_path': 'BigEarthNetLMDB'}, 'labels')
    sampler = LandCoverBalancedSampler(
        BigEarthNetLMDB(), tmp_path / 'out.parquet', absent='ignore'
    )
    assert sampler.uses_labels
    assert len(sampler.classes) == 13
    with pytest.raises(ValueError, match=r"15 of 15 samples, such as 'S2\w+', have no"):
        LandCoverBalancedSampler(
            BigEarthNetLMDB(split='val'), tmp_path / 'out.parquet', absent='ignore'
        )


def test_the_command_writes_shares_and_says_what_is_wrong_in_a_line(tmp_path, capsys):
    out = tmp_path / 'shares.parquet'
    options = ['--dataset', '{class_path: BigEarthNetLMDB}', '--source', 'labels']
    assert main(['landcover', *options, '--out', str(out)]) == 0
    assert len(read_shares(out)) == 23
    assert (tmp_path / 'shares.png').is_file()
    capsys.readouterr()
    before = out.read_bytes()
    assert main(['landcover', *options, '--out', str(out)]) == 1
    assert capsys.readouterr().err.count('\n') == 1
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'source': 'sky'}, "Unknown source 'sky': use one of labels, worldcover, dyn"),
        ({'uncovered': 'skip'}, "Unknown uncovered 'skip': use one of raise, drop, k"),
        ({'raster': None}, "source is 'raster' and raster is not given"),
        ({'source': 'labels'}, "source is 'labels' and raster is given"),
        ({'size': -1.0}, 'size is -1.0: give the side of a sample in metres'),
        ({'size': None}, 'Sample 0 of Samples has a centre but no extent: give size'),
        ({'crs': 'UTM'}, "crs is 'UTM': give a coordinate reference system such as"),
        ({'dataset': samples(a=[1, 2])}, 'Sample 0 of Samples has no coordinates, th'),
        ({'dataset': samples(x=[5e5], y=[5e6])}, 'Sample 0 of Samples is at 500000, '),
        ({'dataset': samples(lon=[9.5, 20], lat=[50.0, 50])}, 'not cover sample 1 of'),
        ({'dataset': samples(lon=[20], lat=[50.0])}, 'None of the 1 samples of Sampl'),
        ({'dataset': {'class_path': 'Nope'}}, "'Nope', the class of dataset, is none"),
        ({'classes': {1: 'west', 2: 'east'}}, 'land cover of sample 3 has the value 3'),
        ({'raster': samples(a=[1])}, 'raster is a Samples: give a TorchGeo RasterDa'),
        ({'raster': raster('nowhere')}, 'The files of raster LandCover are not in no'),
    ],
)
def test_bad_requests_are_one_line_errors(tmp_path, changes, message):
    request = {
        'dataset': samples(**PLACES),
        'source': 'raster',
        'raster': write_raster(tmp_path / 'land'),
        'size': 10_000.0,
        **changes,
    }
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        landcover(out=tmp_path / 'out.parquet', **request)
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'out.parquet').exists()


def test_what_a_worker_meets_is_a_one_line_error_too(tmp_path):
    land = write_raster(tmp_path / 'land')
    with pytest.raises(ValueError, match='Sample 0 of Samples has no coord') as caught:
        shares_of(tmp_path, samples(a=[1]), raster=land, size=10.0, workers=1)
    assert '\n' not in str(caught.value)


def test_only_mmearth_has_maps_of_its_own(tmp_path):
    with pytest.raises(ValueError, match='Samples: only MMEarth has this map'):
        shares_of(tmp_path, samples(a=[1]), 'worldcover')


def test_samples_without_a_label_of_classes_are_an_error(tmp_path):
    with pytest.raises(ValueError, match='Sample 0 of Samples has no label of classes'):
        shares_of(tmp_path, samples(a=[1]), 'labels')


def test_a_raster_of_measurements_is_no_land_cover(tmp_path):
    land = write_raster(tmp_path / 'land', dtype='float32')
    with pytest.raises(ValueError, match=r'land.tif of LandCover has float32 pixels'):
        shares_of(tmp_path, samples(**PLACES), raster=land, size=10.0)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('out.csv', 'give the name of a .parquet file'),
        ('no/out.parquet', 'There is no folder .*no for out'),
    ],
)
def test_a_place_where_nothing_can_be_written_is_an_error_at_once(
    tmp_path, name, message
):
    with pytest.raises((ValueError, OSError), match=message):
        landcover({'class_path': 'Nope'}, 'labels', tmp_path / name)


def test_a_picture_is_not_overwritten_either(tmp_path):
    (tmp_path / 'out.png').write_bytes(b'mine')
    with pytest.raises(FileExistsError, match=r'out.png exists'):
        shares_of(tmp_path, {'class_path': 'BigEarthNetLMDB'}, 'labels')
    assert not (tmp_path / 'out.parquet').exists()


def test_mmearth_as_torchgeo_reads_it_has_the_classes_named_here(tmp_path):
    values = [10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100]
    cover = np.zeros((11, 8, 8)) + np.array(values)[:, None, None]
    spec = write_mmearth(tmp_path / 'data', cover, np.ones((11, 8, 8)))
    dataset = MMEarth(**spec['init_args'], modalities=['esa_worldcover'])
    read = [int(dataset[i]['mask_esa_worldcover'].unique()) for i in range(11)]
    shares = shares_of(tmp_path, spec, 'worldcover')
    assert shares.values.argmax(axis=1).tolist() == read == list(range(11))


def test_a_failing_picture_leaves_no_file_so_that_a_rerun_is_possible(
    tmp_path, monkeypatch
):
    spec = {'class_path': 'BigEarthNetLMDB'}
    with monkeypatch.context() as patch:
        patch.setattr(module, 'plot_balance', lambda shares: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            shares_of(tmp_path, spec, 'labels')
    assert list(tmp_path.iterdir()) == []
    assert len(shares_of(tmp_path, spec, 'labels')) == 23


def test_labels_that_folders_tell_are_read_without_opening_an_image(tmp_path):
    fabricate.eurosat(tmp_path, [(9.0, 50.0), (10.0, 50.0)])
    folder = tmp_path / 'ds/images/remote_sensing/otherDatasets/sentinel_2/tif'
    (folder / 'River').mkdir()
    (folder / 'Forest' / 'Train2_2.tif').rename(folder / 'River' / 'Train2_2.tif')
    for path in folder.rglob('*.tif'):
        path.write_bytes(b'')
    spec = {'class_path': 'EuroSAT', 'init_args': {'root': str(tmp_path)}}
    shares = shares_of(tmp_path, spec, 'labels')
    found = dict(zip(shares.classes, shares.values.T.tolist(), strict=True))
    assert (found['Forest'], found['River']) == ([1, 0], [0, 1])


def test_workers_read_labels_as_one_process_does(tmp_path):
    spec = samples(label=[2, 0, 2, 1] * 20)
    shares = shares_of(tmp_path, spec, 'labels', workers=2)
    np.testing.assert_array_equal(shares.values, np.eye(3)[[2, 0, 2, 1] * 20])
