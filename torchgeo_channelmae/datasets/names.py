"""What the names of BigEarthNet's patches tell: version, scene, tile."""

import re
from collections.abc import Iterable

_S2 = re.compile(
    r'(?P<scene>S2[A-D]_MSIL2A_\d{8}T\d{5,6}(?P<v2>_N\d{4}_R\d{3}_T\d{2}[A-Z]{3})?)'
    r'_\d+_\d+'
)
_OVERPASS = re.compile(r'(?P<satellite>S2[A-D])_MSIL2A_(?P<day>\d{8})T')
_S1 = re.compile(r'S1[A-D]_\w+_(?P<tile>\d{2}[A-Z]{3})_\d+_\d+')


def version_of(name: str) -> str:
    """Return the version of BigEarthNet that a patch belongs to.

    Args:
        name: Name of a Sentinel-2 patch, such as
            ``S2A_MSIL2A_20170613T101031_26_57`` (v1) or
            ``S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57`` (v2).

    Returns:
        'v1' or 'v2'.

    Raises:
        ValueError: If it is no such name.
    """
    kind = _kind(name)
    if kind == 'other':
        raise ValueError(
            f'Patch name {name!r} is none of BigEarthNet: expected one such as '
            f'S2A_MSIL2A_20170613T101031_26_57, or with _N9999_R022_T33UUP in it (v2).'
        )
    return kind


def name_spaces(*columns: Iterable[bytes]) -> tuple[str, ...]:
    """Return the versions whose names of all patches are known.

    Patches that two tables know by names of one version can be compared.

    Args:
        columns: Names of the same patches, of one kind or another.

    Returns:
        Those of 'v1', 'v2' and 'other' of which a column has all its names; 'mixed' if
        no column is of one kind.
    """
    found: set[str] = set()
    for names in columns:
        kinds = {_kind(name.decode()) for name in names}
        found |= kinds if len(kinds) == 1 else set()
    return tuple(sorted(found)) or ('mixed',)


def _kind(name: str) -> str:
    match = _S2.fullmatch(name)
    return 'other' if match is None else 'v2' if match['v2'] else 'v1'


def acquisition(name: str) -> str:
    """Return the scene that a patch was cut from: its name without row and column.

    Args:
        name: Name of a Sentinel-2 or Sentinel-1 patch.

    Returns:
        The name without its last two parts.
    """
    return name.rsplit('_', 2)[0]


def overpass(name: str) -> str:
    """Return the satellite and day of a Sentinel-2 patch, such as ``S2A_20170613``.

    The two versions name the tiles of one datatake by seconds that differ, but agree in
    this.

    Args:
        name: Name of a Sentinel-2 patch in v1 or v2.

    Returns:
        The satellite and day; of a name that is none of BigEarthNet, its scene.
    """
    match = _OVERPASS.match(name)
    return f'{match["satellite"]}_{match["day"]}' if match else acquisition(name)


def radar_scene(s1_name: str) -> str:
    """Return the Sentinel-1 scene of a patch: its name without tile, row and column.

    Args:
        s1_name: Name of a Sentinel-1 patch, the same in both versions.
    """
    return s1_name.rsplit('_', 3)[0]


def tile(s1_name: str) -> str | None:
    """Return the MGRS tile of a patch.

    Args:
        s1_name: Name of its Sentinel-1 patch, which holds the tile in both versions,
            such as ``S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_57``.

    Returns:
        The tile, such as ``33UUP``, or None if the name has none.
    """
    match = _S1.fullmatch(s1_name)
    return match['tile'] if match else None
