"""The table of patches is read whole, once, and written so that it reads the same."""

from dataclasses import fields

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.metadata import (
    CLASSES,
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


def test_a_table_without_rows_has_all_columns(tmp_path, frame):
    schema = pa.Schema.from_pandas(frame, preserve_index=False)
    pq.write_table(schema.empty_table(), tmp_path / 'metadata.parquet')
    table = read_table(tmp_path)
    assert len(table) == 0
    assert table.labels.shape == (0, 19)
    assert table.split.tolist() == []
