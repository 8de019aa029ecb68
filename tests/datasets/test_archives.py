"""Archives are read as they are stored, whatever TorchGeo makes of them."""

import json

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from torchgeo.datasets import BigEarthNet

from tests.fabricate import write_tif
from tests.layouts import write_copernicus, write_v1
from torchgeo_channelmae.datasets.archives import open_archive, read_geotiff

RADAR = np.stack([np.full((120, 120), v, 'f4') for v in (-11.5, -18.25)])


def test_decibels_of_the_no_data_value_are_nan(tmp_path):
    pixels = RADAR[:1].copy()
    pixels[0, 0, :7] = -9999
    write_tif(tmp_path / 'VV.tif', pixels, nodata=-9999)
    found = read_geotiff(tmp_path / 'VV.tif', ('VV',), 120)['VV']
    assert np.isnan(found[0, :7]).all()
    assert (found.flatten()[7:] == np.float32(-11.5)).all()


@pytest.mark.parametrize('dtype', ['uint16', 'float32', 'int32'])
def test_digital_numbers_are_integers_with_0_for_no_data(tmp_path, dtype):
    pixels = np.arange(14400).reshape(1, 120, 120).astype(dtype)
    write_tif(tmp_path / 'B02.tif', pixels, nodata=0)
    found = read_geotiff(tmp_path / 'B02.tif', ('B02',), 120)['B02']
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, pixels[0])
    write_tif(tmp_path / 'B03.tif', pixels, nodata=7)
    with pytest.raises(ValueError, match='B03'):
        read_geotiff(tmp_path / 'B03.tif', ('B03',), 120)


def test_bands_that_a_file_names_are_read_by_those_names(tmp_path):
    path = tmp_path / 'radar.tif'
    write_tif(path, RADAR)
    with rasterio.open(path, 'r+') as file:
        file.descriptions = ('VH', 'VV')
    found = read_geotiff(path, ('VV', 'VH'), 120)
    assert found['VH'][0, 0] == np.float32(-11.5)


@pytest.mark.parametrize('order', [(0, 1), (1, 0)])
def test_the_brighter_radar_band_of_copernicus_bench_is_vv(tmp_path, order):
    keys = write_copernicus(tmp_path, rows=range(5))
    for path in (tmp_path / 'bigearthnet_s1s2/BigEarthNet-S1-5%').rglob('*.tif'):
        path.unlink()
        write_tif(path, RADAR[list(order)])
    archive = open_archive(tmp_path, 'all')
    name = next(name for name in keys if name.startswith('S1'))
    pixels = archive.read(name)
    assert {band: a[0, 0] for band, a in pixels.items()} == {'VV': -11.5, 'VH': -18.25}


def test_labels_without_names_are_in_torchgeos_order(tmp_path):
    write_copernicus(tmp_path, rows=[0])
    expected = open_archive(tmp_path, 's2').table.labels
    (path,) = [p for p in tmp_path.rglob('*.csv') if len(pd.read_csv(p))]
    frame = pd.read_csv(path)
    frame[list(BigEarthNet.class_sets[19])].set_axis(range(19), axis=1).pipe(
        lambda hot: pd.concat([frame.iloc[:, :2], hot], axis=1)
    ).to_csv(path, index=False)
    assert torch.equal(open_archive(tmp_path, 's2').table.labels, expected)


def test_the_43_classes_of_v1_are_the_19_that_torchgeo_makes_of_them(tmp_path):
    write_v1(tmp_path, rows=[0])
    (path,) = (tmp_path / 'BigEarthNet-v1.0').rglob('*.json')
    archive = open_archive(tmp_path, 's2')
    stock = BigEarthNet(tmp_path, str(archive.table.split[0]), bands='s2')
    for label in BigEarthNet.class_sets[43]:
        path.write_text(json.dumps({'labels': [label, 'Pastures']}))
        labels = archive.labelled(np.array([0])).labels
        assert torch.equal(labels[0], stock[0]['label']), label
