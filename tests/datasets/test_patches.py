"""What can be wrong with a patch, and what then happens."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from torchgeo_channelmae.datamodules.collate import collate
from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.metadata import read_table
from torchgeo_channelmae.datasets.patches import BigEarthNetPatches

S2 = BigEarthNetPatches.s2_bands


class Made(BigEarthNetPatches):
    """Patches from memory; what is set in ``changes`` replaces a band."""

    def __init__(self, bands=('B02', 'B03', 'B05', 'VV'), **options):
        options = {
            'native': False,
            'max_nonfinite': 0.01,
            'on_error': 'raise',
            'transforms': None,
        } | options
        self.changes = {}
        self.prepare(read_table(SAMPLE_ROOT).rows(np.arange(3)), bands, **options)

    def read(self, index):
        pixels = {}
        for position, band in enumerate(self.bands):
            side = 60 if band == 'B05' else 120
            draws = np.random.default_rng([index, position])
            if band.startswith('V'):
                pixels[band] = draws.normal(-12, 3, (side, side)).astype('f4')
            else:
                pixels[band] = draws.integers(1, 9000, (side, side)).astype('u2')
        if index == 1:
            for band, change in self.changes.items():
                pixels[band] = change(pixels[band])
        return pixels

    def breaks(self, message, error=ValueError):
        with pytest.raises(error, match=message) as caught:
            self[1]
        assert '\n' not in str(caught.value)
        assert self[0]['image'].isfinite().all()


def holes(count, value):
    def change(pixels):
        pixels = pixels.copy()
        pixels.flat[:count] = value
        return pixels

    return change


def test_native_samples_hold_what_is_stored_grouped_by_sensor_and_size():
    dataset = Made(native=True)
    stored = dataset.read(2)
    native = dataset[2]['native']
    assert list(native) == [('B02', 'B03'), ('B05',), ('VV',)]
    for names, pixels in native.items():
        for band, array in zip(names, pixels, strict=True):
            assert array.dtype == stored[band].dtype
            np.testing.assert_array_equal(array, stored[band])
    assert 'image' not in dataset[2]


def test_real_native_samples_become_the_image():
    native = BigEarthNetLMDB(bands=BigEarthNetPatches.all_bands, native=True)
    plain = BigEarthNetLMDB(bands=BigEarthNetPatches.all_bands)
    assert torch.equal(native.image(3), plain[3]['image'])
    sizes = sorted(pixels.shape for pixels in native[3]['native'].values())
    assert sizes == [(2, 20, 20), (2, 120, 120), (4, 120, 120), (6, 60, 60)]


@pytest.mark.parametrize(
    ('band', 'dtype', 'expected'),
    [
        ('B05', 'float32', '60 x 60 uint16 or int16 (digital numbers)'),
        ('B02', 'uint8', '120 x 120 uint16 or int16 (digital numbers)'),
        ('B02', 'int32', '120 x 120 uint16 or int16 (digital numbers)'),
        ('VV', 'float64', '120 x 120 float32 (decibels)'),
    ],
)
def test_a_wrong_type_is_refused(band, dtype, expected):
    dataset = Made()
    dataset.changes[band] = lambda pixels: pixels.astype(dtype)
    patch = 'S1.*' if band == 'VV' else 'S2.*'
    dataset.breaks(
        rf'Band {band} of patch {patch} {dtype}, expected {re.escape(expected)}'
    )


@pytest.mark.parametrize(
    ('change', 'found'),
    [(lambda pixels: pixels[:60, :60], '60 x 60'), (lambda p: p.repeat(2, 0), '240 x')],
)
def test_a_wrong_size_is_refused_and_can_be_skipped(change, found):
    dataset = Made(native=True)
    dataset.changes['B02'] = change
    with pytest.raises(ValueError, match=f'Band B02 .* is {found}.* expected 120 x'):
        dataset[1]
    dataset.on_error = 'skip'
    assert found in dataset[1]['skipped']


def test_all_patches_have_the_same_groups_whatever_integers_they_are_stored_as():
    dataset = Made(native=True)
    dataset.changes['B02'] = lambda pixels: pixels.astype('i2')
    batch = collate([dataset[0], dataset[1]])
    stored = dataset.read(1)
    np.testing.assert_array_equal(batch['native']['B02', 'B03'][1, 0], stored['B02'])
    np.testing.assert_array_equal(batch['native']['B02', 'B03'][1, 1], stored['B03'])


def test_a_patch_without_a_name_of_its_radar_is_named_and_can_be_skipped():
    dataset = Made(bands=['B02', 'VV'])
    names = dataset.table.s1_names.copy()
    names[1] = b''
    dataset.table = replace(dataset.table, s1_names=names)
    name = dataset.patch_ids[1]
    dataset.breaks(f'Patch {name} has no name of a Sentinel-1 patch')
    dataset.on_error = 'skip'
    assert 's1_name' in dataset[1]['skipped']


def test_zero_in_all_optical_bands_is_no_data_and_filled():
    dataset = Made()
    stored = dataset.read(1)
    dataset.changes = {band: holes(5, 0) for band in ('B02', 'B03')}
    with pytest.warns(UserWarning, match='5 pixels without data .0.: filled') as caught:
        image = dataset[1]['image']
    assert len(caught) == 2
    for row, band in enumerate(['B02', 'B03']):
        expected = round(stored[band].flatten()[5:].astype(float).mean())
        assert (image[row].flatten()[:5] == expected).all()
        np.testing.assert_array_equal(
            image[row].flatten()[5:], stored[band].flatten()[5:]
        )


def test_zero_in_one_band_of_several_is_a_dark_pixel():
    dataset = Made()
    dataset.changes = {'B02': holes(9000, 0)}
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert (dataset[1]['image'][0].flatten()[:9000] == 0).all()


@pytest.mark.parametrize('count', [145, 14400])
def test_more_without_data_than_allowed_is_an_error(count):
    dataset = Made()
    dataset.changes = {band: holes(count, 0) for band in ('B02', 'B03')}
    dataset.breaks(r'without data \(0\) in .* of its pixels, more than max_nonfinite=1')


def test_a_band_without_data_can_not_be_filled():
    dataset = Made(max_nonfinite=1.0)
    dataset.changes = {'VV': holes(14400, np.nan)}
    dataset.breaks('Band VV of patch S1.* has no pixel with data')


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_every_kind_of_non_number_in_radar_is_noticed(value):
    dataset = Made()
    dataset.changes = {'VV': holes(1000, value)}
    dataset.breaks('Band VV of patch S1.* is NaN or infinite in 6.94%')


def test_a_patch_that_fails_can_be_skipped():
    dataset = Made(on_error='skip', native=True, transforms=lambda sample: sample['x'])
    dataset.transforms = None
    dataset.changes = {'VV': holes(1000, np.nan)}
    sample = dataset[1]
    assert set(sample) == {'patch_id', 'index', 'skipped'}
    assert sample['index'] == 1
    assert 'is NaN or infinite' in sample['skipped']
    assert 'native' in dataset[0]


def test_a_file_that_can_not_be_opened_is_skipped_too():
    def gone(pixels):
        raise FileNotFoundError('VV.tif is missing.')

    dataset = Made(on_error='skip')
    dataset.changes = {'VV': gone}
    assert dataset[1]['skipped'] == 'VV.tif is missing.'
    dataset.on_error = 'raise'
    dataset.breaks('missing', FileNotFoundError)


def test_an_error_of_the_users_own_transform_is_not_a_skipped_patch():
    def fail(sample):
        raise ValueError('mine')

    with pytest.raises(ValueError, match='mine'):
        Made(on_error='skip', transforms=fail)[0]


def test_another_word_for_on_error_is_refused():
    with pytest.raises(ValueError, match="on_error is 'ignore': use 'raise' or 'skip'"):
        Made(on_error='ignore')


def test_plots_name_labels_and_predictions():
    dataset = BigEarthNetLMDB(bands=['VV', 'VH'])
    sample = dataset[0] | {'prediction': torch.eye(19)[18]}
    figure = dataset.plot(sample, suptitle='A patch')
    text = ' '.join(
        [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
        + [item.get_text() for item in figure.texts]
    )
    for word in ('A patch', 'Pastures', 'Broad-leaved forest', 'Marine waters'):
        assert word in ' '.join(text.split())
