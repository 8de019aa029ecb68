"""``channelmae why``: how alike two sensors' features are, depth by depth."""

import itertools
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jsonargparse.typing import PositiveInt
from tqdm import tqdm

from ...datamodules.base import ChannelDataModule
from ...facts import data_facts
from ...files import refuse_existing
from ...models import ChannelViT
from ...models.fresh_bands import FreshBands
from ...randomness import derive_seed
from ..bands import band_names
from ..configuration import configured, read_datamodule
from ..report import write_folder
from . import similarity
from .classifiers import Protocol
from .encoders import (
    UNTRAINED,
    build_encoder,
    weights_to_probe,
    with_bands,
    with_known_bands,
)
from .features import Extraction, Features, Floats, extract_splits
from .pages import why_figure, why_page
from .probe import set_up

RECALLS = (1, 10)
"""Ranks within which a counterpart counts as found."""


def why(
    config: Sequence[str | Path],
    out: Path,
    weights: list[str] | None = None,
    first: str = 's2',
    second: str = 's1',
    depth: str = 'all',
    pool: Literal['mean', 'token'] = 'mean',
    neighbors: PositiveInt = 10,
    samples: PositiveInt | None = 2000,
    split: Literal['test', 'val'] = 'test',
    probes: bool = True,
    fresh_bands: FreshBands | None = None,
    device: str = 'auto',
    precision: Literal['32', 'bf16'] = '32',
    data: dict[str, Any] | None = None,
) -> None:
    """Compare an encoder's features of two sensors that look at the same places.

    For the untrained encoder and each of the weights, before each block and after the
    last: linear probes of each sensor, debiased linear CKA between the sensors, the
    share of common nearest neighbors, and how often a place's other image is found.

    Args:
        config: Configuration of `torchgeo fit` with the encoder and paired data; repeat
            the option to override it with others. Its bands are not used.
        out: The folder to make: `why.csv`, `why.md` and `why.png`.
        weights: Checkpoints or .safetensors files in the order of training, such as
            pretrained and fine-tuned. Band embeddings that later ones lack come from
            earlier ones. Defaults to the configuration's weights.
        first: Bands of the first sensor, with commas, or s2, s1 or rgb.
        second: Bands of the second sensor.
        depth: Depths to compare: all, or numbers of blocks and out (after the last
            norm), with commas.
        pool: How tokens become a feature: mean, or token (the class token).
        neighbors: Number of neighbors that are compared, and that vote in probes.
        samples: Maximum number of samples of each split, drawn with the seed.
        split: Split to compare: test or val.
        probes: Whether to probe labels as well, which also reads training samples.
        fresh_bands: How bands start that no weights know: sample, index, nearest or
            random. Defaults to the configuration's, else sample.
        device: Device for the features: auto, cpu, cuda or mps.
        precision: Precision of the features: 32 or bf16.
        data: Arguments of the datamodule to override, such as --data.root FOLDER.

    Raises:
        FileExistsError: If `out` exists.
        FileNotFoundError: If a configuration, the weights or data are missing.
        ValueError: If an option does not fit, weights are of another model, or the data
            lack one of the sensors.
    """
    refuse_existing(out)
    policy = fresh_bands or configured(config, 'model', 'fresh_bands') or 'sample'
    sensors = {'first': band_names(first), 'second': band_names(second)}
    union = list(dict.fromkeys([*sensors['first'], *sensors['second']]))
    paths = weights_to_probe(config, weights)
    models, seed = sensor_encoders(config, paths, sensors, policy)
    datamodule, _ = read_datamodule(config, {**(data or {}), 'bands': union})
    owner = type(datamodule).__name__
    if not isinstance(datamodule, ChannelDataModule):
        raise ValueError(
            f'{owner} cannot select bands. Use one of torchgeo_channelmae.datamodules.'
        )
    learn = set_up(datamodule, split)
    how = Extraction(depth, pool, samples, seed, device, precision)
    parts = [split, *learn] if probes else [split]
    found = extract_splits(models, datamodule, parts, how)
    table = compare(found, split, neighbors, seed, owner)
    titles = first.upper(), second.upper()
    about = (
        f'{table["places"].iloc[0]:,} {split} places of {owner}, each seen by '
        f'{" and ".join(titles)}; {neighbors} neighbors; seed {seed}; bands that no '
        f'weights know: {policy}.'
    )
    page = table, titles, about, getattr(data_facts(datamodule), 'note', None)
    text = why_page(*page)
    write_folder(out, 'why', table, text, why_figure(*page))
    print(text)


