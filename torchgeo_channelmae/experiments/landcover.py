"""``channelmae landcover``: the land-cover shares of a dataset's samples."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
from matplotlib.figure import Figure
from torchgeo.datasets import MMEarth, S2100k

from ..config import build, find_class
from ..datamodules.known_sources import find_facts
from ..datamodules.sources import Source
from ..files import refuse_existing, whole
from ..samplers import LandCoverBalancedSampler
from ..samplers.balance import entropy
from ..samplers.shares import ClassShares, Values, write_shares
from .landcover_lookup import (
    CLASSES,
    MapLookup,
    RasterLookup,
    count_shares,
    raster_values,
    read_labels,
)


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

    Writes a Parquet file with one row per sample and one column per class, which
    LandCoverBalancedSampler reads, and beside it a picture of the classes before and
    after balancing.

    Args:
        dataset: `{class_path: NAME, init_args: {...}}` of any TorchGeo dataset.
        source: Where land cover comes from. labels: the dataset's own, each label of a
            patch with the same share. worldcover or dynamic_world: the map of that
            name in MMEarth. raster: a land-cover raster at the samples' coordinates.
        out: The Parquet file to write; neither it nor the PNG may exist.
        raster: `{class_path: NAME, init_args: {...}}` of a TorchGeo RasterDataset, such
            as NLCD or Esri2020, in any coordinate reference system.
        size: Side of a sample on the ground in meters, for a raster.
        crs: Coordinate reference system of `x`, `y` and `bounds` of samples. Longitude
            and latitude need none.
        classes: Names of the raster's values, such as `{10: tree cover}`. By default
            those of a known raster; otherwise every value is a class.
        ignore: Values of the raster that are no class, beside its no-data value.
        uncovered: What to do with a sample of which less than half has a class: raise;
            drop, so that it is never drawn; or keep, so that it is drawn as often as
            the average sample.
        workers: Number of data loading processes.

    Raises:
        FileExistsError: If a file exists.
        FileNotFoundError: If data are missing.
        ValueError: If an argument is wrong, the dataset has no coordinates or a sample
            no land cover.
    """
    if out.suffix != '.parquet':
        raise ValueError(f'out is {out}. Use a name that ends in .parquet.')
    refuse_existing(out)
    picture = refuse_existing(out.with_suffix('.png'))
    _check(source, raster, size, uncovered)
    opened = _open(dataset, source)
    facts = find_facts(type(opened))
    known = None if facts.bands is None else Source(opened, facts)
    rows = np.arange(len(opened)) if known is None else known.rows
    names = None if known is None else known.column('names', rows)
    if source == 'labels':
        values, titles = read_labels(opened, rows.tolist(), workers)
    elif source == 'raster':
        land = build(raster, 'raster')
        named, ignored = raster_values(land, classes, ignore or ())
        places = None if known is None else known.places(rows)
        centers = places if places is None else dict(zip(rows, places, strict=True))
        look = RasterLookup(land, opened, centers, size, pyproj.CRS(crs), ignored)
        values, titles = count_shares(look, rows.tolist(), named, workers)
    else:
        chosen = CLASSES['maps'][source]
        own = MapLookup(opened, chosen['modality'])
        named = dict(enumerate(chosen['classes']))
        values, titles = count_shares(own, rows.tolist(), named, workers)
    kind = type(opened).__name__
    values = _settle(values, rows, uncovered, kind)
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
    figure = plot_balance(shares)  # before anything is written
    with whole(picture) as partial:
        figure.savefig(partial, dpi=150)
    write_shares(out, shares)
    _report(shares, out, picture)


def _check(source: str, raster: Any, size: float | None, uncovered: str) -> None:
    for name, value, choices in (
        ('source', source, ('labels', *CLASSES['maps'], 'raster')),
        ('uncovered', uncovered, ('raise', 'drop', 'keep')),
    ):
        if value not in choices:
            raise ValueError(
                f'Unknown {name} {value!r}. Use one of {", ".join(choices)}.'
            )
    if (source == 'raster') != (raster is not None):
        raise ValueError(f"source is {source!r}. Use raster with source 'raster' only.")
    if size is not None and size <= 0:
        raise ValueError(f'size is {size}. Use the side of a sample in meters.')


def _open(spec: dict[str, Any], source: str) -> Any:
    """Build the dataset so that it reads no more than needed."""
    kind = find_class(spec, 'dataset')
    given = dict(spec.get('init_args') or {})
    if issubclass(kind, MMEarth):  # some image, as samples without one are unknown
        given |= {'modalities': ['sentinel1_asc'], 'modality_bands': None}
    elif source in CLASSES['maps']:
        raise ValueError(
            f'source is {source!r}, but the dataset is {kind.__name__}. Only MMEarth '
            f'has this map.'
        )
    elif issubclass(kind, S2100k):
        given['mode'] = 'points'
    return build({**spec, 'init_args': given}, 'dataset')


def _settle(
    values: Values, rows: npt.NDArray[np.int64], uncovered: str, dataset: str
) -> Values:
    """Return the shares with samples without land cover as ``uncovered`` says."""
    bare = ~(values.sum(axis=1) > 0)  # NaN is not
    if bare.all() or (bare.any() and uncovered == 'raise'):
        raise ValueError(
            f'The source does not cover {bare.sum()} of {len(rows)} samples of '
            f'{dataset}, such as sample {rows[bare.argmax()]}. Use another source, or '
            f'uncovered drop or keep.'
        )
    if uncovered == 'drop':
        values[bare] = 0
    return values


def plot_balance(shares: ClassShares) -> Figure:
    """Plot the shares of the classes as they are and in a balanced epoch.

    Args:
        shares: The shares of a dataset.

    Returns:
        The figure: two bars per class, the most common on top.
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
        'of unknown land cover, drawn as often as the average': np.isnan(
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
            f"No sample has {', '.join(map(repr, absent))}. Use the sampler's absent: "
            f"'ignore'."
        )
