"""Sensors are overlays of bands, by name."""

from pathlib import Path

import pytest
import yaml

from torchgeo_channelmae import sensors as known
from torchgeo_channelmae.experiments.tables.sensors import (
    DEFAULT,
    bands_of,
    check_sensors,
    has_radar,
    title_of,
)

OVERLAYS = Path(__file__).parents[3] / 'conf' / 'paper'
SHIPPED = sorted(path.stem for path in (OVERLAYS / 'bands').glob('*.yaml'))


@pytest.fixture
def own(tmp_path):
    """A folder for overlays of one's own."""
    (tmp_path / 'bands').mkdir()

    def add(name, text):
        (tmp_path / 'bands' / f'{name}.yaml').write_text(text)
        return tmp_path

    return add


@pytest.mark.parametrize('sensor', SHIPPED)
def test_every_shipped_sensor_names_bands_that_are_known_for_model_and_data(sensor):
    bands = bands_of(sensor, OVERLAYS)
    assert all(known.find(band) is not None for band in bands)
    values = yaml.safe_load((OVERLAYS / 'bands' / f'{sensor}.yaml').read_text())
    assert values['model']['init_args'] == {
        'in_channels': len(bands),
        'bands': list(bands),
    }
    assert title_of(sensor) == title_of(sensor.upper()) != sensor


def test_radar_is_told_from_light_by_its_lack_of_a_wavelength():
    assert {s for s in SHIPPED if has_radar(s, OVERLAYS)} == {'s1', 's1s2'}


def test_a_sensor_of_ones_own_is_an_overlay_and_called_by_its_name(own):
    overlays = own('red', 'data:\n  init_args:\n    bands: [B04]\n')
    check_sensors(['red'], overlays)
    assert bands_of('red', overlays) == ('B04',)
    assert title_of('RED') == 'red'


def test_those_of_the_default_are_there():
    check_sensors(DEFAULT, OVERLAYS)


@pytest.mark.parametrize(
    ('sensors', 'words'),
    [
        (['s3'], r"no sensor 's3', did you mean 's[12]': the overlays .* rgb, s1,"),
        (['S1'], "no sensor 'S1', did you mean 's1': .* named in small letters"),
        (['quickbird'], "no sensor 'quickbird': the overlays"),  # nothing is near
        (['vnri'], "no sensor 'vnri', did you mean 'vnir'"),
        (['s1', 's2', 's1'], "Sensor 's1' is named twice: name each once"),
        ([], 'No sensor is named: give one or more with --sensors'),
    ],
)
def test_wrong_names_are_told_in_a_sentence(sensors, words):
    with pytest.raises(ValueError, match=words) as told:
        check_sensors(sensors, OVERLAYS)
    assert '\n' not in str(told.value)


@pytest.mark.parametrize(
    'text', ['', 'data: {}', 'data:\n  init_args:\n    bands: []', 'data: [B04]']
)
def test_an_overlay_without_bands_is_named(text, own):
    with pytest.raises(ValueError, match=r'bare.yaml names no bands: give data\.'):
        bands_of('bare', own('bare', text))


def test_an_overlay_named_in_capitals_is_no_sensor(own):
    overlays = own('MySat', 'data:\n  init_args:\n    bands: [B04]\n')
    with pytest.raises(ValueError, match=r"no sensor 'MySat'.*named in small letters"):
        check_sensors(['MySat'], overlays)


def test_a_folder_without_overlays_is_told(tmp_path):
    with pytest.raises(ValueError, match="no sensor 's1': the overlays"):
        bands_of('s1', tmp_path)
