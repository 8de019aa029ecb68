"""Class shares are written once, and read for the dataset that they belong to."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from torch.utils.data import Subset

from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT, BigEarthNetLMDB
from torchgeo_channelmae.datasets.metadata import CLASSES, read_table
from torchgeo_channelmae.samplers.shares import (
    ClassShares,
    label_shares,
    read_shares,
    rows_of,
    write_shares,
)

VALUES = np.array([[0.25, 0.75], [np.nan, np.nan], [0, 0], [1, 0]], dtype=np.float32)
SHARES = ClassShares(VALUES, ('sea', 'land'), 'worldcover', 'MMEarth', False)


def sample_shares():
    """Return the shares of all 59 patches of the sample."""
    table = read_table(SAMPLE_ROOT)
    return ClassShares(
        label_shares(table.labels.numpy()),
        CLASSES,
        'labels',
        'BigEarthNetLMDB',
        True,
        table.s2_names.astype(str),
    )


def test_a_label_counts_as_one_by_the_number_of_labels():
    shares = label_shares(np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]))
    np.testing.assert_array_equal(
        shares, [[0.5, 0, 0, 0.5], [0, 1, 0, 0], [np.nan] * 4]
    )
    assert shares.dtype == np.float32


def test_shares_are_read_as_they_were_written(tmp_path):
    for shares in (SHARES, sample_shares()):
        path = tmp_path / f'{shares.dataset}.parquet'
        write_shares(path, shares)
        read = read_shares(path)
        np.testing.assert_array_equal(read.values, shares.values)
        assert read.classes == shares.classes
        assert (read.source, read.dataset) == (shares.source, shares.dataset)
        assert read.uses_labels is shares.uses_labels
        if shares.patch_ids is None:
            assert read.patch_ids is None
        else:
            assert read.patch_ids.tolist() == shares.patch_ids.tolist()


def test_the_shares_of_an_archive_serve_any_part_of_it_by_patch_names():
    shares = sample_shares()
    for split, count in (('train', 23), ('test', 21)):
        dataset = BigEarthNetLMDB(split=split)
        found = shares.rows(rows_of(dataset, shares))
        assert len(found) == count
        expected = np.stack([dataset[index]['label'].numpy() for index in range(count)])
        np.testing.assert_array_equal(found.values > 0, expected == 1)


def test_a_subset_of_a_subset_has_the_rows_of_its_samples():
    part = Subset(Subset(range(4), [3, 1, 0]), [2, 0])
    assert rows_of(part, SHARES).tolist() == [0, 3]


def test_shares_of_another_dataset_are_an_error():
    with pytest.raises(ValueError, match='MMEarth'):
        rows_of(range(5), SHARES)
    few = sample_shares().rows(np.arange(3))
    with pytest.raises(ValueError, match='23 of 23 samples'):
        rows_of(BigEarthNetLMDB(), few)


def test_other_files_and_values_that_are_no_shares_are_errors(tmp_path):
    path = tmp_path / 'shares.parquet'
    with pytest.raises(FileNotFoundError, match=r'shares\.parquet'):
        read_shares(path)
    write_shares(path, SHARES)
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({}), path)
    with pytest.raises(ValueError, match=r'shares\.parquet'):
        read_shares(path)
    pq.write_table(table.set_column(1, 'sea', [[2.0, None, 0.0, 1.0]]), path)
    with pytest.raises(ValueError, match='Row 0'):
        read_shares(path)
