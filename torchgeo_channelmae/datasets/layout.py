"""Where BigEarthNet's original archives keep what, unpacked as TorchGeo unpacks them.

v1::

    BigEarthNet-v1.0/PATCH/PATCH_B02.tif, ..., PATCH_labels_metadata.json
    BigEarthNet-S1-v1.0/PATCH/PATCH_VV.tif, ..., PATCH_labels_metadata.json
    bigearthnet-train.csv, bigearthnet-val.csv, bigearthnet-test.csv

v2::

    BigEarthNet-S2/SCENE/PATCH/PATCH_B02.tif, ...
    BigEarthNet-S1/SCENE/PATCH/PATCH_VV.tif, ...
    Reference_Maps/SCENE/PATCH/PATCH_reference_map.tif
    metadata.parquet
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchgeo.datasets import BigEarthNet, BigEarthNetV2

from . import stored
from .geotiff import read_geotiff
from .label_files import label_of, labels_of
from .metadata import CLASSES, PatchTable, read_table
from .pairs import check_pairs

DIRECTORIES: dict[str, dict[str, str]] = {
    'v1': {part: BigEarthNet.metadata[part]['directory'] for part in ('s1', 's2')},
    'v2': {part: BigEarthNetV2.dir_file_names[part] for part in ('s1', 's2', 'maps')},
}
"""Version: part of the archive ('s1', 's2' or 'maps'): its folder in the root."""

_PARTS = {
    **dict.fromkeys(stored.S1, 's1'),
    **dict.fromkeys(stored.S2, 's2'),
    'reference_map': 'maps',
}


def patch_folder(root: str | Path, version: str, name: str, part: str) -> str:
    """Return the folder of a patch.

    Args:
        root: Folder of the unpacked archives.
        version: 'v1' or 'v2'.
        name: Name of a Sentinel-1 patch for part 's1', else of a Sentinel-2 patch.
        part: 's1', 's2' or, in v2, 'maps'.
    """
    folder = f'{root}/{DIRECTORIES[version][part]}'
    if version == 'v2':
        folder += f'/{_scene(name, part)}'
    return f'{folder}/{name}'


def band_file(root: str | Path, version: str, name: str, band: str) -> Path:
    """Return the file of a band of a patch.

    Args:
        root: Folder of the unpacked archives.
        version: 'v1' or 'v2'.
        name: Name of a Sentinel-1 patch for VV and VH, else of a Sentinel-2 patch.
        band: Name of a band or, in v2, 'reference_map'.

    Raises:
        ValueError: If there is no such band.
    """
    if band not in _PARTS:
        raise ValueError(f'Unknown band {band!r}: choose from {", ".join(_PARTS)}.')
    folder = patch_folder(root, version, name, _PARTS[band])
    return Path(f'{folder}/{name}_{band}.tif')


def read_band(root: str | Path, version: str, name: str, band: str) -> npt.NDArray[Any]:
    """Read a band of a patch as stored, and check its size and type.

    Args:
        root: Folder of the unpacked archives.
        version: 'v1' or 'v2'.
        name: Name of a Sentinel-1 patch for VV and VH, else of a Sentinel-2 patch.
        band: Name of a band or, in v2, 'reference_map'.

    Returns:
        (h, w): 120 x 120, 60 x 60 or 20 x 20 by the band's resolution; pixels that a
        file of decibels declares to hold no data are NaN.

    Raises:
        FileNotFoundError: If the file is missing.
        OSError: If it can't be read.
        ValueError: If it is damaged, of another size or type, or if pixels of a
            Sentinel-2 band hold no data by another value than 0.
    """
    path = band_file(root, version, name, band)
    is_map = band == 'reference_map'  # where no class has the value of no data either
    try:
        pixels = read_geotiff(path, mark_nodata=not is_map)
    except FileNotFoundError:
        raise FileNotFoundError(
            f'Patch {name} lacks {band}, the file {path} is missing: extract its '
            f'archive again.'
        ) from None
    fault = (stored.REFERENCE_MAP if is_map else stored.BANDS[band]).fault(pixels)
    if fault:
        raise ValueError(f'{path} {fault}: extract the original archive again.')
    return pixels


def archive_version(root: str | Path, wanted: str | None = None) -> str:
    """Tell the version of BigEarthNet that a root has unpacked archives of.

    Args:
        root: Folder of the unpacked archives.
        wanted: The version to tell where it has both.

    Returns:
        'v1' or 'v2'.

    Raises:
        FileNotFoundError: If it has neither.
        ValueError: If it has both and none is wanted.
    """
    found = [version for version in DIRECTORIES if _has(root, version)]
    if not found:
        folders = [' or '.join(_image_folders(version)) for version in DIRECTORIES]
        raise FileNotFoundError(
            f'{root} has no unpacked archive of BigEarthNet, that is no folder '
            f'{folders[0]} (v1), {folders[1]} (v2): give the folder that holds them.'
        )
    if len(found) > 1 and wanted in found:
        return str(wanted)
    if len(found) > 1:
        raise ValueError(
            f'{root} has archives of BigEarthNet v1 and v2: say which version to read, '
            f'or keep each in a folder of its own.'
        )
    return found[0]


def archive_table(root: str | Path, version: str, labels: bool = True) -> PatchTable:
    """Read which patches an archive has, and their splits and labels.

    Args:
        root: Folder of the unpacked archives.
        version: 'v1' or 'v2'.
        labels: Whether to read the labels of v1, which are in a file a patch; without,
            they are -1. Those of v2 are always there.

    Returns:
        The patches of all splits.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one is damaged.
    """
    root = Path(root)
    if version == 'v2':
        return read_table(root)
    pairs = [
        (split, *pair)
        for split, where in BigEarthNet.splits_metadata.items()
        for pair in _read_pairs(root / where['filename'])
    ]
    splits, s2_names, s1_names = zip(*pairs, strict=True) if pairs else ((), (), ())
    if len(set(s2_names)) < len(s2_names):
        raise ValueError(
            f'The lists of splits in {root} name a Sentinel-2 patch twice: download '
            f'them again.'
        )
    names, radar = np.array(s2_names, dtype='S'), np.array(s1_names, dtype='S')
    check_pairs(radar, names, f'the lists of splits in {root}')
    hot = torch.full((len(pairs), len(CLASSES)), -1)
    if labels:
        radar_only = not os.path.isdir(root / DIRECTORIES[version]['s2'])
        hot = read_labels(root, s1_names if radar_only else s2_names)
    return PatchTable(
        s2_names=names,
        s1_names=radar,
        split=np.array(splits, dtype='U5'),
        labels=hot,
        v1_names=names,
    )


def read_label(root: str | Path, name: str) -> Tensor:
    """Read the labels of a patch of v1, (19,) int64.

    Args:
        root: Folder of the unpacked archives.
        name: Name of its Sentinel-2 or Sentinel-1 patch; both have the labels.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is damaged or has an unknown label.
    """
    return label_of(_v1_folder(root, name))


def read_labels(root: str | Path, names: Sequence[str]) -> Tensor:
    """Read the labels of many patches of v1, see :func:`read_label`.

    Returns:
        (names, 19) int64.
    """
    return labels_of([_v1_folder(root, name) for name in names])


def check_folders(
    root: str | Path, version: str, part: str, names: Iterable[bytes], wanted_by: str
) -> None:
    """Check that patches have folders, by listing the folders above, not each patch's.

    Args:
        root: Folder of the unpacked archives.
        version: 'v1' or 'v2'.
        part: 's1', 's2' or, in v2, 'maps'.
        names: Names of patches.
        wanted_by: Where the names come from, for the error.

    Raises:
        FileNotFoundError: If one lacks its folder.
    """
    groups: dict[str, set[str]] = defaultdict(set)
    for encoded in names:
        name = encoded.decode()
        groups[_scene(name, part) if version == 'v2' else ''].add(name)
    total = sum(map(len, groups.values()))
    top = f'{root}/{DIRECTORIES[version][part]}'
    for scene, patches in groups.items():
        if os.path.isdir(f'{top}/{scene}'):
            patches.difference_update(os.listdir(f'{top}/{scene}'))
    missing = sorted(set().union(*groups.values()))
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} of the {total} patches of {wanted_by} have no folder in '
            f'{top}, the first is {missing[0]!r}: extract the whole archive, or take '
            f'them out.'
        )


def _v1_folder(root: str | Path, name: str) -> str:
    return patch_folder(root, 'v1', name, 's1' if name.startswith('S1') else 's2')


def _scene(name: str, part: str) -> str:
    """Return the folder of v2 that a patch is in."""
    return name.rsplit('_', 3 if part == 's1' else 2)[0]


def _image_folders(version: str) -> list[str]:
    return [DIRECTORIES[version][part] for part in ('s1', 's2')]


def _has(root: str | Path, version: str) -> bool:
    return any(os.path.isdir(f'{root}/{name}') for name in _image_folders(version))


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    """Read the Sentinel-2 and Sentinel-1 names of a list of a split."""
    try:
        lines = path.read_text(encoding='utf-8').split()
    except FileNotFoundError:
        raise FileNotFoundError(
            f'{path} is missing, the list of a split of BigEarthNet v1: get the three '
            f'with download=True, or from where TorchGeo does.'
        ) from None
    pairs = []
    for number, line in enumerate(lines, start=1):
        names = line.split(',')
        if len(names) != 2 or not all(names):
            raise ValueError(
                f'Line {number} of {path} is {line!r}, expected the names of a '
                f'Sentinel-2 and a Sentinel-1 patch with a comma between: download it '
                f'again.'
            )
        pairs.append((names[0], names[1]))
    return pairs
