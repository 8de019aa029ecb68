"""Names of patches have the version, the scene, the tile and the place."""

import numpy as np
import pandas as pd
import pytest

from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.names import (
    acquisition,
    check_pairs,
    name_spaces,
    tile,
    version_of,
)

V1 = 'S2A_MSIL2A_20170613T101031_0_45'
V2 = 'S2A_MSIL2A_20170613T101031_N9999_R022_T34VER_00_45'
S1 = 'S1B_IW_GRDH_1SDV_20170612T165809_34VER_0_45'


def encoded(*texts):
    return np.array([text.encode() for text in texts], dtype='S')


@pytest.mark.parametrize(
    ('name', 'version'),
    [
        (V1, 'v1'),
        ('S2A_MSIL2A_20180413T95032_90_7', 'v1'),  # no leading zero of the time
        (V2, 'v2'),
        *((name, 'other') for name in ('', 'patch', S1, V2 + '_1', V2[:-3])),
    ],
)
def test_the_two_versions_write_names_differently(name, version):
    assert version_of(name) == version


@pytest.mark.parametrize(
    ('columns', 'expected'),
    [
        ([[V1, V1]], ('v1',)),
        ([[V2]], ('v2',)),
        ([[V2, V2], [V1, V1]], ('v1', 'v2')),
        ([[V2, V2], [V1, V2]], ('v2',)),  # not every patch has a name in v1
        ([[V1, V2]], ('mixed',)),
        ([['forest_1', 'lake_2']], ('other',)),
    ],
)
def test_a_name_space_has_a_name_of_every_patch(columns, expected):
    assert name_spaces(*(encoded(*names) for names in columns)) == expected


def test_a_scene_is_what_patches_of_one_image_share():
    assert acquisition(V2) == 'S2A_MSIL2A_20170613T101031_N9999_R022_T34VER'


def test_every_real_pair_has_a_tile_which_the_optical_name_agrees_with():
    table = pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')
    for _, row in table.iterrows():
        assert version_of(row['patch_id']) == row['version']
        found = tile(row['s1_name'])
        assert found is not None
        if row['version'] == 'v2':
            assert f'_T{found}_' in row['patch_id']
    assert tile('') is None


@pytest.mark.parametrize('s2', [V1, V2, 'a patch of mine'])
@pytest.mark.parametrize('s1', [S1, 'another', ''])
def test_names_of_one_place_and_unknown_ones_are_pairs(s1, s2):
    check_pairs(encoded(s1), encoded(s2), 'here')


@pytest.mark.parametrize('s2', [V1, V2])
@pytest.mark.parametrize('change', [('0_45', '0_46'), ('0_45', '10_45')])
def test_another_row_or_column_is_another_place(s2, change):
    wrong = S1.replace(*change)
    with pytest.raises(ValueError, match=f'{wrong} and {s2}'):
        check_pairs(encoded(S1, wrong), encoded(s2, s2), 'here')


def test_another_tile_is_another_place_if_both_names_have_it():
    wrong = S1.replace('34VER', '34VES')
    check_pairs(encoded(wrong), encoded(V1), 'here')
    with pytest.raises(ValueError, match=wrong):
        check_pairs(encoded(wrong), encoded(V2), 'here')
