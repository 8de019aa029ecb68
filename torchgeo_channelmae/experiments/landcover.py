"""``channelmae landcover``: the land-cover shares of a dataset's samples."""

import io
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
from matplotlib.figure import Figure
from torchgeo.datasets import MMEarth, S2100k

from ..config import build, find_class
from ..samplers.balancing import entropy
from ..samplers.epoch import LandCoverBalancedSampler
from ..samplers.shares import ClassShares, Values, write_shares
from .landcover_classes import MAPS
from .landcover_raster import RasterLookup, raster_values
from .landcover_sources import (
    Look,
    Rows,
    count_shares,
    known_centres,
    known_source,
    own_map,
    read_labels,
)

_SOURCES = ('labels', *MAPS, 'raster')
_UNCOVERED = ('raise', 'drop', 'keep')


def landcover(
    dataset: dict[str, Any],
    source: str,
    out: Path,
    raster: dict[str, Any] | None = None,
    size: float | None = None,
    crs: str = 'EPSG:4326',
    classes: dict[int, str] | None = None,
    ignore: list[int] | None = None,
    uncovered: str = 'raise',
    workers: int = 0,
) -> None:
    """Compute the class shares of each sample, to balance pretraining by land cover.

    Writes a Parquet file with a row a sample and a column a class, which
    LandCoverBalancedSampler reads, and beside it a picture of the classes as they are
    and as the sampler draws them.

    Args:
        dataset: `{class_path: NAME, init_args: {...}}` of any TorchGeo dataset.
        source: Where land cover is known from. labels: the dataset's own, each label
            of a patch counting alike. worldcover or dynamic_world: the map of that name
            that MMEarth has. raster: a land-cover raster, looked up at the dataset's
            coordinates.
        out: The Parquet file to write; neither it nor the PNG may exist.
        raster: `{class_path: NAME, init_args: {...}}` of a TorchGeo RasterDataset, such
            as NLCD or Esri2020, in any coordinate reference system.
        size: Side of a sample on the ground in metres, for a raster.
        crs: Coordinate reference system of samples' `x`, `y` and `bounds`. Longitude
            and latitude need none.
        classes: Names of the raster's values, such as `{10: tree cover}`. By default
            those of a known raster, else every value is a class.
        ignore: Values of the raster that are no class, beside its no-data value.
        uncovered: What to do with a sample of which less than half has a class: raise;
            drop, so that it is never drawn; or keep, so that it is drawn as often as
            the average sample.
        workers: Processes that read.

    Raises:
        FileExistsError: If a file exists.
        FileNotFoundError: If data are missing.
        ValueError: If an argument makes no sense, the dataset has no coordinates or a
            sample no land cover.
    """
    picture = out.with_suffix('.png')
    _check(out, picture, source, raster, size, uncovered)
    opened = _open(dataset, source)
    known = known_source(opened)
    rows: Rows = np.arange(len(opened)) if known is None else known.rows
    names = None if known is None else known.column('names', rows)
    if source == 'labels':
        values, titles = read_labels(opened, rows, workers)
    else:
        look: Look
        if source == 'raster':
            land = build(raster, 'raster')
            titled, ignored = raster_values(land, classes, ignore or ())
            centres = known_centres(known, rows)
            look = RasterLookup(land, opened, centres, size, _crs(crs), ignored)
        else:
            modality, *listed = MAPS[source]
            titled = dict(enumerate(listed))
            look = own_map(opened, modality)
        values, titles = count_shares(look, rows, titled, workers)
    kind = type(opened).__name__ if known is None else known.name
    values = _settle(values, rows, names, uncovered, kind)
    everything = np.zeros((len(opened), len(titles)), dtype=np.float32)
    everything[rows] = values
    ids = None
    if names is not None:
        ids = np.full(len(opened), '', dtype=names.dtype)
        ids[rows] = names
    shares = ClassShares(
        values=everything,
        classes=titles,
        source=source if raster is None else f'{source} {raster["class_path"]}',
        dataset=kind,
        uses_labels=source == 'labels',
        patch_ids=ids,
    )
    drawn = io.BytesIO()  # before anything is written, so that a failure leaves nothing
    plot_balance(shares).savefig(drawn, format='png', dpi=150)
    write_shares(out, shares)
    picture.write_bytes(drawn.getvalue())
    _report(shares, out, picture)


def _check(
    out: Path,
    picture: Path,
    source: str,
    raster: dict[str, Any] | None,
    size: float | None,
    uncovered: str,
) -> None:
    if out.suffix != '.parquet':
        raise ValueError(f'out is {out}: give the name of a .parquet file.')
    for path in (out, picture):
        if path.exists():
            raise FileExistsError(f'{path} exists: give another out, or move it away.')
    if not out.parent.is_dir():
        raise FileNotFoundError(f'There is no folder {out.parent} for out.')
    if source not in _SOURCES:
        raise ValueError(
            f'Unknown source {source!r}: use one of {", ".join(_SOURCES)}.'
        )
    if uncovered not in _UNCOVERED:
        raise ValueError(
            f'Unknown uncovered {uncovered!r}: use one of {", ".join(_UNCOVERED)}.'
        )
    if (source == 'raster') != (raster is not None):
        raise ValueError(
            f'source is {source!r} and raster is '
            f'{"not given" if raster is None else "given"}: give a raster with source '
            f"'raster', and only then."
        )
    if size is not None and size <= 0:
        raise ValueError(f'size is {size}: give the side of a sample in metres.')


