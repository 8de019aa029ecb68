"""``channelmae landcover``: the land-cover shares of a dataset's samples."""

import textwrap
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyproj
from jsonargparse.typing import PositiveFloat
from matplotlib.figure import Figure
from torchgeo.datasets import MMEarth, S2100k

from ..config import build, find_class
from ..datamodules.known_sources import find_facts
from ..datamodules.sources import Source
from ..files import refuse_existing, whole
from ..samplers import LandCoverBalancedSampler
from ..samplers.balance import entropy
from ..samplers.shares import ClassShares, Values, write_shares
from . import landcover_lookup as lookup


def landcover(
    dataset: dict[str, Any],
    source: Literal['labels', 'worldcover', 'dynamic_world', 'raster'],
    out: Path,
    raster: dict[str, Any] | None = None,
    size: PositiveFloat | None = None,
    crs: str = 'EPSG:4326',
    classes: dict[int, str] | None = None,
    ignore: list[int] | None = None,
    uncovered: Literal['raise', 'drop', 'keep'] = 'raise',
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
    refuse_existing(out)
    picture = refuse_existing(out.with_suffix('.png'))
    if (source == 'raster') != (raster is not None):
        raise ValueError(f'source is {source!r}. Use raster with source raster only.')
    opened = _open(dataset, source)
    facts = find_facts(type(opened))
    known = None if facts.bands is None else Source(opened, facts)
    rows = np.arange(len(opened)) if known is None else known.rows
    if source == 'labels':
        values, titles = lookup.read_labels(opened, rows.tolist(), workers)
    elif source == 'raster':
        land = build(raster, 'raster')
        named, ignored = lookup.raster_values(land, classes, ignore or ())
        places = None if known is None else known.places(rows)
        samples = opened
        if places is not None:
            spots = [{'lon': lon, 'lat': lat} for lon, lat in places]
            samples = dict(zip(rows, spots, strict=True))
        look = lookup.RasterLookup(land, samples, size, pyproj.CRS(crs), ignored)
        values, titles = lookup.count_shares(look, rows.tolist(), named, workers)
    else:
        own = lookup.CLASSES['maps'][source]
        named = dict(enumerate(own['classes']))
        counts = lookup.map_lookup(opened, own['modality'])
        values, titles = lookup.count_shares(counts, rows.tolist(), named, workers)
    values = _settle(values, rows, uncovered, type(opened).__name__)
    everything = np.zeros((len(opened), len(titles)), dtype=np.float32)
    everything[rows] = values
    names, ids = None if known is None else known.column('names', rows), None
    if names is not None:
        ids = np.full(len(opened), '', dtype=names.dtype)
        ids[rows] = names
    shares = ClassShares(
        values=everything,
        classes=titles,
        source=source if raster is None else f'{source} {raster["class_path"]}',
        dataset=type(opened).__name__,
        uses_labels=source == 'labels',
        patch_ids=ids,
    )
    figure = plot_balance(shares)  # before anything is written
    with whole(picture) as partial:
        figure.savefig(partial, dpi=150)
    write_shares(out, shares)
    print(f'{out}: {len(shares)} samples, {len(titles)} classes; {picture}')
    print(f'{np.isnan(values[:, 0]).sum()} samples are of unknown land cover.')
    print(f'{(everything.sum(axis=1) == 0).sum()} samples are left out.')
    sums = np.nansum(everything, axis=0)
    absent = [name for name, total in zip(titles, sums, strict=True) if not total]
    if absent:
        missing = ', '.join(absent)
        print(f'No sample has {missing}. Set absent of the sampler to ignore.')


def _open(spec: dict[str, Any], source: str) -> Any:
    """Build the dataset so that it reads no more than needed."""
    kind = find_class(spec, 'dataset')
    given = dict(spec.get('init_args') or {})
    if issubclass(kind, MMEarth):  # some image, as samples without one are unknown
        given |= {'modalities': ['sentinel1_asc'], 'modality_bands': None}
    elif source in lookup.CLASSES['maps']:
        raise ValueError(
            f'source is {source!r}, but the dataset is {kind.__name__}. Only MMEarth '
            f'has this map.'
        )
    elif issubclass(kind, S2100k):
        given['mode'] = 'points'
    return build({**spec, 'init_args': given}, 'dataset')


def _settle(values: Values, rows: Any, uncovered: str, dataset: str) -> Values:
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
    """Plot the shares of the classes as they are and in a balanced epoch."""
    used = int((shares.values.sum(axis=1) != 0).sum())  # NaN is not
    sampler = LandCoverBalancedSampler(
        range(len(shares)), shares, samples_per_epoch=used, absent='ignore'
    )
    bars = {
        'as drawn': sampler.class_shares(sampler.order()),
        'as they are': sampler.class_shares(),
    }
    titles = [textwrap.fill(name, 38) for name in sampler.classes]
    table = 100 * pd.DataFrame(bars, index=titles).sort_values(by='as they are')
    table.columns = [f'{name}, entropy {entropy(p):.2f}' for name, p in bars.items()]
    figure = Figure(figsize=(9, 2 + 0.36 * len(table)), layout='constrained')
    axes = figure.subplots()
    even = f'all classes alike, entropy {np.log(len(table)):.2f} nats'
    axes.axvline(100 / len(table), color='#444444', lw=0.9, ls=':', label=even)
    colors: Any = ['#1f6f54', '#a3adb8']
    table.plot.barh(ax=axes, color=colors, width=0.78, fontsize=8, legend=False)
    axes.set_xlabel('share of the land cover in %')
    axes.spines[['top', 'right']].set_visible(False)
    figure.legend(frameon=False, loc='outside lower center', ncols=3, fontsize=9)
    figure.suptitle(
        f'Land cover of {used:,} samples of {shares.dataset} from {shares.source},\n'
        f'and of an epoch of {used:,} balanced draws from them',
        fontsize=11,
    )
    return figure
