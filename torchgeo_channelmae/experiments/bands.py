"""``channelmae bands``: how much the bands of one sensor tell of another's.

The paper's figure 4: Sentinel-2 against Sentinel-1.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch.utils.data import ConcatDataset
from tqdm import tqdm

from .. import sensors
from ..datamodules import BigEarthNetS1S2DataModule
from ..randomness import derive_seed, generator
from .configuration import read_datamodule
from .dependence import MEASURES, Floats, dependence

_SENSORS = {
    's2': sensors.names(sensors.SENTINEL2_L2A),
    's1': sensors.names(sensors.SENTINEL1_GRD),
    'rgb': ('B04', 'B03', 'B02'),
}
_TITLES = ('Pearson correlation', 'Spearman correlation', 'mutual information, nats')
_LEAST = 100  # pixels


def bands(
    out: Path,
    training: Path | None = None,
    root: str | None = None,
    first: str = 's2',
    second: str = 's1',
    resolution: str = '10',
    samples: int = 2000,
    pixels: int = 20000,
    neighbors: int = 3,
    seed: int = 0,
) -> None:
    """Measure how much the bands of one sensor tell of another's, and draw it.

    Every band of the one against every band of the other: Pearson and Spearman
    correlation and mutual information (in nats, from nearest neighbours), and beside
    each its value for shuffled pairs, which is what the estimate gives for bands that
    do not depend on each other. Radar is in decibels, reflectance in digital numbers.

    Args:
        out: The folder to make: `bands.csv`, `bands.png` and `bands.md`.
        training: Configuration of `torchgeo fit` whose patches are read. Defaults to
            BigEarthNet.
        root: Folder of the data. Defaults to the bundled sample.
        first: Bands of the one sensor, with commas, or s2, s1 or rgb.
        second: Bands of the other.
        resolution: Side of a pixel in m, to which bands are averaged, or `patch` for
            the mean of a patch. Bands that are coarser are repeated.
        samples: Patches to read at most, drawn with the seed.
        pixels: Pixels to measure, as many of each patch.
        neighbors: Neighbours of the estimate of mutual information.
        seed: Seed of all draws.

    Raises:
        FileExistsError: If `out` exists.
        FileNotFoundError: If data are missing.
        ValueError: If an option does not fit, or too few pixels have data.
    """
    if out.exists():
        raise FileExistsError(f'{out} exists: give another out, or move it away.')
    metres = _metres(resolution)
    if min(samples, pixels, neighbors) < 1:
        raise ValueError(
            f'samples, pixels and neighbors are {samples}, {pixels} and {neighbors}: '
            f'give at least 1.'
        )
    names = [band_names(first), band_names(second)]
    wanted = list(dict.fromkeys([*names[0], *names[1]]))
    dataset = _dataset(training, root, wanted)
    values, patches = _pixels(dataset, wanted, metres, samples, pixels, seed)
    finite = np.isfinite(values).all(axis=1)
    if finite.sum() < _LEAST:
        raise ValueError(
            f'{int(finite.sum())} pixels of {patches} patches have data in all bands: '
            f'{_LEAST} are needed; give more samples or a finer resolution.'
        )
    columns = dict(zip(wanted, values[finite].T, strict=True))
    table = measure(columns, names[0], names[1], neighbors, seed)
    table['pixels'] = int(finite.sum())
    table['patches'] = patches
    table['resolution'] = resolution
    table['seed'] = seed
    note = (
        f'{int(finite.sum()):,} pixels of {patches:,} patches at '
        f'{"patch means" if metres is None else f"{metres:g} m"}; in brackets: '
        f'shuffled pairs. {int((~finite).sum()):,} pixels without data left out.'
    )
    picture = io.BytesIO()
    heat_maps(table, note).savefig(
        picture, format='png', dpi=160, metadata={'Software': None}
    )
    out.mkdir(parents=True)
    table.to_csv(out / 'bands.csv', index=False, float_format='%.6f')
    (out / 'bands.png').write_bytes(picture.getvalue())
    (out / 'bands.md').write_text(_page(table, note))
    print(f'{note}\n{len(table)} pairs of bands are in {out}')


def measure(
    columns: dict[str, Floats],
    first: Sequence[str],
    second: Sequence[str],
    neighbors: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure all pairs of bands, as they are and shuffled.

    Args:
        columns: (n,) values of each band.
        first: Names of the one sensor's bands.
        second: Names of the other's.
        neighbors: Neighbours of the estimate of mutual information.
        seed: Seed of the shuffle.

    Returns:
        A row a pair: ``first``, ``second``, the measures, and each again with
        ``_shuffled``.
    """
    rows = []
    draw = np.random.default_rng(derive_seed(seed, 'shuffled pairs'))
    order = draw.permutation(len(next(iter(columns.values()))))
    for one in first:
        for other in second:
            x, y = columns[one], columns[other]
            found = dependence(x, y, neighbors, seed)
            chance = dependence(x, y[order], neighbors, seed)
            rows.append(
                {
                    'first': one,
                    'second': other,
                    **{name: getattr(found, name) for name in MEASURES},
                    **{f'{name}_shuffled': getattr(chance, name) for name in MEASURES},
                }
            )
    return pd.DataFrame(rows)


