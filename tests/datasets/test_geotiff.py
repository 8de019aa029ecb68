"""Pixels of GeoTIFFs."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layouts import S1_BANDS, S2_BANDS, write_tif
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.geotiff import read_geotiff
from torchgeo_channelmae.datasets.metadata import find_lmdb, read_table
from torchgeo_channelmae.datasets.records import read_bands

COMPRESSIONS = (None, 'deflate', 'lzw', 'zstd')


def real_bands(row: int) -> dict[str, np.ndarray]:
    table, lmdb = read_table(SAMPLE_ROOT), find_lmdb(SAMPLE_ROOT)
    return {
        **read_bands(lmdb, table.s2_names[row], S2_BANDS),
        **read_bands(lmdb, table.s1_names[row], S1_BANDS),
    }


def by_rasterio(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


@pytest.mark.parametrize('compression', COMPRESSIONS)
def test_real_bands_are_bit_equal_to_what_rasterio_reads(tmp_path, compression):
    for row in (0, 30, 58):
        for band, pixels in real_bands(row).items():
            path = tmp_path / f'{row}_{band}.tif'
            write_tif(path, pixels, compression)
            found, expected = read_geotiff(path), by_rasterio(path)
            assert found.dtype == expected.dtype == pixels.dtype
            assert found.tobytes() == expected.tobytes() == pixels.tobytes()


@pytest.mark.parametrize(
    ('profile', 'kind'),
    [
        ({'predictor': 2}, 'deflate'),
        ({'predictor': 3}, 'zstd'),
        ({'predictor': 2, 'blockysize': 7}, 'lzw'),
        ({'tiled': True, 'blockxsize': 32, 'blockysize': 16}, 'deflate'),
        ({'tiled': True, 'blockxsize': 128, 'blockysize': 128}, None),
        ({'blockysize': 1}, None),
        ({'blockysize': 120}, None),
        ({'BIGTIFF': 'YES'}, 'zstd'),
        ({'ENDIANNESS': 'BIG'}, None),
        ({'ENDIANNESS': 'BIG', 'predictor': 2}, 'deflate'),
        ({'SPARSE_OK': True}, 'deflate'),
    ],
)
def test_any_layout_that_gdal_writes_is_bit_equal(tmp_path, profile, kind):
    bands = real_bands(3)
    for band in ('VV',) if profile.get('predictor') == 3 else ('VV', 'B02', 'B05'):
        path = tmp_path / f'{band}.tif'
        write_tif(path, bands[band], kind, **profile)
        found, expected = read_geotiff(path), by_rasterio(path)
        assert found.dtype == expected.dtype
        assert found.tobytes() == expected.tobytes()


def test_a_file_of_zeros_that_gdal_left_out_is_zeros(tmp_path):
    write_tif(tmp_path / 'a.tif', np.zeros((120, 120), 'u2'), SPARSE_OK=True)
    assert (tmp_path / 'a.tif').stat().st_size < 5000  # the pixels are not in it
    assert np.array_equal(read_geotiff(tmp_path / 'a.tif'), np.zeros((120, 120)))


@pytest.mark.parametrize('dtype', ['uint8', 'int16', 'uint16', 'int32', 'float32'])
def test_pixels_keep_their_type_and_may_be_changed(tmp_path, dtype):
    pixels = np.arange(12).reshape(3, 4).astype(dtype)
    write_tif(tmp_path / 'a.tif', pixels, 'deflate')
    found = read_geotiff(tmp_path / 'a.tif')
    assert found.dtype == dtype
    found += 1
    assert np.array_equal(found, pixels + 1)
    assert np.array_equal(read_geotiff(tmp_path / 'a.tif'), pixels)


def test_decibels_declared_to_hold_no_data_are_nan(tmp_path):
    decibels = np.array([[-9999, -12.5], [0, -30]], 'f4')
    write_tif(tmp_path / 'f.tif', decibels, nodata=-9999)
    found = read_geotiff(tmp_path / 'f.tif')
    assert np.array_equal(found, [[np.nan, -12.5], [0, -30]], equal_nan=True)


def test_integers_that_hold_no_data_by_another_value_than_0_are_an_error(tmp_path):
    numbers = np.array([[65535, 1], [0, 2]], 'u2')
    write_tif(tmp_path / 'u.tif', numbers, nodata=65535)
    with pytest.raises(ValueError, match=r'u\.tif has 1 pixels of 65535') as caught:
        read_geotiff(tmp_path / 'u.tif')
    assert '\n' not in str(caught.value)
    for value in (0, 7):  # said by the pixels, and not there
        write_tif(tmp_path / f'{value}.tif', numbers, nodata=value)
        assert np.array_equal(read_geotiff(tmp_path / f'{value}.tif'), numbers)


@pytest.mark.parametrize('nodata', [-9999.0, 0.0, float('nan'), -3.4028234663852886e38])
def test_declared_no_data_is_where_rasterio_masks_it(tmp_path, nodata):
    decibels = real_bands(5)['VH'].copy()
    decibels[10:20, 30] = nodata
    write_tif(tmp_path / 'f.tif', decibels, nodata=nodata)
    with rasterio.open(tmp_path / 'f.tif') as file:
        masked = file.read(1, masked=True)
    found = read_geotiff(tmp_path / 'f.tif')
    assert masked.mask.sum() == 10
    assert np.array_equal(np.isnan(found), masked.mask)
    assert np.array_equal(found[~masked.mask], masked.compressed())


def test_declared_no_data_can_be_left_as_stored(tmp_path):
    decibels = np.array([[-9999, -12.5]], 'f4')
    write_tif(tmp_path / 'f.tif', decibels, nodata=-9999)
    found = read_geotiff(tmp_path / 'f.tif', mark_nodata=False)
    assert np.array_equal(found, decibels)


@pytest.fixture(scope='module')
def files(tmp_path_factory) -> list[bytes]:
    folder = tmp_path_factory.mktemp('files')
    for compression in COMPRESSIONS:
        write_tif(folder / f'{compression}.tif', real_bands(7)['B05'], compression)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@given(data=st.data(), which=st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_a_file_cut_short_anywhere_is_an_error(tmp_path_factory, files, data, which):
    whole = files[which]
    path = tmp_path_factory.getbasetemp() / 'cut.tif'
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ValueError, match=r'cut\.tif is no readable') as caught:
        read_geotiff(path)
    assert len(str(caught.value).splitlines()) == 1


@given(data=st.data(), which=st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_is_pixels_or_one_sentence(tmp_path_factory, files, data, which):
    broken = bytearray(files[which])
    start = data.draw(st.integers(0, len(broken) - 1))
    broken[start : start + 64] = data.draw(st.binary(min_size=64, max_size=64))
    path = tmp_path_factory.getbasetemp() / 'broken.tif'
    path.write_bytes(broken)
    try:
        found = read_geotiff(path)
    except ValueError as error:
        found = str(error)
    if isinstance(found, str):
        assert found.startswith(f'{path} is no readable')
        assert len(found.splitlines()) == 1
    else:
        assert found.ndim == 2


@pytest.mark.parametrize('content', [b'', b'not a TIFF', b'\x89PNG\r\n\x1a\n' * 99])
def test_a_file_that_is_no_tiff_is_an_error(tmp_path, content):
    (tmp_path / 'a.tif').write_bytes(content)
    with pytest.raises(ValueError, match='no readable one-band GeoTIFF') as caught:
        read_geotiff(tmp_path / 'a.tif')
    assert '\n' not in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'a\.tif'):
        read_geotiff(tmp_path / 'a.tif')


@pytest.mark.parametrize('shape', [(2, 20, 20), (20, 20, 3)])
def test_several_bands_are_an_error(tmp_path, shape):
    pixels = np.ones(shape, 'u2')
    planar = 'separate' if shape[0] == 2 else 'contig'
    tifffile.imwrite(
        tmp_path / 'a.tif', pixels, photometric='minisblack', planarconfig=planar
    )
    with pytest.raises(ValueError, match='expected height and width'):
        read_geotiff(tmp_path / 'a.tif')


def test_an_image_too_large_for_a_patch_is_an_error_before_it_is_decoded(tmp_path):
    write_tif(tmp_path / 'a.tif', np.zeros((1, 5000), 'u1'), SPARSE_OK=True)
    with pytest.raises(ValueError, match=r'its shape is \(1, 5000\)'):
        read_geotiff(tmp_path / 'a.tif')
