"""BigEarthNetLMDB returns what is stored, reads no more, and says what is wrong."""

import os
import pickle
import shutil
import stat
import warnings
from pathlib import Path

import lmdb
import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch.utils.data import DataLoader
from torchgeo.datasets import BigEarthNet

from tests.layouts import v1_name
from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT

SPLIT_SIZES = {'train': 23, 'val': 15, 'test': 21}
SAMPLE_LMDB = SAMPLE_ROOT / 'BigEarthNet-Sample-LMDB'


@pytest.fixture(scope='module')
def table():
    return pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    """All records of the sample as bytes, read from a copy by lmdb itself."""
    folder = tmp_path_factory.mktemp('copy')
    shutil.copy(SAMPLE_LMDB / 'data.mdb', folder)
    with lmdb.open(str(folder), readonly=True, lock=False) as copy, copy.begin() as txn:
        return {key.decode(): bytes(value) for key, value in txn.cursor()}


@pytest.fixture
def build(tmp_path, stored, table):
    """Build a root of a few training patches, with records replaced or left out."""

    def build(replace=(), rows=3, name='lmdb', **columns):
        part = table[table['split'] == 'train'].head(rows).reset_index(drop=True)
        root = tmp_path / 'root'
        (root / name).mkdir(parents=True)
        with (
            lmdb.open(str(root / name), map_size=2**26) as env,
            env.begin(write=True) as txn,
        ):
            records = {
                key: stored[key] for key in [*part['patch_id'], *part['s1_name']]
            }
            for key, value in (records | dict(replace)).items():
                if value is not None:
                    txn.put(key.encode(), value)
        part.assign(**columns).to_parquet(root / 'metadata.parquet')
        return root

    return build


@pytest.fixture
def first(table):
    """The first training patch's names of its two records."""
    row = table[table['split'] == 'train'].iloc[0]
    return row['patch_id'], row['s1_name']


def with_pixels(record, band, positions, value):
    bands = safetensors.numpy.load(record)
    bands[band] = bands[band].copy()
    bands[band].flat[positions] = value
    return safetensors.numpy.save(bands)


def fails(error, message, **kwargs):
    with pytest.raises(error, match=message) as caught:
        BigEarthNetLMDB(**kwargs)
    assert '\n' not in str(caught.value)


def reading_fails(message, index=0, **kwargs):
    dataset = BigEarthNetLMDB(**kwargs)
    with pytest.raises(ValueError, match=message) as caught:
        dataset[index]
    assert '\n' not in str(caught.value)


# What a sample is


@pytest.mark.parametrize('split', SPLIT_SIZES)
def test_the_bundled_sample_is_read_without_a_root(split, table):
    dataset = BigEarthNetLMDB(split=split)
    rows = table[table['split'] == {'val': 'validation'}.get(split, split)]
    assert len(dataset) == SPLIT_SIZES[split]
    assert dataset.patch_ids == list(rows['patch_id'])
    for index in (0, len(dataset) - 1):
        sample = dataset[index]
        assert sample['image'].shape == (12, 120, 120)
        assert sample['image'].dtype == torch.float32
        assert sample['label'].dtype == torch.int64
        assert (sample['index'], sample['patch_id']) == (
            index,
            rows['patch_id'].iloc[index],
        )


def test_labels_are_in_torchgeos_order(table):
    dataset = BigEarthNetLMDB(split='test', bands=['VV'])
    rows = table[table['split'] == 'test']
    for index, labels in enumerate(rows['labels']):
        hot = dataset[index]['label']
        names = [BigEarthNet.class_sets[19][i] for i in hot.nonzero().flatten()]
        assert sorted(names) == sorted(labels)
        assert torch.equal(hot, dataset.labels[index])


def test_decibels_are_bit_equal_to_what_is_stored(table, stored):
    dataset = BigEarthNetLMDB(split='train', bands=['VV', 'VH'])
    for index, name in enumerate(table[table['split'] == 'train']['s1_name']):
        record = safetensors.torch.load(stored[name])
        expected = torch.stack([record['VV'], record['VH']])
        assert torch.equal(
            dataset[index]['image'].view(torch.int32), expected.view(torch.int32)
        )


