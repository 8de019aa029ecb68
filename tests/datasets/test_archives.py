"""BigEarthNet from its original archives."""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from torchgeo.datasets import BigEarthNet, BigEarthNetV2

from tests.layouts import UNMAPPED, write_tif, write_v1, write_v2
from torchgeo_channelmae.datasets.archives import (
    IGNORE,
    BigEarthNetV1GeoTIFF,
    BigEarthNetV2GeoTIFF,
)
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT, BigEarthNetLMDB
from torchgeo_channelmae.datasets.layout import archive_table, band_file
from torchgeo_channelmae.datasets.metadata import SPLITS, find_lmdb
from torchgeo_channelmae.datasets.records import read_bands

CLASSES = {'v1': BigEarthNetV1GeoTIFF, 'v2': BigEarthNetV2GeoTIFF}
STOCK = {'v1': BigEarthNet, 'v2': BigEarthNetV2}
ALL = BigEarthNetLMDB.all_bands
ROWS = (0, 6, 15, 30, 40, 58)  # of both versions, all splits
EITHER = pytest.mark.parametrize('version', ['v1', 'v2'])


def write(version: str, root: Path, **options: object) -> dict[str, bytes]:
    root.mkdir(parents=True)
    return (write_v1 if version == 'v1' else write_v2)(root, **options)


def some_split(root: Path, version: str) -> str:
    return archive_table(root, version, labels=False).split[0]


@pytest.fixture(scope='module')
def archives(tmp_path_factory) -> Path:
    """Folders v1 and v2, six patches each."""
    folder = tmp_path_factory.mktemp('archives')
    write('v1', folder / 'v1', rows=ROWS)
    write('v2', folder / 'v2', rows=ROWS, maps=True)
    return folder


@pytest.fixture
def copy(archives, tmp_path) -> Callable[[str], Path]:
    """Copy an archive, to damage it."""
    return lambda version: shutil.copytree(archives / version, tmp_path / version)


@pytest.mark.parametrize(
    ('version', 'compression'),
    [('v1', None), ('v1', 'deflate'), ('v2', None), ('v2', 'lzw'), ('v2', 'zstd')],
)
def test_the_sample_written_as_geotiffs_reads_back_bit_equal(
    tmp_path, version, compression
):
    keys = write(version, tmp_path / 'root', compression=compression)
    lmdb, seen = find_lmdb(SAMPLE_ROOT), 0
    for split in SPLITS:
        images = CLASSES[version](tmp_path / 'root', split, ALL)
        stored = BigEarthNetLMDB(split=split, bands=ALL)
        rows = {key: row for row, key in enumerate(stored.patch_ids)}
        assert len(images) == len(stored)
        for index in range(len(images)):
            s2, s1 = images.table.s2_names[index], images.table.s1_names[index]
            expected = read_bands(lmdb, keys[s2.decode()], images.s2_bands)
            expected |= read_bands(lmdb, keys[s1.decode()], images.s1_bands)
            native = images.read(index)
            assert list(native) == list(ALL)
            for band, pixels in native.items():
                assert pixels.dtype == expected[band].dtype
                assert pixels.tobytes() == expected[band].tobytes(), band
            row = rows[keys[s2.decode()].decode()]
            sample, same = images[index], stored[row]
            assert torch.equal(sample['image'], same['image'])
            assert torch.equal(sample['label'], same['label'])
            assert sample['patch_id'] == s2.decode()
            assert sample['index'] == index
            seen += 1
    assert seen == 59


@EITHER
def test_they_are_torchgeos_datasets_with_the_same_patches_and_labels(
    archives, version
):
    for split in SPLITS:
        images = CLASSES[version](archives / version, split)
        stock = STOCK[version](str(archives / version), split)
        assert isinstance(images, STOCK[version])
        assert len(images) == len(stock)
        for index in range(len(stock)):
            assert torch.equal(images[index]['label'], stock[index]['label'])
        expected = torch.stack([stock[index]['label'] for index in range(len(stock))])
        assert torch.equal(images.labels, expected)
        assert torch.equal(images.class_frequencies(), expected.float().mean(0))


@EITHER
def test_bands_come_by_name_in_the_order_asked_for(archives, version):
    root = archives / version
    images = CLASSES[version](root, some_split(root, version), ('VV', 'B12', 'VH'))
    for index, (s2, s1) in enumerate(
        zip(images.table.s2_names, images.table.s1_names, strict=True)
    ):
        image = images[index]['image']
        assert image.dtype == torch.float32
        for row, (name, band) in enumerate(((s1, 'VV'), (s2, 'B12'), (s1, 'VH'))):
            path = band_file(root, version, name.decode(), band)
            with rasterio.open(path) as file:
                pixels = file.read(1)
            if pixels.shape == (120, 120):
                assert np.array_equal(image[row].numpy(), pixels)  # whole decibels: no
                assert not np.array_equal(pixels, pixels.round())
            else:
                assert image[row].mean() == pytest.approx(pixels.mean(), rel=0.02)