def sensor_encoders(
    config: Sequence[str | Path],
    paths: Sequence[str],
    sensors: Mapping[str, Sequence[str]],
    policy: FreshBands,
) -> tuple[dict[Hashable, ChannelViT], int]:
    """Build encoders by (name, sensor), untrained and trained, and return the seed too.

    Paths of weights are in the order of training; the policy says how bands start that
    no weights know.
    """
    union = list(dict.fromkeys(band for bands in sensors.values() for band in bands))
    base, seed = build_encoder(config, union)
    if not isinstance(base, ChannelViT):
        raise ValueError(
            f'{type(base).__name__} needs all bands. Use a channel-token encoder.'
        )
    models: dict[Hashable, ChannelViT] = {
        (UNTRAINED, sensor): with_bands(base, bands)[0]
        for sensor, bands in sensors.items()
    }
    for path, (tensors, added) in zip(paths, with_known_bands(paths), strict=True):
        for sensor, bands in sensors.items():
            models[path, sensor], report = with_bands(base, bands, tensors, policy)
            earlier = {band: f'of {added[band]}' for band in bands if band in added}
            missing = (report.fresh_bands | earlier).items()
            listed = ', '.join(f'{band} ({how})' for band, how in missing) or 'none'
            print(f'{path}, {", ".join(bands)}: not in the weights: {listed}.')
    return models, seed


def compare(
    found: Mapping[str, Mapping[Any, Features]],
    split: str,
    neighbors: int,
    seed: int,
    owner: str,
) -> pd.DataFrame:
    """Measure how alike the sensors' features are, and how well they predict labels.

    Features are by split and (name, sensor); only with the split ``train`` are labels
    probed. The seed shuffles pairs. The table has one row per encoder and depth, with
    the chance level of each measure.
    """
    base = {part: next(iter(rows.values())) for part, rows in found.items()}
    n = len(base[split])
    if n <= max(neighbors, similarity.LEAST - 1):
        raise ValueError(
            f'neighbors is {neighbors}, but there are {n} {split} places. Compare at '
            f'least {similarity.LEAST} places, and more than neighbors.'
        )
    shuffle = np.random.default_rng(derive_seed(seed, 'shuffled pairs')).permutation(n)
    protocol = None
    if 'train' in found and base[split].labels is not None:
        labels = {part: features.labels for part, features in base.items()}
        protocol = Protocol(labels, split, owner, neighbors)
    names = dict.fromkeys(name for name, _ in found[split])
    pairs = list(itertools.product(names, base[split].depths))
    table: list[dict[str, Any]] = []
    for name, depth in tqdm(pairs, desc='Comparing', disable=None):
        seen = {
            sensor: {part: f[name, sensor].depths[depth] for part, f in found.items()}
            for sensor in ('first', 'second')
        }
        x, y = (parts[split] for parts in seen.values())
        row = {'encoder': name, 'depth': depth, **alikeness(x, y, shuffle, neighbors)}
        if protocol is not None:
            row['mAP_micro_chance'] = protocol.chance()['mAP_micro']
            for sensor, parts in seen.items():
                for probe, values in protocol.scores(parts).items():
                    row[f'{sensor}_{probe}_mAP_micro'] = values['mAP_micro']
        table.append(row)
    return pd.DataFrame(table).assign(places=n, neighbors=neighbors, seed=seed)


def alikeness(x: Floats, y: Floats, shuffle: Any, neighbors: int) -> dict[str, float]:
    """Measure how alike two sensors' (n, D) features are, with the chance levels.

    ``shuffle`` is an (n,) permutation of the places, for the CKA of wrong pairs.
    """
    n = len(x)
    row = {
        'cka': similarity.debiased_cka(x, y),
        'cka_shuffled': similarity.debiased_cka(x, y[shuffle]),
    }
    x, y = similarity.standardize(x), similarity.standardize(y)
    row['overlap'] = similarity.neighbor_overlap(x, y, neighbors)
    row['overlap_chance'] = neighbors / (n - 1)
    forth, back = similarity.pair_ranks(x, y), similarity.pair_ranks(y, x)
    for k in RECALLS:
        row[f'recall{k}_first_to_second'] = float((forth <= k).mean())
        row[f'recall{k}_second_to_first'] = float((back <= k).mean())
        row[f'recall{k}_chance'] = min(k / n, 1.0)
    return row
