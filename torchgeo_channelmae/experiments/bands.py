"""``channelmae bands``: how two sensors' bands depend on each other (paper, fig. 4)."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveFloat, PositiveInt
from matplotlib.figure import Figure
from sklearn.feature_selection import mutual_info_regression
from torch import Tensor
from torch.utils.data import ConcatDataset
from tqdm import tqdm

from .. import sensors
from ..datamodules import BigEarthNetS1S2DataModule
from ..files import refuse_existing
from ..plotting import wrap
from ..randomness import derive_seed, generator
from .configuration import read_datamodule
from .report import markdown, write_folder

_SENSORS = {
    's2': sensors.SENTINEL2_L2A,
    's1': sensors.SENTINEL1_GRD,
    'rgb': sensors.RGB,
}
_MEASURES = {
    'pearson': 'Pearson correlation',
    'spearman': 'Spearman correlation',
    'mutual_information': 'mutual information, nats',
}
_LEAST = 100  # pixels


def bands(
    out: Path,
    training: Path | None = None,
    root: str | None = None,
    first: str = 's2',
    second: str = 's1',
    resolution: Literal['patch'] | PositiveFloat = 10,
    samples: PositiveInt = 2000,
    pixels: PositiveInt = 20000,
    neighbors: PositiveInt = 3,
    seed: int = 0,
) -> None:
    """Measure how strongly the bands of two sensors depend on each other, and draw it.

    Every band of the first sensor against every band of the second: Pearson and
    Spearman correlation and mutual information (in nats, from nearest neighbors), each
    beside its value for shuffled pairs, the estimate for independent bands. Radar is in
    decibels, reflectance in digital numbers.

    Args:
        out: The folder to make: `bands.csv`, `bands.png` and `bands.md`.
        training: Configuration of `torchgeo fit` with the data. Defaults to
            BigEarthNet.
        root: Folder of the data. Defaults to the bundled sample.
        first: Bands of the first sensor, with commas, or s2, s1 or rgb.
        second: Bands of the second sensor.
        resolution: Pixel size in m to which bands are averaged, or `patch` for the mean
            of a patch. Coarser bands are repeated.
        samples: Maximum number of patches, drawn with the seed.
        pixels: Number of pixels to measure, equally many of each patch.
        neighbors: Number of neighbors of the estimate of mutual information.
        seed: Seed of all draws.

    Raises:
        FileExistsError: If `out` exists.
        FileNotFoundError: If data are missing.
        ValueError: If an option does not fit, or too few pixels have data.
    """
    refuse_existing(out)
    names = band_names(first), band_names(second)
    wanted = list(dict.fromkeys([*names[0], *names[1]]))
    meters = None if resolution == 'patch' else resolution
    dataset = _dataset(training, root, wanted)
    values, patches = _pixels(dataset, wanted, meters, samples, pixels, seed)
    known = values.replace([np.inf, -np.inf], np.nan).dropna()
    if len(known) < _LEAST:
        raise ValueError(
            f'Only {len(known)} pixels have data. Use more samples or finer resolution.'
        )
    table = measure(known, *names, neighbors, seed).assign(
        pixels=len(known), patches=patches, resolution=resolution, seed=seed
    )
    size = 'patch means' if meters is None else f'{meters:g} m'
    note = (
        f'{len(known):,} pixels of {patches:,} patches at {size}; in brackets: '
        f'shuffled pairs. {len(values) - len(known):,} pixels without data left out.'
    )
    cells = table[['first', 'second']].rename(columns={'first': '', 'second': ' '})
    for name, title in _MEASURES.items():
        cells[title] = _cells(table, name, 3)
    page = '# How strongly bands depend on each other', note, markdown(cells, 3)
    write_folder(out, 'bands', table, '\n\n'.join(page) + '\n', heat_maps(table, note))
    print(f'{note}\n{len(table)} pairs of bands are in {out}')


def _cells(table: pd.DataFrame, name: str, digits: int) -> list[str]:
    pairs = zip(table[name], table[f'{name}_shuffled'], strict=True)
    return [f'{value:z.{digits}f} ({chance:z.{digits}f})' for value, chance in pairs]


def band_names(text: str) -> tuple[str, ...]:
    """Parse names of bands, separated by commas, or s2, s1 or rgb."""
    if text.lower() in _SENSORS:
        return sensors.names(_SENSORS[text.lower()])
    names = tuple(name.strip() for name in text.split(','))
    for name in names:
        if sensors.find(name) is None:
            raise ValueError(
                f'{name!r} is not a band. Use s2, s1, rgb, or names such as B04,VV.'
            )
    return names


def measure(
    values: pd.DataFrame,
    first: Sequence[str],
    second: Sequence[str],
    neighbors: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure all pairs of bands, as they are and shuffled with the seed.

    Mutual information is estimated from nearest neighbors (Kraskov et al., 2004,
    https://doi.org/10.1103/PhysRevE.69.066138); more of them reduce its variance and
    increase its bias. Correlations of a constant band are NaN.

    The values have one row per pixel and one column per band; the result has one row
    per pair: ``first``, ``second``, the measures, and each again with ``_shuffled``.
    """
    draw = np.random.default_rng(derive_seed(seed, 'shuffled pairs'))
    values = values.reset_index(drop=True)
    shuffled = values.iloc[draw.permutation(len(values))].reset_index(drop=True)
    rows = []
    for one, other in itertools.product(first, second):
        found = dependence(values[one], values[other], neighbors, seed)
        chance = dependence(values[one], shuffled[other], neighbors, seed)
        chance = {f'{name}_shuffled': value for name, value in chance.items()}
        rows.append({'first': one, 'second': other, **found, **chance})
    return pd.DataFrame(rows)