@EITHER
def test_native_samples_have_the_pixels_as_stored(archives, version):
    root = archives / version
    split = some_split(root, version)
    images = CLASSES[version](root, split, ALL, native=True)
    sample = images[0]
    assert 'image' not in sample
    shapes = {names: pixels.shape for names, pixels in sample['native'].items()}
    assert shapes == {
        ('B01', 'B09'): (2, 20, 20),
        ('B02', 'B03', 'B04', 'B08'): (4, 120, 120),
        ('B05', 'B06', 'B07', 'B8A', 'B11', 'B12'): (6, 60, 60),
        ('VV', 'VH'): (2, 120, 120),
    }
    assert {pixels.dtype.name for pixels in sample['native'].values()} == {
        'uint16',
        'float32',
    }


@EITHER
@pytest.mark.parametrize('bands', [('VV',), ('B02', 'B8A')])
def test_only_the_files_asked_for_are_needed(archives, copy, version, bands):
    root = copy(version)
    kept = tuple(f'_{band}.tif' for band in bands)
    unneeded = {'v1': 'BigEarthNet-v1.0', 'v2': 'BigEarthNet-S2'}
    if bands != ('VV',):
        unneeded = {'v1': 'BigEarthNet-S1-v1.0', 'v2': 'BigEarthNet-S1'}
    for path in root.rglob('*.tif'):
        if not path.name.endswith(kept):
            path.unlink()
    shutil.rmtree(root / unneeded[version])  # with the labels of v1 that are in it
    for split in SPLITS:
        images = CLASSES[version](root, split, bands)
        whole = CLASSES[version](archives / version, split, bands)
        for index in range(len(whole)):
            assert torch.equal(images[index]['image'], whole[index]['image'])
            assert torch.equal(images[index]['label'], whole[index]['label'])
        assert torch.equal(images.labels, whole.labels)


def test_labels_of_v1_are_read_with_each_patch_and_all_at_once_only_if_asked(copy):
    root = copy('v1')
    images = BigEarthNetV1GeoTIFF(root, some_split(root, 'v1'), ('B02',))
    name = images.patch_ids[0]
    path = root / 'BigEarthNet-v1.0' / name / f'{name}_labels_metadata.json'
    for label, column in (('Pastures', 4), ('Sea and ocean', 18)):
        path.write_text(json.dumps({'labels': [label, 'Airports']}))
        assert images[0]['label'].nonzero().flatten().tolist() == [column]
    expected = images.labels.clone()
    assert expected[0].nonzero().flatten().tolist() == [18]
    for file in root.glob('*/*/*.json'):
        file.unlink()
    assert torch.equal(images.labels, expected)
    assert torch.equal(images[0]['label'], expected[0])


def test_a_table_chooses_the_patches_and_their_splits(archives):
    for version, dataset in CLASSES.items():
        table = archive_table(archives / version, version)
        split = np.array(['test', 'val', 'train', 'test', 'val', 'train'])
        table = replace(table, split=split)
        images = dataset(archives / version, 'test', ('VV',), table=table)
        expected = table.s2_names[[0, 3]]
        assert [images[0]['patch_id'], images[1]['patch_id']] == [
            name.decode() for name in expected
        ]
        assert torch.equal(images[1]['label'], table.labels[3])


def test_land_cover_is_the_classes_of_the_reference_map(archives):
    root = archives / 'v2'
    plain = BigEarthNetV2GeoTIFF(root, 'test', ('VV',))
    images = BigEarthNetV2GeoTIFF(root, 'test', ('VV',), land_cover=True)
    stock = BigEarthNetV2(str(root), 'test', bands='s1')
    for index in range(len(images)):
        assert 'mask' not in plain[index]
        mask, expected = images[index]['mask'], stock[index]['mask'][0]
        assert mask.dtype == torch.int64
        assert mask.shape == (120, 120)
        unmapped = expected == UNMAPPED  # TorchGeo leaves the CORINE code
        assert unmapped.any()
        assert (mask[unmapped] == IGNORE).all()
        assert torch.equal(mask[~unmapped], expected[~unmapped])


def test_codes_that_no_class_has_are_ignored(copy):
    root = copy('v2')
    images = BigEarthNetV2GeoTIFF(root, 'test', ('VV',), land_cover=True)
    codes = np.resize(np.array([0, 999, 65535, 112, 523, 990], 'u2'), (120, 120))
    path = band_file(root, 'v2', images.patch_ids[0], 'reference_map')
    write_tif(path, codes)
    expected = [IGNORE, IGNORE, IGNORE, 0, 18, IGNORE]
    assert images[0]['mask'].flatten()[:6].tolist() == expected


