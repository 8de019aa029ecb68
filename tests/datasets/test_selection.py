"""Filters and splits: who trains, validates and tests."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.metadata import PatchTable, read_table
from torchgeo_channelmae.datasets.names import acquisition
from torchgeo_channelmae.datasets.selection import Selection


def grown(scenes=12, size=25):
    """The sample's rows over and over, in so many scenes and three countries."""
    count = scenes * size
    table = read_table(SAMPLE_ROOT).rows(np.arange(count) % 59)
    names = [
        f'S2A_MSIL2A_201706{row // size:02}T101031_{row % size}_7'
        for row in range(count)
    ]
    return replace(
        table,
        s2_names=np.array(names, dtype='S'),
        s1_names=np.array([radar_name(name) for name in names], dtype='S'),
        split=np.array(['train', 'val', 'test'])[np.arange(count) % 3],
        countries=np.array(['Ireland', 'Serbia', 'Finland'])[
            np.arange(count) // size % 3
        ],
        snow=np.arange(count) % 4 == 0,
        cloud=np.arange(count) % 7 == 0,
    )


def radar_name(name):
    """A Sentinel-1 scene a day, three tiles in turn."""
    _, _, time, row, column = name.split('_')
    tile = ('33UUP', '29UPU', '35VNK')[int(row) % 3]
    return f'S1A_IW_GRDH_1SDV_{time[:8]}T165809_{tile}_{row}_{column}'


def names(table: PatchTable, split: str) -> set[bytes]:
    return set(table.s2_names[table.split == split].tolist())


def scenes(table: PatchTable, split: str) -> set[str]:
    return {acquisition(name.decode()) for name in names(table, split)}


def refused(message, table=None, **options):
    with pytest.raises(ValueError, match=message):
        Selection(**options).apply(grown() if table is None else table)


def test_the_default_is_the_table_as_it_is():
    table = grown()
    chosen = Selection().apply(table)
    assert chosen.s2_names.tolist() == table.s2_names.tolist()
    assert chosen.split.tolist() == table.split.tolist()


def test_snow_and_clouds_are_left_out_if_asked():
    table = grown()
    chosen = Selection(exclude_snow=True, exclude_cloud=True).apply(table)
    expected = [
        name for row, name in enumerate(table.s2_names.tolist()) if row % 4 and row % 7
    ]
    assert chosen.s2_names.tolist() == expected


def test_countries_are_kept_by_name():
    chosen = Selection(countries=['Serbia', 'Ireland']).apply(grown())
    assert set(chosen.countries.tolist()) == {'Serbia', 'Ireland'}
    assert len(chosen) == 200


def published(rows):
    """Patches of v2 by (second, tile, Sentinel-1 scene), with their v1 names."""
    orbit = '201706{:02}T{}'
    v2, v1, s1 = [], [], []
    for number, (day, second, tile, scene) in enumerate(rows):
        place = f'{number}_7'
        v2.append(
            f'S2A_MSIL2A_{orbit.format(day, "101031")}_N9999_R022_T{tile}_{place}'
        )
        v1.append(f'S2A_MSIL2A_{orbit.format(day, second)}_{place}')
        s1.append(f'S1A_IW_GRDH_1SDV_{scene}_{tile}_{place}')
    count = len(rows)
    return replace(
        read_table(SAMPLE_ROOT).rows(np.arange(count) % 59),
        s2_names=np.array(v2, dtype='S'),
        v1_names=np.array(v1, dtype='S'),
        s1_names=np.array(s1, dtype='S'),
    )


def days(seed=3):
    """24 days of three tiles; every third day's radar is that of the day before."""
    rows = []
    for day in range(1, 25):
        scene = f'201706{day - (day % 3 == 0):02}T165809'
        for number, tile in enumerate(('33UUP', '33UVP', '32UQV')):
            second = f'10103{number}'  # v1 names the tiles' own times
            rows += [(day, second, tile, scene)] * 4
    return [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]


@pytest.mark.parametrize('seed', range(4))
def test_no_datatake_and_no_radar_scene_is_in_two_splits(seed):
    rows = days()
    chosen = Selection(split_by='acquisition', split_seed=seed).apply(published(rows))
    for part in (0, 3):  # the day of the datatake, the radar scene
        where = {}
        for row, split in zip(rows, chosen.split.tolist(), strict=True):
            where.setdefault(row[part], set()).add(split)
        assert {len(splits) for splits in where.values()} == {1}
    shares = [(chosen.split == split).mean() for split in ('train', 'val', 'test')]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.05)


@pytest.mark.parametrize('split_by', ['acquisition', 'tile'])
def test_both_versions_of_a_patch_are_in_the_same_split(split_by):
    v2 = published(days())
    v1 = replace(v2, s2_names=v2.v1_names)
    one, other = (Selection(split_by=split_by).apply(table) for table in (v1, v2))
    assert one.split.tolist() == other.split.tolist()


