"""Names of MGRS squares and Sentinel-2 tiles, checked by geometry."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from torchgeo_channelmae.datamodules.georeference import mgrs_squares, sentinel2_tiles


def utm(x, y, zone=33):
    """Return longitude and latitude of places given in a UTM zone."""
    back = Transformer.from_crs(f'EPSG:326{zone}', 'EPSG:4326', always_xy=True)
    return np.stack(back.transform(x, y), axis=-1)


def tiles_at(places):
    return [set(row) - {''} for row in sentinel2_tiles(np.array(places))]


def test_squares_are_in_the_wide_zones_of_norway_and_svalbard_too():
    places = np.array([[5.3221, 60.3913], [15.6267, 78.2232], [-68.303, -54.8019]])
    assert mgrs_squares(places).tolist() == ['32VKN', '33XWG', '19FEV']


def test_beyond_utm_and_without_coordinates_there_is_no_tile():
    places = np.array([[10, 84.0], [10, -90], [np.nan, 10], [10, np.nan]])
    assert mgrs_squares(places).tolist() == [''] * 4
    assert sentinel2_tiles(places).shape == (4, 0)


def test_a_tile_covers_its_109_8_km_and_no_more():
    # The product T33UUP: upper left 300000, 5400000 in EPSG:32633, 10980 px of 10 m.
    left, top, side = 300_000, 5_400_000, 109_800
    x, y = np.random.default_rng(0).uniform(0, side, (2, 500))
    assert all('33UUP' in tiles for tiles in tiles_at(utm(left + x, top - y)))
    x = left + np.array([-200, side + 200, 5e4, 5e4])
    y = top + np.array([-5e4, -5e4, 200, -side - 200])
    assert not any('33UUP' in tiles for tiles in tiles_at(utm(x, y)))


def test_near_a_corner_of_a_square_four_tiles_of_its_zone_cover_a_place():
    [tiles] = tiles_at(utm([405_000.0], [5_495_000.0]))
    expected = {'33UVQ', '33UUQ', '33UVR', '33UUR'}
    assert {tile for tile in tiles if tile.startswith('33U')} == expected


@pytest.mark.parametrize(
    ('lon', 'zones'), [(11.99, {'32', '33'}), (12.01, {'32', '33'}), (15.0, {'33'})]
)
def test_near_the_border_of_a_zone_tiles_of_both_cover_a_place(lon, zones):
    assert {name[:2] for name in tiles_at([[lon, 48.5]])[0]} == zones


def test_a_tile_across_two_bands_of_latitude_has_both_letters():
    assert all({'33TUP', '33UUP'} <= row for row in tiles_at([[13, 47.9], [13, 48.1]]))


def test_a_margin_makes_tiles_larger():
    place = utm([450_000], [5_350_000])
    assert '33UUP' not in sentinel2_tiles(place)
    assert '33UUP' in sentinel2_tiles(place, margin=44_000)


# To 0.1 m, as the package mgrs misnames places within a micrometer of the equator.
@given(
    st.floats(-180, 180),
    st.floats(-80, 83.999).map(lambda lat: round(lat, 6) + 0.0),
    st.floats(0, 9700),
)
@settings(max_examples=200, deadline=None)
def test_tiles_of_a_place_are_its_square_and_those_that_reach_over_it(lon, lat, km):
    """A place west or north of another by less than the overhang shares its square."""
    [square] = mgrs_squares(np.array([[lon, lat]]))
    [tiles] = tiles_at([[lon, lat]])
    assert square in tiles
    zone = int(square[:2])
    crs = f'EPSG:{(32600 if lat >= 0 else 32700) + zone}'
    there = Transformer.from_crs('EPSG:4326', crs, always_xy=True)
    x, y = there.transform(lon, lat)
    for east, south in ((km, 0), (0, km), (km, km)):
        moved = there.transform(x + east, y - south, direction='INVERSE')
        if -80 <= moved[1] < 84:
            assert square in tiles_at([moved])[0]


@given(
    st.lists(
        st.tuples(st.floats(-180, 180), st.floats(-85, 85)), min_size=1, max_size=8
    )
)
@settings(max_examples=30, deadline=None)
def test_many_places_have_the_tiles_that_each_has_by_itself(places):
    assert tiles_at(places) == [tiles_at([place])[0] for place in places]
