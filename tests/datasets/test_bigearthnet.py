"""BigEarthNetLMDB returns what is stored, reads no more, and refuses what misleads."""

import os
import pickle
import stat
import warnings

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from torch.utils.data import DataLoader
from torchgeo.datasets import BigEarthNet

from tests.layouts import v1_name
from torchgeo_channelmae.datamodules.collate import collate
from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.records import environment, write_lmdb

ALL = BigEarthNetLMDB.all_bands
SAMPLE_LMDB = SAMPLE_ROOT / 'BigEarthNet-Sample-LMDB'


@pytest.fixture(scope='module')
def table():
    return pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')


@pytest.fixture(scope='module')
def train(table):
    """The first three training patches."""
    return table[table['split'] == 'train'].head(3).reset_index(drop=True)


@pytest.fixture
def first(train):
    """The names of the first training patch, Sentinel-2 and Sentinel-1."""
    return train['patch_id'][0], train['s1_name'][0]


def stored(name):
    """The bands of a record, parsed by safetensors itself."""
    with environment(SAMPLE_LMDB).begin() as transaction:
        return safetensors.torch.load(bytes(transaction.get(name.encode())))


@pytest.fixture
def build(tmp_path, train):
    """Build a root of three training patches, with changed, other or no records."""

    def build(replace=(), **columns):
        root = tmp_path / 'root'
        names = sorted([*train['patch_id'], *train['s1_name']])
        records = {name: stored(name) for name in names} | dict(replace)
        write_lmdb(
            root / 'lmdb',
            [
                (name, r if isinstance(r, bytes) else arrays(r))
                for name, r in records.items()
                if r is not None
            ],
        )
        train.assign(**columns).to_parquet(root / 'metadata.parquet')
        return root

    return build


def arrays(bands):
    return {band: np.asarray(pixels) for band, pixels in bands.items()}


def with_pixels(name, count, value, *bands):
    """A record of the sample whose first pixels have another value."""
    changed = {band: pixels.copy() for band, pixels in arrays(stored(name)).items()}
    for band in bands:
        changed[band].flat[:count] = value
    return changed


# What a sample is


@pytest.mark.parametrize(('split', 'size'), [('train', 23), ('val', 15), ('test', 21)])
def test_the_bundled_sample_is_read_without_a_root(split, size, table):
    dataset = BigEarthNetLMDB(split=split)
    rows = table[table['split'] == {'val': 'validation'}.get(split, split)]
    assert len(dataset) == size
    assert dataset.bands == BigEarthNetLMDB.s2_bands
    assert dataset.patch_ids == list(rows['patch_id'])
    sample = dataset[-1]
    assert sample['image'].shape == (12, 120, 120)
    assert sample['image'].dtype == torch.float32
    assert (sample['index'], sample['patch_id']) == (
        size - 1,
        rows['patch_id'].iloc[-1],
    )


def test_labels_are_in_torchgeos_order(table):
    dataset = BigEarthNetLMDB(split='test', bands=['VV'])
    rows = table[table['split'] == 'test']['labels']
    for index, labels in enumerate(rows):
        hot = dataset[index]['label']
        names = [BigEarthNet.class_sets[19][i] for i in hot.nonzero().flatten()]
        assert sorted(names) == sorted(labels)


def test_decibels_and_10_m_bands_are_bit_equal_to_what_is_stored(table):
    dataset = BigEarthNetLMDB(bands=['VV', 'B08', 'VH'])
    rows = table[table['split'] == 'train'].reset_index()
    for index, row in rows.iterrows():
        radar, optical = stored(row['s1_name']), stored(row['patch_id'])
        expected = torch.stack([radar['VV'], optical['B08'].float(), radar['VH']])
        assert torch.equal(
            dataset[index]['image'].view(torch.int32), expected.view(torch.int32)
        )


@pytest.mark.parametrize('band', ['B05', 'B01'])
def test_coarse_bands_are_bilinear_between_pixel_centres(band):
    dataset = BigEarthNetLMDB(bands=[band])
    image = dataset[4]['image'][0]
    native = np.asarray(stored(dataset.patch_ids[4])[band]).astype(float)
    side = len(native)
    for row, column in [(0, 0), (1, 7), (60, 61), (118, 3), (119, 119)]:
        # the center of the output pixel, in native pixels
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