def test_a_patch_without_a_radar_name_goes_by_its_overpass():
    table = published(days())
    bare = replace(table, s1_names=np.full(len(table), b''))
    found = Selection(split_by='acquisition').apply(bare)
    by_day = {}
    for (day, *_), split in zip(days(), found.split.tolist(), strict=True):
        by_day.setdefault(day, set()).add(split)
    assert {len(splits) for splits in by_day.values()} == {1}


def test_a_tile_left_out_is_in_one_split_only():
    chosen = Selection(split_by='tile').apply(grown())
    where = {}
    for name, split in zip(
        chosen.s1_names.tolist(), chosen.split.tolist(), strict=True
    ):
        where.setdefault(name.split(b'_')[5], set()).add(split)
    assert sorted(where) == [b'29UPU', b'33UUP', b'35VNK']
    assert sorted(map(sorted, where.values())) == [['test'], ['train'], ['val']]


def test_a_patch_whose_tile_is_unknown_cannot_be_split_by_tile():
    table = replace(grown(), s1_names=np.full(300, b''))
    refused("'tile' .* S2A_MSIL2A_20170600T", table, split_by='tile')


def test_another_seed_leaves_other_scenes_out():
    one, other = (
        Selection(split_by='acquisition', split_seed=seed).apply(grown())
        for seed in (0, 1)
    )
    assert scenes(one, 'test') != scenes(other, 'test')
    again = Selection(split_by='acquisition', split_seed=0).apply(grown())
    assert again.split.tolist() == one.split.tolist()


def test_countries_left_out_test_and_no_scene_of_the_others_is_split():
    chosen = Selection(split_by='country', test_countries=['Serbia']).apply(grown())
    assert set(chosen.countries[chosen.split == 'test'].tolist()) == {'Serbia'}
    assert 'Serbia' not in chosen.countries[chosen.split != 'test'].tolist()
    assert not scenes(chosen, 'train') & scenes(chosen, 'val')
    assert len(scenes(chosen, 'val')) == 2  # a quarter of eight


def test_countries_can_validate():
    chosen = Selection(
        split_by='country', test_countries=['Serbia'], val_countries=['Ireland']
    ).apply(grown())
    assert set(chosen.countries[chosen.split == 'val'].tolist()) == {'Ireland'}
    assert set(chosen.countries[chosen.split == 'train'].tolist()) == {'Finland'}


@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(0, 5))
def test_a_smaller_fraction_is_part_of_a_larger_one(one, other, seed):
    table = grown()
    small, large = (
        Selection(train_fraction=share / 1000, split_seed=seed).apply(table)
        for share in sorted([one, other])
    )
    assert names(small, 'train') <= names(large, 'train')
    assert len(names(small, 'train')) == -(-min(one, other) * 100 // 1000)
    for split in ('val', 'test'):
        assert names(small, split) == names(table, split)


def test_a_fraction_is_the_same_patches_in_both_versions():
    v1 = grown()
    v2 = replace(
        v1,
        s2_names=np.array([b'other ' + name for name in v1.s2_names], dtype='S'),
        v1_names=v1.s2_names,
    )
    one, other = (Selection(train_fraction=0.3).apply(table) for table in (v1, v2))
    assert names(one, 'train') == set(other.v1_names[other.split == 'train'].tolist())


def test_what_the_table_lacks_is_named():
    bare = replace(grown(), countries=None, snow=None, cloud=None)
    refused('contains_seasonal_snow', bare, exclude_snow=True)
    refused('contains_cloud_or_shadow', bare, exclude_cloud=True)
    refused('column country', bare, countries=['Serbia'])


SERBIA = {'split_by': 'country', 'test_countries': ['Serbia']}


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'split_by': 'scene'}, "split_by is 'scene'"),
        ({'train_fraction': 0}, 'train_fraction is 0'),
        ({'train_fraction': 1.5}, 'train_fraction is 1.5'),
        ({'countries': 'Finland'}, "^countries is 'Finland'"),
        ({'countries': []}, '^countries is'),
        (SERBIA | {'val_countries': []}, 'val_countries is'),
        ({'split_by': 'country'}, 'test_countries'),
        ({'test_countries': ['Serbia']}, 'test_countries'),
        ({'val_countries': ['Serbia']}, 'test_countries'),
        (SERBIA | {'val_countries': ['Serbia']}, 'Serbia'),
        ({'countries': ['Atlantis']}, "^countries has 'Atlantis'"),
        (SERBIA | {'test_countries': ['serbia']}, "^test_countries has 'serbia'"),
    ],
)
def test_a_wrong_option_is_named(options, named):
    refused(named, **options)


def test_too_few_acquisitions_to_part_are_an_error():
    refused("'acquisition' needs", grown(scenes=2), split_by='acquisition')


def test_filters_that_leave_nothing_are_an_error():
    table = replace(grown(), snow=np.ones(300, dtype=bool))
    refused('exclude_snow', table, exclude_snow=True)
