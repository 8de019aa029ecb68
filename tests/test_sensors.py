"""What a band is, and how it is asked for."""

import pytest
from torchgeo.datasets import BigEarthNet

from torchgeo_channelmae import sensors


def test_the_bands_of_sentinel2_l2a_are_those_of_bigearthnet_in_its_order():
    # the line of TorchGeo's docstring that lists them
    listed = BigEarthNet.__doc__.split('Sentinel-2 bands: (')[1].split(')')[0]
    assert list(sensors.names(sensors.SENTINEL2_L2A)) == listed.split(', ')


@pytest.mark.parametrize(
    ('count', 'first', 'last'),
    [(12, 'B01', 'B12'), (13, 'B01', 'B12'), (3, 'B04', 'B02'), (2, 'VV', 'VH')],
)
def test_a_number_of_channels_has_the_names_of_a_sensor(count, first, last):
    found = sensors.default_names(count)
    assert (len(found), found[0], found[-1]) == (count, first, last)
    with pytest.raises(ValueError, match='5 channels'):
        sensors.default_names(5)


def test_a_band_is_found_by_name_in_l2a_before_l1c():
    assert sensors.find('B08').sensor == 'Sentinel-2 L2A'
    assert sensors.find('B10').sensor == 'Sentinel-2 L1C'
    assert sensors.find('HH') is None


@pytest.mark.parametrize(
    ('requested', 'message'),
    [
        (['vv'], "did you mean 'VV'"),
        (['VV', 'VV'], "'VV'"),
        ('VV', 'bands'),
        ([], 'bands'),
        (['B.1'], "'B.1'"),
    ],
)
def test_a_wrong_name_is_refused(requested, message):
    with pytest.raises(ValueError, match=message):
        sensors.select(requested, sensors.SENTINEL2_L2A + sensors.SENTINEL1_GRD)