def test_native_samples_have_the_pixels_as_stored_by_sensor_and_size(first):
    native = BigEarthNetLMDB(bands=ALL, native=True)[0]
    assert 'image' not in native
    shapes = {names: pixels.shape for names, pixels in native['native'].items()}
    assert shapes == {
        ('B01', 'B09'): (2, 20, 20),
        ('B02', 'B03', 'B04', 'B08'): (4, 120, 120),
        ('B05', 'B06', 'B07', 'B8A', 'B11', 'B12'): (6, 60, 60),
        ('VV', 'VH'): (2, 120, 120),
    }
    records = stored(first[0]) | stored(first[1])
    for names, pixels in native['native'].items():
        for band, array in zip(names, pixels, strict=True):
            assert array.tobytes() == np.asarray(records[band]).tobytes()


def test_patches_of_signed_and_unsigned_numbers_make_one_batch(build, first):
    signed = {'B02': stored(first[0])['B02'].to(torch.int16)}
    root = build({first[0]: stored(first[0]) | signed})
    dataset = BigEarthNetLMDB(root, bands=['B02', 'B03'], native=True)
    batch = collate([dataset[0], dataset[1]])['native']['B02', 'B03']
    expected = [np.asarray(stored(name)['B02']) for name in dataset.patch_ids[:2]]
    np.testing.assert_array_equal(batch[:, 0], np.stack(expected))


def test_a_sample_does_not_share_memory_with_the_dataset():
    dataset = BigEarthNetLMDB(bands=['VV'])
    sample = dataset[0]
    sample['label'].fill_(7)
    sample['image'].fill_(7)
    assert dataset[0]['label'].max() == 1
    assert (dataset[0]['image'] != 7).all()


def test_transforms_are_applied_last_and_their_errors_are_not_skipped():
    last = BigEarthNetLMDB(bands=['VV'], transforms=lambda sample: sample['index'])
    assert last[3] == 3

    def fail(sample):
        raise ValueError('mine')

    with pytest.raises(ValueError, match='mine'):
        BigEarthNetLMDB(bands=['VV'], transforms=fail, on_error='skip')[0]


def test_a_plot_names_labels_and_predictions():
    dataset = BigEarthNetLMDB(bands=['VV', 'VH'])
    sample = dataset[0] | {'prediction': torch.eye(19)[18]}
    figure = dataset.plot(sample, suptitle='A patch')
    texts = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    text = ' '.join(texts + [item.get_text() for item in figure.texts])
    for word in ('A patch', 'Pastures', 'Mixed forest', 'Marine waters'):
        assert word in ' '.join(text.split())


# What is read


def test_radar_alone_needs_no_optical_record(build, first):
    root = build({first[0]: None})
    assert BigEarthNetLMDB(root, bands=['VV'])[0]['image'].shape == (1, 120, 120)
    with pytest.raises(ValueError, match=f'1 of 3 patches .* B02 .* {first[0]}'):
        BigEarthNetLMDB(root, bands=['B02'])


def test_a_read_only_folder_stays_as_it_is(build):
    root = build()
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


def test_workers_return_what_the_main_process_does():
    dataset = BigEarthNetLMDB(split='val', bands=['B04', 'VV'])
    expected = torch.stack([sample['image'] for sample in dataset])  # opens the LMDB
    loader = DataLoader(dataset, 4, num_workers=1, multiprocessing_context='fork')
    images = torch.cat([batch['image'] for batch in loader])
    assert torch.equal(images, expected)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[0]['image'], expected[0])


# Pixels without data


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_few_non_finite_pixels_become_the_mean_of_the_others_with_one_warning(
    build, first, value
):
    root = build({first[1]: with_pixels(first[1], 4, value, 'VH')})
    dataset = BigEarthNetLMDB(root, bands=['VV', 'VH'])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        image = [dataset[0]['image'] for _ in range(2)][1]
    (warning,) = caught
    assert f'VH of patch {first[1]}: 4 pixels' in str(warning.message)
    vh = stored(first[1])['VH'].flatten()
    assert torch.equal(image[1].flatten()[4:], vh[4:])
    assert image[1].flatten()[:4].tolist() == pytest.approx(
        [vh[4:].double().mean().item()] * 4
    )


def test_zero_in_all_optical_bands_of_a_size_is_no_data_and_in_one_is_dark(
    build, first
):
    dark = with_pixels(first[0], 5, 0, 'B02', 'B03')
    root = build({first[0]: dark})
    with pytest.warns(UserWarning, match='B0[23] of patch S2') as caught:
        image = BigEarthNetLMDB(root, bands=['B02', 'B03'])[0]['image']
    assert len(caught) == 2
    for row, band in enumerate(('B02', 'B03')):
        expected = round(dark[band].flatten()[5:].mean())
        assert (image[row].flatten()[:5] == expected).all()
    image = BigEarthNetLMDB(root, bands=['B02', 'B04'])[0]['image']
    assert (image[0].flatten()[:5] == 0).all()


