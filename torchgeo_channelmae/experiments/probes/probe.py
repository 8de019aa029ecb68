"""``channelmae probe``: how well labels can be predicted from frozen features."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from jsonargparse.typing import PositiveInt
from torchgeo.datamodules import BaseDataModule
from tqdm import tqdm

from ...facts import data_facts, test_facts
from ...files import refuse_existing
from ...models.checkpoints import read_checkpoint
from ...models.controls import load_weights
from ...models.fresh_bands import FreshBands
from ..configuration import configured, read_datamodule
from ..report import write_folder
from .classifiers import Protocol
from .encoders import UNTRAINED, build_encoder, check_bands, weights_to_probe
from .features import Extraction, Features, Pool, extract_splits
from .pages import probe_page


def probe(
    config: Sequence[str | Path],
    out: Path,
    weights: list[str] | None = None,
    depth: str = 'out',
    pool: Pool = 'mean',
    neighbors: PositiveInt = 10,
    samples: PositiveInt | None = None,
    split: Literal['test', 'val'] = 'test',
    fresh_bands: FreshBands | None = None,
    device: str = 'auto',
    precision: Literal['32', 'bf16'] = '32',
    data: dict[str, Any] | None = None,
) -> None:
    """Score k nearest neighbors and logistic regressions on frozen features.

    Each encoder is compared with the same encoder untrained, and with the chance level:
    predicting the training set's class frequencies.

    Args:
        config: Configuration of `torchgeo fit` with labelled data and the encoder;
            repeat the option to override it with others.
        out: The folder to make: `probe.csv` and `probe.md`.
        weights: Checkpoints or .safetensors files to probe. Defaults to the weights of
            the configuration.
        depth: Depth of the features: out (after the last norm), a number of blocks,
            several with commas, or all.
        pool: How tokens become a feature: mean, bands (the mean of each band's tokens,
            side by side) or token (the class token).
        neighbors: Number of neighbors that vote.
        samples: Maximum number of samples of each split, drawn with the seed.
        split: Split to score: test, or val. For val, C is chosen on a fifth of train.
        fresh_bands: How bands start that the weights do not know: sample, index,
            nearest or random. Defaults to the configuration's, else sample.
        device: Device for the features: auto, cpu, cuda or mps.
        precision: Precision of the features: 32 or bf16.
        data: Arguments of the datamodule to override, such as --data.root FOLDER.

    Raises:
        FileExistsError: If `out` exists.
        FileNotFoundError: If a configuration, the weights or data are missing.
        ValueError: If an option does not fit, weights are of another model, or the data
            have no labels or too few samples.
    """
    refuse_existing(out)
    policy = fresh_bands or configured(config, 'model', 'fresh_bands') or 'sample'
    untrained, seed = build_encoder(config)
    models = {UNTRAINED: untrained}
    for path in weights_to_probe(config, weights):
        models[path] = model = copy.deepcopy(untrained)
        print(f'{path}: {load_weights(model, read_checkpoint(path), policy)}')
    datamodule, _ = read_datamodule(config, data)
    parts = [*set_up(datamodule, split), split]
    check_bands(untrained, datamodule)
    how = Extraction(depth, pool, samples, seed, device, precision)
    found = extract_splits(models, datamodule, parts, how)
    base = {part: rows[UNTRAINED] for part, rows in found.items()}
    labels = {part: features.labels for part, features in base.items()}
    owner, test = type(datamodule).__name__, test_facts(datamodule)
    groups = test.groups, test.group_seeds
    protocol = Protocol(labels, split, owner, neighbors, groups)
    counts = {part: len(features) for part, features in base.items()}
    table = measure(found, protocol).assign(**counts, seed=seed)
    listed = ', '.join(f'{count:,} {part}' for part, count in counts.items())
    about = (
        f'{owner}: {listed} samples; {protocol.num_classes} classes occur among the '
        f'{split} samples, which are scored. {neighbors} neighbors vote. Features: '
        f'{pool} of {type(untrained).__name__}, depth {depth}; seed {seed}; '
        f'bands that weights do not know: {policy}.'
    )
    text = probe_page(table, getattr(data_facts(datamodule), 'note', None), about)
    write_folder(out, 'probe', table, text)
    print(text)


def measure(
    found: Mapping[str, Mapping[Any, Features]], protocol: Protocol
) -> pd.DataFrame:
    """Score all probes of all encoders at all depths, and chance.

    The table has one row for chance and one per encoder, depth and probe.
    """
    rows: list[dict[str, Any]] = [
        {'encoder': 'chance', 'depth': '', 'probe': '', **protocol.chance()}
    ]
    wanted = [(name, d) for name, one in found['train'].items() for d in one.depths]
    for encoder, depth in tqdm(wanted, desc='Probing', disable=None):
        parts = {part: one[encoder].depths[depth] for part, one in found.items()}
        for name, values in protocol.scores(parts).items():
            rows.append({'encoder': encoder, 'depth': depth, 'probe': name, **values})
    return pd.DataFrame(rows).drop(columns=['num_classes', 'num_samples'])


def set_up(datamodule: BaseDataModule, split: str) -> list[str]:
    """Set a datamodule up; return the splits that a probe of one reads besides."""
    datamodule.prepare_data()
    datamodule.setup('fit')
    if split == 'test':
        datamodule.setup('test')
    tunes = split == 'test' and getattr(datamodule, 'val_dataset', None)
    return ['train', 'val'] if tunes else ['train']
