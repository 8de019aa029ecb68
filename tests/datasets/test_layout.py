"""Where the original archives keep what."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torchgeo.datasets import BigEarthNet

from tests.layouts import write_tif, write_v1, write_v2
from torchgeo_channelmae.datasets import BigEarthNetV2GeoTIFF
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.layout import (
    archive_table,
    archive_version,
    band_file,
    check_folders,
    read_band,
    read_label,
)
from torchgeo_channelmae.datasets.metadata import read_table

ROWS = (0, 30, 40, 58)
V1 = 'S2A_MSIL2A_20170613T101031_26_57'
V2 = 'S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57'
S1 = 'S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_57'


@pytest.fixture(scope='module')
def archives(tmp_path_factory) -> Path:
    """Folders v1 and v2, four patches each."""
    folder = tmp_path_factory.mktemp('layouts')
    for version, write in (('v1', write_v1), ('v2', write_v2)):
        (folder / version).mkdir()
        write(folder / version, rows=ROWS)
    return folder


@pytest.fixture
def copy(archives, tmp_path) -> Callable[[str], Path]:
    """Copy an archive, to damage it."""
    return lambda version: shutil.copytree(archives / version, tmp_path / version)


@pytest.mark.parametrize(
    ('version', 'name', 'band', 'expected'),
    [
        ('v1', V1, 'B8A', f'BigEarthNet-v1.0/{V1}/{V1}_B8A.tif'),
        ('v1', S1, 'VV', f'BigEarthNet-S1-v1.0/{S1}/{S1}_VV.tif'),
        (
            *('v2', V2, 'B02'),
            'BigEarthNet-S2/S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP/'
            f'{V2}/{V2}_B02.tif',
        ),
        (
            *('v2', S1, 'VH'),
            f'BigEarthNet-S1/S1B_IW_GRDH_1SDV_20170612T165809/{S1}/{S1}_VH.tif',
        ),
        (
            *('v2', V2, 'reference_map'),
            'Reference_Maps/S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP/'
            f'{V2}/{V2}_reference_map.tif',
        ),
    ],
)
def test_a_band_has_its_file_where_the_published_archives_have_it(
    version, name, band, expected
):
    assert band_file(Path('root'), version, name, band) == Path('root', expected)


def test_an_unknown_band_has_no_file():
    with pytest.raises(ValueError, match="Unknown band 'B10'"):
        band_file('root', 'v1', V1, 'B10')


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_the_version_is_told_from_the_folders(archives, version, tmp_path):
    assert archive_version(archives / version) == version
    for directory in (archives / version).iterdir():
        if directory.is_dir():  # one sensor is enough
            root = tmp_path / directory.name
            (root / directory.name).mkdir(parents=True)
            assert archive_version(root) == version


def test_a_folder_with_neither_version_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no folder BigEarthNet-S1-v1\.0'):
        archive_version(tmp_path)
    with pytest.raises(FileNotFoundError):
        archive_version(tmp_path / 'absent')


def test_of_both_versions_one_has_to_be_wanted(tmp_path):
    (tmp_path / 'BigEarthNet-v1.0').mkdir()
    (tmp_path / 'BigEarthNet-S1').mkdir()
    with pytest.raises(ValueError, match='BigEarthNet v1 and v2: say which'):
        archive_version(tmp_path)
    assert archive_version(tmp_path, 'v1') == 'v1'
    assert archive_version(tmp_path, 'v2') == 'v2'


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_the_table_of_an_archive_has_the_patches_splits_and_labels_of_the_lmdb(
    archives, version
):
    found = archive_table(archives / version, version)
    source = read_table(SAMPLE_ROOT).rows(np.array(ROWS))
    order = [source.s1_names.tolist().index(name) for name in found.s1_names.tolist()]
    source = source.rows(np.array(order))
    assert sorted(order) == list(range(len(ROWS)))
    assert found.split.tolist() == source.split.tolist()
    assert torch.equal(found.labels, source.labels)
    sentinel2 = 'BigEarthNet-v1.0/*' if version == 'v1' else 'BigEarthNet-S2/*/*'
    folders = [path.name.encode() for path in (archives / version).glob(sentinel2)]
    assert sorted(found.s2_names.tolist()) == sorted(folders)
    in_v1 = archive_table(archives / 'v1', 'v1', labels=False)
    assert sorted(found.v1_names.tolist()) == sorted(in_v1.s2_names.tolist())


def test_labels_of_v1_are_marked_unread_unless_asked_for(archives, copy):
    root = copy('v1')
    for path in root.glob('*/*/*.json'):
        path.unlink()
    assert (archive_table(root, 'v1', labels=False).labels == -1).all()
    with pytest.raises(FileNotFoundError, match=r'_labels_metadata\.json is missing'):
        archive_table(root, 'v1')


def test_labels_of_v1_are_read_from_sentinel_1_where_there_is_no_other(archives, copy):
    root = copy('v1')
    shutil.rmtree(root / 'BigEarthNet-v1.0')
    expected = archive_table(archives / 'v1', 'v1').labels
    assert torch.equal(archive_table(root, 'v1').labels, expected)


def test_all_43_classes_become_the_classes_that_torchgeo_makes_of_them(copy):
    root = copy('v1')
    name = archive_table(root, 'v1').s2_names[0].decode()
    folder = root / 'BigEarthNet-v1.0' / name
    reference = BigEarthNet(str(root), 'train', bands='s2')
    reference.folders = [{'s2': str(folder)}]
    for label in BigEarthNet.class_sets[43]:
        path = folder / f'{name}_labels_metadata.json'
        path.write_text(json.dumps({'labels': [label, 'Pastures']}))
        assert torch.equal(read_label(root, name), reference._load_target(0)), label


@pytest.mark.parametrize(
    'content', ['{"labels": ["Lava"]}', '{}', '[', '{"labels": 3}', '[]', '\xff']
)
def test_damaged_labels_are_an_error(copy, content):
    root = copy('v1')
    name = archive_table(root, 'v1').s1_names[0].decode()
    path = root / 'BigEarthNet-S1-v1.0' / name / f'{name}_labels_metadata.json'
    path.write_bytes(content.encode('latin-1'))
    with pytest.raises(ValueError, match=f'{name}_labels_metadata.json has') as caught:
        read_label(root, name)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('line', ['one', 'one,', 'one,two,three'])
def test_a_damaged_list_of_a_split_is_an_error(copy, line):
    root = copy('v1')
    path = root / 'bigearthnet-val.csv'
    path.write_text(f'{V1},{S1}\n{line}\n')
    with pytest.raises(ValueError, match=r'Line 2 of .*bigearthnet-val\.csv'):
        archive_table(root, 'v1', labels=False)


def test_a_missing_list_of_a_split_is_an_error(copy):
    root = copy('v1')
    (root / 'bigearthnet-test.csv').unlink()
    with pytest.raises(FileNotFoundError, match=r'bigearthnet-test\.csv is missing'):
        archive_table(root, 'v1', labels=False)


def test_a_patch_in_two_splits_is_an_error(copy):
    root = copy('v1')
    for split in ('train', 'val'):
        (root / f'bigearthnet-{split}.csv').write_text(f'{V1},{S1}\n')
    with pytest.raises(ValueError, match='name a Sentinel-2 patch twice'):
        archive_table(root, 'v1', labels=False)


@pytest.mark.parametrize(
    ('band', 'pixels', 'said'),
    [
        ('B05', np.ones((120, 120), 'u2'), '120 x 120 uint16, expected 60 x 60'),
        ('B02', np.ones((120, 120), 'f4'), r'float32, expected .* uint16 or int16'),
        ('B02', np.ones((120, 120), 'u1'), r'uint8, expected .* uint16 or int16'),
        ('VV', np.ones((120, 120), 'i4'), 'int32, expected 120 x 120 float32'),
        ('VH', np.ones((120, 120), 'f8'), 'float64, expected 120 x 120 float32'),
        ('VH', np.ones((119, 120), 'f4'), '119 x 120 float32, expected 120 x 120'),
    ],
)
def test_a_band_of_the_wrong_size_or_type_is_an_error(copy, band, pixels, said):
    root = copy('v2')
    name = V2 if band.startswith('B') else S1
    write_tif(band_file(root, 'v2', name, band), pixels)
    with pytest.raises(ValueError, match=rf'{name}_{band}\.tif is .*{said}') as caught:
        read_band(root, 'v2', name, band)
    assert '\n' not in str(caught.value)


def test_bands_of_signed_numbers_are_read_too(copy):
    root = copy('v1')
    write_tif(band_file(root, 'v1', V1, 'B01'), np.full((20, 20), 7, 'i2'))
    assert (read_band(root, 'v1', V1, 'B01') == 7).all()


def test_no_data_of_one_optical_band_is_an_error_whichever_other_bands_are_read(copy):
    root = copy('v2')
    path = band_file(root, 'v2', V2, 'B04')
    pixels = read_band(root, 'v2', V2, 'B04')
    pixels[:60] = 65535
    write_tif(path, pixels, nodata=65535)
    for bands in (['B04'], ['B03', 'B04']):
        images = BigEarthNetV2GeoTIFF(root, split_of(root, V2), bands)
        with pytest.raises(ValueError, match=r'B04\.tif has 7200 pixels of 65535'):
            images[images.patch_ids.index(V2)]


def test_pixels_of_a_reference_map_are_as_stored_whatever_says_no_data(copy):
    root = copy('v2')
    path = band_file(root, 'v2', V2, 'reference_map')
    path.parent.mkdir(parents=True)
    codes = np.full((120, 120), 312, 'u2')
    codes[0] = 999
    write_tif(path, codes, nodata=999)
    assert np.array_equal(read_band(root, 'v2', V2, 'reference_map'), codes)


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_a_pair_of_two_places_is_named(copy, version):
    root = copy(version)
    if version == 'v1':  # whose optical names lack the tile
        other = S1.replace('26_57', '26_58')
        (root / 'bigearthnet-test.csv').write_text(f'{V1},{other}\n')
    else:
        other = S1.replace('33UUP', '33UUQ')
        path = root / 'metadata.parquet'
        frame = pd.read_parquet(path)
        names = frame['s1_name'].where(frame['s1_name'] != S1, other)
        frame.assign(s1_name=names).to_parquet(path)
    with pytest.raises(ValueError, match=f'{other} and S2.* are of two places'):
        archive_table(root, version, labels=False)


def split_of(root: Path, name: str) -> str:
    table = read_table(root)
    return table.split[table.s2_names.tolist().index(name.encode())]


def test_a_patch_that_lacks_a_band_is_named_with_the_file_expected(copy):
    root = copy('v2')
    path = band_file(root, 'v2', V2, 'B09')
    path.unlink()
    with pytest.raises(FileNotFoundError) as caught:
        read_band(root, 'v2', V2, 'B09')
    assert f'Patch {V2} lacks B09' in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_patches_without_a_folder_are_counted_and_named(copy, version):
    root = copy(version)
    table = archive_table(root, version)
    names = table.s2_names.tolist()
    check_folders(root, version, 's2', names, 'the test')
    check_folders(root, version, 's1', table.s1_names.tolist(), 'the test')
    gone = sorted(names)[1:3]
    for name in gone:
        shutil.rmtree(band_file(root, version, name.decode(), 'B02').parent)
    with pytest.raises(FileNotFoundError) as caught:
        check_folders(root, version, 's2', names, 'the test')
    assert str(caught.value).startswith('2 of the 4 patches of the test have no folder')
    assert repr(gone[0].decode()) in str(caught.value)
