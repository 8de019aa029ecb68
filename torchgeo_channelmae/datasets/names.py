"""Names of BigEarthNet's patches: version, acquisition, tile and place."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_S2 = re.compile(
    r'S2[A-D]_MSIL2A_\d{8}T\d{5,6}(?P<v2>_N\d{4}_R\d{3}_T\d{2}[A-Z]{3})?_\d+_\d+'
)
_S1 = re.compile(r'S1[A-D]_\w+_(?P<tile>\d{2}[A-Z]{3})_\d+_\d+')
_PLACE = r'_(?:T?(?P<tile>\d{2}[A-Z]{3})_)?0*(?P<row>\d+)_0*(?P<column>\d+)$'

Names = npt.NDArray[np.bytes_]


def version_of(name: str) -> str:
    """Return the version of BigEarthNet that a Sentinel-2 patch name belongs to.

    'v1' is ``S2A_MSIL2A_20170613T101031_26_57``, 'v2'
    ``S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57``, any other name 'other'.
    """
    match = _S2.fullmatch(name)
    return 'other' if match is None else 'v2' if match['v2'] else 'v1'


def name_spaces(*columns: Iterable[bytes]) -> tuple[str, ...]:
    """Return the versions in which every patch has a name, to compare two tables by.

    Args:
        columns: Names of the same patches, each column in one version.

    Returns:
        The single versions (see :func:`version_of`) of columns, or 'mixed' for none.
    """
    found: set[str] = set()
    for names in columns:
        versions = {version_of(name.decode()) for name in names}
        found |= versions if len(versions) == 1 else set()
    return tuple(sorted(found)) or ('mixed',)


def acquisition(name: str) -> str:
    """Return the scene that a patch was cut from: its name without row and column."""
    return name.rsplit('_', 2)[0]


def tile(s1_name: str) -> str | None:
    """Return the MGRS tile of a Sentinel-1 patch, None if its name has none.

    In both versions the tile of ``S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_57`` is
    ``33UUP``; names of Sentinel-2 patches have it in v2 only.
    """
    match = _S1.fullmatch(s1_name)
    return match['tile'] if match else None


def check_pairs(s1_names: Names, s2_names: Names, where: str | Path) -> None:
    """Raise ValueError if names of a row's patches differ in tile, row or column."""
    s1, s2 = _places(s1_names), _places(s2_names)
    tiles = [pc.equal(place['tile'], '') for place in (s1, s2)]
    differs = pc.or_(
        pc.or_(*(pc.not_equal(s1[part], s2[part]) for part in ('row', 'column'))),
        pc.and_(pc.not_equal(s1['tile'], s2['tile']), pc.invert(pc.or_(*tiles))),
    )
    row = pc.index(differs, True).as_py()
    if row >= 0:
        raise ValueError(
            f'{s1_names[row].decode()} and {s2_names[row].decode()} are a pair in '
            f'{where}, but their names are of two places. Correct s1_name.'
        )


def _places(names: Names) -> dict[str, pa.Array]:
    """Return tile ('' in v1), row and column, null for other names."""
    texts = pa.array([name.decode() for name in names.tolist()], pa.string())
    found = pc.extract_regex(texts, _PLACE)
    return {part: pc.struct_field(found, part) for part in ('tile', 'row', 'column')}