def dependence(
    x: pd.Series, y: pd.Series, neighbors: int = 3, seed: int = 0
) -> dict[str, float]:
    """Return the Pearson and Spearman correlation and mutual information (nats)."""
    information = mutual_info_regression(
        x.to_frame(), y, n_neighbors=neighbors, random_state=seed
    )
    return {
        'pearson': x.corr(y),
        'spearman': x.corr(y, method='spearman'),
        'mutual_information': float(information[0]),
    }


def heat_maps(table: pd.DataFrame, note: str) -> Figure:
    """Draw one panel per measure, with the values of shuffled pairs in brackets."""
    first, second = table['first'].unique(), table['second'].unique()
    width = 1.0 + 3 * (0.75 * len(second) + 0.4)
    figure = Figure(figsize=(width, 1.6 + 0.36 * len(first)), layout='constrained')
    panels = figure.subplots(1, len(_MEASURES), sharey=True)
    for panel, (name, title) in zip(panels, _MEASURES.items(), strict=True):
        values = table[name].to_numpy().reshape(len(first), len(second))
        signed = name != 'mutual_information'
        colors = {'cmap': 'RdBu_r', 'vmin': -1, 'vmax': 1} if signed else {'vmin': 0}
        panel.imshow(values, aspect='auto', alpha=0.6, **colors)
        for number, text in enumerate(_cells(table, name, 2)):
            row, column = divmod(number, len(second))
            panel.text(column, row, text, ha='center', va='center', fontsize=7)
        panel.set_xticks(range(len(second)), second, fontsize=8)
        panel.set_yticks(range(len(first)), first, fontsize=8)
        panel.set_title('\n'.join(wrap(title, width / 3, 8)), fontsize=8)
    figure.supxlabel('\n'.join(wrap(note, width, 7)), fontsize=7)
    return figure


def _dataset(training: Path | None, root: str | None, wanted: list[str]) -> Any:
    """Return all patches of the data, as stored."""
    changes: dict[str, Any] = {'bands': wanted, 'batch_size': 1}
    changes |= {'root': root} if root else {}
    if training is None:
        datamodule: Any = BigEarthNetS1S2DataModule(**changes)
    else:
        datamodule, _ = read_datamodule([training], changes)
    datamodule.prepare_data()
    datamodule.setup('fit')
    if not isinstance(datamodule, BigEarthNetS1S2DataModule):
        return datamodule.train_dataset
    splits = ('train', 'val', 'test')
    return ConcatDataset([datamodule.make_dataset(s, native=True) for s in splits])


def _pixels(
    dataset: Any,
    bands: list[str],
    meters: float | None,
    samples: int,
    pixels: int,
    seed: int,
) -> tuple[pd.DataFrame, int]:
    """Draw equally many pixels of each patch; return them and the number of patches."""
    order = torch.randperm(len(dataset), generator=generator(seed, 'patches'))
    chosen = order[:samples].sort().values.tolist()
    each = -(-pixels // len(chosen))
    parts = []
    for index in tqdm(chosen, desc='Reading patches', disable=None):
        sample = dataset[index]
        if 'skipped' not in sample:
            values = one_grid(sample, bands, meters).flatten(1)
            draw = generator(seed, 'pixels', index)
            places = torch.randperm(values.shape[1], generator=draw)[:each]
            parts.append(values[:, places].T.double().numpy())
    rows = np.concatenate(parts) if parts else None
    return pd.DataFrame(rows, columns=bands), len(parts)


def one_grid(
    sample: dict[str, Any], wanted: Sequence[str], meters: float | None
) -> Tensor:
    """Bring the C wanted bands of a sample to one grid, (C, h, w) float32.

    A sample has ``native`` pixels by names of bands, each at its own resolution, or an
    ``image`` (C, H, W) of the wanted bands at 10 m. Finer bands are averaged to pixels
    of this size in meters, or to one pixel if it is None.
    """
    native = sample.get('native') or {tuple(wanted): sample['image']}
    groups = {
        names: torch.as_tensor(np.asarray(stack, dtype=np.float32))
        for names, stack in native.items()
    }
    finest = max(groups, key=lambda names: groups[names].shape[-1])
    known = sensors.find(finest[0]) if 'native' in sample else None
    extent = groups[finest].shape[-1] * (known.resolution if known else 10.0)  # m
    side = 1 if meters is None else max(1, round(extent / meters))
    layers: dict[str, Tensor] = {}
    for names, stack in groups.items():
        averaged = F.adaptive_avg_pool2d(stack, min(side, stack.shape[-1]))
        resized = F.interpolate(averaged[None], (side, side))[0]
        layers |= zip(names, resized, strict=True)
    return torch.stack([layers[band] for band in wanted])
