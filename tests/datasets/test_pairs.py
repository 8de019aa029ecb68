"""Places and versions, from names alone."""

import numpy as np
import pytest

from torchgeo_channelmae.datasets.names import version_of
from torchgeo_channelmae.datasets.pairs import check_pairs, of_version

V1 = 'S2A_MSIL2A_20170613T101031_0_45'
V2 = 'S2A_MSIL2A_20170613T101031_N9999_R022_T34VER_00_45'
S1 = 'S1B_IW_GRDH_1SDV_20170613T160455_34VER_0_45'


def names(*texts):
    return np.array([text.encode() for text in texts], dtype='S')


@pytest.mark.parametrize('s2', [V1, V2, 'a patch of mine'])
@pytest.mark.parametrize('s1', [S1, 'another', ''])
def test_names_of_one_place_and_unknown_ones_are_pairs(s1, s2):
    check_pairs(names(s1), names(s2), 'here')


@pytest.mark.parametrize('s2', [V1, V2])
@pytest.mark.parametrize('change', [('0_45', '0_46'), ('0_45', '10_45')])
def test_another_row_or_column_is_another_place(s2, change):
    wrong = S1.replace(*change)
    with pytest.raises(ValueError, match=f'{wrong} and {s2} stand in one row of here'):
        check_pairs(names(S1, wrong), names(s2, s2), 'here')


def test_another_tile_is_another_place_where_both_names_have_it():
    wrong = S1.replace('34VER', '34VES')
    check_pairs(names(wrong), names(V1), 'here')
    with pytest.raises(ValueError, match='two places'):
        check_pairs(names(wrong), names(V2), 'here')


def test_versions_of_many_names_are_those_of_each():
    for version in ('v1', 'v2'):
        found = of_version(names(V1, V2, 'mine'), version)
        assert found.tolist() == [
            version_of(V1) == version,
            version_of(V2) == version,
            False,
        ]
