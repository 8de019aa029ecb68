"""The table of patches reads as it is written, and not if it would mislead."""

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import torch

from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.metadata import (
    CLASSES,
    check_version,
    find_lmdb,
    read_table,
    table_note,
    write_table,
)


@pytest.fixture
def frame():
    return pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')


def test_rows_keep_the_tables_order(frame):
    table = read_table(SAMPLE_ROOT)
    assert [name.decode() for name in table.s2_names] == list(frame['patch_id'])
    assert [name.decode() for name in table.s1_names] == list(frame['s1_name'])
    assert table.countries.tolist() == list(frame['country'])
    words = {'train': 'train', 'validation': 'val', 'test': 'test'}
    assert table.split.tolist() == [words[split] for split in frame['split']]
    for row, names in zip(table.labels, frame['labels'], strict=True):
        assert {CLASSES[i] for i in row.nonzero().flatten()} == set(names)


def test_rows_are_chosen_by_number_or_mask():
    table = read_table(SAMPLE_ROOT)
    by_number = table.rows(np.array([4, 2]))
    assert by_number.s2_names.tolist() == table.s2_names[[4, 2]].tolist()
    assert torch.equal(by_number.labels, table.labels[[4, 2]])
    austria = table.rows(table.countries == 'Austria')
    assert len(austria) == 23
    assert set(austria.countries) == {'Austria'}


def test_what_is_written_reads_the_same(tmp_path):
    table = read_table(SAMPLE_ROOT)
    numbers = np.arange(len(table))
    table = replace(
        table,
        v1_names=np.array([b'name', b''])[numbers % 2],
        snow=numbers % 3 == 0,
        cloud=numbers % 5 == 0,
    )
    write_table(tmp_path / 'metadata.parquet', table, note='Made for a test.')
    again = read_table(tmp_path)
    for field in fields(table):
        one, other = getattr(table, field.name), getattr(again, field.name)
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert again.known_names[:2].tolist() == [b'name', table.s2_names[1]]
    assert table_note(tmp_path) == 'Made for a test.'
    assert table_note(SAMPLE_ROOT) is None


def test_text_may_be_categories_and_the_radar_unknown(tmp_path, frame):
    frame.astype({'split': 'category', 'country': 'category'}).assign(
        s1_name=None
    ).to_parquet(tmp_path / 'metadata.parquet')
    table = read_table(tmp_path)
    assert set(table.s1_names.tolist()) == {b''}
    np.testing.assert_array_equal(table.split, read_table(SAMPLE_ROOT).split)


def test_a_patch_may_have_no_class(tmp_path, frame):
    frame['labels'] = [[]] + [['Pastures']] * 58
    frame.to_parquet(tmp_path / 'metadata.parquet')
    assert read_table(tmp_path).labels.sum(dim=1).tolist() == [0] + [1] * 58


def changed(frame, column, row, value):
    frame[column] = frame[column].astype(object)
    frame.at[row, column] = value
    return frame


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        (lambda f: f.drop(columns='split'), 'split'),
        (lambda f: changed(f, 'patch_id', 5, f['patch_id'][2]), r'S2\w+ twice'),
        (lambda f: changed(f, 'split', 5, 'dev'), "split 'dev'"),
        (lambda f: changed(f, 'labels', 5, ['Pastures', 'Airports']), 'Airports'),
        (lambda f: changed(f, 'labels', 5, None), 'Row 5'),
        (lambda f: f.assign(contains_cloud_or_shadow='False'), 'contains_cloud'),
        (lambda f: f.assign(s1_name=np.roll(f['s1_name'], 1)), 'two places'),
    ],
)
def test_a_table_that_would_mislead_is_an_error(tmp_path, frame, change, named):
    change(frame).to_parquet(tmp_path / 'metadata.parquet')
    with pytest.raises(ValueError, match=named) as caught:
        read_table(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'metadata\.parquet'):
        read_table(tmp_path)


def test_all_names_have_to_be_of_the_version_asked_for():
    table = read_table(SAMPLE_ROOT)  # which has both
    of_v2 = table.rows(np.array([b'_N9999_' in name for name in table.s2_names]))
    check_version(of_v2, 'v2', 'here')
    names = of_v2.s2_names.copy()
    names[7] = b'S2A_MSIL2A_20170613T101031_26_57'
    with pytest.raises(ValueError, match=r"1 of the \d+ .* here .*'S2A_\w+031_26_57'"):
        check_version(replace(of_v2, s2_names=names), 'v2', 'here')


def test_the_lmdb_of_a_root_is_found_or_chosen(tmp_path):
    for name in ('one', 'two'):
        with pytest.raises(FileNotFoundError, match=str(tmp_path)):
            find_lmdb(tmp_path, name)
        (tmp_path / name).mkdir()
        (tmp_path / name / 'data.mdb').touch()
        assert find_lmdb(tmp_path, name) == tmp_path / name
        assert find_lmdb(tmp_path / name) == tmp_path / name
    with pytest.raises(ValueError, match='one, two'):
        find_lmdb(tmp_path)
    (tmp_path / 'two' / 'data.mdb').unlink()
    assert find_lmdb(tmp_path) == tmp_path / 'one'