def test_digital_numbers_of_10_m_bands_are_what_is_stored(table, stored):
    dataset = BigEarthNetLMDB(split='val', bands=['B08', 'B02'])
    for index, name in enumerate(table[table['split'] == 'validation']['patch_id']):
        record = safetensors.numpy.load(stored[name])
        for row, band in enumerate(['B08', 'B02']):
            np.testing.assert_array_equal(dataset[index]['image'][row], record[band])


@pytest.mark.parametrize('band', ['B05', 'B12', 'B01', 'B09'])
def test_coarse_bands_are_bilinear_between_pixel_centres(band, stored):
    dataset = BigEarthNetLMDB(bands=[band])
    image = dataset[4]['image'][0]
    native = safetensors.numpy.load(stored[dataset.patch_ids[4]])[band].astype(float)
    side = len(native)
    for row, column in [(0, 0), (1, 7), (60, 61), (118, 3), (119, 119)]:
        # where the output pixel's centre lies, in native pixels
        y, x = (
            min(max((at + 0.5) * side / 120 - 0.5, 0), side - 1) for at in (row, column)
        )
        y0, x0 = min(int(y), side - 2), min(int(x), side - 2)
        dy, dx = y - y0, x - x0
        expected = (
            native[y0, x0] * (1 - dy) * (1 - dx)
            + native[y0, x0 + 1] * (1 - dy) * dx
            + native[y0 + 1, x0] * dy * (1 - dx)
            + native[y0 + 1, x0 + 1] * dy * dx
        )
        assert image[row, column].item() == pytest.approx(expected, rel=1e-5)


def test_bands_come_by_name_in_the_order_asked_for_across_sensors():
    mixed = ['VH', 'B09', 'B04', 'VV', 'B05']
    image = BigEarthNetLMDB(bands=mixed)[2]['image']
    for row, band in enumerate(mixed):
        alone = BigEarthNetLMDB(bands=[band])[2]['image']
        assert torch.equal(image[row], alone[0])


def test_the_default_bands_are_the_12_of_sentinel2():
    dataset = BigEarthNetLMDB()
    assert dataset.bands == (
        *('B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A'),
        *('B09', 'B11', 'B12'),
    )


def test_a_sample_does_not_share_memory_with_the_dataset():
    dataset = BigEarthNetLMDB(bands=['VV'])
    sample = dataset[0]
    sample['label'].fill_(7)
    sample['image'].fill_(7)
    assert dataset[0]['label'].max() == 1
    assert (dataset[0]['image'] != 7).all()


def test_transforms_are_applied_last():
    dataset = BigEarthNetLMDB(bands=['VV'], transforms=lambda sample: sample['index'])
    assert dataset[3] == 3


def test_rows_count_from_the_end_too_and_end_where_the_split_ends():
    dataset = BigEarthNetLMDB(split='val', bands=['VV'])
    assert dataset[-1]['index'] == 14
    assert len(list(dataset)) == 15
    with pytest.raises(IndexError):
        dataset[-16]


def test_class_frequencies_are_shares_of_the_splits_patches(table):
    dataset = BigEarthNetLMDB(split='test')
    rows = table[table['split'] == 'test']['labels']
    frequencies = dataset.class_frequencies()
    for name, frequency in zip(dataset.classes, frequencies.tolist(), strict=True):
        assert frequency == pytest.approx(np.mean([name in row for row in rows]))


# What is read


def test_radar_alone_never_touches_the_optical_record(build, first):
    root = build({first[0]: b'garbage'})
    assert BigEarthNetLMDB(root, bands=['VV'])[0]['image'].shape == (1, 120, 120)
    reading_fails(first[0], root=root, bands=['B02'])


def test_radar_alone_needs_no_optical_record(build, first):
    root = build({first[0]: None})
    assert len(BigEarthNetLMDB(root, bands=['VH', 'VV'])) == 3