def test_many_pixels_without_data_are_an_error_unless_allowed(build, first):
    root = build({first[1]: with_pixels(first[1], 720, np.nan, 'VV')})
    with pytest.raises(ValueError, match=rf'VV of patch {first[1]} .* 5\.00%'):
        BigEarthNetLMDB(root, bands=['VV'])[0]
    allowing = BigEarthNetLMDB(root, bands=['VV'], max_nonfinite=0.05)
    with pytest.warns(UserWarning, match='720'):
        assert allowing[0]['image'].isfinite().all()


def test_a_band_without_any_data_is_an_error_whatever_is_allowed(build, first):
    root = build({first[1]: with_pixels(first[1], 14400, np.nan, 'VV')})
    with pytest.raises(ValueError, match='VV of patch'):
        BigEarthNetLMDB(root, bands=['VV'], max_nonfinite=1.0)[0]


# What is wrong


@pytest.mark.parametrize(
    ('band', 'change'),
    [
        ('B02', lambda pixels: pixels.float()),
        ('B02', lambda pixels: pixels[:60, :60].contiguous()),
        ('VV', lambda pixels: pixels.double()),
    ],
)
def test_pixels_of_another_size_or_type_are_refused(build, train, band, change):
    name = train['s1_name' if band == 'VV' else 'patch_id'][1]
    changed = stored(name) | {band: change(stored(name)[band])}
    root = build({name: safetensors.torch.save(changed)})
    with pytest.raises(ValueError, match=f'{band} of patch {name}|{name}.* read'):
        BigEarthNetLMDB(root, bands=[band])[1]


def test_an_unreadable_patch_is_skipped_with_its_reason_if_asked(build, train):
    root = build({train['s1_name'][0]: b'garbage', train['s1_name'][1]: None})
    dataset = BigEarthNetLMDB(root, bands=['VV', 'B02'], on_error='skip')
    for row in (0, 1):
        sample = dataset[row]
        assert set(sample) == {'patch_id', 'index', 'skipped'}
        assert (sample['index'], sample['patch_id']) == (row, train['patch_id'][row])
        assert train['s1_name'][row] in sample['skipped']
    assert dataset[2]['image'].shape == (2, 120, 120)


def test_a_table_of_the_other_version_is_refused(build, train):
    names = [v1_name(name) for name in train['patch_id']]
    root = build(patch_id=names)
    with pytest.raises(ValueError, match=f'3 of 3 patches .* {names[0]}'):
        BigEarthNetLMDB(root)
    assert len(BigEarthNetLMDB(root, bands=['VV'])) == 3  # one name in both versions


def test_a_patch_without_the_name_of_its_radar_is_named(build, train):
    root = build(s1_name=[train['s1_name'][0], None, train['s1_name'][2]])
    with pytest.raises(ValueError, match=train['patch_id'][1]):
        BigEarthNetLMDB(root, bands=['VV'])
    assert len(BigEarthNetLMDB(root)) == 3


def test_a_damaged_page_is_an_error_or_its_patches_skipped(build):
    root = build()
    file = root / 'lmdb' / 'data.mdb'
    content = bytearray(file.read_bytes())
    for page in range(0, len(content), 4096):
        if content[page + 10 : page + 12] == b'\x02\0':  # a leaf: the keys
            content[page + 10] = 0
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r'lmdb.* is damaged'):
        BigEarthNetLMDB(root)


@pytest.mark.parametrize(
    'options',
    [
        {'split': 'validation'},
        {'on_error': 'ignore'},
        {'bands': ['B10']},
        {'bands': ['VV', 'VH', 'VV']},
    ],
)
def test_a_wrong_argument_is_named(options):
    (value,) = options.values()
    word = value if isinstance(value, str) else value[0]
    with pytest.raises(ValueError, match=f"'{word}'"):
        BigEarthNetLMDB(**options)


def test_a_split_without_patches_is_named(build):
    with pytest.raises(ValueError, match="split 'test'"):
        BigEarthNetLMDB(build(), split='test')


def test_the_sample_travels_with_its_licence():
    notice = (SAMPLE_ROOT / 'LICENSE.md').read_text()
    for promise in ('CDLA-Permissive-1.0', 'https://cdla.dev/permissive-1-0/', 'reBEN'):
        assert promise in notice
