"""Data that tests of several commands share."""

import numpy as np
import pytest

from tests.fabricate import write_tif


@pytest.fixture(scope='session')
def eurosat(tmp_path_factory):
    """Write a EuroSAT of three classes that differ in their spectra."""
    root = tmp_path_factory.mktemp('eurosat')
    folder = root / 'ds/images/remote_sensing/otherDatasets/sentinel_2/tif'
    rng = np.random.default_rng(0)
    for split in ('train', 'val', 'test'):
        names = []
        for number, kind in enumerate(['Forest', 'River', 'SeaLake']):
            look = np.roll(np.arange(13), 4 * number) * 200 + 500
            for i in range(4):
                pixels = look[:, None, None] + rng.integers(0, 30, (13, 64, 64))
                names.append(f'{kind}_{split}{i}.jpg')
                path = folder / kind / names[-1].replace('.jpg', '.tif')
                write_tif(path, pixels.astype(np.uint16))
        (root / f'eurosat-{split}.txt').write_text('\n'.join(names))
    return root