def _crs(name: str) -> pyproj.CRS:
    try:
        return pyproj.CRS(name)
    except pyproj.exceptions.CRSError:
        raise ValueError(
            f'crs is {name!r}: give a coordinate reference system such as EPSG:32633.'
        ) from None


def _open(spec: dict[str, Any], source: str) -> Any:
    """Build the dataset, so that it reads no more than it has to."""
    kind = find_class(spec, 'dataset')
    given = dict(spec.get('init_args') or {})
    if issubclass(kind, MMEarth):  # some image, as samples without one are not known
        given |= {'modalities': ['sentinel1_asc'], 'modality_bands': None}
    elif source in MAPS:
        raise ValueError(
            f'source is {source!r}, but the dataset is {kind.__name__}: only MMEarth '
            f'has this map, so use another source.'
        )
    elif issubclass(kind, S2100k):
        given['mode'] = 'points'
    spec = {**spec, 'init_args': given}
    return build(spec, 'dataset')


def _settle(
    values: Values,
    rows: Rows,
    names: npt.NDArray[np.str_] | None,
    uncovered: str,
    dataset: str,
) -> Values:
    """Do what was asked for with samples without land cover."""
    bare = ~(values.sum(axis=1) > 0)  # NaN is not
    if bare.all():
        raise ValueError(
            f'None of the {len(rows)} samples of {dataset} has land cover: give a '
            f'source that covers them.'
        )
    if not bare.any() or uncovered == 'keep':
        return values
    if uncovered == 'drop':
        values[bare] = 0
        return values
    first = int(bare.argmax())
    named = '' if names is None else f' ({names[first]})'
    raise ValueError(
        f'The source does not cover sample {rows[first]}{named} of {dataset}, nor '
        f'{bare.sum() - 1} others: give one that does, or uncovered drop or keep.'
    )


def plot_balance(shares: ClassShares) -> Figure:
    """Draw the shares of the classes as they are and in a balanced epoch.

    Args:
        shares: The shares of a dataset.

    Returns:
        The figure: two bars a class, the commonest on top.
    """
    used = int((shares.values.sum(axis=1) != 0).sum())  # NaN is not
    sampler = LandCoverBalancedSampler(
        range(len(shares)), shares, samples_per_epoch=used, absent='ignore'
    )
    bars = {
        'as they are': sampler.class_shares(),
        'as drawn': sampler.class_shares(sampler.order()),
    }
    order = np.argsort(bars['as they are'])
    places = np.arange(len(order))
    figure = Figure(figsize=(9, 2 + 0.36 * len(order)), layout='constrained')
    axes = figure.subplots()
    for (name, p), offset, colour in zip(
        bars.items(), (0.2, -0.2), ('#a3adb8', '#1f6f54'), strict=True
    ):
        label = f'{name}, entropy {entropy(p):.2f}'
        axes.barh(places + offset, 100 * p[order], 0.38, color=colour, label=label)
    even = f'all classes alike, entropy {np.log(len(order)):.2f} nats'
    axes.axvline(100 / len(order), color='#444444', lw=0.9, ls=':', label=even)
    titles = [textwrap.fill(sampler.classes[column], 38) for column in order]
    axes.set_yticks(places, titles, fontsize=8)
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_xlabel('share of the land cover in %')
    axes.spines[['top', 'right']].set_visible(False)
    figure.legend(frameon=False, loc='outside lower center', ncols=3, fontsize=9)
    figure.suptitle(
        f'Land cover of {used:,} samples of {shares.dataset} from '
        f'{shares.source},\nand of an epoch of {used:,} balanced '
        f'draws from them',
        fontsize=11,
    )
    return figure


def _report(shares: ClassShares, out: Path, picture: Path) -> None:
    bare = {
        'of unknown land cover, to be drawn as often as the average': np.isnan(
            shares.values[:, 0]
        ).sum(),
        'left out': (shares.values.sum(axis=1) == 0).sum(),
    }
    print(f'{out}: {len(shares)} samples, {len(shares.classes)} classes; {picture}')
    for what, count in bare.items():
        if count:
            print(f'{count} samples are {what}.')
    sums = np.nansum(shares.values, axis=0)
    absent = [
        name for name, total in zip(shares.classes, sums, strict=True) if not total
    ]
    if absent:
        print(
            f'No sample has {", ".join(map(repr, absent))}: the sampler refuses such '
            f"classes unless told absent: 'ignore'."
        )
