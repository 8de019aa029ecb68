"""Filters and splits: who trains, validates and tests."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.metadata import CLASSES, PatchTable, read_table
from torchgeo_channelmae.datasets.selection import Selection

COUNTRIES = ('Ireland', 'Serbia', 'Finland')
FRACTIONS = {'train': 'train_fraction', 'val': 'val_label_fraction'}

pytestmark = pytest.mark.filterwarnings('ignore:.*_fraction .* leaves no')


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
        countries=np.array(COUNTRIES)[np.arange(count) // size % 3],
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


TILES = [f'{zone}UUP' for zone in range(30, 39)]


def dated(tiles=TILES, dates=5, seed=3):
    """Four places of each tile on each date, in v2, a third of the tiles a country."""
    every = [*itertools.product(range(1, dates + 1), tiles, '4567')]
    rows = [every[i] for i in np.random.default_rng(seed).permutation(len(every))]
    day = 'MSIL2A_2017060{}T10103{}'
    return replace(
        read_table(SAMPLE_ROOT).rows(np.arange(len(rows)) % 59),
        s2_names=encoded(
            f'S2A_{day.format(date, 1)}_N9999_R022_T{tile}_{place}_7'
            for date, tile, place in rows
        ),
        v1_names=encoded(
            f'S2A_{day.format(date, TILES.index(tile))}_{place}_7'
            for date, tile, place in rows
        ),
        s1_names=encoded(
            f'S1A_IW_GRDH_1SDV_2017060{date}T165809_{tile}_{place}_7'
            for date, tile, place in rows
        ),
        countries=np.array([COUNTRIES[TILES.index(tile) % 3] for _, tile, _ in rows]),
    )


def encoded(names):
    return np.array([*names], dtype='S')


def parts(table, names=3):
    """Return the splits that each tile, row and column, or fewer of them, is in."""
    found = {}
    for name, split in zip(table.s1_names.tolist(), table.split.tolist(), strict=True):
        found.setdefault(tuple(name.split(b'_')[5 : 5 + names]), set()).add(split)
    return found


ELSEWHERE = {'split_by': 'country', 'test_countries': ['Serbia']}
BY_NAME = ELSEWHERE | {'val_countries': ['Ireland']}


@given(
    st.sampled_from([{'split_by': 'tile'}, ELSEWHERE, BY_NAME]), st.integers(0, 1000)
)
def test_a_place_is_in_one_split_at_all_its_dates(options, seed):
    chosen = Selection(**options, split_seed=seed).apply(dated())
    found = parts(chosen)
    assert len(found) == 4 * len(TILES)
    assert {len(splits) for splits in found.values()} == {1}
    assert set(chosen.split.tolist()) == {'train', 'val', 'test'}


def test_both_versions_of_a_patch_are_in_the_same_split():
    v2 = dated()
    v1 = replace(v2, s2_names=v2.v1_names)
    one, other = (Selection(split_by='tile').apply(table) for table in (v1, v2))
    assert one.split.tolist() == other.split.tolist()


def test_a_patch_whose_tile_is_unknown_cannot_be_split_by_tile():
    table = replace(grown(), s1_names=np.full(300, b''))
    refused("'tile' .* S2A_MSIL2A_20170600T", table, split_by='tile')
    refused("'country' .* S2A_MSIL2A_201706", table, **ELSEWHERE)


def test_another_seed_leaves_other_tiles_out():
    table = dated()
    one, other, again = (
        Selection(split_by='tile', split_seed=seed).apply(table).split.tolist()
        for seed in (0, 1, 0)
    )
    assert one == again != other


def test_countries_left_out_test_and_no_tile_of_the_others_is_split():
    chosen = Selection(**ELSEWHERE).apply(dated())
    assert set(chosen.countries[chosen.split == 'test'].tolist()) == {'Serbia'}
    assert 'Serbia' not in chosen.countries[chosen.split != 'test'].tolist()
    found = [splits for splits in parts(chosen, names=1).values() if splits != {'test'}]
    assert found.count({'train'}) == 4
    assert found.count({'val'}) == 2  # a quarter of six, filled in turn


def test_countries_can_validate():
    chosen = Selection(**BY_NAME).apply(grown())
    assert set(chosen.countries[chosen.split == 'val'].tolist()) == {'Ireland'}
    assert set(chosen.countries[chosen.split == 'train'].tolist()) == {'Finland'}


@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(0, 5))
def test_a_smaller_fraction_is_part_of_a_larger_one(one, other, seed):
    table = grown()
    shares = sorted([one, other])
    for split, option in FRACTIONS.items():
        chosen = {'fraction_seed': seed, 'split_seed': one}
        small, large = (
            Selection(**{option: share / 1000}, **chosen).apply(table)
            for share in shares
        )
        assert names(small, split) <= names(large, split)
        assert len(names(small, split)) == -(-shares[0] * 100 // 1000)
        for each in {'train', 'val', 'test'} - {split}:
            assert names(small, each) == names(table, each)


def test_its_own_seed_chooses_a_fraction_and_no_split():
    def chosen(split, table, **options):
        return names(Selection(**options, train_fraction=0.3).apply(table), split)

    first, elsewhere, other = (
        chosen('train', grown(), **{name: 1} if name else {})
        for name in ('', 'split_seed', 'fraction_seed')
    )
    assert first == elsewhere != other
    held_out = [
        chosen('test', dated(), split_by='tile', fraction_seed=seed) for seed in (0, 1)
    ]
    assert held_out[0] == held_out[1]


@pytest.mark.parametrize(('split', 'option'), FRACTIONS.items())
def test_classes_that_a_fraction_leaves_without_labels_are_named(split, option):
    table = read_table(SAMPLE_ROOT)
    with pytest.warns(UserWarning, match=f'{option} 0.1 leaves') as caught:
        chosen = Selection(**{option: 0.1}).apply(table)
    before, after = (
        {CLASSES[row] for row in each.labels[each.split == split].nonzero()[:, 1]}
        for each in (table, chosen)
    )
    (text,) = [str(each.message) for each in caught]
    assert {name for name in CLASSES if name in text} == before - after != set()
    assert f'larger {option}' in text


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


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'split_by': 'scene'}, "split_by is 'scene'"),
        ({'train_fraction': 0}, 'train_fraction is 0'),
        ({'train_fraction': 1.5}, 'train_fraction is 1.5'),
        ({'val_label_fraction': 0}, 'val_label_fraction is 0'),
        ({'countries': 'Finland'}, "^countries is 'Finland'"),
        ({'countries': []}, '^countries is'),
        (ELSEWHERE | {'val_countries': []}, 'val_countries is'),
        ({'split_by': 'country'}, 'test_countries'),
        ({'test_countries': ['Serbia']}, 'test_countries'),
        ({'val_countries': ['Serbia']}, 'test_countries'),
        (ELSEWHERE | {'val_countries': ['Serbia']}, 'Serbia'),
        ({'countries': ['Atlantis']}, "^countries has 'Atlantis'"),
        (ELSEWHERE | {'test_countries': ['serbia']}, "^test_countries has 'serbia'"),
    ],
)
def test_a_wrong_option_is_named(options, named):
    refused(named, **options)


def test_too_few_tiles_to_part_are_an_error():
    refused("'tile' .* needs 3 of them", dated(TILES[:2]), split_by='tile')
    refused('there are 2', dated(TILES[:3]), **ELSEWHERE)


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_a_split_that_the_filters_empty_is_named(split):
    table = grown()
    snow = table.split == split
    refused(
        f"'official' .* no patch to {split}. Filter less",
        replace(table, snow=snow),
        exclude_snow=True,
    )
    without = Selection().apply(table.rows(~snow))  # that of the table itself is not
    assert set(without.split.tolist()) == {'train', 'val', 'test'} - {split}


@pytest.mark.parametrize(
    ('test', 'val', 'empty'),
    [(COUNTRIES, None, 'train and val'), (COUNTRIES[:2], COUNTRIES[2:], 'train')],
)
def test_countries_that_leave_nothing_to_a_split_are_an_error(test, val, empty):
    countries = {'test_countries': test, 'val_countries': val}
    refused(f'no patch to {empty}. .* countries', split_by='country', **countries)


def test_filters_that_leave_nothing_are_an_error():
    table = replace(grown(), snow=np.ones(300, dtype=bool))
    refused('exclude_snow', table, exclude_snow=True)
