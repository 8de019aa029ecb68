"""What validates is no neighbour of what trains, whatever groups are held out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchgeo_channelmae.datamodules.grouping import (
    blocks,
    close,
    hold_out,
    near,
    split_rows,
    tile_at,
    tiles_of,
)
from torchgeo_channelmae.datamodules.known import Source


def kilometres(one, other):
    """Great-circle distance of each pair, by the haversine formula."""
    a, b = np.radians(one)[:, None], np.radians(other)[None]
    half = np.sin((b - a) / 2) ** 2
    inside = half[..., 1] + np.cos(a[..., 1]) * np.cos(b[..., 1]) * half[..., 0]
    return 2 * 6371 * np.arcsin(np.sqrt(inside))


class Fake(Source):
    """Samples of which no more is known than is given."""

    def __init__(self, count, scenes=None, tiles=None, places=None, **attributes):
        super().__init__(range(count), bands=['band'])
        self.known = {'scenes': scenes, 'tiles': tiles, 'coordinates': places}
        for name, value in attributes.items():
            setattr(self, name, value)

    def _told(self, what, rows):
        return None if self.known[what] is None else np.asarray(self.known[what])[rows]

    def scenes(self, rows):
        return self._told('scenes', rows)

    def tiles(self, rows):
        return self._told('tiles', rows)

    def coordinates(self, rows):
        return self._told('coordinates', rows)


def split(source, val_by='auto', fraction=0.3, gap=5.0, seed=0):
    rows = np.arange(len(source.dataset))
    train, val, note = split_rows(
        source, rows, val_by, fraction, seed, 100.0, gap, None
    )
    assert not set(train) & set(val)
    return train, val, note


def scattered(count, seed=0, lon=(5, 15), lat=(45, 55)):
    rng = np.random.default_rng(seed)
    return np.stack([rng.uniform(*lon, count), rng.uniform(*lat, count)], axis=1)


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=60).filter(
        lambda groups: len(set(groups)) > 1
    ),
    st.integers(0, 99),
)
@settings(deadline=None)
def test_a_group_is_held_out_whole_or_not_at_all(groups, seed):
    held = hold_out(groups, 0.5, seed)
    sides = [
        {
            group
            for group, out in zip(groups, held, strict=True)
            if out is np.bool_(side)
        }
        for side in (True, False)
    ]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]


def test_scenes_that_lie_apart_are_held_out_whole():
    scenes = np.repeat(list('abcdef'), 4)
    tiles = np.array([['33UUP']] * 24)
    train, val, note = split(Fake(24, scenes, tiles, scenes_are_places=True))
    assert 'val_by scene' in note
    assert not set(scenes[train]) & set(scenes[val])


def test_dates_of_a_place_are_no_groups_unless_asked_for():
    """Each of six tiles was taken on four dates, each a scene."""
    tiles = np.repeat(['33UUP', '33UVP', '35VNL', '43RCP', '10TEK', '18SUJ'], 4)
    scenes = np.array([f'{date}_{tile}' for tile, date in zip(
        tiles, 'abcd' * 6, strict=True
    )])  # fmt: skip
    source = Fake(24, scenes, tiles[:, None])
    train, val, note = split(source)
    assert 'val_by tile' in note
    assert not set(tiles[train]) & set(tiles[val])
    train, val, note = split(source, 'scene')
    assert 'val_by scene' in note
    assert set(tiles[train]) & set(tiles[val])


@pytest.mark.parametrize('seed', range(5))
def test_one_place_under_the_names_of_two_tiles_is_on_one_side(seed):
    places = scattered(40, seed).repeat(2, axis=0)
    places[1::2] += 0.001  # a hundred metres apart, in tiles that overlap
    tiles = np.array([[f'33U{"AB"[row % 2]}{"CDEF"[row % 4]}'] for row in range(80)])
    train, val, note = split(Fake(80, tiles=tiles, places=places), seed=seed)
    assert 'val_by tile' in note
    assert len(train)
    assert kilometres(places[train], places[val]).min() > 5


@pytest.mark.parametrize('val_by', ['tile', 'block', 'auto'])
@given(seed=st.integers(0, 1000), gap=st.floats(1, 45), lat=st.integers(-75, 65))
@settings(deadline=None, max_examples=15)
def test_no_training_sample_is_within_the_gap_of_one_that_validates(
    val_by, seed, gap, lat
):
    places = scattered(150, seed, (-180, 180), (lat, lat + 10))
    source = Fake(150, places=places, places_at_hand=True)
    train, val, note = split(source, val_by, gap=gap, seed=seed)
    assert f'val_by {"tile" if val_by == "tile" else "block"}' in note
    assert kilometres(places[train], places[val]).min() > gap


def test_samples_of_unknown_coordinates_are_not_near_any():
    places = np.array([[9.0, 50.0], [np.nan, np.nan], [9.001, 50.0]])
    assert close(places, places[:1], 5.0).tolist() == [True, False, True]
    assert close(places, places[1:2], 5.0).tolist() == [False] * 3


@given(st.integers(0, 1000), st.floats(1, 3000))
@settings(deadline=None, max_examples=30)
def test_what_is_close_is_what_the_haversine_formula_says(seed, gap):
    places = scattered(60, seed, (-180, 180), (-90, 90))
    held = scattered(5, seed + 1, (-180, 180), (-90, 90))
    distances = kilometres(places, held).min(axis=1)
    clear = np.abs(distances - gap) > 0.01 * gap  # a sphere of another radius
    assert (close(places, held, gap) == (distances <= gap))[clear].all()


def test_tiles_are_those_of_names_and_of_coordinates_together():
    source = Fake(2, tiles=[['33UUP'], ['10TEK']], places=[[13.0, 48.5], [9.0, 50.0]])
    rows = np.arange(2)
    assert tiles_of(source, rows, read=False).tolist() == [['33UUP'], ['10TEK']]
    tiles = tiles_of(source, rows, read=True)
    assert tiles[:, 0].tolist() == ['33UUP', '10TEK']
    for row, place in zip(tiles, [[13.0, 48.5], [9.0, 50.0]], strict=True):
        assert tile_at(np.array([place]))[0] in row[1:]
    # Having been read, they are used: the record then names the same.
    again = tiles_of(source, rows[1:], read=False)
    assert set(again[0]) == set(tiles[1]) - {''}


@pytest.mark.parametrize('side', [30.0, 100.0, 500.0])
def test_blocks_are_at_least_as_wide_and_high_as_asked_for(side):
    rng = np.random.default_rng(0)
    places = np.stack([rng.uniform(-180, 180, 4000), rng.uniform(-85, 85, 4000)], 1)
    names = blocks(places, side)
    for step in (np.array([0.0, 1.0]), np.array([1.0, 0.0])):
        # Two steps of half a side meet at most one border of equal direction.
        scale = np.ones_like(places)
        scale[:, 0] = 1 / np.cos(np.radians(places[:, 1]))
        half = step * scale * side * 0.499 / 111.195
        there = [blocks(places + k * half, side) for k in (1, 2)]
        changes = (names != there[0]).astype(int) + (there[0] != there[1])
        assert changes.max() <= 1


def test_everything_within_the_gap_of_a_held_block_is_near():
    rng = np.random.default_rng(1)
    places = np.stack([rng.uniform(-180, 180, 3000), rng.uniform(-80, 80, 3000)], 1)

    def at(where):
        return blocks(where, 300)

    held = np.unique(at(places))[::7]
    close = near(places, at, held, 60)
    inside = np.isin(at(places), held)
    assert close[inside].all()
    distances = kilometres(places[~close], places[inside])
    assert distances.min() > 60
    assert 0 < (close & ~inside).sum() < 0.6 * len(places)
