"""``channelmae show``: a page of the samples that training sees, before and after."""

import io
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Subset
from torchgeo.datamodules import BaseDataModule
from torchgeo.datasets import GeoDataset
from torchgeo.samplers import BatchGeoSampler

from ..datamodules.base import ChannelDataModule
from ..datasets.resample import resample
from ..randomness import derive_seed, generator
from .configuration import read_datamodule
from .page import Card, draw_page

_STAGES = {'train': 'fit', 'val': 'validate', 'test': 'test'}  # of a split
_SAID = {'train': 'training', 'val': 'validation', 'test': 'test'}
_MOST = 200  # samples of a page
_DPI = 150


def show(
    config: Sequence[str | Path],
    out: str | Path,
    n: int = 12,
    split: str = 'train',
    data: dict[str, Any] | None = None,
) -> None:
    """Draw a page of samples before and after normalisation and augmentation.

    The samples are spread over the dataset and the same each time. They are drawn as
    stored, in physical units, and as the model gets them: normalised, sized and, in
    training, augmented.

    Args:
        config: Configuration of `torchgeo fit`; give the option again for each that is
            laid over it.
        out: The picture to write, such as page.png or page.pdf.
        n: Samples to draw.
        split: Which samples: train, val or test.
        data: Arguments of the datamodule to change, such as --data.root FOLDER.

    Raises:
        FileExistsError: If the picture exists.
        FileNotFoundError: If a configuration, the data or the folder of the picture is
            missing.
        ValueError: If an argument makes no sense, the configuration has no data, or
            there are fewer samples.
    """
    target = Path(out)
    _check_out(target)
    if split not in _STAGES:
        raise ValueError(f'Unknown split {split!r}: use one of {", ".join(_STAGES)}.')
    if not 1 <= n <= _MOST:
        raise ValueError(f'n is {n}: a page has 1 to {_MOST} samples.')
    datamodule, seed = read_datamodule(config, data)
    figure, said = page_of(datamodule, n, split, seed)
    _save(figure, target)
    print(f'{target}: {said}')


def page_of(
    datamodule: BaseDataModule, n: int = 12, split: str = 'train', seed: int = 0
) -> tuple[Figure, str]:
    """Draw samples of a datamodule before and after what it does to a batch.

    Args:
        datamodule: TorchGeo's or one of ours, not set up.
        n: Samples to draw.
        split: 'train', 'val' or 'test'.
        seed: Seed of the choice and of the augmentation.

    Returns:
        The page, and how many of which samples it shows.

    Raises:
        ValueError: If there are fewer samples, or they have no image.
    """
    with _seeded(seed):
        datamodule.prepare_data()
        datamodule.setup(_STAGES[split])
        dataset, keys = _samples_of(datamodule, split)
        samples = [dataset[keys[i]] for i in choose(len(keys), n, split, seed)]
        skipped = [sample for sample in samples if 'skipped' in sample]
        samples = [sample for sample in samples if 'skipped' not in sample]
        if not samples:
            raise ValueError(f'No sample could be read: {skipped[0]["skipped"]}')
        bands = _bands(datamodule, dataset, _channels(samples[0]))
        images = [_image(sample, bands) for sample in samples]
        after = _processed(datamodule, split, samples)['image']
    cards = [
        Card(
            name=_name(sample, keys, number),
            labels=_labels(datamodule, dataset, sample),
            before=image,
            after=_flat(result),
        )
        for number, (sample, image, result) in enumerate(
            zip(samples, images, after, strict=True)
        )
    ]
    counted = f'{len(cards)} of {len(keys):,} {_SAID[split]} samples'
    if skipped:
        counted += f' ({len(skipped)} more could not be read)'
    figure = draw_page(
        cards,
        bands,
        title=f'{type(datamodule).__name__}: {counted}',
        notes=_notes(datamodule, split, bands),
    )
    return figure, counted


