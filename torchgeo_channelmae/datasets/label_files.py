"""Labels of BigEarthNet v1, which are in a JSON file a patch."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torchgeo.datasets import BigEarthNet
from tqdm import tqdm

from .metadata import CLASSES

_THREADS, _CHUNK = 8, 256  # for small files
_COLUMNS = {
    name: BigEarthNet.label_converter.get(number)
    for number, name in enumerate(BigEarthNet.class_sets[43])
}


def label_of(folder: str) -> Tensor:
    """Read the labels of a patch: its classes of the 43 as those of the 19.

    Classes that none of the 19 has, such as airports, are left out.

    Args:
        folder: The folder of the patch, Sentinel-1 or Sentinel-2, named as it is.

    Returns:
        (19,) int64, 1 where the patch has the class.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is damaged or has an unknown label.
    """
    name = folder.rsplit('/', 1)[-1]
    path = f'{folder}/{name}_labels_metadata.json'
    try:
        with open(path, encoding='utf-8') as file:
            found = json.load(file)['labels']
        columns = [_COLUMNS[label] for label in found]
    except FileNotFoundError:
        raise FileNotFoundError(
            f'Patch {name} has no labels, the file {path} is missing: extract its '
            f'archive again.'
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{path} has no list of labels from the 43 classes of BigEarthNet '
            f'({type(error).__name__}: {error}): extract its archive again.'
        ) from None
    hot = torch.zeros(len(CLASSES), dtype=torch.int64)
    hot[[column for column in columns if column is not None]] = 1
    return hot


def labels_of(folders: Sequence[str]) -> Tensor:
    """Read the labels of many patches, with a progress bar.

    Args:
        folders: The folders of the patches.

    Returns:
        (folders, 19) int64, 1 where a patch has the class.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one is damaged or has an unknown label.
    """
    labels = torch.zeros(len(folders), len(CLASSES), dtype=torch.int64)
    starts = range(0, len(folders), _CHUNK)

    def read(start: int) -> int:
        chunk = folders[start : start + _CHUNK]
        labels[start : start + _CHUNK] = torch.stack([*map(label_of, chunk)])
        return len(chunk)

    bar = tqdm(total=len(folders), desc='reading labels', disable=len(starts) < 4)
    with bar, ThreadPoolExecutor(_THREADS) as pool:
        for done in pool.map(read, starts):
            bar.update(done)
    return labels
