"""Statistics computed as a stream are those of all pixels at once."""

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from torchgeo_channelmae.datamodules.statistics import (
    RELATIVE_ERROR,
    BandStatistics,
    missing_pixels,
    read_statistics,
    write_statistics,
)

numbers = st.lists(
    st.floats(-1e8, 1e8, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-6),
    min_size=1,
    max_size=60,
)


def stream(images, nodata=None):
    band = BandStatistics()
    for image in images:
        band.update(image[0], missing_pixels(image, nodata)[0])
    return band


@settings(max_examples=25, deadline=None)
@given(numbers, st.data())
def test_moments_and_percentiles_do_not_depend_on_how_values_are_split(values, data):
    array = np.array(values)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    band = stream([part[None, None] for part in np.split(array, cuts)])
    scale = np.abs(array).max() + 1e-30
    assert band.count == len(values)
    assert band.mean == pytest.approx(array.mean(), abs=1e-12 * scale)
    assert band.std == pytest.approx(array.std(), rel=1e-9, abs=1e-7 * scale)
    percents = (0, 1, 30, 50, 99, 100)
    exact = np.percentile(array, percents, method='inverted_cdf')
    assert band.percentiles(percents) == pytest.approx(exact, rel=RELATIVE_ERROR)


def test_a_small_spread_on_a_large_mean_survives_a_long_stream():
    rng = np.random.default_rng(0)
    images = 1e7 + rng.normal(0, 0.5, (500, 1, 20, 20))
    assert stream(images).std == pytest.approx(images.std(), rel=1e-9)


def test_pixels_without_data_do_not_count():
    image = np.array([[[1.0, np.nan, -np.inf], [0.0, 3.0, 0.0]]])
    band = stream([image], nodata=0)
    assert band.count == 2
    assert band.nodata == 4
    assert (band.mean, band.minimum, band.maximum) == (2, 1, 3)


def test_a_zero_is_no_data_only_where_all_bands_have_it():
    image = np.array([[[0, 5, 0]], [[0, 0, 7]]], dtype=np.uint16)
    missing = missing_pixels(image, 0)
    assert missing.tolist() == [[[True, False, False]], [[True, False, False]]]


def test_the_file_reads_back_as_it_was_computed(tmp_path):
    rng = np.random.default_rng(2)
    images = {name: rng.gamma(2, 400, (5, 1, 8, 8)) for name in ('B02', 'VV')}
    found = {name: stream(values) for name, values in images.items()}
    path = tmp_path / 'stats.yaml'
    write_statistics(path, found, {'dataset': 'made up'})
    read = read_statistics(path, ['VV', 'B02'])
    assert list(read) == ['VV', 'B02']
    for name, values in images.items():
        assert read[name] == pytest.approx((values.mean(), values.std()), rel=1e-6)
    content = yaml.safe_load(path.read_text())
    assert content['dataset'] == 'made up'
    median = np.percentile(images['VV'], 50, method='inverted_cdf')
    assert content['bands']['VV']['percentiles'][50] == pytest.approx(median, rel=1e-3)
    assert content['bands']['VV']['pixels'] == 320


def test_a_band_without_any_data_is_not_written(tmp_path):
    path = tmp_path / 'stats.yaml'
    with pytest.raises(ValueError, match='B02'):
        write_statistics(path, {'B02': stream([np.full((1, 2, 2), np.nan)])}, {})
    assert not path.exists()


@pytest.mark.parametrize(
    'text',
    [
        'bands: {B03: {mean: 1, std: 1}}',
        'bands: {B02: {mean: 1}}',
        'bands: {B02: {mean: one, std: 1}}',
        'bands: {B02: {mean: 1, std: 0}}',
        'bands: {B02: {mean: .nan, std: 1}}',
        '- 1',
    ],
)
def test_a_file_without_usable_values_is_an_error(text, tmp_path):
    path = tmp_path / 'stats.yaml'
    path.write_text(text)
    with pytest.raises(ValueError, match=r"stats\.yaml.*'B02'"):
        read_statistics(path, ['B02'])


def test_a_missing_file_says_how_to_write_one(tmp_path):
    with pytest.raises(FileNotFoundError, match='channelmae stats'):
        read_statistics(tmp_path / 'none.yaml', ['B02'])
