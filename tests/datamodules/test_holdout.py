"""No validation sample is a neighbor of a training sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchgeo_channelmae.datamodules.georeference import mgrs_squares
from torchgeo_channelmae.datamodules.holdout import (
    Holdout,
    blocks,
    exclude_test_tiles,
    hold_out,
)
from torchgeo_channelmae.datamodules.sources import Source, SourceFacts


def kilometers(one, other):
    """Great-circle distance of each pair, by the law of cosines."""
    (lon, lat), (lons, lats) = np.radians(one.T)[:, :, None], np.radians(other.T)
    cosine = np.sin(lat) * np.sin(lats) + np.cos(lat) * np.cos(lats) * np.cos(
        lon - lons
    )
    return 6371 * np.arccos(cosine.clip(-1, 1))


def source_of(count, scenes_are_places=False, **columns):
    """Return a source of which no more is known than the columns."""

    def look_up(dataset, rows):
        return {key: np.asarray(column)[rows] for key, column in columns.items()}

    facts = SourceFacts(columns=look_up, scenes_are_places=scenes_are_places)
    return Source(range(count), facts, bands=['band'])


def split(source, val_by='auto', gap=5.0, seed=0):
    holdout = Holdout(val_by, None, 0.3, seed, 100.0, gap)
    train, val, note = holdout.split(source, source.rows)
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
    train = {group for group, out in zip(groups, held, strict=True) if not out}
    val = {group for group, out in zip(groups, held, strict=True) if out}
    assert train
    assert val
    assert not train & val


def test_scenes_that_lie_apart_are_held_out_whole():
    scenes = np.repeat(list('abcdef'), 4)
    source = source_of(24, True, scenes=scenes, tiles=[['33UUP']] * 24)
    train, val, note = split(source)
    assert 'by scene' in note
    assert not set(scenes[train]) & set(scenes[val])


def test_dates_of_a_place_are_no_groups_unless_asked_for():
    tiles = np.repeat(['33UUP', '33UVP', '35VNL', '43RCP', '10TEK', '18SUJ'], 4)
    scenes = [f'{date}_{tile}' for tile, date in zip(tiles, 'abcd' * 6, strict=True)]
    source = source_of(24, scenes=scenes, tiles=tiles[:, None])
    train, val, note = split(source)
    assert 'by tile' in note
    assert not set(tiles[train]) & set(tiles[val])
    train, val, _ = split(source, 'scene')
    assert set(tiles[train]) & set(tiles[val])


@pytest.mark.parametrize('seed', range(3))
def test_one_place_under_the_names_of_two_tiles_is_on_one_side(seed):
    places = scattered(40, seed).repeat(2, axis=0)
    places[1::2] += 0.001  # a hundred meters apart, in tiles that overlap
    tiles = [[f'33U{"AB"[row % 2]}{"CDEF"[row % 4]}'] for row in range(80)]
    train, val, note = split(source_of(80, tiles=tiles, places=places), seed=seed)
    assert 'by tile' in note
    assert len(train)
    assert kilometers(places[train], places[val]).min() > 5


@pytest.mark.parametrize('val_by', ['tile', 'block', 'auto'])
@given(seed=st.integers(0, 1000), gap=st.floats(1, 45), lat=st.integers(-75, 65))
@settings(deadline=None, max_examples=10)
def test_no_training_sample_is_within_the_gap_of_one_that_validates(
    val_by, seed, gap, lat
):
    places = scattered(150, seed, (-180, 180), (lat, lat + 10))
    train, val, note = split(source_of(150, places=places), val_by, gap, seed)
    assert f'by {"tile" if val_by == "tile" else "block"}' in note
    assert kilometers(places[train], places[val]).min() > gap
    group = mgrs_squares if val_by == 'tile' else lambda where: blocks(where, 100)
    assert not set(group(places[train])) & set(group(places[val]))


def test_a_source_without_what_val_by_needs_is_refused():
    for val_by in ('auto', 'scene', 'tile', 'block'):
        with pytest.raises(ValueError, match=f"val_by='{val_by}'"):
            split(source_of(4), val_by)


def test_tiles_are_those_of_names_and_of_coordinates_together():
    places = np.array([[13.0, 48.5], [9.0, 50.0]])
    source = source_of(2, tiles=[['33UUP'], ['10TEK']], places=places)
    tiles = source.covering_tiles(np.arange(2), read=False)
    assert tiles[:, 0].tolist() == ['33UUP', '10TEK']
    assert all(s in row[1:] for s, row in zip(mgrs_squares(places), tiles, strict=True))


@pytest.mark.parametrize('side', [30.0, 500.0])
def test_blocks_are_at_least_as_wide_and_high_as_asked_for(side):
    places = scattered(4000, 0, (-180, 180), (-85, 85))
    names = blocks(places, side)
    for step in (np.array([0.0, 1.0]), np.array([1.0, 0.0])):
        # Two steps of half a side meet at most one border of equal direction.
        scale = np.ones_like(places)
        scale[:, 0] = 1 / np.cos(np.radians(places[:, 1]))
        half = step * scale * side * 0.499 / 111.195
        there = [blocks(places + k * half, side) for k in (1, 2)]
        changes = (names != there[0]).astype(int) + (there[0] != there[1])
        assert changes.max() <= 1


def test_unknown_tiles_do_not_count_as_apart():
    tiles = np.array([['33UUP', ''], ['', ''], ['32TLT', '32TMT']])
    rows, test = np.arange(3), np.array(['32TMT'])
    with pytest.warns(UserWarning, match='Toy') as warned:
        assert exclude_test_tiles(rows, tiles, test, 'drop', 'Toy').tolist() == [0]
    assert len(warned) == 2
    with pytest.warns(UserWarning, match='1 of 3 samples of Toy are unknown'):
        exclude_test_tiles(rows, tiles, np.array(['31UDQ']), 'raise', 'Toy')
    with pytest.warns(UserWarning, match='Toy .* unchecked'):
        assert len(exclude_test_tiles(rows, None, test, 'raise', 'Toy')) == 3
