"""Batches: what is stacked, what stays on the host, what is left out and listed."""

import numpy as np
import torch

from torchgeo_channelmae.datamodules.collate import collate
from torchgeo_channelmae.datasets import BigEarthNetLMDB


def skipped(index):
    return {'patch_id': f'patch {index}', 'index': index, 'skipped': 'It is cut short.'}


def test_native_pixels_are_stacked_as_stored():
    dataset = BigEarthNetLMDB(bands=['B02', 'VV', 'B01'], native=True)
    batch = collate([dataset[row] for row in (4, 0)])
    assert 'image' not in batch
    assert {names: pixels.shape for names, pixels in batch['native'].items()} == {
        ('B02',): (2, 1, 120, 120),
        ('VV',): (2, 1, 120, 120),
        ('B01',): (2, 1, 20, 20),
    }
    assert batch['native']['B02',].dtype == torch.uint16
    for row, index in enumerate((4, 0)):
        np.testing.assert_array_equal(
            batch['native']['B01',][row], dataset[index]['native']['B01',]
        )
    assert list(batch['visit']) == [4, 0]


def test_skipped_samples_are_left_out_and_listed():
    dataset = BigEarthNetLMDB(bands=['VV'])
    batch = collate([skipped(7), dataset[1], skipped(8), dataset[2]])
    assert batch['index'].tolist() == list(batch['visit']) == [1, 2]
    assert batch['image'].shape == (2, 1, 120, 120)
    assert list(batch['skipped']) == [
        ('patch 7', 'It is cut short.'),
        ('patch 8', 'It is cut short.'),
    ]


def test_of_a_batch_with_nothing_left_the_reasons_are():
    batch = collate([skipped(1), skipped(2)])
    assert set(batch) == {'skipped'}
    assert [name for name, _ in batch['skipped']] == ['patch 1', 'patch 2']


def test_samples_without_names_have_none():
    batch = collate([{'image': torch.zeros(1, 2, 2), 'index': 3}])
    assert set(batch) == {'image', 'index', 'visit'}