def test_only_the_bytes_of_the_bands_asked_for_are_read(build, first, stored):
    record = stored[first[1]]  # VH lies before VV
    cut = record[: len(record) - 57600 // 2]
    root = build({first[1]: cut})
    assert BigEarthNetLMDB(root, bands=['VH'])[0]['image'].isfinite().all()
    reading_fails('Band VV of the record', root=root, bands=['VV', 'VH'])


def test_pixels_are_not_read_at_construction(build, table):
    part = table[table['split'] == 'train'].head(3)
    root = build({name: b'x' for name in [*part['patch_id'], *part['s1_name']]})
    assert len(BigEarthNetLMDB(root, bands=BigEarthNetLMDB.all_bands)) == 3


def test_a_read_only_folder_stays_as_it_is(build):
    root = build()
    for lock in root.rglob('lock.mdb'):
        lock.unlink()
    folders = [root, root / 'lmdb']
    for folder in folders:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        BigEarthNetLMDB(root)[0]
        assert os.listdir(root / 'lmdb') == ['data.mdb']
        assert sorted(os.listdir(root)) == ['lmdb', 'metadata.parquet']
    finally:
        for folder in folders:
            folder.chmod(stat.S_IRWXU)


def test_two_datasets_of_one_process_share_a_root(build):
    root = build()
    one, other = BigEarthNetLMDB(root), BigEarthNetLMDB(root / '.', bands=['VV'])
    assert one[0]['patch_id'] == other[0]['patch_id']


# Processes


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_workers_return_what_the_main_process_does(method):
    dataset = BigEarthNetLMDB(split='val', bands=['B04', 'VV'])
    expected = torch.stack([sample['image'] for sample in dataset])  # opens the LMDB
    loader = DataLoader(
        dataset, batch_size=4, num_workers=2, multiprocessing_context=method
    )
    for _ in range(2 if method == 'fork' else 1):
        images = torch.cat([batch['image'] for batch in loader])
        assert torch.equal(images, expected)
    assert torch.equal(dataset[0]['image'], expected[0])


def test_a_pickled_dataset_reads_the_same():
    dataset = BigEarthNetLMDB(bands=['B09', 'VH'])
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[5]['image'], dataset[5]['image'])


# Pixels that are no numbers


def test_few_nonfinite_pixels_become_the_mean_of_the_others(build, first, stored):
    record = with_pixels(stored[first[1]], 'VH', [0, 7, 14399], np.nan)
    record = with_pixels(record, 'VH', [100], -np.inf)
    dataset = BigEarthNetLMDB(build({first[1]: record}), bands=['VV', 'VH'])
    with pytest.warns(
        UserWarning, match=f'Band VH of patch {first[1]} has 4 .*filled'
    ) as caught:
        image = dataset[0]['image']
    assert len(caught) == 1
    vh = safetensors.torch.load(stored[first[1]])['VH'].flatten()
    good = [i for i in range(14400) if i not in (0, 7, 100, 14399)]
    assert torch.equal(image[1].flatten()[good], vh[good])
    for bad in (0, 7, 100, 14399):
        expected = vh[good].double().mean().item()
        assert image[1].flatten()[bad].item() == pytest.approx(expected)


def test_a_filled_patch_is_warned_of_once(build, first, stored):
    root = build({first[1]: with_pixels(stored[first[1]], 'VV', [3], np.nan)})
    dataset = BigEarthNetLMDB(root, bands=['VV'])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        for _ in range(3):
            dataset[0]
    assert len(caught) == 1


def test_many_nonfinite_pixels_are_an_error_unless_allowed(build, first, stored):
    record = with_pixels(stored[first[1]], 'VV', range(720), np.inf)
    root = build({first[1]: record})
    reading_fails(
        f'Band VV of patch {first[1]} .*5.00% .*max_nonfinite=1.00%',
        root=root,
        bands=['VV'],
    )
    dataset = BigEarthNetLMDB(root, bands=['VV'], max_nonfinite=0.05)
    with pytest.warns(UserWarning, match='720'):
        assert dataset[0]['image'].isfinite().all()


