"""``channelmae why``: how alike two sensors' features are, depth by depth."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from ...datamodules.base import ChannelDataModule
from ...facts import data_facts
from ...files import whole
from ...models import ChannelViT
from ...models.fresh import FreshBands
from ...randomness import derive_seed
from ..bands import band_names
from ..configuration import read_datamodule
from . import similarity
from .classifiers import Protocol, check_neighbors
from .encoders import (
    UNTRAINED,
    build_encoder,
    fresh_policy,
    short_names,
    weights_to_probe,
    with_bands,
    with_known_bands,
)
from .features import Features, check_pool, choose_depths, extract, split_size
from .pages import why_figure, why_page
from .probe import check_request, labels_of, learners, learning_splits, set_up, where

RECALLS = (1, 10)
"""Ranks within which a counterpart counts as found."""

SEPARATOR = ' on '

_SENSORS = ('first', 'second')


def why(
    config: Sequence[str | Path],
    out: Path,
    weights: list[str] | None = None,
    first: str = 's2',
    second: str = 's1',
    depth: str = 'all',
    pool: str = 'mean',
    neighbors: int = 10,
    samples: int | None = 2000,
    split: str = 'test',
    probes: bool = True,
    fresh_bands: str | None = None,
    device: str = 'auto',
    precision: str = '32',
    data: dict[str, Any] | None = None,
) -> None:
    """Compare an encoder's features of two sensors that look at the same places.

    For the untrained encoder and each of the weights, before each block and after the
    last: linear probes of each sensor, debiased linear CKA between the sensors, the
    share of common nearest neighbours, and how often a place's other image is found.

    Args:
        config: Configuration of `torchgeo fit` with the encoder and paired data; repeat
            the option to override it with others. Its bands are not used.
        out: The folder to create: `why.csv`, `why.md` and `why.png`.
        weights: Checkpoints or .safetensors files in the order of training, such as
            pretrained and fine-tuned. Band embeddings that later ones lack are taken
            from earlier ones. Defaults to the configuration's weights.
        first: Bands of the first sensor, with commas, or s2, s1 or rgb.
        second: Bands of the second sensor.
        depth: Depths to compare: all, or numbers of blocks and out (after the last
            norm), with commas.
        pool: How tokens become a feature: mean, or token (the class token).
        neighbors: Number of neighbours that are compared, and that vote in probes.
        samples: Maximum number of samples of each split, drawn with the seed.
        split: Split to compare: test or val.
        probes: Whether to probe labels as well, which also reads training samples.
        fresh_bands: How bands start that no weights know: sample, index, nearest or
            random. Defaults to the configuration's, else sample.
        device: Device for the features, such as cpu or cuda.
        precision: Precision of the features: 32 or bf16.
        data: Arguments of the datamodule to override, such as --data.root FOLDER.

    Raises:
        FileExistsError: If `out` exists.
        FileNotFoundError: If a configuration, the weights or data are missing.
        ValueError: If an option does not fit, weights are of another model, or the data
            lack one of the sensors.
    """
    check_request(out, split, samples)
    if pool not in ('mean', 'token'):  # the sensors may have different numbers of bands
        raise ValueError(f'pool is {pool!r}. Use mean or token.')
    policy = fresh_policy(config, fresh_bands)
    place, plugin = where(device, precision)
    sensors = dict(zip(_SENSORS, map(band_names, (first, second)), strict=True))
    union = list(dict.fromkeys([*sensors['first'], *sensors['second']]))
    paths = weights_to_probe(config, weights)
    models, seed = sensor_encoders(config, paths, sensors, policy)
    base = next(iter(models.values()))
    check_pool(base, pool)
    depths = choose_depths(base, depth)
    datamodule, _ = read_datamodule(config, data)
    owner = type(datamodule).__name__
    if not isinstance(datamodule, ChannelDataModule):
        raise ValueError(
            f'{owner} cannot select the bands of two sensors by name. Use a datamodule '
            f'of torchgeo_channelmae.datamodules.'
        )
    datamodule, _ = read_datamodule(config, {**(data or {}), 'bands': union})
    set_up(datamodule, split)
    count = split_size(datamodule, split)
    count = min(samples or count, count)
    if count <= max(neighbors, similarity.LEAST - 1) or neighbors < 1:
        raise ValueError(
            f'neighbors is {neighbors} and there are {count} {split} places. Give at '
            f'least {similarity.LEAST} places, and fewer neighbours than places.'
        )
    read = partial(
        extract,
        {
            name: (model.to(place), [union.index(b) for b in model.bands])
            for name, model in models.items()
        },
        datamodule,
        depths=depths,
        pool=pool,  # type: ignore[arg-type]
        samples=samples,
        seed=seed,
        device=place,
        precision=plugin,
    )
    found = {split: read(split=split)}
    if probes and next(iter(found[split].values())).labels is not None:
        check_neighbors(neighbors, learners(datamodule, split, samples))
        found |= {part: read(split=part) for part in learning_splits(datamodule, split)}
    table = compare(found, split, neighbors, seed, owner)
    titles = {'first': first.upper(), 'second': second.upper()}
    facts = data_facts(datamodule)
    about = (
        f'{table["places"].iloc[0]:,} {split} places of {owner}, each seen by '
        f'{titles["first"]} and {titles["second"]}; {type(base).__name__}, seed {seed}; '
        f'bands that no weights know: {policy}.'
    )
    note = facts and facts.note
    text = why_page(table, titles, neighbors, about, note)
    with whole(out) as folder:
        folder.mkdir()
        table.to_csv(folder / 'why.csv', index=False, float_format='%.6f')
        (folder / 'why.md').write_text(text)
        why_figure(table, titles, neighbors, about, note).savefig(
            folder / 'why.png', dpi=150, metadata={'Software': None}
        )
    print(text)


def sensor_encoders(
    config: Sequence[str | Path],
    paths: Sequence[str],
    sensors: Mapping[str, Sequence[str]],
    policy: FreshBands,
) -> tuple[dict[str, ChannelViT], int]:
    """Build the encoder of a configuration for each sensor, untrained and trained.

    Args:
        config: Configurations of ``torchgeo fit``.
        paths: Weights in the order of training.
        sensors: Band names by sensor.
        policy: How bands start that no weights know.

    Returns:
        Encoders by ``'NAME on SENSOR'``, and the seed.

    Raises:
        ValueError: If the encoder has no tokens per band, or weights do not fit.
    """
    union = list(dict.fromkeys(band for bands in sensors.values() for band in bands))
    base, seed = build_encoder(config, union)
    if not isinstance(base, ChannelViT):
        raise ValueError(
            f'{type(base).__name__} always takes all bands, so it cannot see two '
            f'sensors one by one. Give a configuration of a channel-token encoder.'
        )
    models = {
        f'{UNTRAINED}{SEPARATOR}{sensor}': with_bands(base, bands)[0]
        for sensor, bands in sensors.items()
    }
    known = with_known_bands(paths)
    for name, (tensors, added) in zip(short_names(paths), known, strict=True):
        for sensor, bands in sensors.items():
            model, report = with_bands(base, bands, tensors, policy)
            models[f'{name}{SEPARATOR}{sensor}'] = model
            missing = [f'{band} ({how})' for band, how in report.fresh_bands.items()]
            missing += [f'{b} (of {added[b]})' for b in bands if b in added]
            listed = ', '.join(missing)
            print(
                f'{name}, {", ".join(bands)}: '
                + (f'not in the weights: {listed}.' if missing else 'all known.')
            )
    return models, seed


def compare(
    found: dict[str, dict[str, Features]],
    split: str,
    neighbors: int,
    seed: int,
    owner: str,
) -> pd.DataFrame:
    """Measure how alike the sensors' features are, and how well they predict labels.

    Args:
        found: Features by split and ``'NAME on SENSOR'``; with ``train`` to probe.
        split: The split to compare and score.
        neighbors: Number of neighbours that are compared and that vote.
        seed: Seed of the shuffle of pairs.
        owner: Name of the data.

    Returns:
        One row per encoder and depth, with the chance level of each measure.
    """
    places = found[split]
    names = list(dict.fromkeys(name.rpartition(SEPARATOR)[0] for name in places))
    one = next(iter(places.values()))
    n = len(one)
    shuffle = np.random.default_rng(derive_seed(seed, 'shuffled pairs')).permutation(n)
    protocol = None
    if 'train' in found:
        protocol = Protocol(labels_of(found), split, owner, neighbors)
    rows: list[dict[str, Any]] = []
    pairs = [(name, depth) for name in names for depth in one.depths]
    for name, depth in tqdm(pairs, desc='Comparing', disable=None):
        keys = {sensor: f'{name}{SEPARATOR}{sensor}' for sensor in _SENSORS}
        x, y = (places[key].depths[depth] for key in keys.values())
        row = {'encoder': name, 'depth': depth} | alikeness(x, y, shuffle, neighbors)
        for sensor, key in keys.items() if protocol else ():
            parts = {part: rows_[key].depths[depth] for part, rows_ in found.items()}
            for probe, scores in protocol.scores(parts).items():  # type: ignore[union-attr]
                row[f'{sensor}_{probe}_mAP_micro'] = scores['mAP_micro']
        rows.append(row)
    table = pd.DataFrame(rows)
    if protocol is not None:
        table['mAP_micro_chance'] = protocol.chance()['mAP_micro']
    return table.assign(places=n, neighbors=neighbors, seed=seed)


def alikeness(
    x: similarity.Floats, y: similarity.Floats, shuffle: Any, neighbors: int
) -> dict[str, Any]:
    """Measure how alike two sensors' features of the same places are.

    Args:
        x: (n, D) features of the first sensor.
        y: (n, D) features of the second.
        shuffle: (n,) permutation of the places, for the CKA of wrong pairs.
        neighbors: Number of neighbours that are compared.
    """
    n = len(x)
    row = {
        'cka': similarity.debiased_cka(x, y),
        'cka_shuffled': similarity.debiased_cka(x, y[shuffle]),
    }
    x, y = similarity.standardise(x), similarity.standardise(y)
    row['overlap'] = similarity.neighbour_overlap(x, y, neighbors)
    row['overlap_chance'] = neighbors / (n - 1)
    ranks = {
        'first_to_second': similarity.pair_ranks(x, y),
        'second_to_first': similarity.pair_ranks(y, x),
    }
    for k in RECALLS:
        for way, values in ranks.items():
            row[f'recall{k}_{way}'] = similarity.recall(values, k)
        row[f'recall{k}_chance'] = min(k / n, 1.0)
    return row
