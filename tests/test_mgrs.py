"""Names of MGRS squares, against those that other software gives."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from torchgeo_channelmae.datamodules.mgrs_tiles import mgrs_tile, product_tiles

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


def tiles_at(x, y, zone=33):
    """Return the tiles that may cover places given in a UTM zone."""
    crs = f'EPSG:326{zone}'
    lon, lat = Transformer.from_crs(crs, 'EPSG:4326', always_xy=True).transform(x, y)
    return [set(row) - {''} for row in product_tiles(np.array(lon), np.array(lat))]


def test_a_tile_covers_its_109_8_km_and_no_more():
    # The product T33UUP: upper left 300000, 5400000 in EPSG:32633, 10980 px of 10 m.
    left, top, side = 300_000, 5_400_000, 109_800
    rng = np.random.default_rng(0)
    x, y = left + rng.uniform(0, side, 500), top - rng.uniform(0, side, 500)
    assert all('33UUP' in tiles for tiles in tiles_at(x, y))
    beyond = np.array(
        [[left - 200, top - 5e4], [left + side + 200, top - 5e4],
         [left + 5e4, top + 200], [left + 5e4, top - side - 200]]
    )  # fmt: skip
    assert not any('33UUP' in tiles for tiles in tiles_at(*beyond.T))


def test_near_a_corner_of_a_square_four_tiles_of_its_zone_cover_a_place():
    [tiles] = tiles_at([405_000.0], [5_495_000.0])
    assert {tile for tile in tiles if tile.startswith('33U')} == {
        '33UVQ', '33UUQ', '33UVR', '33UUR'
    }  # fmt: skip


def test_near_the_border_of_a_zone_tiles_of_both_cover_a_place():
    lon, lat = np.array([11.99, 12.01, 15.0]), np.array([48.5, 48.5, 48.5])
    zones = [{name[:2] for name in row if name} for row in product_tiles(lon, lat)]
    assert zones == [{'32', '33'}, {'32', '33'}, {'33'}]


def test_a_tile_across_two_bands_of_latitude_has_both_letters():
    rows = product_tiles([13.0, 13.0], [47.9, 48.1])
    assert all({'33TUP', '33UUP'} <= set(row) for row in rows)


def test_a_margin_makes_tiles_larger():
    lon, lat = Transformer.from_crs(
        'EPSG:32633', 'EPSG:4326', always_xy=True
    ).transform(450_000, 5_350_000)
    assert '33UUP' not in product_tiles([lon], [lat])
    assert '33UUP' in product_tiles([lon], [lat], margin=45_000)


def test_without_places_or_coordinates_there_are_no_tiles():
    assert product_tiles([], []).shape == (0, 1)
    assert product_tiles([np.nan, 0.0], [5.0, 85.0]).tolist() == [[''], ['']]


@given(st.floats(-180, 180), st.floats(-80, 83.999))
@settings(max_examples=300, deadline=None)
def test_the_square_of_a_place_is_always_among_its_tiles(lon, lat):
    assert mgrs_tile([lon], [lat])[0] in product_tiles([lon], [lat])[0]


@given(st.lists(st.tuples(st.floats(-180, 180), st.floats(-85, 85)), min_size=1))
@settings(max_examples=50, deadline=None)
def test_many_places_have_the_tiles_that_each_has_alone(places):
    lon, lat = np.array(places).T
    for row, place in zip(product_tiles(lon, lat), places, strict=True):
        alone = product_tiles(*np.array([place]).T)[0]
        assert [name for name in row if name] == [name for name in alone if name]
