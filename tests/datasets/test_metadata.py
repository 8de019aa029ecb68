"""The table of patches is read whole, once, and written so that it reads the same."""

import os
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import torch

from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.metadata import (
    CLASSES,
    check_version,
    read_table,
    table_note,
    write_table,
)


@pytest.fixture
def frame():
    return pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')


def same(one, other):
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert (a is None) == (b is None), field.name
        if a is not None:
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_rows_keep_the_tables_order(frame):
    table = read_table(SAMPLE_ROOT)
    assert [name.decode() for name in table.s2_names] == list(frame['patch_id'])
    assert [name.decode() for name in table.s1_names] == list(frame['s1_name'])
    assert table.countries.tolist() == list(frame['country'])
    words = {'train': 'train', 'validation': 'val', 'test': 'test'}
    assert table.split.tolist() == [words[split] for split in frame['split']]
    for row, names in zip(table.labels, frame['labels'], strict=True):
        assert {CLASSES[i] for i in row.nonzero().flatten()} == set(names)


def test_columns_that_a_table_lacks_are_none():
    table = read_table(SAMPLE_ROOT)
    assert (table.v1_names, table.snow, table.cloud) == (None, None, None)


def test_published_columns_are_read(tmp_path, frame):
    snowy = [row % 3 == 0 for row in range(len(frame))]
    cloudy = [row % 5 == 0 for row in range(len(frame))]
    frame.assign(
        s2v1_name=[f'name {row}' for row in range(len(frame))],
        contains_seasonal_snow=snowy,
        contains_cloud_or_shadow=cloudy,
    ).to_parquet(tmp_path / 'metadata.parquet')
    table = read_table(tmp_path)
    assert table.snow.tolist() == snowy
    assert table.cloud.tolist() == cloudy
    assert table.v1_names[7] == b'name 7'


def test_rows_are_chosen_by_number_or_truth():
    table = read_table(SAMPLE_ROOT)
    by_number = table.rows(np.array([4, 2]))
    assert by_number.s2_names.tolist() == table.s2_names[[4, 2]].tolist()
    assert torch.equal(by_number.labels, table.labels[[4, 2]])
    truth = table.countries == 'Austria'
    assert len(table.rows(truth)) == 23
    assert set(table.rows(truth).countries) == {'Austria'}


def test_what_is_written_reads_the_same(tmp_path):
    table = read_table(SAMPLE_ROOT)
    write_table(tmp_path / 'metadata.parquet', table, note='Made for a test.')
    same(read_table(tmp_path), table)
    assert table_note(tmp_path) == 'Made for a test.'


def test_a_table_says_nothing_unless_noted(tmp_path):
    assert table_note(SAMPLE_ROOT) is None
    write_table(tmp_path / 'metadata.parquet', read_table(SAMPLE_ROOT))
    assert table_note(tmp_path) is None


def test_a_table_is_never_overwritten(tmp_path):
    path = tmp_path / 'metadata.parquet'
    path.write_text('mine')
    with pytest.raises(FileExistsError):
        write_table(path, read_table(SAMPLE_ROOT))
    assert path.read_text() == 'mine'


def refused(root, frame, *words):
    path = root / 'metadata.parquet'
    if isinstance(frame, pd.DataFrame):
        frame.to_parquet(path)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        read_table(root)
    text = str(error.value)
    assert '\n' not in text
    assert text.endswith('.')
    for word in (str(path), *words):
        assert word in text, text


def test_a_table_without_rows_is_an_error(tmp_path, frame):
    refused(tmp_path, frame[:0], 'lists no patch')


def test_a_damaged_page_and_a_file_of_another_kind_are_named(tmp_path, frame):
    path = tmp_path / 'metadata.parquet'
    frame.to_parquet(path)
    content = bytearray(path.read_bytes())
    content[200:600] = bytes(400)
    path.write_bytes(content)
    refused(tmp_path, None, 'is damaged', 'copy it again')
    path.write_bytes(b'patch_id,split\n')
    refused(tmp_path, None, 'no readable parquet file', 'copy it again')


@pytest.mark.parametrize(
    ('column', 'value', 'words'),
    [
        ('patch_id', 7, ('patch_id', 'int64', 'text')),
        ('country', 7, ('country', 'int64', 'text', 'leave the column out')),
        ('contains_seasonal_snow', 'False', ('string', 'true or false')),
        ('contains_cloud_or_shadow', 0, ('int64', 'true or false')),
        ('contains_seasonal_snow', None, ('nothing in 59 rows', 'true or false')),
    ],
)
def test_a_column_that_holds_something_else_is_named(
    tmp_path, frame, column, value, words
):
    refused(tmp_path, frame.assign(**{column: value}), column, *words)


def test_a_flag_or_a_name_that_is_unknown_in_one_row_is_an_error(tmp_path, frame):
    for column in ('contains_cloud_or_shadow', 'patch_id'):
        values = ['x'] * 59 if column == 'patch_id' else [True] * 59
        values[8] = None
        refused(tmp_path, frame.assign(**{column: values}), column, 'nothing in 1 row')


def test_text_may_be_stored_as_categories_and_radar_be_unknown(tmp_path, frame):
    frame.astype({'split': 'category', 'country': 'category'}).assign(
        s1_name=None
    ).to_parquet(tmp_path / 'metadata.parquet')
    table = read_table(tmp_path)
    assert set(table.s1_names.tolist()) == {b''}
    np.testing.assert_array_equal(table.split, read_table(SAMPLE_ROOT).split)


@pytest.mark.parametrize(
    'names',
    [
        lambda names: [names[0]] * len(names),
        lambda names: names[1:] + names[:1],
    ],
)
def test_a_radar_patch_beside_an_optical_one_of_elsewhere_is_an_error(
    tmp_path, frame, names
):
    changed = names(list(frame['s1_name']))
    wrong = next(
        row for row, name in enumerate(changed) if name != frame['s1_name'][row]
    )
    frame['s1_name'] = changed
    refused(tmp_path, frame, changed[wrong], frame['patch_id'][wrong], 'two places')


def test_all_names_have_to_be_of_the_version_asked_for():
    table = read_table(SAMPLE_ROOT)  # which has both
    of_v2 = table.rows(np.array([b'_N9999_' in name for name in table.s2_names]))
    check_version(of_v2, 'v2', 'here')
    names = of_v2.s2_names.copy()
    names[7] = b'S2A_MSIL2A_20170613T101031_26_57'
    with pytest.raises(ValueError, match=r"1 of the \d+ .* here .*'S2A_\w+031_26_57'"):
        check_version(replace(of_v2, s2_names=names), 'v2', 'here')


def test_what_is_written_is_on_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, 'fsync', lambda file: synced.append(os.fstat(file).st_size))
    path = tmp_path / 'metadata.parquet'
    write_table(path, read_table(SAMPLE_ROOT))
    assert synced == [path.stat().st_size]
