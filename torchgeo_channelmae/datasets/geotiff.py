"""Small one-band GeoTIFFs as arrays, without GDAL.

A band of a BigEarthNet patch is a file of some kilobytes, longer to open than to
decode. It is read in one go and parsed by tifffile; pixels are bit-equal to
rasterio's.
"""

import io
import os
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

_GDAL_NODATA = 42113
_LARGEST = 4096  # pixels a side


def read_geotiff(
    path: str | os.PathLike[str], mark_nodata: bool = True
) -> npt.NDArray[Any]:
    """Read the band of a one-band GeoTIFF.

    Strips or tiles, compressed or not (deflate, LZW, Zstandard and whatever else
    imagecodecs decodes).

    Args:
        path: The file.
        mark_nodata: Return pixels of the no-data value that the file declares, if any,
            as NaN; integers have no such value, so there it has to be 0, which is
            returned as stored, or no pixel may have it. Else all are as stored.

    Returns:
        (height, width), an array of its own, of the type stored.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it can't be read.
        ValueError: If it is no TIFF, is cut short or damaged, has several bands or
            more than 4096 px a side, or if integers hold no data by another value
            than 0.
    """
    with open(path, 'rb', buffering=0) as file:
        data = file.read()
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = tiff.pages.first
            _check(page, len(data))
            pixels = page.asarray(maxworkers=1)  # threads cost more than they save
            nodata = _nodata(page) if mark_nodata else None
    except Exception as error:  # at damaged bytes, parsers and codecs raise anything
        known = isinstance(error, (ValueError, RuntimeError)) and str(error)
        reason = str(error).splitlines()[0].rstrip('.') if known else 'damaged header'
        raise ValueError(
            f'{path} is no readable one-band GeoTIFF ({reason}): extract or copy it '
            f'again.'
        ) from None
    if not nodata and pixels.dtype.kind != 'f':  # 0 says it already
        return pixels
    if nodata is not None and (holes := pixels == nodata).any():
        if pixels.dtype.kind != 'f':
            raise ValueError(
                f'{path} has {int(holes.sum())} pixels of {nodata:g}, which it '
                f'declares to be no data: take the patch out of the table, or skip it '
                f"with on_error='skip'."
            )
        pixels[holes] = np.nan
    return pixels


def _check(page: Any, size: int) -> None:
    """Check what tifffile takes in silence: several bands, pixels past the end."""
    if len(page.shape) != 2:
        raise ValueError(f'its shape is {page.shape}, expected height and width')
    if max(page.shape) > _LARGEST:  # a damaged header may ask for any memory
        raise ValueError(f'its shape is {page.shape}, expected up to {_LARGEST} px')
    offsets, counts = page.dataoffsets, page.databytecounts
    if not offsets or len(offsets) != len(counts):
        raise ValueError('its header does not say where its pixels are')
    end = max(start + count for start, count in zip(offsets, counts, strict=True))
    if end > size:
        raise ValueError(f'it has {size} of {end} bytes')


def _nodata(page: Any) -> float | None:
    """Return the value that the file declares to be no data."""
    declared = page.tags.get(_GDAL_NODATA)
    return None if declared is None else float(str(declared.value).strip('\0 '))