def test_a_band_without_a_number_is_an_error_whatever_is_allowed(build, first, stored):
    record = with_pixels(stored[first[1]], 'VV', range(14400), np.nan)
    root = build({first[1]: record})
    reading_fails('no pixel with data', root=root, bands=['VV'], max_nonfinite=1.0)


# Records that are damaged


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda record: record[:4], 'no readable safetensors header'),
        (lambda record: record[:50], 'no readable safetensors header'),
        (lambda record: b'\xff' * 3000, 'no readable safetensors header'),
        (lambda record: record[:8] + b'\xff' * 3000, 'header .it is not JSON'),
        (lambda record: b'\x02' + b'\0' * 7 + b'[]', 'not a JSON object'),
        (lambda record: record[:60000], 'Band VV of the record .* is damaged'),
        (
            lambda record: record.replace(b'"VV"', b'"HH"'),
            'lacks the band VV: it has HH, VH',
        ),
        (lambda record: record.replace(b'F32', b'X32'), 'type X32'),
        (lambda record: record.replace(b'[120,120]', b'[120,119]'), 'bytes for'),
        (lambda record: record.replace(b'[120,120]', b'[1,14400]'), '1 x 14400'),
        (lambda record: record.replace(b'[120,120]', b'[14400  ]'), 'height, width'),
    ],
)
def test_a_damaged_record_is_named(build, first, stored, damage, message):
    root = build({first[1]: damage(stored[first[1]])})
    reading_fails(message, root=root, bands=['VV'])
    reading_fails(first[1], root=root, bands=['VV'])
    assert BigEarthNetLMDB(root, bands=['VV'])[1]['image'].isfinite().all()


# What is wrong is said when the dataset is made


def test_a_missing_root_is_named(tmp_path):
    fails(FileNotFoundError, 'nowhere is not a folder', root=tmp_path / 'nowhere')


def test_a_root_without_lmdb_is_named(tmp_path):
    fails(FileNotFoundError, 'has no LMDB', root=tmp_path)


def test_a_root_without_metadata_is_named(build):
    root = build()
    (root / 'metadata.parquet').unlink()
    fails(FileNotFoundError, 'no metadata.parquet', root=root)


def test_metadata_that_are_no_parquet_are_named(build):
    root = build()
    (root / 'metadata.parquet').write_text('patch_id,labels')
    fails(ValueError, 'is no readable parquet file', root=root)


def test_several_lmdbs_are_listed_and_one_can_be_chosen(build):
    root = build(name='one')
    shutil.copytree(root / 'one', root / 'two')
    fails(ValueError, r'several LMDBs \(one, two\): choose one with lmdb', root=root)
    assert BigEarthNetLMDB(root, lmdb='two')[0]['index'] == 0
    assert BigEarthNetLMDB(root, lmdb=root / 'one')[0]['index'] == 0
    fails(FileNotFoundError, 'three is not a folder', root=root, lmdb='three')


def test_the_root_may_be_the_lmdb_itself(build):
    root = build()
    shutil.move(root / 'metadata.parquet', root / 'lmdb')
    assert len(BigEarthNetLMDB(root / 'lmdb')) == 3


@pytest.mark.parametrize('column', ['patch_id', 'labels', 'split', 's1_name'])
def test_a_missing_column_is_named(build, table, column):
    root = build()
    table.drop(columns=column).to_parquet(root / 'metadata.parquet')
    fails(ValueError, f'lacks the column {column}', root=root)


def test_a_label_of_another_class_set_is_named_with_its_patch(build, table):
    root = build()
    changed = table.copy()
    changed.at[5, 'labels'] = ['Pastures', 'Airports']
    changed.to_parquet(root / 'metadata.parquet')
    name = table['patch_id'][5]
    fails(ValueError, f"Label 'Airports' of patch {name}", root=root)


