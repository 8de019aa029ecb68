"""Features of a frozen encoder over a datamodule's samples, pooled, depth by depth."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.plugins import Precision
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, StackDataset, Subset
from torchgeo.datamodules import BaseDataModule
from tqdm import tqdm

from ...evaluation.predictions import PredictionStore
from ...facts import data_facts
from ...models import ChannelViT
from ...randomness import generator
from ..configuration import process_batch

OUT = 'out'
"""The depth after the last norm, which heads and decoders read."""

Pool = Literal['mean', 'bands', 'token']
"""How tokens become a feature: the mean over all tokens, the means over each band's
tokens side by side, or the class token."""

Floats = npt.NDArray[np.floating]

Encoders = Mapping[Any, nn.Module]
"""Encoders by name."""

FULL = Precision()


@dataclass(frozen=True)
class Extraction:
    """Options that ``channelmae probe`` and ``channelmae why`` share."""

    depth: str
    pool: Pool
    samples: int | None
    seed: int
    device: str
    precision: str


@dataclass(frozen=True)
class Features:
    """(n, F) float32 features by depth of a split, and its labels, None without any."""

    depths: dict[str, npt.NDArray[np.float32]]
    labels: Tensor | None

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(next(iter(self.depths.values())))


def depths_of(model: nn.Module) -> list[str]:
    """Name the depths at which a model has features.

    ``0`` is before the first block, ``1`` after it, and so on; ``out`` is after the
    last norm. Models without blocks only have ``out``.
    """
    blocks: Any = getattr(model, 'blocks', None)
    count = len(blocks) + 1 if isinstance(blocks, nn.Sequential) else 0
    return [*map(str, range(count)), OUT]


def check_pool(model: nn.Module, pool: Pool) -> None:
    """Check that a model's tokens can be pooled this way."""
    known = ['mean']
    if isinstance(model, ChannelViT):
        known.append('bands')
    if getattr(model, 'cls_token', None) is not None:
        known.append('token')
    if pool not in known:
        kind = type(model).__name__
        raise ValueError(f'pool is {pool}, but {kind} has {", ".join(known)}.')


def pooled_depths(
    model: nn.Module, image: Tensor, depths: Sequence[str], pool: Pool = 'mean'
) -> dict[str, Tensor]:
    """Compute pooled (B, F) float32 features by depth; no block's tokens are kept.

    The image (B, C, H, W) is normalized, and the timm model in evaluation mode.
    """
    found: dict[str, Tensor] = {}
    prefix = int(getattr(model, 'num_prefix_tokens', 0))
    encoder: Any = model

    def reduce(tokens: Tensor) -> Tensor:
        if pool == 'token':
            return tokens[:, 0].float()
        tokens = tokens[:, prefix:].float()
        if pool == 'bands':
            return tokens.unflatten(1, (len(encoder.bands), -1)).mean(2).flatten(1)
        return tokens.mean(1)

    def keep(depth: str, _: nn.Module, inputs: Any, tokens: Tensor) -> None:
        found[depth] = reduce(inputs[0] if depth == '0' else tokens)

    with ExitStack() as hooks:
        for depth in set(depths) - {OUT}:
            block = encoder.blocks[max(int(depth) - 1, 0)]
            hooks.enter_context(block.register_forward_hook(partial(keep, depth)))
        last = encoder.forward_features(image)
    if OUT in depths:  # a residual network pools its own maps
        is_map = last.ndim != 3
        pooled = encoder.forward_head(last, pre_logits=True) if is_map else reduce(last)
        found[OUT] = pooled.float()
    return {depth: found[depth] for depth in depths}


