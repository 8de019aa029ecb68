"""``channelmae show``: a page of samples, as stored and as the model gets them."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import seed_everything
from lightning.pytorch.utilities.seed import isolate_rng
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Subset
from torchgeo.datamodules import BaseDataModule
from torchgeo.datasets import GeoDataset
from torchgeo.samplers import BatchGeoSampler

from ..datasets.resample import resample
from ..facts import data_facts
from ..files import refuse_existing, whole
from ..plotting import composites, show_pixels, wrap
from ..randomness import generator
from .configuration import STAGES, process_batch, read_datamodule

Split = Literal['train', 'val', 'test']

_RADAR = ('VV', 'VH', 'HH', 'HV')
_WIDTH = 14.0  # of a page at most, inches
_PANEL = 1.3  # of a picture
_SIDE = 0.6  # of the text beside it


def show(
    config: Sequence[str | Path],
    out: Path,
    n: PositiveInt = 12,
    split: Split = 'train',
    data: dict[str, Any] | None = None,
) -> None:
    """Draw a page of samples before and after normalization and augmentation.

    The samples are spread over the dataset and the same each time. They are drawn as
    stored, in physical units, and as the model gets them: normalized, sized and, in
    training, augmented.

    Args:
        config: Configuration of `torchgeo fit`; repeat the option to override it with
            others.
        out: The picture to write, such as page.png or page.pdf.
        n: Number of samples to draw.
        split: Split of the samples: train, val or test.
        data: Arguments of the datamodule to override, such as --data.root FOLDER.

    Raises:
        FileExistsError: If the picture exists.
        FileNotFoundError: If a configuration or the data are missing.
        ValueError: If an option does not fit, the configuration has no data, or there
            are too few samples.
    """
    refuse_existing(out)
    datamodule, seed = read_datamodule(config, data)
    figure, counted = page_of(datamodule, n, split, seed)
    with whole(out) as path:
        figure.savefig(path, dpi=150, format=out.suffix[1:] or 'png')
    print(f'{out}: {counted}')


def page_of(
    datamodule: BaseDataModule, n: int = 12, split: Split = 'train', seed: int = 0
) -> tuple[Figure, str]:
    """Draw samples of a datamodule before and after what it does to a batch.

    The datamodule is not set up. The seed is that of the choice and the augmentation.
    Returns the page, and how many of which samples it shows.
    """
    with isolate_rng():
        seed_everything(seed, verbose=False)
        datamodule.prepare_data()
        datamodule.setup(STAGES[split])
        dataset, keys = _samples_of(datamodule, split)
        drawn = [dataset[keys[i]] for i in choose(len(keys), n, split, seed)]
        samples = [sample for sample in drawn if 'skipped' not in sample]
        if not samples:
            raise ValueError(f'No sample could be read: {drawn[0]["skipped"]}')
        bands = _bands(datamodule, dataset, samples[0])
        before = [_image(sample, bands) for sample in samples]
        batch = datamodule.collate_fn(samples)
        after = process_batch(datamodule, batch, split)['image']
    facts = data_facts(datamodule)
    named = facts.class_names if facts else None
    classes: Any = named or getattr(_base(dataset), 'classes', ())
    cards = []
    for i, sample in enumerate(samples):
        name = str(sample.get('patch_id', f'sample {sample.get("index", i)}'))
        labels = _labels(sample, classes)
        cards.append(Card(name, labels, before[i], _flat(after[i])))
    counted = f'{len(cards)} of {len(keys):,} {split} samples'
    if len(samples) < n:
        counted += f' ({n - len(samples)} more could not be read)'
    note = (
        f'before: as stored, in physical units. after: as the model gets it. Numbers: '
        f'2nd to 98th percentile over all bands. Bands: {", ".join(bands)}.'
    )
    notes = [note, facts.note] if facts and facts.note else [note]
    title = f'{type(datamodule).__name__}: {counted}'
    return draw_page(cards, bands, title, notes), counted


def choose(length: int, n: int, split: str, seed: int) -> list[int]:
    """Choose n samples that are spread over a dataset: one from each n-th part of it.

    The split is part of the address of the draw. Returns n increasing indices.
    """
    if n > length:
        raise ValueError(
            f'n is {n}, but there are {length} {split} samples. Use fewer.'
        )
    draw = generator(seed, 'show', split)
    bounds = [part * length // n for part in range(n + 1)]
    return [
        int(torch.randint(start, stop, (), generator=draw))
        for start, stop in itertools.pairwise(bounds)
    ]


@dataclass(frozen=True)
class Card:
    """A sample on the page.

    Attributes:
        name: Name of the sample.
        labels: Its classes, '' without labels.
        before: (C, H, W) as stored.
        after: (C, H', W') as the model gets it.
    """

    name: str
    labels: str
    before: Tensor
    after: Tensor


def draw_page(
    cards: Sequence[Card], bands: Sequence[str], title: str, notes: Sequence[str] = ()
) -> Figure:
    """Draw samples in a grid, each with its pictures before above those after."""
    kinds = len(composites(cards[0].before, bands))
    width = max(_PANEL * kinds, 2.2)  # of a card
    rows = math.ceil(len(cards) / max(1, int(_WIDTH / (width + _SIDE))))
    columns = math.ceil(len(cards) / rows)  # as many cards in each row
    page = max(columns * (width + _SIDE), 7.5)
    names = [wrap(card.name, width, 7) for card in cards]
    labels = [wrap(card.labels, width, 7) for card in cards]
    head = [title, *(line for note in notes for line in wrap(note, page - 0.3, 8))]
    lines = rows * (max(map(len, names)) + max(map(len, labels)))
    height = rows * (2 * _PANEL + 0.6) + 0.13 * lines + 0.16 * len(head)
    figure = Figure(figsize=(page, height), layout='constrained')
    style: dict[str, Any] = {'ha': 'left', 'parse_math': False}
    figure.suptitle('\n'.join(head), x=0.1 / page, fontsize=8, **style)
    parts = figure.subfigures(rows, columns, squeeze=False).flat
    style |= {'x': 0.02, 'fontsize': 7}
    for part, card, name, label in zip(parts, cards, names, labels, strict=False):
        part.suptitle('\n'.join(name), **style)
        part.supxlabel('\n'.join(label), **style)
        upper, lower = part.subplots(2, kinds, squeeze=False)
        halves = (upper, card.before, 'before'), (lower, card.after, 'after')
        for panels, image, when in halves:
            ranges = [when, *_ranges(image, bands)]
            panels[0].set_ylabel('\n'.join(ranges), fontsize=7)
            made = composites(image, bands)
            for panel, (kind, picture) in zip(panels, made, strict=True):
                panel.set_title(kind if when == 'before' else '', fontsize=7)
                show_pixels(panel, picture)
    return figure


def _ranges(image: Tensor, bands: Sequence[str]) -> list[str]:
    """Return the 2nd to 98th percentile of optical and radar bands."""
    radar = torch.tensor([band in _RADAR for band in bands])
    texts = []
    for kind, pixels in (('', image[~radar]), ('radar ', image[radar])):
        known = pixels[pixels.isfinite()].cpu().numpy()
        if known.size:
            low, high = np.percentile(known, [2, 98])
            digits = 0 if max(abs(low), abs(high)) >= 100 else 1
            texts.append(f'{kind}{low:z,.{digits}f} to {high:z,.{digits}f}')
    return texts or ['no data']


def _base(dataset: Any) -> Any:
    return dataset.dataset if isinstance(dataset, Subset) else dataset


def _samples_of(datamodule: BaseDataModule, split: str) -> tuple[Any, Sequence[Any]]:
    """Return a dataset and the keys of its samples."""
    dataset: Any = getattr(datamodule, f'{split}_dataset', None)
    dataset = (
        dataset or datamodule.dataset
    )  # some of TorchGeo's have one for all splits
    if dataset is None:
        raise ValueError(
            f'{type(datamodule).__name__} has no {split} samples. Choose another split.'
        )
    if not isinstance(_base(dataset), GeoDataset):
        return dataset, range(len(dataset))
    loader = getattr(datamodule, f'{split}_dataloader')()  # its sampler cuts patches
    if isinstance(loader.batch_sampler, BatchGeoSampler):
        return dataset, list(itertools.chain(*loader.batch_sampler))
    return dataset, list(loader.sampler)


def _bands(datamodule: Any, dataset: Any, sample: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the channels, numbers if they have none."""
    facts = data_facts(datamodule)
    if facts is not None:
        return facts.bands
    if 'image' not in sample:
        raise ValueError(
            f'Samples have only {", ".join(sample)}. Choose a datamodule of images.'
        )
    channels = len(_flat(sample['image']))
    for owner in (datamodule, _base(dataset)):
        for attribute in ('bands', 'all_bands', 'all_band_names'):
            names = getattr(owner, attribute, ())
            if isinstance(names, list | tuple) and len(names) == channels:
                return tuple(names)
    numbers = tuple(f'channel {number + 1}' for number in range(channels))
    return ('red', 'green', 'blue') if channels == 3 else numbers


def _image(sample: Mapping[str, Any], bands: Sequence[str]) -> Tensor:
    """Return the pixels of a sample as stored, (C, H, W) on its finest grid."""
    if 'native' not in sample:
        return _flat(sample['image']).clone()
    native = sample['native'].items()
    groups = {names: torch.as_tensor(pixels)[None] for names, pixels in native}
    height, width = max(pixels.shape[-2:] for pixels in groups.values())
    return resample(groups, bands, (height, width))[0]


def _flat(image: Tensor) -> Tensor:
    """Return (C, H, W), the first image of several."""
    return image.reshape(-1, *image.shape[-3:])[0]


def _labels(sample: Mapping[str, Any], classes: Sequence[str]) -> str:
    """Return the names of a sample's classes, '' if it has no labels."""
    if 'label' not in sample:
        return ''
    label = torch.as_tensor(sample['label'])
    if label.is_floating_point() and label.ndim == 0:
        return f'{float(label):.4g}'  # of a regression
    numbers = label.nonzero() if label.numel() > 1 else label
    known = dict(enumerate(classes))
    texts = [known.get(i, f'class {i}') for i in numbers.flatten().tolist()]
    return '; '.join(texts) or 'no class'
