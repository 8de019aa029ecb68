"""Names of MGRS squares, against those that other software gives."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from torchgeo_channelmae.mgrs import mgrs_tile

# By GeoTrans, the software of the standard's publisher (through the package mgrs).
PLACES = {
    'Eiffel Tower': (2.2945, 48.8583, '31UDQ'),
    'White House': (-77.0365, 38.8977, '18SUJ'),
    'Sydney Opera House': (151.2153, -33.8568, '56HLH'),
    'Honolulu': (-157.8583, 21.3099, '04QFJ'),
    'Berlin': (13.405, 52.52, '33UUU'),
    'Bergen, in the wide zone of Norway': (5.3221, 60.3913, '32VKN'),
    'Longyearbyen, on Svalbard': (15.6267, 78.2232, '33XWG'),
    'Kvitoya, on Svalbard': (32.6, 80.15, '35XPK'),
    'sea east of Svalbard': (38.0, 79.0, '37XDH'),
    'north of Greenland': (-32.0, 83.6, '25XEN'),
    'Ushuaia': (-68.303, -54.8019, '19FEV'),
    'Bouvet, as far west as Bergen but south': (3.36, -54.42, '31FEV'),
    'McMurdo': (166.67, -77.85, '58CEU'),
    'Quito, just south of the equator': (-78.4678, -0.1807, '17MQV'),
    'Macapa, just north of it': (-51.0664, 0.0389, '22NDF'),
    'Suva': (178.4419, -18.1416, '60KXE'),
    'just east of the date line': (-179.99, -16.8, '01KAB'),
    'where the equator meets Greenwich': (0.0, 0.0, '31NAA'),
    'an SSL4EO-S12 location in the Sentinel-2 tile': (73.30598, 30.46392, '43RCP'),
}


def test_places_are_in_the_squares_that_geotrans_names():
    lon, lat, names = zip(*PLACES.values(), strict=True)
    assert mgrs_tile(lon, lat).tolist() == list(names)


@pytest.mark.parametrize(
    ('lat', 'borders', 'zones'),
    [
        (60.0, (0, 3, 12, 18), ('31', '32', '33', '34')),  # Norway
        (55.9, (0, 6, 12, 18), ('31', '32', '33', '34')),
        (75.0, (0, 9, 21, 33, 42), ('31', '33', '35', '37', '38')),  # Svalbard
        (71.9, (0, 6, 12, 18, 24), ('31', '32', '33', '34', '35')),
    ],
)
def test_zones_begin_at_their_western_borders(lat, borders, zones):
    west = np.array(borders, dtype=float)
    assert [name[:2] for name in mgrs_tile(west, west * 0 + lat)] == list(zones)
    before = mgrs_tile(west[1:] - 1e-9, west[1:] * 0 + lat)
    assert [name[:2] for name in before] == list(zones[:-1])


def test_bands_of_latitude_begin_at_their_southern_borders():
    south = np.arange(-80.0, 73.0, 8)
    letters = ''.join(name[2] for name in mgrs_tile(south * 0 + 100, south))
    assert letters == 'CDEFGHJKLMNPQRSTUVWX'
    assert mgrs_tile([100.0], [83.9])[0][2] == 'X'


def test_beyond_utm_and_without_coordinates_there_is_no_tile():
    lat = [84.0, 90.0, -80.001, -90.0, np.nan, 10.0]
    lon = [10.0, 10.0, 10.0, 10.0, 10.0, np.nan]
    assert mgrs_tile(lon, lat).tolist() == [''] * 6
    assert mgrs_tile([], []).tolist() == []


def test_longitudes_go_around_the_earth():
    lon = np.array([180.0, 181.5, 360.0, 540.0, -185.0])
    expected = mgrs_tile([-180.0, -178.5, 0.0, -180.0, 175.0], [5.0] * 5)
    assert mgrs_tile(lon, lon * 0 + 5).tolist() == expected.tolist()


def test_a_latitude_that_can_be_none_is_refused():
    with pytest.raises(ValueError, match=r'^Latitude 120\.5 is beyond 90') as error:
        mgrs_tile([45.0, 50.0], [12.0, 120.5])
    assert '\n' not in str(error.value)


@given(
    zone=st.integers(1, 60),
    lat=st.floats(-79, 71),
    east=st.integers(3, 6),
    inside=st.lists(
        st.tuples(st.floats(1, 99_999), st.floats(1, 99_999)), min_size=2, max_size=5
    ),
)
@settings(max_examples=40, deadline=None)
def test_all_of_a_square_has_one_column_and_one_row(zone, lat, east, inside):
    back = Transformer.from_crs(
        f'EPSG:{(32600 if lat >= 0 else 32700) + zone}', 'EPSG:4326', always_xy=True
    )
    _, north = back.transform(6 * zone - 183, lat, direction='INVERSE')
    corner = np.array([east * 100_000, north // 100_000 * 100_000])
    lon, lat = back.transform(*(corner + np.array(inside)).T)
    assume((np.floor(lon / 6) + 31 == zone).all())  # not partly in the next zone
    assume(zone != 31 or not ((lat >= 56) & (lat < 64)).any())  # Norway's is 32
    assert len({name[3:] for name in mgrs_tile(lon, lat)}) == 1