def extract_splits(
    models: Encoders, datamodule: BaseDataModule, splits: Sequence[str], how: Extraction
) -> dict[str, dict[Any, Features]]:
    """Compute features by split and encoder as the options of a command ask for."""
    base = next(iter(models.values()))
    check_pool(base, how.pool)
    known = depths_of(base)
    depths = known if how.depth == 'all' else how.depth.replace(' ', '').split(',')
    if not set(depths) <= set(known):
        raise ValueError(f'depth is {how.depth}. This encoder has {", ".join(known)}.')
    kind: Any = 'bf16-mixed' if how.precision == 'bf16' else '32-true'
    fabric = Fabric(accelerator=how.device, devices=1, precision=kind)
    device, precision = fabric.device, fabric.strategy.precision
    moved = {name: model.to(device) for name, model in models.items()}
    chosen = list(dict.fromkeys(depths)), how.pool, how.samples, how.seed
    return {
        s: extract(moved, datamodule, s, *chosen, device, precision) for s in splits
    }


def extract(
    models: Encoders,
    datamodule: BaseDataModule,
    split: str,
    depths: Sequence[str] = (OUT,),
    pool: Pool = 'mean',
    samples: int | None = None,
    seed: int = 0,
    device: torch.device | str = 'cpu',
    precision: Precision = FULL,
    quiet: bool = False,
) -> dict[Any, Features]:
    """Compute the features of a split with several encoders, reading each sample once.

    Distributed processes share the work, and all get the result. Samples are in the
    order of the dataset; those that could not be read are left out.

    Encoders are in evaluation mode on the device; one of fewer bands than the data's
    gets its own. The datamodule is set up; its batches are processed as in validation.
    Depths are from :func:`depths_of`. At most ``samples`` are drawn with the seed, all
    if None. The precision is Lightning's plugin.
    """
    store = PredictionStore()
    dataset, chosen = choose_samples(datamodule, split, samples, seed)
    indices: Any = range(len(dataset))
    part: Any = Subset(StackDataset(indices, dataset), chosen)
    shared = dist.is_available() and dist.is_initialized()
    loader: Any = DataLoader(
        part,
        batch_size=datamodule.batch_size or 64,
        # as many samples per process, so that sharded encoders stay in step
        sampler=DistributedSampler(part, shuffle=False) if shared else None,
        num_workers=datamodule.num_workers,
        collate_fn=partial(_collate, datamodule.collate_fn),
        pin_memory=torch.cuda.is_available(),
    )
    facts = data_facts(datamodule)
    bar = tqdm(loader, desc=f'{split} features', disable=True if quiet else None)
    for numbers, batch in bar:
        if not len(numbers):
            warnings.warn(f'Skipped patches: {batch.get("skipped")}', stacklevel=2)
            continue
        batch = process_batch(datamodule, batch, 'val', device)
        image = precision.convert_input(batch['image'])
        columns = {'label': batch['label']} if 'label' in batch else {}
        with torch.no_grad(), precision.forward_context():
            for number, model in enumerate(models.values()):
                seen = image
                if facts is not None and isinstance(model, ChannelViT):
                    seen = image[:, [facts.bands.index(band) for band in model.bands]]
                for depth, pooled in pooled_depths(model, seen, depths, pool).items():
                    columns[f'{number} {depth}'] = pooled
        store.update(numbers, **columns)
    found = store.gather()
    return {
        name: Features(
            {depth: found[f'{number} {depth}'].numpy() for depth in depths},
            found.get('label'),
        )
        for number, name in enumerate(models)
    }


def choose_samples(
    datamodule: BaseDataModule, split: str, samples: int | None = None, seed: int = 0
) -> tuple[Any, list[int]]:
    """Return a split's dataset and the sorted indices of the samples drawn from it."""
    dataset = getattr(datamodule, f'{split}_dataset', None)
    if not dataset:
        name = type(datamodule).__name__
        raise ValueError(f'{name} has no {split} samples. Use other data or splits.')
    count = len(dataset)
    if samples is None or samples >= count:
        return dataset, list(range(count))
    order = torch.randperm(count, generator=generator(seed, 'probed samples', split))
    return dataset, order[:samples].sort().values.tolist()


def _collate(
    collate: Callable[[list[Any]], dict[str, Any]], rows: list[tuple[int, Any]]
) -> tuple[Tensor, dict[str, Any]]:
    numbers = [number for number, sample in rows if 'skipped' not in sample]
    return torch.tensor(numbers), collate([sample for _, sample in rows])
