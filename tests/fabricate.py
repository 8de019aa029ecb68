"""Tiny folders in the layouts of TorchGeo's datasets, each band another constant."""

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import rasterio
from rasterio.transform import from_origin

L1C = ('B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B10',
       'B11', 'B12')  # fmt: skip
L2A = tuple(band for band in L1C if band != 'B10')
VALUES = {band: 1000 + 100 * number for number, band in enumerate(L1C)} | {
    'VV': -11.0,
    'VH': -18.0,
}
"""Every pixel of a band, in the unit of sensors.py."""

NATIVE = {'B01': 6, 'B09': 6, 'B10': 6} | dict.fromkeys(
    ('B05', 'B06', 'B07', 'B8A', 'B11', 'B12'), 3
)
"""How many times coarser than 10 m a band is."""


def constant(bands, side, dtype='uint16', scale=1.0):
    """Return (bands, side, side), each band its value of VALUES times scale."""
    values = [VALUES[band] * scale for band in bands]
    return np.broadcast_to(
        np.array(values)[:, None, None], (len(bands), side, side)
    ).astype(dtype)


def write_tif(path, pixels, lon=9.0, lat=50.0, crs='EPSG:4326', res=1e-4, **profile):
    """Write (bands, h, w) with its upper left corner at a place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        count=count,
        height=height,
        width=width,
        dtype=pixels.dtype,
        crs=crs,
        transform=from_origin(lon, lat, res, res),
        **profile,
    ) as file:
        file.write(pixels)


def eurosat(root, places=((9.0, 50.0),), split='train'):
    """Write a EuroSAT, a file a place: in its files, B8A is the last band."""
    order = (*(band for band in L1C if band != 'B8A'), 'B8A')
    folder = root / 'ds/images/remote_sensing/otherDatasets/sentinel_2/tif'
    names = []
    for number, (lon, lat) in enumerate(places, 1):
        name = f'{split.title()}{number}_{number}'
        write_tif(folder / 'Forest' / f'{name}.tif', constant(order, 8), lon, lat)
        names.append(f'{name}.jpg')
    (root / f'eurosat-{split}.txt').write_text('\n'.join(names))


def so2sat(root, count=4):
    """Write a So2Sat: reflectance from 0 to 1, channels last."""
    order = ('B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B11', 'B12')
    optical = constant(order, 32, 'float64', 1e-4).transpose(1, 2, 0)
    radar = np.broadcast_to(np.arange(1.0, 9), (32, 32, 8))
    with h5py.File(root / 'training.h5', 'w') as file:
        file['sen1'] = np.stack([radar] * count)
        file['sen2'] = np.stack([optical] * count)
        file['label'] = np.eye(17)[:count]


def sen12ms(root, scenes=(1, 2, 3), patches=2):
    """Write a SEN12MS: Sentinel-1 and -2 in a file each, lists name the land cover."""
    names = []
    for scene in scenes:
        for patch in range(patches):
            stem = 'ROIs1158_spring_{}_' + f'{scene}_p{patch}.tif'
            for source, pixels in (
                ('lc', np.ones((4, 8, 8), 'uint16')),
                ('s1', constant(('VV', 'VH'), 8, 'float32')),
                ('s2', constant(L1C, 8)),
            ):
                folder = root / 'ROIs1158_spring' / f'{source}_{scene}'
                write_tif(folder / stem.format(source), pixels)
            names.append(stem.format('lc'))
    for season in ('ROIs1868_summer', 'ROIs1970_fall', 'ROIs2017_winter'):
        (root / season).mkdir()
    (root / 'train_list.txt').write_text('\n'.join(names) + '\n')
    (root / 'test_list.txt').write_text('')


def ssl4eo(root, locations=(0,), tiles=('43RCP',), seasons=1):
    """Write an SSL4EO-S12, all three products, bands at native size.

    A season adds its number to every pixel of Sentinel-2.
    """
    for location, tile in zip(locations, tiles, strict=True):
        for season in range(seasons):
            stem = f'2020{season + 1:02}04T054639'
            for split, bands, name in (
                ('s2c', L1C, f'{stem}_{stem}_T{tile}'),
                ('s2a', L2A, f'{stem}_{stem}_T{tile}'),
                (
                    's1',
                    ('VV', 'VH'),
                    f'S1A_IW_GRDH_1SDV_{stem}_{stem}_032904_03CFBA_D457',
                ),
            ):
                folder = root / split / f'{location:07}' / name
                for band in bands:
                    side = 264 // NATIVE.get(band, 1)
                    dtype = 'float32' if split == 's1' else 'uint16'
                    pixels = constant([band], side, dtype)
                    if split != 's1':
                        pixels = pixels + np.uint16(season)
                    short = band.replace('B0', 'B')
                    write_tif(folder / f'{short}.tif', pixels, compress='deflate')


def seco(root, locations=(0,), tiles=('43RCP',)):
    """Write a Seasonal Contrast: bytes, 255 for a reflectance of 1."""
    for location, tile in zip(locations, tiles, strict=True):
        folder = root / 'seasonal_contrast_100k' / f'{location:06}'
        for band in L2A:
            side = 264 // NATIVE.get(band, 1)
            pixels = np.full(
                (1, side, side), round(VALUES[band] / 10_000 * 255), 'uint8'
            )
            short = band.replace('B0', 'B')
            stem = f'20200604T054639_20200604T054831_T{tile}'
            write_tif(folder / stem / f'{short}.tif', pixels, compress='deflate')


def s2100k(root, places=((9.0, 50.0),)):
    """Write an S2-100K with a patch at each place."""
    rows = []
    for number, (lon, lat) in enumerate(places):
        write_tif(root / 'images' / f'patch_{number}.tif', constant(L2A, 8))
        rows.append({'fn': f'patch_{number}.tif', 'lon': lon, 'lat': lat})
    pd.DataFrame(rows).to_csv(root / 'index.csv', index=False)


def mmearth(root, levels=('l2a', 'l1c'), places=None):
    """Write an MMEarth100k: B8A before B8, B10 empty in L2A, radar ascending first."""
    folder = root / 'data_100k_v001'
    folder.mkdir(parents=True)
    count = len(levels)
    places = places or [(9.0 + number, 50.0) for number in range(count)]
    order = [band for band in L1C if band != 'B8A']
    order.insert(7, 'B8A')
    assert order[7:9] == ['B8A', 'B08']
    images = np.stack([constant(order, 8)] * count)
    for image, level in zip(images, levels, strict=True):
        image += {'l1c': 1, 'l2a': 0}[level]
        image[order.index('B10')] *= level == 'l1c'
    radar = np.full((count, 8, 8, 8), -np.inf, 'float32')
    for channel, value in enumerate((-11.0, -18.0)):  # VV, VH, HH, HV of two orbits
        radar[:, channel], radar[:, channel + 4] = value, value - 1
    names = [str(number + 10) for number in range(count)]
    with h5py.File(folder / 'data_100k_v001.h5', 'w') as file:
        file['sentinel2'], file['sentinel1'] = images, radar
        file['metadata'] = np.array(
            list(zip([name.encode() for name in names], levels, strict=True)),
            dtype=[('tile_id', 'S100'), ('S2_type', 'S10')],
        )
    info = {
        name: {
            'S2_type': level,
            'S2_DATE': '2020-06-04',
            'lat': lat,
            'lon': lon,
            'CRS': 'EPSG:32632',
            'BANDS': {},
        }
        for name, level, (lon, lat) in zip(names, levels, places, strict=True)
    }

    def numbers(channels, low):
        return {
            'mean': [low + 3.7 * number for number in range(channels)],
            'std': [50.0 + number for number in range(channels)],
            'min': [0.0] * channels,
            'max': [10_000.0] * channels,
        }

    stats = {
        'sentinel2_l1c': numbers(13, 1500),
        'sentinel2_l2a': numbers(13, 1100),
        'sentinel1': numbers(8, -20),
    }
    for kind, content in (
        ('band_stats', stats),
        ('splits', {'train': list(range(count)), 'val': [], 'test': []}),
        ('tile_info', info),
    ):
        path = folder / f'data_100k_v001_{kind}.json'
        path.write_text(json.dumps(content))


S2_NAMES = (
    'S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57',
    'S2B_MSIL2A_20180204T094160_N9999_R079_T35VNL_10_11',
)
S1_NAMES = (
    'S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_57',
    'S1A_IW_GRDH_1SDV_20180205T043000_35VNL_10_11',
)
V1_NAMES = ('S2A_MSIL2A_20170613T101031_26_57', 'S2B_MSIL2A_20180204T94160_10_11')


def bigearthnet_v2(root, splits=('train', 'train')):
    """Write two patches in TorchGeo's layout of version 2."""
    for s2, s1 in zip(S2_NAMES, S1_NAMES, strict=True):
        for name, cut, bands in ((s2, 2, L2A), (s1, 3, ('VV', 'VH'))):
            folder = root / f'BigEarthNet-{name[:2]}' / name.rsplit('_', cut)[0] / name
            for band in bands:
                coarse = NATIVE.get(band, 1)
                dtype = 'float32' if name.startswith('S1') else 'uint16'
                pixels = constant([band], 120 // {3: 2}.get(coarse, coarse), dtype)
                write_tif(folder / f'{name}_{band}.tif', pixels)
    bigearthnet_table(root, splits)


def bigearthnet_table(root, splits):
    """Write version 2's table of the two patches."""
    names = {'train': 'train', 'val': 'validation', 'test': 'test'}
    pd.DataFrame(
        {
            'patch_id': S2_NAMES,
            's1_name': S1_NAMES,
            's2v1_name': V1_NAMES,
            'labels': [['Coniferous forest']] * 2,
            'split': [names[split] for split in splits],
            'country': ['Austria', 'Finland'],
        }
    ).to_parquet(root / 'metadata.parquet')


def sentinel2_scenes(
    root, dates=('20200604T101031',), side=600, tile='33UUP', baseline='N0214',
    level='L2A', empty=0, origin=(300_000, 5_400_000), add=0,
):  # fmt: skip
    """Write scenes as ESA packs them, in the 10 m grid, bands of L2A or L1C.

    Args:
        root: Where to.
        dates: A scene each; its number is added to every pixel.
        side: Height and width in pixels.
        tile: The MGRS tile in the names.
        baseline: Processing baseline in the name of the product.
        level: L2A or L1C.
        empty: Columns on the left without data (0).
        origin: Upper left corner in UTM zone 33.
        add: What else to add to every pixel with data.
    """
    for number, date in enumerate(dates):
        product = f'S2A_MSI{level}_{date}_{baseline}_R022_T{tile}_{date}.SAFE'
        folder = root / product / 'GRANULE' / 'G' / 'IMG_DATA'
        for band in L2A if level == 'L2A' else L1C:
            coarse = NATIVE.get(band, 1)
            coarse = {3: 2}.get(coarse, coarse)
            pixels = constant([band], side // coarse).copy() + np.uint16(number + add)
            pixels[:, :, : empty // coarse] = 0
            meters = 10 * coarse
            name = f'T{tile}_{date}_{band}'
            path = folder / f'{name}.tif'
            if level == 'L2A':
                path = folder / f'R{meters}m' / f'{name}_{meters}m.tif'
            write_tif(path, pixels, *origin, 'EPSG:32633', meters, compress='deflate')