def heat_maps(table: pd.DataFrame, note: str) -> Figure:
    """Draw the measures of all pairs, a panel each.

    Args:
        table: What :func:`measure` returned.
        note: Text below.
    """
    first = list(map(str, dict.fromkeys(table['first'])))
    second = list(map(str, dict.fromkeys(table['second'])))
    drawing = Figure(
        figsize=(2.2 + 3 * (0.75 * len(second) + 0.7), 1.6 + 0.36 * len(first)),
        layout='constrained',
    )
    panels = drawing.subplots(1, 3, sharey=True)
    for panel, name, title in zip(panels, MEASURES, _TITLES, strict=True):
        grid = table.pivot(index='first', columns='second', values=name)
        values = grid.loc[first, second].to_numpy()
        chance = table.pivot(index='first', columns='second', values=f'{name}_shuffled')
        shuffled = chance.loc[first, second].to_numpy()
        signed = name != 'mutual_information'
        top = 1.0 if signed else max(float(np.nanmax(values)), 0.1)
        image = panel.imshow(
            values,
            cmap='RdBu_r' if signed else 'viridis',
            vmin=-1 if signed else 0,
            vmax=top,
            aspect='auto',
        )
        for row in range(len(first)):
            for column in range(len(second)):
                value = values[row, column]
                strong = abs(value) > 0.6 * top
                bright = strong if not signed else not strong
                panel.text(
                    column,
                    row,
                    f'{value:.2f} ({round(shuffled[row, column], 2) + 0.0:.2f})',
                    ha='center',
                    va='center',
                    fontsize=7,
                    color='black' if bright else 'white',
                )
        panel.set_xticks(range(len(second)), second, fontsize=8)
        panel.set_yticks(
            range(len(first)), [_label(band) for band in first], fontsize=8
        )
        panel.set_title(title, fontsize=9)
        drawing.colorbar(image, ax=panel, shrink=0.8).ax.tick_params(labelsize=7)
    drawing.supxlabel(note, fontsize=7)
    return drawing


def _label(band: str) -> str:
    known = sensors.find(band)
    if known is None or known.wavelength is None:
        return band
    return f'{band} ({known.wavelength:g} nm)'


