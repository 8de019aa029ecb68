"""Names of patches tell version, scene and tile."""

import pandas as pd
import pytest

from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.names import (
    acquisition,
    name_spaces,
    overpass,
    radar_scene,
    tile,
    version_of,
)

V1 = 'S2A_MSIL2A_20170613T101031_0_45'
V2 = 'S2A_MSIL2A_20170613T101031_N9999_R022_T34VER_00_45'
S1 = 'S1B_IW_GRDH_1SDV_20170612T165809_34VER_0_45'


def test_the_two_versions_write_names_differently():
    assert (version_of(V1), version_of(V2)) == ('v1', 'v2')


def test_v1_leaves_leading_zeros_of_the_time_out():
    assert version_of('S2A_MSIL2A_20180413T95032_90_7') == 'v1'


@pytest.mark.parametrize(
    ('columns', 'expected'),
    [
        ([[V1, V1]], ('v1',)),
        ([[V2]], ('v2',)),
        ([[V2, V2], [V1, V1]], ('v1', 'v2')),
        ([[V2, V2], [V1, V2]], ('v2',)),  # not every patch has a name in v1
        ([[V1, V2]], ('mixed',)),
        ([[V1, V2], [V1, V1]], ('v1',)),
        ([['forest_1', 'lake_2']], ('other',)),
    ],
)
def test_a_name_space_has_a_name_of_every_patch(columns, expected):
    encoded = [[name.encode() for name in names] for names in columns]
    assert name_spaces(*encoded) == expected


def test_a_scene_is_what_patches_of_one_image_share():
    assert acquisition(V2) == 'S2A_MSIL2A_20170613T101031_N9999_R022_T34VER'
    assert acquisition(S1) == 'S1B_IW_GRDH_1SDV_20170612T165809_34VER'


def test_both_versions_tell_the_satellite_and_day_of_an_overpass():
    assert overpass(V1) == overpass(V2) == 'S2A_20170613'
    assert overpass('S2B_MSIL2A_20180413T95032_90_7') == 'S2B_20180413'
    assert overpass('synthetic_3_4') == 'synthetic'


def test_a_radar_scene_spans_tiles():
    assert radar_scene(S1) == 'S1B_IW_GRDH_1SDV_20170612T165809'
    assert radar_scene(S1.replace('34VER_0_45', '34VEQ_3_4')) == radar_scene(S1)


def test_the_radar_patch_names_the_tile():
    assert tile(S1) == '34VER'
    assert tile('') is None


def test_every_real_pair_has_a_tile_and_optical_name_agrees_where_it_has_one():
    table = pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')
    for _, row in table.iterrows():
        assert version_of(row['patch_id']) == row['version']
        found = tile(row['s1_name'])
        assert found is not None
        if row['version'] == 'v2':
            assert f'_T{found}_' in row['patch_id']


@pytest.mark.parametrize('name', ['', 'patch', S1, V2 + '_1', V2[:-3]])
def test_another_name_is_refused(name):
    with pytest.raises(ValueError, match='is none of BigEarthNet') as caught:
        version_of(name)
    assert '\n' not in str(caught.value)