def test_labels_that_are_no_lists_are_named(build):
    fails(ValueError, 'labels .*must hold lists', root=build(labels='Pastures'))


def test_a_split_is_train_val_or_test():
    fails(ValueError, "Unknown split 'validation': .*train, val", split='validation')


def test_a_split_without_patches_is_named(build):
    fails(ValueError, "No patch .* is in the split 'test'", root=build(), split='test')


@pytest.mark.parametrize(
    ('bands', 'message'),
    [
        (['B10'], "Unknown band 'B10'"),
        (['b8a'], "did you mean 'B8A'"),
        (['VV', 'VH', 'VV'], "'VV' is named twice"),
        ([], 'No band is named'),
    ],
)
def test_a_wrong_band_is_named(bands, message):
    fails(ValueError, message, bands=bands)


def test_missing_patches_are_counted_and_the_first_named(build, table):
    names = sorted(table[table['split'] == 'train']['patch_id'].head(3))
    root = build({names[1]: None, names[2]: None})
    fails(ValueError, f"2 of the 3 patches .*first is '{names[1]}'", root=root)


@pytest.mark.parametrize('on_error', ['raise', 'skip'])
def test_a_table_of_the_other_version_is_said_to_be_one(build, table, on_error):
    root = build()
    part = table[table['split'] == 'train'].head(3)
    names = [v1_name(name) for name in part['patch_id']]
    part.assign(patch_id=names).to_parquet(root / 'metadata.parquet')
    fails(
        ValueError,
        f'LMDB {root}.* names in BigEarthNet v2, but .* those of v1',
        root=root,
        on_error=on_error,
    )
    assert len(BigEarthNetLMDB(root, bands=['VV'])) == 3  # the same name in both


def test_a_patch_without_the_name_of_its_radar_is_named(build, table):
    root = build()
    table = table.copy()
    train = table.index[table['split'] == 'train']
    table.at[train[1], 's1_name'] = None
    table.to_parquet(root / 'metadata.parquet')
    name = table['patch_id'][train[1]]
    fails(ValueError, f'{name} has no name of a Sentinel-1', root=root, bands=['VV'])


def test_only_patches_of_the_split_need_be_there(build, table):
    root = build()
    train = table[table['split'] == 'train'].head(3)
    test = table[table['split'] == 'test']
    pd.concat([train, test]).to_parquet(root / 'metadata.parquet')
    assert len(BigEarthNetLMDB(root)) == 3
    fails(ValueError, '21 of the 21 patches', root=root, split='test')


def test_an_lmdb_cut_short_is_an_error_and_not_a_crash(build):
    root = build()
    mdb = root / 'lmdb' / 'data.mdb'
    mdb.write_bytes(mdb.read_bytes()[:100_000])
    fails(ValueError, 'is cut short', root=root)


def test_a_file_that_is_no_lmdb_is_named(build):
    root = build()
    (root / 'lmdb' / 'data.mdb').write_bytes(b'no database' * 2000)
    fails(ValueError, 'cannot be opened', root=root)


def test_a_damaged_page_is_named_or_its_patches_skipped(build):
    root = build()
    file = root / 'lmdb' / 'data.mdb'
    content = bytearray(file.read_bytes())
    for page in range(0, len(content), 4096):
        if content[page + 10 : page + 12] == b'\x02\0':  # a leaf: the keys
            content[page + 10] = 0
    file.write_bytes(content)
    fails(ValueError, f'LMDB {root}.* is damaged .*MDB_CORRUPTED', root=root)
    skipping = BigEarthNetLMDB(root, on_error='skip')
    assert 'cannot be read' in skipping[0]['skipped']
    assert 'MDB_CORRUPTED' in skipping[0]['skipped']


def test_the_sample_travels_with_its_licence():
    notice = (Path(SAMPLE_ROOT) / 'LICENSE.md').read_text()
    for promise in ('CDLA-Permissive-1.0', 'https://cdla.dev/permissive-1-0/', 'reBEN'):
        assert promise in notice