def _page(table: pd.DataFrame, note: str) -> str:
    lines = [
        '# How much one band tells of another',
        '',
        note,
        '',
        '| | | Pearson | Spearman | mutual information, nats |',
        '| -- | -- | --: | --: | --: |',
    ]
    for row in table.to_dict('records'):
        cells = [f'{row[m]:.3f} ({row[f"{m}_shuffled"]:.3f})' for m in MEASURES]
        lines.append(f'| {row["first"]} | {row["second"]} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def _metres(resolution: str) -> float | None:
    if resolution == 'patch':
        return None
    try:
        metres = float(resolution)
    except ValueError:
        metres = 0.0
    if not 10 <= metres <= 1200:
        raise ValueError(
            f'resolution is {resolution!r}: give metres from 10, such as 10, 20 or 60, '
            f'or patch.'
        )
    return metres


def band_names(text: str) -> tuple[str, ...]:
    """Read names of bands as a user writes them.

    Args:
        text: Names with commas, or s2, s1 or rgb.

    Raises:
        ValueError: If one is no band.
    """
    names = _SENSORS.get(text.lower()) or tuple(n.strip() for n in text.split(','))
    known = sensors.SENTINEL2_L1C + sensors.SENTINEL2_L2A + sensors.SENTINEL1_GRD
    for name in names:
        if name not in sensors.names(known):
            raise ValueError(
                f'{name!r} is no band: give s2, s1 or rgb, or names such as B04,B08 '
                f'or VV,VH.'
            )
    return names


def _dataset(training: Path | None, root: str | None, wanted: list[str]) -> Any:
    """All patches of the data, as stored."""
    if training is None:
        datamodule: Any = BigEarthNetS1S2DataModule(
            root=root, bands=wanted, batch_size=1
        )
    else:
        changes = {'bands': wanted, 'batch_size': 1, **({'root': root} if root else {})}
        datamodule, _ = read_datamodule([training], changes)
    datamodule.prepare_data()
    datamodule.setup('fit')
    if not isinstance(datamodule, BigEarthNetS1S2DataModule):
        return datamodule.train_dataset
    splits = ('train', 'val', 'test')
    parts: list[Any] = [datamodule.make_dataset(s, native=True) for s in splits]
    return ConcatDataset(parts)


def _pixels(
    dataset: Any,
    wanted: Sequence[str],
    metres: float | None,
    samples: int,
    pixels: int,
    seed: int,
) -> tuple[Floats, int]:
    """Draw as many pixels of each patch; (n, bands) values, and how many patches."""
    order = torch.randperm(len(dataset), generator=generator(seed, 'patches'))
    chosen = order[:samples].sort().values.tolist()
    if not chosen:
        raise ValueError('The data have no patch.')
    each = -(-pixels // len(chosen))
    parts = []
    for index in tqdm(chosen, desc='Reading patches', disable=None):
        sample = dataset[index]
        if 'skipped' in sample:
            continue
        grid = torch.cat(list(_on_grid(sample, wanted, metres)))  # (bands, h, w)
        values = grid.flatten(1)
        draw = generator(seed, 'pixels', index)
        places = torch.randperm(values.shape[1], generator=draw)[:each]
        parts.append(values[:, places].T.double().numpy())
    return np.concatenate(parts), len(parts)


def _on_grid(
    sample: dict[str, Any], wanted: Sequence[str], metres: float | None
) -> Iterator[torch.Tensor]:
    """Each band of a sample on one grid, (1, h, w), in the order wanted."""
    groups = sample.get('native') or {tuple(wanted): sample['image']}
    stored = {
        band: torch.as_tensor(np.asarray(layer, dtype=np.float32))
        for names, stack in groups.items()
        for band, layer in zip(names, np.asarray(stack), strict=True)
    }
    finest = max(layer.shape[0] for layer in stored.values())
    extent = 10.0 * finest  # m; the finest bands have 10 m
    side = 1 if metres is None else max(1, round(extent / metres))
    for band in wanted:
        layer = stored[band][None, None]
        if layer.shape[-1] > side:
            yield F.adaptive_avg_pool2d(layer, side)[0]
        else:
            yield F.interpolate(layer, size=(side, side), mode='nearest')[0]
