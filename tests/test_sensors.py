"""What a band is, and how it is asked for."""

import pytest
from torchgeo.datasets import BigEarthNet

from torchgeo_channelmae import sensors


def test_the_bands_of_sentinel2_l2a_are_those_of_bigearthnet_in_its_order():
    # the line of TorchGeo's docstring that lists them
    listed = BigEarthNet.__doc__.split('Sentinel-2 bands: (')[1].split(')')[0]
    assert list(sensors.names(sensors.SENTINEL2_L2A)) == listed.split(', ')


@pytest.mark.parametrize('sensor', [sensors.SENTINEL2_L2A, sensors.SENTINEL2_L1C])
def test_optical_bands_keep_the_operators_order_and_have_a_wavelength(sensor):
    wavelengths = [band.wavelength for band in sensor]
    assert wavelengths == sorted(wavelengths)
    assert {band.resolution for band in sensor} == {10, 20, 60}


def test_l1c_has_the_cirrus_band_that_l2a_lacks():
    l1c, l2a = map(sensors.names, (sensors.SENTINEL2_L1C, sensors.SENTINEL2_L2A))
    assert set(l1c) - set(l2a) == {'B10'}


def test_radar_is_in_decibels_co_polarised_first_and_without_wavelength():
    vv, vh = sensors.SENTINEL1_GRD
    assert (vv.name, vh.name) == ('VV', 'VH')
    assert vh.mean < vv.mean < 0
    assert vv.wavelength is None
    assert vh.wavelength is None


@pytest.mark.parametrize(
    ('count', 'first', 'last'),
    [(12, 'B01', 'B12'), (13, 'B01', 'B12'), (3, 'B04', 'B02'), (2, 'VV', 'VH')],
)
def test_a_number_of_channels_stands_for_a_sensor(count, first, last):
    found = sensors.default_names(count)
    assert (len(found), found[0], found[-1]) == (count, first, last)


def test_bands_come_in_the_order_asked_for():
    picked = sensors.select(
        ['VH', 'B8A'], sensors.SENTINEL1_GRD + sensors.RGB + (sensors.find('B8A'),)
    )
    assert [band.name for band in picked] == ['VH', 'B8A']


def test_a_band_is_found_by_name_in_l2a_before_l1c():
    assert sensors.find('B08').sensor == 'Sentinel-2 L2A'
    assert sensors.find('B10').sensor == 'Sentinel-2 L1C'
    assert sensors.find('HH') is None


@pytest.mark.parametrize(
    ('requested', 'message'),
    [
        (['B2'], "Unknown band 'B2'"),
        (['vv'], "did you mean 'VV'"),
        (['VV', 'VV'], "'VV' is named twice"),
        ([], 'No band is named'),
        ([''], 'is empty or has a dot'),
        (['B.1'], 'is empty or has a dot'),
    ],
)
def test_a_wrong_name_is_a_one_line_error(requested, message):
    with pytest.raises(ValueError, match=message) as caught:
        sensors.select(requested, sensors.SENTINEL2_L2A + sensors.SENTINEL1_GRD)
    assert '\n' not in str(caught.value)


def test_a_number_of_channels_of_no_sensor_is_a_one_line_error():
    with pytest.raises(ValueError, match='No default band names for 5') as caught:
        sensors.default_names(5)
    assert '\n' not in str(caught.value)
