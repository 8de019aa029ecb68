"""``channelmae probe``: what frozen features tell of labels."""

import copy
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn
from torchgeo.datamodules import BaseDataModule
from tqdm import tqdm

from ...models.checkpoints import read_checkpoint
from ...models.weights import FreshBands
from ..configuration import read_datamodule
from .classifiers import check_neighbors
from .encoders import (
    UNTRAINED,
    build_encoder,
    load,
    short_names,
    weights_to_probe,
)
from .features import Features, check_pool, extract
from .protocol import Protocol
from .report import write_probe
from .request import (
    check_request,
    chosen_depths,
    fresh_policy,
    learners,
    learning_splits,
    set_up,
    where,
)

_POOLED = {
    'mean': 'mean over the tokens',
    'bands': "mean over each band's tokens",
    'token': 'class token',
}


def probe(
    config: Sequence[str | Path],
    out: Path,
    weights: list[str] | None = None,
    depth: str = 'out',
    pool: str = 'mean',
    neighbors: int = 10,
    samples: int | None = None,
    split: str = 'test',
    fresh_bands: str | None = None,
    device: str = 'auto',
    precision: str = '32',
    data: dict[str, Any] | None = None,
) -> None:
    """Score k nearest neighbours and logistic regressions on frozen features.

    Beside the scores of each encoder stand those of the same encoder untrained, and
    the chance level: predicting the training set's class frequencies.

    Args:
        config: Configuration of `torchgeo fit`, whose data are labelled and whose model
            has the encoder; give the option again for each that is laid over it.
        out: The folder to make: `probe.csv` and `probe.md`.
        weights: Checkpoints or .safetensors files to probe. Defaults to the weights of
            the configuration.
        depth: Where features are taken from: out (after the last norm), a number of
            blocks, several with commas, or all.
        pool: How tokens become a feature: mean, bands (the mean of each band's tokens,
            one after the other) or token (the class token).
        neighbors: Neighbours that vote.
        samples: Samples of each split at most, drawn with the seed.
        split: What is scored: test, or val. C is then chosen on a fifth of train.
        fresh_bands: How bands start that the weights do not know: sample, index,
            nearest or random. Defaults to the configuration's, else sample.
        device: Where to compute features, such as cpu or cuda.
        precision: Of features: 32 or bf16.
        data: Arguments of the datamodule to change, such as --data.root FOLDER.

    Raises:
        FileExistsError: If `out` exists.
        FileNotFoundError: If a configuration, the weights or data are missing.
        ValueError: If an option does not fit, weights are of another model, or the data
            have no labels or too few samples.
    """
    start = time.monotonic()
    check_request(out, split, samples)
    policy = fresh_policy(config, fresh_bands)
    place, autocast = where(device, precision)
    paths = weights_to_probe(config, weights)
    models, seed = encoders(config, paths, policy)
    depths = chosen_depths(models[UNTRAINED], depth)
    check_pool(models[UNTRAINED], pool)
    datamodule, _ = read_datamodule(config, data)
    check_bands(models[UNTRAINED], datamodule)
    set_up(datamodule, split)
    check_neighbors(neighbors, learners(datamodule, split, samples))
    read = partial(
        extract,
        {name: (model.to(place), None) for name, model in models.items()},
        datamodule,
        depths=depths,
        pool=pool,  # type: ignore[arg-type]
        samples=samples,
        seed=seed,
        device=place,
        precision=autocast,
    )
    parts = [*learning_splits(datamodule, split), split]
    found = {part: read(split=part) for part in parts}
    extracted = time.monotonic() - start
    whose = type(datamodule).__name__
    table, classes = measure(found, split, whose, neighbors, groups_of(datamodule))
    counts = {part: len(rows[UNTRAINED]) for part, rows in found.items()}
    for part, count in counts.items():
        table[part] = count
    table['seed'] = seed
    counted = ', '.join(f'{count:,} {part}' for part, count in counts.items())
    about = (
        f'{whose}: {counted} samples; {classes} classes occur among the {split} '
        f'samples, which are scored. Features: {_POOLED[pool]} of '
        f'{type(models[UNTRAINED]).__name__}, depth {depth}; seed {seed}; bands that '
        f'weights do not know: {policy}.'
    )
    seconds = time.monotonic() - start
    note = getattr(datamodule, 'note', None)
    print(write_probe(out, table, note, about, neighbors, (extracted, seconds)))


def measure(
    found: dict[str, dict[str, Features]],
    split: str,
    whose: str,
    neighbors: int,
    groups: tuple[int, Sequence[int]] | None,
) -> tuple[pd.DataFrame, int]:
    """Score all probes of all encoders at all depths, and chance.

    Args:
        found: Features by split and encoder.
        split: The split to score.
        whose: Name of the data.
        neighbors: Neighbours that vote.
        groups: Number of random groups and seeds.

    Returns:
        A row for chance, then one an encoder, depth and probe; and the number of
        classes that occur.

    Raises:
        ValueError: If the samples have no labels, or too few.
    """
    train = found['train']
    labels = {part: next(iter(rows.values())).labels for part, rows in found.items()}
    scored = next(iter(found[split].values()))
    if groups is not None and groups[0] > len(scored):
        groups = None
    protocol = Protocol(labels, split, whose, neighbors, groups)
    rows: list[dict[str, Any]] = [
        {'encoder': 'chance', 'depth': '', 'probe': '', **protocol.chance()}
    ]
    wanted = [(name, depth) for name, one in train.items() for depth in one.depths]
    for encoder, depth in tqdm(wanted, desc='Probing', disable=None):
        parts = {part: one[encoder].depths[depth] for part, one in found.items()}
        for name, values in protocol.scores(parts).items():
            rows.append({'encoder': encoder, 'depth': depth, 'probe': name, **values})
    table = pd.DataFrame(rows)
    return table.drop(columns=['num_classes', 'num_samples'], errors='ignore'), (
        protocol.num_classes
    )


def encoders(
    config: Sequence[str | Path], paths: Sequence[str], policy: FreshBands
) -> tuple[dict[str, nn.Module], int]:
    """Build the untrained encoder, and a copy with each of the weights.

    Args:
        config: Configurations of ``torchgeo fit``.
        paths: Weights.
        policy: How bands start that weights do not know.

    Returns:
        Encoders by name, and the seed.
    """
    untrained, seed = build_encoder(config)
    models = {UNTRAINED: untrained}
    for name, path in zip(short_names(paths), paths, strict=True):
        model = copy.deepcopy(untrained)
        print(f'{name}: {load(model, read_checkpoint(path).tensors, policy, path)}')
        models[name] = model
    return models, seed


def check_bands(model: nn.Module, datamodule: BaseDataModule) -> None:
    """Check that an encoder takes the bands of the data.

    Raises:
        ValueError: If both name their bands and the names differ.
    """
    own, bands = getattr(model, 'bands', None), getattr(datamodule, 'bands', None)
    if own and bands and tuple(own) != tuple(bands):
        raise ValueError(
            f'The model has the bands {", ".join(own)}, but the data has '
            f'{", ".join(bands)}: name the same in model.init_args.bands and '
            f'data.init_args.bands.'
        )


def groups_of(datamodule: BaseDataModule) -> tuple[int, Sequence[int]]:
    """Return into how many random groups, by which seeds, a test is cut."""
    seeds = getattr(datamodule, 'test_group_seeds', (0, 1, 2))
    return getattr(datamodule, 'test_groups', 5), tuple(seeds)
