"""Features of a frozen encoder over a datamodule's samples, pooled, depth by depth."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset
from torchgeo.datamodules import BaseDataModule
from torchgeo.datasets import GeoDataset
from tqdm import tqdm

from ...evaluation.predictions import PredictionStore
from ...models import ChannelViT
from ...randomness import generator

OUT = 'out'
"""The depth after the last norm, which heads and decoders read."""

Pool = Literal['mean', 'bands', 'token']
"""How tokens become a feature: mean over tokens; mean over each band's tokens, one
after the other; or the class token."""

POOLS = ('mean', 'bands', 'token')


class Features:
    """Features of the samples of a split.

    Attributes:
        depths: (n, F) float32 by the depth they are from.
        labels: (n,) class numbers or (n, K) 0 or 1; None where samples have none.
    """

    def __init__(
        self, depths: dict[str, npt.NDArray[np.float32]], labels: Tensor | None
    ) -> None:
        """Keep them."""
        self.depths = depths
        self.labels = labels

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(next(iter(self.depths.values())))


def depths_of(model: nn.Module) -> list[str]:
    """Name the depths that a model's features can be taken from.

    ``0`` is before the first block, ``1`` after it, and so on; ``out`` is after the
    last norm. Models without blocks have ``out`` alone.
    """
    blocks: Any = getattr(model, 'blocks', None)
    count = len(blocks) + 1 if isinstance(blocks, nn.Sequential) else 0
    return [*map(str, range(count)), OUT]


def pooled_depths(
    model: nn.Module, image: Tensor, depths: Sequence[str], pool: Pool = 'mean'
) -> dict[str, Tensor]:
    """Compute pooled features; tokens are let go block by block.

    Args:
        model: A model of timm, in evaluation mode.
        image: (B, C, H, W), normalised.
        depths: Names from :func:`depths_of`.
        pool: How tokens become a feature.

    Returns:
        (B, F) float32 by depth.
    """
    found: dict[str, Tensor] = {}
    prefix = int(getattr(model, 'num_prefix_tokens', 0))

    def reduce(tokens: Tensor) -> Tensor:
        if pool == 'token':
            return tokens[:, 0].float()
        tokens = tokens[:, prefix:].float()
        if pool == 'bands':
            bands = len(model.bands)  # type: ignore[arg-type]
            return tokens.unflatten(1, (bands, -1)).mean(2).flatten(1)
        return tokens.mean(1)

    def keep(depth: str) -> Callable[..., None]:
        def hook(*args: Any) -> None:  # of a pre-hook (module, args), else + output
            tokens = args[2] if len(args) == 3 else args[1][0]
            found[depth] = reduce(tokens)

        return hook

    handles = []
    blocks: Any = getattr(model, 'blocks', ())
    for depth in depths:
        if depth == '0':
            handles.append(blocks[0].register_forward_pre_hook(keep(depth)))
        elif depth != OUT:
            handles.append(blocks[int(depth) - 1].register_forward_hook(keep(depth)))
    try:
        last = model.forward_features(image)  # type: ignore[operator]
    finally:
        for handle in handles:
            handle.remove()
    if OUT in depths:
        if last.ndim == 3:
            found[OUT] = reduce(last)
        else:  # a residual network pools its own maps
            pooled: Tensor = model.forward_head(last, pre_logits=True)  # type: ignore[operator]
            found[OUT] = pooled.float()
    return {depth: found[depth] for depth in depths}


def check_pool(model: nn.Module, pool: str) -> None:
    """Check that a model's tokens can be pooled so.

    Raises:
        ValueError: If they can not.
    """
    if pool not in POOLS:
        raise ValueError(f'pool is {pool!r}: use one of {", ".join(POOLS)}.')
    if pool == 'bands' and not isinstance(model, ChannelViT):
        raise ValueError(
            f'pool is bands, but {type(model).__name__} has no tokens of its bands: '
            f'use mean.'
        )
    if pool == 'token' and getattr(model, 'cls_token', None) is None:
        raise ValueError(
            f'pool is token, but {type(model).__name__} has no class token: use mean.'
        )


def extract(
    models: Mapping[str, tuple[nn.Module, Sequence[int] | None]],
    datamodule: BaseDataModule,
    split: str,
    depths: Sequence[str],
    pool: Pool = 'mean',
    samples: int | None = None,
    seed: int = 0,
    device: torch.device | str = 'cpu',
    precision: Callable[[], Any] = nullcontext,
    convert: Callable[[Tensor], Tensor] = lambda image: image,
    ranks: tuple[int, int] = (0, 1),
    quiet: bool = False,
) -> dict[str, Features]:
    """Compute the features of a split with some encoders, reading each sample once.

    Args:
        models: Encoders by name, on the device, each with the numbers of the channels
            it sees (None is all).
        datamodule: Set up; its batches are processed as in validation.
        split: 'train', 'val' or 'test'.
        depths: Names from :func:`depths_of`.
        pool: How tokens become a feature.
        samples: Samples to use at most, drawn with the seed. None is all.
        seed: Seed of that draw.
        device: Where to compute.
        precision: Makes a context to compute in, such as autocast.
        convert: Puts an image into the type that the models take.
        ranks: This process's rank and the number of processes; they share the work,
            and all get the result.
        quiet: Whether to show no progress bar.

    Returns:
        Features by the encoder's name, samples in the order of the dataset.

    Raises:
        ValueError: If there is no such split, no sample or no image.
    """
    dataset, chosen = _chosen(datamodule, split, samples, seed)
    store = PredictionStore()
    rows = _loader(dataset, chosen, datamodule, ranks)
    device = torch.device(device)
    modes = {m: m.training for model, _ in models.values() for m in model.modules()}
    labelled = True
    try:
        for model, _ in models.values():
            model.eval()
        for numbers, batch in tqdm(
            rows, desc=f'{split} features', disable=True if quiet else None
        ):
            with _validating(datamodule):
                batch = datamodule.transfer_batch_to_device(batch, device, 0)
                batch = datamodule.on_after_batch_transfer(batch, 0)
            if 'image' not in batch:  # all samples were skipped
                continue
            columns: dict[str, Tensor] = {}
            image = convert(batch['image'])
            with torch.no_grad(), precision():
                for name, (model, channels) in models.items():
                    seen = image if channels is None else image[:, list(channels)]
                    pooled = pooled_depths(model, seen, depths, pool)
                    columns |= {f'{name}\n{d}': f for d, f in pooled.items()}
            labelled = labelled and 'label' in batch
            if labelled:
                columns['label'] = batch['label']
            store.update(numbers, **columns)
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not len(store) and ranks[1] == 1:
        raise ValueError(f'No {split} sample of the data could be read.')
    gathered = store.gather()
    return {
        name: Features(
            {depth: gathered[f'{name}\n{depth}'].numpy() for depth in depths},
            gathered.get('label'),
        )
        for name in models
    }


def split_size(datamodule: BaseDataModule, split: str) -> int:
    """Return the number of samples of a split, 0 where there is none."""
    dataset = _dataset(datamodule, split)
    return 0 if dataset is None else len(dataset)


def _dataset(datamodule: Any, split: str) -> Any:
    return getattr(datamodule, f'{split}_dataset', None)


def _chosen(
    datamodule: Any, split: str, samples: int | None, seed: int
) -> tuple[Any, list[int]]:
    """Return a split's dataset and the numbers of the samples to use, rising."""
    dataset = _dataset(datamodule, split)
    name = type(datamodule).__name__
    if dataset is None or not len(dataset):
        raise ValueError(
            f'{name} has no {split} samples: give data that have them, or another '
            f'split.'
        )
    base = dataset.dataset if isinstance(dataset, Subset) else dataset
    if isinstance(base, GeoDataset):
        raise ValueError(
            f'{name} cuts its samples out of scenes, which have no labels of their '
            f'own: give a datamodule of labelled images.'
        )
    count = len(dataset)
    if samples is None or samples >= count:
        return dataset, list(range(count))
    order = torch.randperm(count, generator=generator(seed, 'probed samples', split))
    return dataset, order[:samples].sort().values.tolist()


