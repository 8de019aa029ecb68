"""A small world in BigEarthNet's layout, for tests that need many patches.

The land of a patch is a map of covers, which are its labels; both sensors see the map,
each through its own response and noise. In the null world the radar of a patch sees
the land of another one, so that it tells nothing about the labels.
"""

from pathlib import Path

import lmdb
import numpy as np
import pandas as pd
import safetensors.numpy
import torch

from torchgeo_channelmae.randomness import derive_seed
from torchgeo_channelmae.sensors import SENTINEL1_GRD, SENTINEL2_L2A

COVERS = (
    'Arable land',
    'Coniferous forest',
    'Inland waters',
    'Pastures',
    'Urban fabric',
)
SPLITS = ('train', 'train', 'validation', 'test')
SIDE = 120  # px of 10 m
_SHARE = 0.1  # of a patch, from which on a cover is a label


def write_world(root, patches, seed=0, null=False):
    """Write a world of so many patches to a folder, and return the folder.

    Patch i is the same whatever the number of patches.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    rows, records = [], {}
    for number in range(patches):
        land = draw_land(seed, number)
        row, column = divmod(number, 90)
        end = f'33UUP_{row:02d}_{column:02d}'
        optical = f'S2A_MSIL2A_20170613T101031_N9999_R022_T{end}'
        radar = f'S1A_IW_GRDH_1SDV_20170613T165043_{end}'
        seen = draw_land(seed, patches + number) if null else land
        records[optical] = observe(seed, number, land, SENTINEL2_L2A)
        records[radar] = observe(seed, number, seen, SENTINEL1_GRD)
        shares = np.bincount(land.ravel(), minlength=len(COVERS)) / land.size
        labels = [c for c, share in zip(COVERS, shares, strict=True) if share >= _SHARE]
        rows.append(
            {
                'patch_id': optical,
                's1_name': radar,
                'labels': labels,
                'split': SPLITS[number % len(SPLITS)],
                'country': 'Austria',
            }
        )
    pd.DataFrame(rows).to_parquet(root / 'metadata.parquet')
    size = 2**20 + 2 * sum(map(len, records.values()))
    with (
        lmdb.open(str(root / 'World-LMDB'), map_size=size) as environment,
        environment.begin(write=True) as transaction,
    ):
        for name, record in sorted(records.items()):
            transaction.put(name.encode(), record)
    return root


def draw_land(seed, number):
    """Draw a map (120, 120) of covers: the largest of smooth random fields."""
    generator = torch.Generator().manual_seed(derive_seed(seed, 'land', number))
    coarse = torch.randn(1, len(COVERS), 4, 4, generator=generator)
    level = 1.5 * torch.randn(1, len(COVERS), 1, 1, generator=generator)
    fields = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode='bicubic')
    return (fields + level).argmax(1)[0].numpy()


def observe(seed, number, land, sensor):
    """Return a record: each band of a sensor at its own resolution, as safetensors.

    The response of a band to a cover belongs to the world, the noise to the patch.
    """
    noise = np.random.default_rng(derive_seed(seed, sensor[0].sensor, number))
    record = {}
    for band in sensor:
        world = np.random.default_rng(derive_seed(seed, 'response', band.name))
        response = world.normal(0, 1, len(COVERS))
        factor = round(band.resolution / 10)
        seen = response[land] + noise.normal(0, 0.5, land.shape)
        seen = seen.reshape(SIDE // factor, factor, SIDE // factor, factor).mean((1, 3))
        values = band.mean + band.std * seen
        if band.wavelength is None:
            record[band.name] = values.astype(np.float32)  # dB
        else:
            record[band.name] = values.clip(1, 10_000).astype(np.uint16)
    return safetensors.numpy.save(record)