def choose(length: int, n: int, split: str, seed: int) -> list[int]:
    """Choose samples that are spread over a dataset: one of each n-th part of it.

    Args:
        length: Samples of the dataset.
        n: Samples to choose.
        split: Name of the split, part of the address of the draw.
        seed: Seed of the draw.

    Returns:
        n indices, rising.

    Raises:
        ValueError: If there are fewer.
    """
    if n > length:
        raise ValueError(
            f'n is {n}, but there are {length} {_SAID[split]} samples: give '
            f'{f"at most {length}" if length else "data that have some"}.'
        )
    draw = generator(seed, 'show', split)
    bounds = [part * length // n for part in range(n + 1)]
    return [
        int(torch.randint(start, stop, (), generator=draw))
        for start, stop in itertools.pairwise(bounds)
    ]


def _samples_of(datamodule: BaseDataModule, split: str) -> tuple[Any, Sequence[Any]]:
    """Return a dataset and what its samples are asked for with."""
    dataset: Any = getattr(datamodule, f'{split}_dataset', None)
    if dataset is None and not isinstance(datamodule, ChannelDataModule):
        dataset = datamodule.dataset  # TorchGeo's for all splits
    if dataset is None:
        raise ValueError(
            f'{type(datamodule).__name__} has no {_SAID[split]} samples: choose '
            f'another split.'
        )
    base = dataset.dataset if isinstance(dataset, Subset) else dataset
    if not isinstance(base, GeoDataset):
        return dataset, range(len(dataset))
    loader = getattr(datamodule, f'{split}_dataloader')()  # its sampler cuts patches
    if isinstance(loader.batch_sampler, BatchGeoSampler):
        return dataset, [key for batch in loader.batch_sampler for key in batch]
    return dataset, list(loader.sampler)


def _processed(
    datamodule: BaseDataModule, split: str, samples: list[dict[str, Any]]
) -> dict[str, Any]:
    """Do to samples what a trainer would have done to their batch."""
    trainer = SimpleNamespace(
        training=split == 'train',
        validating=split == 'val',
        testing=split == 'test',
        sanity_checking=False,
        predicting=False,
        current_epoch=0,
    )
    kept, datamodule.trainer = datamodule.trainer, trainer  # type: ignore[assignment]
    try:
        batch = datamodule.collate_fn(samples)
        batch = datamodule.transfer_batch_to_device(batch, torch.device('cpu'), 0)
        processed: dict[str, Any] = datamodule.on_after_batch_transfer(batch, 0)
    finally:
        datamodule.trainer = kept
    return processed


def _channels(sample: Mapping[str, Any]) -> int:
    """Return the number of channels of a sample."""
    if 'native' in sample:
        return sum(len(names) for names in sample['native'])
    if 'image' not in sample:
        raise ValueError(
            f'Samples have no image to draw, only {", ".join(sample)}: choose a '
            f'datamodule of images.'
        )
    return len(_flat(sample['image']))


def _image(sample: Mapping[str, Any], bands: Sequence[str]) -> Tensor:
    """Return the pixels of a sample as stored, (C, H, W) on its finest grid."""
    if 'native' not in sample:
        return _flat(sample['image']).clone()
    groups = {
        names: torch.as_tensor(pixels)[None]
        for names, pixels in sample['native'].items()
    }
    height, width = max(pixels.shape[-2:] for pixels in groups.values())
    return resample(groups, bands, (height, width))[0]


def _flat(image: Tensor) -> Tensor:
    """Return (C, H, W), the first image where there are several."""
    while image.ndim > 3:
        image = image[0]
    return image


def _bands(datamodule: Any, dataset: Any, channels: int) -> tuple[str, ...]:
    """Return the names of the channels, or numbers where nobody knows them."""
    base = dataset.dataset if isinstance(dataset, Subset) else dataset
    for owner in (datamodule, base):
        for attribute in ('bands', 'all_bands', 'all_band_names'):
            names = getattr(owner, attribute, None)
            if isinstance(names, str) or not isinstance(names, Sequence):
                continue
            if len(names) == channels and all(isinstance(name, str) for name in names):
                return tuple(names)
    if channels == 3:
        return ('red', 'green', 'blue')
    return tuple(f'channel {number + 1}' for number in range(channels))


def _labels(
    datamodule: Any, dataset: Any, sample: Mapping[str, Any]
) -> list[str] | None:
    """Return the names of a sample's classes, None if it has no labels."""
    if 'label' not in sample:
        return None
    base = dataset.dataset if isinstance(dataset, Subset) else dataset
    names: Sequence[str] = getattr(datamodule, 'class_names', ())
    names = names or getattr(base, 'classes', ())
    label = torch.as_tensor(sample['label'])
    if label.is_floating_point() and label.ndim == 0:
        return [f'{float(label):.4g}']  # a regression's
    several = label.ndim > 0 and len(label) > 1
    numbers = label.nonzero().flatten() if several else label.flatten()
    return [
        names[number] if number < len(names) else f'class {number}'
        for number in numbers.tolist()
    ]


def _name(sample: Mapping[str, Any], keys: Sequence[Any], number: int) -> str:
    name = sample.get('patch_id')
    if name is not None:
        return str(name)
    return f'sample {sample["index"]}' if 'index' in sample else f'sample {number}'


def _notes(datamodule: Any, split: str, bands: Sequence[str]) -> list[str]:
    done = 'normalised, sized and augmented' if split == 'train' else 'normalised'
    notes = [
        f'before: as stored, in physical units. after: {done}, as the model gets it. '
        f'Small numbers: 2nd to 98th percentile over the bands; every picture is '
        f'stretched between those of its own bands. Bands: {", ".join(bands)}.'
    ]
    note = getattr(datamodule, 'note', None)
    return [*notes, note] if note else notes


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from a seed, as after ``seed_everything``, and leave no trace of it."""
    before = os.environ.get('PL_GLOBAL_SEED')
    os.environ['PL_GLOBAL_SEED'] = str(seed)
    try:
        with torch.random.fork_rng(devices=[]):  # TorchGeo's augmentations draw there
            torch.default_generator.manual_seed(derive_seed(seed, 'show'))
            yield
    finally:
        if before is None:
            del os.environ['PL_GLOBAL_SEED']
        else:
            os.environ['PL_GLOBAL_SEED'] = before


def _check_out(out: Path) -> None:
    if out.exists():
        raise FileExistsError(f'{out} exists: give another name, or remove it.')
    if not out.parent.is_dir():
        raise FileNotFoundError(
            f'{out.parent}, the folder of the picture, does not exist: make it first.'
        )
    kinds = sorted(Figure().canvas.get_supported_filetypes())
    if out.suffix.removeprefix('.').lower() not in kinds:
        raise ValueError(
            f'{out} does not end like a picture: give one of .{", .".join(kinds)}.'
        )


def _save(figure: Figure, out: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format=out.suffix.removeprefix('.').lower(), dpi=_DPI)
    with out.open('xb') as file:
        file.write(content.getvalue())