def _loader(
    dataset: Any, chosen: list[int], datamodule: Any, ranks: tuple[int, int]
) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """Return a loader of batches with the numbers of their samples."""
    rank, world_size = ranks
    part: Any = Subset(_Numbered(dataset), chosen)
    sampler: DistributedSampler[Any] | None = None
    if world_size > 1:  # all processes have as many batches: some samples come twice
        sampler = DistributedSampler(part, world_size, rank, shuffle=False)
    loader: Any = DataLoader(
        part,
        batch_size=datamodule.batch_size or 64,
        sampler=sampler,
        num_workers=datamodule.num_workers,
        collate_fn=partial(_collate, datamodule.collate_fn),
        pin_memory=torch.cuda.is_available(),
    )
    return loader


class _Numbered(Dataset[tuple[int, Any]]):
    """A dataset whose samples come with their numbers."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return index, self.dataset[index]


def _collate(
    collate: Callable[[list[Any]], dict[str, Any]], rows: list[tuple[int, Any]]
) -> tuple[Tensor, dict[str, Any]]:
    numbers = [number for number, sample in rows if 'skipped' not in sample]
    return torch.tensor(numbers), collate([sample for _, sample in rows])


@contextmanager
def _validating(datamodule: Any) -> Iterator[None]:
    """Let a datamodule process batches as in validation, whoever trains with it."""
    trainer = SimpleNamespace(
        training=False,
        validating=True,
        testing=False,
        sanity_checking=False,
        predicting=False,
        current_epoch=0,
        lightning_module=SimpleNamespace(takes_empty_batches=True),
    )
    kept, datamodule.trainer = datamodule.trainer, trainer
    try:
        yield
    finally:
        datamodule.trainer = kept
