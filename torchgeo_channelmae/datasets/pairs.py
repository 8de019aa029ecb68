"""What the names of many patches tell, all at once: place and version."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_PLACE = r'_(?:T?(?P<tile>\d{2}[A-Z]{3})_)?0*(?P<row>\d+)_0*(?P<column>\d+)$'

Names = npt.NDArray[np.bytes_]


def check_pairs(s1_names: Names, s2_names: Names, where: str | Path) -> None:
    """Check that no Sentinel-1 patch stands beside a Sentinel-2 patch of elsewhere.

    Compares tile, row and column as far as both names have them; those of other names
    than BigEarthNet's are not known. Takes a third of a second for all of v2.

    Args:
        s1_names: Names of the Sentinel-1 patches, row by row.
        s2_names: Names of the Sentinel-2 patches, in either version.
        where: What lists them, for the error.

    Raises:
        ValueError: If there is such a row.
    """
    s1, s2 = _places(s1_names), _places(s2_names)
    tiles = [pc.equal(place['tile'], '') for place in (s1, s2)]
    other = pc.or_(
        pc.or_(*(pc.not_equal(s1[part], s2[part]) for part in ('row', 'column'))),
        pc.and_(pc.not_equal(s1['tile'], s2['tile']), pc.invert(pc.or_(*tiles))),
    )
    row = pc.index(other, True).as_py()
    if row >= 0:
        raise ValueError(
            f'{s1_names[row].decode()} and {s2_names[row].decode()} stand in one row '
            f'of {where}, but are of two places by their names: get the table again.'
        )


def of_version(s2_names: Names, version: str) -> npt.NDArray[np.bool_]:
    """Tell which names are of a version of BigEarthNet.

    Args:
        s2_names: Names of Sentinel-2 patches, which hold the tile in v2 only.
        version: 'v1' or 'v2'.

    Returns:
        A truth for each; false for names that are none of BigEarthNet.
    """
    tiles = _places(s2_names)['tile']
    known = pc.equal(tiles, '') if version == 'v1' else pc.not_equal(tiles, '')
    return np.asarray(known.fill_null(False).to_numpy(zero_copy_only=False))


def _places(names: Names) -> dict[str, pa.Array]:
    """Return tile ('' in v1), row and column, null for other names."""
    texts = pa.array([name.decode() for name in names.tolist()], pa.string())
    found = pc.extract_regex(texts, _PLACE)
    return {part: pc.struct_field(found, part) for part in ('tile', 'row', 'column')}
