"""``channelmae why``: how alike two sensors' features are, depth by depth."""

import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from ...datamodules.base import ChannelDataModule
from ...models import ChannelViT
from ...models.weights import FreshBands
from ...randomness import derive_seed
from ..bands import band_names
from ..configuration import read_datamodule
from . import similarity
from .encoders import (
    UNTRAINED,
    build_encoder,
    short_names,
    weights_to_probe,
    with_bands,
    with_known_bands,
)
from .features import Features, check_pool, extract, split_size
from .protocol import Protocol
from .request import (
    check_request,
    chosen_depths,
    fresh_policy,
    learners,
    learning_splits,
    set_up,
    where,
)
from .why_page import figure, page

_POOLS = ('mean', 'token')  # bands of two sensors are not of one number

RECALLS = (1, 10)
"""Among how many nearest a partner is looked for."""

Sensors = Mapping[str, Sequence[str]]


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
    last: linear probes of each sensor, debiased linear CKA between the sensors, how
    many nearest neighbours they share, and how often a place's other image is found.

    Args:
        config: Configuration of `torchgeo fit` for the encoder and paired data; give
            the option again for each that is laid over it. Its bands are not used.
        out: The folder to make: `why.csv`, `why.md` and `why.png`.
        weights: Checkpoints or .safetensors files in the order in which they were
            trained, such as pretrained and fine-tuned. Band embeddings that later ones
            lack are those of earlier ones. Defaults to the configuration's weights.
        first: Bands of the one sensor, with commas, or s2, s1 or rgb.
        second: Bands of the other.
        depth: Depths to compare: all, or numbers of blocks passed and out (after the
            last norm), with commas.
        pool: How tokens become a feature: mean, or token (the class token).
        neighbors: Neighbours that are compared, and that vote in probes.
        samples: Samples of each split at most, drawn with the seed.
        split: Which places are compared: test or val.
        probes: Whether to probe labels as well, which reads training samples too.
        fresh_bands: How bands start that no weights know: sample, index, nearest or
            random. Defaults to the configuration's, else sample.
        device: Where to compute features, such as cpu or cuda.
        precision: Of features: 32 or bf16.
        data: Arguments of the datamodule to change, such as --data.root FOLDER.

    Raises:
        FileExistsError: If `out` exists.
        FileNotFoundError: If a configuration, the weights or data are missing.
        ValueError: If an option does not fit, weights are of another model, or the data
            have not both sensors.
    """
    check_request(out, split, samples)
    if pool not in _POOLS:
        raise ValueError(f'pool is {pool!r}: use one of {", ".join(_POOLS)}.')
    policy = fresh_policy(config, fresh_bands)
    place, autocast = where(device, precision)
    sensors = {'first': band_names(first), 'second': band_names(second)}
    union = list(dict.fromkeys([*sensors['first'], *sensors['second']]))
    paths = weights_to_probe(config, weights)
    models, seed = sensor_encoders(config, paths, sensors, policy)
    base = next(iter(models.values()))
    check_pool(base, pool)
    depths = chosen_depths(base, depth)
    datamodule = _paired(config, union, data)
    set_up(datamodule, split)
    count = split_size(datamodule, split)
    _check_count(min(samples or count, count), neighbors, split)
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
        precision=autocast,
    )
    found = {split: read(split=split)}
    labelled = next(iter(found[split].values())).labels is not None
    if probes and labelled:
        learning = learners(datamodule, split, samples)
        if learning < neighbors:
            raise ValueError(
                f'neighbors is {neighbors}, but there are {learning} training samples: '
                f'give fewer, or --probes=false.'
            )
        found |= {part: read(split=part) for part in learning_splits(datamodule, split)}
    titles = {'first': first.upper(), 'second': second.upper()}
    table = compare(found, split, neighbors, seed, type(datamodule).__name__)
    note = getattr(datamodule, 'note', None)
    about = (
        f'{len(found[split][UNTRAINED + SEPARATOR + "first"]):,} {split} places of '
        f'{type(datamodule).__name__}, each seen by {titles["first"]} and '
        f'{titles["second"]}; {type(base).__name__}, seed {seed}; bands that no '
        f'weights know: {policy}.'
    )
    picture = io.BytesIO()
    figure(table, titles, neighbors, about, note).savefig(
        picture, format='png', dpi=150, metadata={'Software': None}
    )
    text = page(table, titles, neighbors, about, note)
    out.mkdir(parents=True)
    table.to_csv(out / 'why.csv', index=False, float_format='%.6f')
    (out / 'why.png').write_bytes(picture.getvalue())
    (out / 'why.md').write_text(text)
    print(text)


SEPARATOR = ' on '


def sensor_encoders(
    config: Sequence[str | Path],
    paths: Sequence[str],
    sensors: Sensors,
    policy: FreshBands,
) -> tuple[dict[str, ChannelViT], int]:
    """Build the encoder of a configuration for each sensor, untrained and trained.

    Args:
        config: Configurations of ``torchgeo fit``.
        paths: Weights, in the order in which they were trained.
        sensors: Band names by sensor.
        policy: How bands start that no weights know.

    Returns:
        Encoders by ``'NAME on SENSOR'``, and the seed.

    Raises:
        ValueError: If the encoder has no tokens of its bands, or weights do not fit.
    """
    union = list(dict.fromkeys(band for bands in sensors.values() for band in bands))
    base, seed = build_encoder(config, union)
    if not isinstance(base, ChannelViT):
        raise ValueError(
            f'{type(base).__name__} takes all bands at once, so that it can not see '
            f'two sensors: give a configuration of a channel-token encoder.'
        )
    models = {
        f'{UNTRAINED}{SEPARATOR}{sensor}': with_bands(base, bands)[0]
        for sensor, bands in sensors.items()
    }
    names = short_names(paths)
    for name, path, (tensors, added) in zip(
        names, paths, with_known_bands(paths), strict=True
    ):
        for sensor, bands in sensors.items():
            try:
                model, report = with_bands(base, bands, tensors, policy)
            except ValueError as error:
                raise ValueError(f'weights {path}: {error}') from None
            models[f'{name}{SEPARATOR}{sensor}'] = model
            told = [f'{band} ({how})' for band, how in report.fresh_bands.items()] + [
                f'{band} (of {added[band]})' for band in bands if band in added
            ]
            print(
                f'{name}, {", ".join(bands)}: '
                + (f'not in the weights: {", ".join(told)}.' if told else 'all known.')
            )
    return models, seed


def compare(
    found: Mapping[str, Mapping[str, Features]],
    split: str,
    neighbors: int,
    seed: int,
    whose: str,
) -> pd.DataFrame:
    """Measure how alike the sensors' features are, and what they tell of labels.

    Args:
        found: Features by split and ``'NAME on SENSOR'``; ``train`` where probes are
            asked for.
        split: The split to compare and score.
        neighbors: Neighbours that are compared and that vote.
        seed: Seed of the shuffle of pairs.
        whose: Name of the data.

    Returns:
        A row an encoder and depth, with the levels of chance beside.
    """
    places = found[split]
    names = list(dict.fromkeys(name.rpartition(SEPARATOR)[0] for name in places))
    depths = list(next(iter(places.values())).depths)
    n = len(next(iter(places.values())))
    shuffle = np.random.default_rng(derive_seed(seed, 'shuffled pairs')).permutation(n)
    protocol = None
    if 'train' in found:
        labels = {
            part: next(iter(rows.values())).labels for part, rows in found.items()
        }
        protocol = Protocol(labels, split, whose, neighbors)
    rows: list[dict[str, Any]] = []
    pairs = [(name, depth) for name in names for depth in depths]
    for name, depth in tqdm(pairs, desc='Comparing', disable=None):
        keys = {sensor: f'{name}{SEPARATOR}{sensor}' for sensor in ('first', 'second')}
        x, y = (places[key].depths[depth] for key in keys.values())
        row: dict[str, Any] = {
            'encoder': name,
            'depth': depth,
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
        if protocol is not None:
            for sensor, key in keys.items():
                parts = {
                    part: rows_[key].depths[depth] for part, rows_ in found.items()
                }
                for probe, scores in protocol.scores(parts).items():
                    row[f'{sensor}_{probe}_mAP_micro'] = scores['mAP_micro']
        rows.append(row)
    table = pd.DataFrame(rows)
    if protocol is not None:
        table['mAP_micro_chance'] = protocol.chance()['mAP_micro']
    table['places'] = n
    table['neighbors'] = neighbors
    table['seed'] = seed
    return table


def _paired(
    config: Sequence[str | Path], bands: list[str], data: dict[str, Any] | None
) -> ChannelDataModule:
    """Return a datamodule that has the bands of both sensors in each sample."""
    datamodule, _ = read_datamodule(config, data)
    if not isinstance(datamodule, ChannelDataModule):
        raise ValueError(
            f'{type(datamodule).__name__} has no two sensors of the same places by the '
            f'names of their bands: give one of torchgeo_channelmae.datamodules.'
        )
    paired, _ = read_datamodule(config, {**(data or {}), 'bands': bands})
    assert isinstance(paired, ChannelDataModule)
    return paired


def _check_count(count: int, neighbors: int, split: str) -> None:
    if count <= max(neighbors, similarity.LEAST - 1) or neighbors < 1:
        raise ValueError(
            f'neighbors is {neighbors} and there are {count} {split} places: give more '
            f'of these than neighbours, and at least {similarity.LEAST}.'
        )