def test_land_cover_needs_the_reference_maps_and_nothing_else_does(copy):
    root = copy('v2')
    shutil.rmtree(root / 'Reference_Maps')
    assert len(BigEarthNetV2GeoTIFF(root, 'test'))
    with pytest.raises(FileNotFoundError, match=r'no Reference_Maps nor .*gzaa'):
        BigEarthNetV2GeoTIFF(root, 'test', land_cover=True)


@EITHER
def test_a_dataset_can_be_sent_to_a_spawned_worker(archives, version):
    root = archives / version
    images = CLASSES[version](root, some_split(root, version), ('VV',))
    sent = pickle.loads(pickle.dumps(images))
    assert torch.equal(sent[0]['image'], images[0]['image'])


# --- what can be wrong


@EITHER
@pytest.mark.parametrize('damage', ['missing', 'truncated', 'not a TIFF', 'wrong type'])
def test_a_damaged_patch_is_an_error_or_a_reason(copy, version, damage):
    root = copy(version)
    split = some_split(root, version)
    images = CLASSES[version](root, split, ALL)
    path = band_file(root, version, images.patch_ids[0], 'B05')
    if damage == 'missing':
        path.unlink()
    elif damage == 'truncated':
        path.write_bytes(path.read_bytes()[:3000])
    elif damage == 'not a TIFF':
        path.write_text('moved')
    else:
        write_tif(path, np.ones((60, 60), 'f4'))
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        images[0]
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)
    skipping = CLASSES[version](root, split, ALL, on_error='skip')
    assert skipping[0] == {
        'patch_id': images.patch_ids[0],
        'index': 0,
        'skipped': str(caught.value),
    }
    unharmed = CLASSES[version](root, split, ('B04', 'VV'))
    assert unharmed[0]['image'].isfinite().all()


@EITHER
def test_pixels_declared_to_hold_no_data_are_filled_or_an_error(copy, version):
    root = copy(version)
    split = some_split(root, version)
    images = CLASSES[version](root, split, ('VV',))
    path = band_file(root, version, images.table.s1_names[0].decode(), 'VV')
    decibels = np.full((120, 120), -10, 'f4')
    decibels[0, :100] = -9999
    write_tif(path, decibels, nodata=-9999)
    with pytest.warns(UserWarning, match='100 pixels NaN'):
        assert (images[0]['image'] == -10).all()
    decibels[:2] = -9999
    write_tif(path, decibels, nodata=-9999)
    with pytest.raises(ValueError, match=r'VV of patch .* 1\.67% of its pixels'):
        images[0]


@EITHER
def test_metadata_that_name_absent_patches_are_an_error_before_training(copy, version):
    root = copy(version)
    table = archive_table(root, version, labels=False)
    name = table.s2_names[0].decode()
    shutil.rmtree(band_file(root, version, name, 'B02').parent)
    with pytest.raises(FileNotFoundError, match=f'have no folder .*{name}'):
        CLASSES[version](root, table.split[0])
    assert len(CLASSES[version](root, table.split[0], ('VV',)))


@EITHER
def test_an_archive_of_the_other_version_is_an_error(archives, version):
    other = {'v1': 'v2', 'v2': 'v1'}[version]
    with pytest.raises(ValueError, match=f'is {other}, not {version}: use') as caught:
        CLASSES[version](archives / other)
    assert '\n' not in str(caught.value)


@EITHER
def test_a_missing_archive_is_an_error_that_names_its_folder(copy, version):
    root = copy(version)
    folder = 'BigEarthNet-S1-v1.0' if version == 'v1' else 'BigEarthNet-S1'
    shutil.rmtree(root / folder)
    with pytest.raises(FileNotFoundError, match=rf'no {folder} nor {folder}\.tar\.gz'):
        CLASSES[version](root, 'train', ALL)
    with pytest.raises(FileNotFoundError, match='has no BigEarthNet'):
        CLASSES[version](root / 'absent')


@EITHER
@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({'split': 'dev'}, "Unknown split 'dev'"),
        ({'bands': ('B10',)}, "Unknown band 'B10'"),
        ({'bands': ()}, 'No band is named'),
        ({'on_error': 'ignore'}, "on_error is 'ignore'"),
    ],
)
def test_options_that_make_no_sense_are_errors(archives, version, options, said):
    with pytest.raises(ValueError, match=said):
        CLASSES[version](archives / version, **options)


def test_a_split_without_patches_is_an_error(copy):
    root = copy('v1')
    (root / 'bigearthnet-val.csv').write_text('')
    with pytest.raises(ValueError, match="in the split 'val'"):
        BigEarthNetV1GeoTIFF(root, 'val')
