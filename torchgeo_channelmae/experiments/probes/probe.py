"""``channelmae probe``: how well labels can be predicted from frozen features."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch.plugins import MixedPrecision, Precision
from torchgeo.datamodules import BaseDataModule
from tqdm import tqdm

from ...facts import data_facts, test_facts
from ...files import refuse_existing, whole
from ..configuration import read_datamodule
from .classifiers import Protocol, check_neighbors, hold_out
from .encoders import (
    UNTRAINED,
    build_encoders,
    check_bands,
    fresh_policy,
    weights_to_probe,
)
from .features import Features, check_pool, choose_depths, extract, split_size
from .pages import probe_page

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

    Each encoder is compared with the same encoder untrained, and with the chance level:
    predicting the training set's class frequencies.

    Args:
        config: Configuration of `torchgeo fit` with labelled data and the encoder;
            repeat the option to override it with others.
        out: The folder to create: `probe.csv` and `probe.md`.
        weights: Checkpoints or .safetensors files to probe. Defaults to the weights of
            the configuration.
        depth: Depth of the features: out (after the last norm), a number of blocks,
            several with commas, or all.
        pool: How tokens become a feature: mean, bands (the mean of each band's tokens,
            side by side) or token (the class token).
        neighbors: Number of neighbours that vote.
        samples: Maximum number of samples of each split, drawn with the seed.
        split: Split to score: test, or val. For val, C is chosen on a fifth of train.
        fresh_bands: How bands start that the weights do not know: sample, index,
            nearest or random. Defaults to the configuration's, else sample.
        device: Device for the features, such as cpu or cuda.
        precision: Precision of the features: 32 or bf16.
        data: Arguments of the datamodule to override, such as --data.root FOLDER.

    Raises:
        FileExistsError: If `out` exists.
        FileNotFoundError: If a configuration, the weights or data are missing.
        ValueError: If an option does not fit, weights are of another model, or the data
            have no labels or too few samples.
    """
    start = time.monotonic()
    check_request(out, split, samples)
    policy = fresh_policy(config, fresh_bands)
    place, plugin = where(device, precision)
    paths = weights_to_probe(config, weights)
    models, seed = build_encoders(config, paths, policy)
    depths = choose_depths(models[UNTRAINED], depth)
    check_pool(models[UNTRAINED], pool)
    datamodule, _ = read_datamodule(config, data)
    set_up(datamodule, split)
    check_bands(models[UNTRAINED], datamodule)
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
        precision=plugin,
    )
    parts = [*learning_splits(datamodule, split), split]
    found = {part: read(split=part) for part in parts}
    extracted = time.monotonic() - start
    owner = type(datamodule).__name__
    facts, test = data_facts(datamodule), test_facts(datamodule)
    groups = test.groups, test.group_seeds
    table, classes = measure(found, split, owner, neighbors, groups)
    counts = {part: len(rows[UNTRAINED]) for part, rows in found.items()}
    table = table.assign(**counts, seed=seed)
    listed = ', '.join(f'{count:,} {part}' for part, count in counts.items())
    about = (
        f'{owner}: {listed} samples; {classes} classes occur among the {split} samples, '
        f'which are scored. Features: {_POOLED[pool]} of '
        f'{type(models[UNTRAINED]).__name__}, depth {depth}; seed {seed}; bands that '
        f'weights do not know: {policy}.'
    )
    seconds = extracted, time.monotonic() - start
    text = probe_page(table, facts and facts.note, about, neighbors, seconds)
    with whole(out) as folder:
        folder.mkdir()
        table.to_csv(folder / 'probe.csv', index=False, float_format='%.6f')
        (folder / 'probe.md').write_text(text)
    print(text)


def measure(
    found: dict[str, dict[str, Features]],
    split: str,
    owner: str,
    neighbors: int,
    groups: tuple[int, Sequence[int]] | None,
) -> tuple[pd.DataFrame, int]:
    """Score all probes of all encoders at all depths, and chance.

    Args:
        found: Features by split and encoder.
        split: The split to score.
        owner: Name of the data.
        neighbors: Number of neighbours that vote.
        groups: Number of random groups and their seeds.

    Returns:
        One row for chance and one per encoder, depth and probe; and the number of
        classes that occur.

    Raises:
        ValueError: If the samples have no labels, or too few.
    """
    protocol = Protocol(labels_of(found), split, owner, neighbors, groups)
    rows: list[dict[str, Any]] = [
        {'encoder': 'chance', 'depth': '', 'probe': '', **protocol.chance()}
    ]
    wanted = [(name, d) for name, one in found['train'].items() for d in one.depths]
    for encoder, depth in tqdm(wanted, desc='Probing', disable=None):
        parts = {part: one[encoder].depths[depth] for part, one in found.items()}
        for name, values in protocol.scores(parts).items():
            rows.append({'encoder': encoder, 'depth': depth, 'probe': name, **values})
    table = pd.DataFrame(rows)
    counts = ['num_classes', 'num_samples']
    return table.drop(columns=counts, errors='ignore'), protocol.num_classes


def labels_of(found: dict[str, dict[str, Features]]) -> dict[str, torch.Tensor | None]:
    """Return the labels of each split, which all encoders share."""
    return {part: next(iter(rows.values())).labels for part, rows in found.items()}


def check_request(out: Path, split: str, samples: int | None) -> None:
    """Check what can be checked before anything is read.

    Raises:
        FileExistsError: If the output exists.
        ValueError: If `split` cannot be scored, or `samples` is not positive.
    """
    refuse_existing(out)
    if split not in ('test', 'val'):
        raise ValueError(f'split is {split!r}. Use test or val.')
    if samples is not None and samples < 1:
        raise ValueError(f'samples is {samples}. Give at least 1, or null for all.')


def where(device: str, precision: str) -> tuple[torch.device, Precision]:
    """Return the device to compute on, and Lightning's plugin of the precision.

    Raises:
        ValueError: If there is no such device or precision.
    """
    if precision not in ('32', 'bf16'):
        raise ValueError(f'precision is {precision!r}. Use 32 or bf16.')
    try:
        place = torch.device('cpu' if device == 'auto' else device)
        if device == 'auto' and torch.accelerator.is_available():
            place = torch.accelerator.current_accelerator() or place
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'device {device!r} cannot be used: {reason}') from None
    if precision == '32':
        return place, Precision()
    return place, MixedPrecision('bf16-mixed', place.type)


def set_up(datamodule: BaseDataModule, split: str) -> None:
    """Make the datasets of training and validation, and of `split`."""
    datamodule.prepare_data()
    datamodule.setup('fit')
    if split == 'test':
        datamodule.setup('test')


def learning_splits(datamodule: BaseDataModule, split: str) -> list[str]:
    """Return the splits that a probe reads besides the scored one."""
    tunes = split == 'test' and split_size(datamodule, 'val')
    return ['train', 'val'] if tunes else ['train']


def learners(datamodule: BaseDataModule, split: str, samples: int | None) -> int:
    """Return the number of samples that a probe learns from."""
    count = split_size(datamodule, 'train')
    count = min(samples or count, count)
    if 'val' in learning_splits(datamodule, split):
        return count
    return int((~hold_out(count)).sum())
