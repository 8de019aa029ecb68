"""Base of the datamodules: named bands, normalized and sized on the device."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, override

import kornia.augmentation as K
import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader
from torchgeo.datamodules import NonGeoDataModule

from ..datasets.resample import resample
from ..facts import DataFacts
from ..provenance.record import DataRecord
from ..randomness import derive_seed, global_seed
from ..samplers.epoch import EpochSampler, RepeatedDataset
from .collate import collate, list_skipped
from .loader import EpochLoader, check_order

_SIZE_BY = ('resize', 'pad', 'crop')


class ChannelDataModule(NonGeoDataModule):
    """A datamodule of named bands.

    On the device, each band is normalized with its own mean and standard deviation and
    brought to ``size``, and training images are flipped. Random draws depend only on
    the global seed, the epoch and the samples of the batch.

    A subclass sets ``bands``, ``mean`` and ``std``, calls :meth:`check_arguments` in
    its constructor, and makes the datasets and calls :meth:`check_batch_size` in
    ``setup``.

    Attributes:
        bands: Names of the bands, in order.
        mean: (C,) mean of each band in physical units.
        std: (C,) standard deviation of each band.
        record: What training reads; None where unknown.
        note: A warning to print above every score; None for none.
        class_names: Names of the classes; None without labels.
        side: Height and width of native samples on the finest grid; None if unknown.
        skipped: The reason per name of a patch that could not be read.
    """

    bands: tuple[str, ...]
    mean: Tensor
    std: Tensor
    record: DataRecord | None = None
    note: str | None = None
    class_names: Sequence[str] | None = None
    side: int | None = None

    def __init__(
        self,
        dataset_class: Any,
        size: int,
        size_by: str,
        batch_size: int,
        num_workers: int,
        samples_per_epoch: int | None,
        augment: bool,
        clip_pixels: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Initialize the datamodule.

        Args:
            dataset_class: Class of the datasets.
            size: Height and width of the images in pixels.
            size_by: How an image gets that size: 'resize', 'pad' or 'crop'.
            batch_size: Samples per batch and device.
            num_workers: Number of data loading processes.
            samples_per_epoch: Training samples per epoch and all devices; None for all.
            augment: Whether training images are flipped, and cropped anywhere.
            clip_pixels: Standard deviations from a band's mean that pixels are clipped
                to; None for no limit.
            **kwargs: Arguments of the datasets.
        """
        super().__init__(dataset_class, batch_size, num_workers, **kwargs)
        self.collate_fn = collate
        self.size = size
        self.size_by = size_by
        self.samples_per_epoch = samples_per_epoch
        self.augment = augment
        self.clip_pixels = clip_pixels
        self.skipped: dict[str, str] = {}

    @property
    def facts(self) -> DataFacts:
        """What the images are, once the datamodule is set up."""
        return DataFacts(
            bands=tuple(self.bands),
            mean=self.mean,
            std=self.std,
            size=self.size,
            record=self.record,
            class_names=None if self.class_names is None else tuple(self.class_names),
            note=self.note,
            clip_pixels=self.clip_pixels,
        )

    @property
    def num_patches(self) -> dict[str, int]:
        """Number of samples of each split that is set up."""
        return {split: len(dataset) for split, dataset in self.datasets().items()}

    def datasets(self) -> dict[str, Any]:
        """Return the datasets that are set up, by split."""
        splits = ('val', 'train', 'test', 'predict')
        found = {split: getattr(self, f'{split}_dataset', None) for split in splits}
        return {split: dataset for split, dataset in found.items() if dataset}

    @override
    def on_after_batch_transfer(
        self, batch: dict[str, Any], dataloader_idx: int
    ) -> dict[str, Any]:
        """Normalize, size and, in training, augment a batch on its device."""
        skipped = batch.pop('skipped', ())
        for name, reason in skipped:
            if name not in self.skipped:
                self.skipped[name] = reason
                warnings.warn(f'Skipped patch {name}: {reason}', stacklevel=2)
        training = self.trainer is not None and self.trainer.training
        if not batch and training:
            raise ValueError(
                f'All {len(skipped)} patches of a batch were skipped, the first '
                f'because: {skipped[0][1]}'
            )
        if not batch or self.trainer is None:
            return self.finish(batch, training) if batch else batch
        batch = self.finish(batch, training, self.trainer.current_epoch)
        # Normalizing made float32; bf16-true, for example, needs another dtype.
        batch = self.trainer.precision_plugin.convert_input(batch)
        return batch

    def finish(
        self, batch: Mapping[str, Any], training: bool, epoch: int = 0
    ) -> dict[str, Any]:
        """Normalize and size a batch and, for training, augment it.

        Args:
            batch: A batch in physical units, with ``image`` or ``native`` pixels.
            training: Whether to augment.
            epoch: Epoch that the random draws are for.

        Returns:
            The batch with a normalized ``image`` (B, C, size, size) and, if pixels are
            clipped, ``clipped`` (B,): the share of each image's, before it is cropped
            or padded.
        """
        batch = dict(batch)
        native = batch.pop('native', None)
        groups = {self.bands: batch['image']} if native is None else native
        size = (self.size, self.size)
        if self.size_by != 'resize':  # on the finest grid first
            shapes = [pixels.shape[-2:] for pixels in groups.values()]
            size = max(height for height, _ in shapes), max(w for _, w in shapes)
            if native is not None and self.side is not None:
                size = (self.side, self.side)
            self._check_fits(size)
        image = resample(groups, self.bands, size, self.mean, self.std)
        if (most := self.clip_pixels) is not None:
            beyond = (image.abs() > most).count_nonzero(dim=(1, 2, 3))
            batch['clipped'] = beyond / image[0].numel()
            image.clamp_(-most, most)
        batch['image'] = image
        steps = self._steps(training and self.augment)
        if not steps:
            return batch
        pipeline = K.AugmentationSequential(*steps, data_keys=['image'], keepdim=True)
        seed = derive_seed(global_seed(), 'augment', epoch, *batch['visit'])
        with torch.random.fork_rng(devices=[]):  # Kornia draws on the CPU
            torch.default_generator.manual_seed(seed)
            batch['image'] = pipeline(batch['image'])
        return batch

    def physical(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Return a sample in physical units, to plot it, after ``setup``.

        Args:
            sample: A sample of a dataset, or a row of a batch of :meth:`finish`.
        """
        if not self.datasets():
            raise RuntimeError(f"{type(self).__name__} has no data. Call setup('fit').")
        sample = dict(sample)
        if 'visit' in sample and 'native' not in sample:
            image = sample['image']
            std, mean = self.std.to(image.device), self.mean.to(image.device)
            sample['image'] = image * std[:, None, None] + mean[:, None, None]
        return sample

    def _steps(self, varied: bool) -> list[torch.nn.Module]:
        size = (self.size, self.size)
        steps: list[torch.nn.Module] = []
        if self.size_by == 'pad':
            steps.append(K.PadTo(size))
        elif self.size_by == 'crop':
            crop = K.RandomCrop if varied else K.CenterCrop
            steps.append(crop(size, cropping_mode='slice'))
        if varied:  # flips cost by the pixel: of the crop only
            steps += [K.RandomHorizontalFlip(p=0.5), K.RandomVerticalFlip(p=0.5)]
        return steps

    def make_sampler(self, dataset: Any, **shared: Any) -> EpochSampler:
        """Return the sampler of an epoch of training.

        Args:
            dataset: The training dataset.
            **shared: ``seed``, ``num_replicas``, ``rank`` and ``drop_last``.
        """
        return EpochSampler(dataset, self.samples_per_epoch, **shared)

    def shared(self) -> dict[str, Any]:
        """Return the arguments of a sampler that all processes share."""
        rank, world_size = self.rank()
        return {
            'seed': global_seed(),
            'num_replicas': world_size,
            'rank': rank,
            'drop_last': True,
        }

    def visits(self, dataset: Any) -> Any:
        """Return the training dataset as indexed by the numbers of draws."""
        return RepeatedDataset(dataset)

    @override
    def _dataloader_factory(self, split: str) -> DataLoader[dict[str, Any]]:
        """Return the loader of a split: in training shuffled, otherwise in order."""
        dataset: Any = self._valid_attribute(f'{split}_dataset')
        sampler = None
        if split == 'train':
            sampler = self.make_sampler(dataset, **self.shared())
            dataset = self.visits(dataset)
        kind = EpochLoader if split == 'train' else DataLoader
        loader = kind(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=self.collate_fn,
            drop_last=split == 'train',
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )
        if isinstance(loader, EpochLoader):
            loader.trainer = self.trainer
        return loader

    def rank(self) -> tuple[int, int]:
        """Return this process's rank and the number of processes."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _order(self) -> dict[str, int | None]:
        """Return what decides which samples the remaining batches of an epoch have."""
        return {
            'seed': global_seed(),
            'batch_size': self.batch_size,
            'samples_per_epoch': self.samples_per_epoch,
            'number of processes': self.rank()[1],
        }

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint inside an epoch depends on."""
        assert self.trainer is not None
        batches = self.trainer.fit_loop.epoch_loop.batch_progress
        inside = batches.current.ready and not batches.is_last_batch
        return {'order': self._order() if inside else None}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the rest of the epoch has the samples that it would have had."""
        assert self.trainer is not None
        if self.trainer.state.fn == 'fit' and state_dict.get('order'):
            check_order(state_dict['order'], self._order())

    def check_arguments(self) -> None:
        """Raise ValueError if an argument of the constructor is wrong."""
        if self.size_by not in _SIZE_BY:
            raise ValueError(
                f'Unknown size_by {self.size_by!r}. Use one of {", ".join(_SIZE_BY)}.'
            )
        for name in ('size', 'batch_size', 'samples_per_epoch', 'num_workers'):
            value, least = getattr(self, name), int(name != 'num_workers')
            if value is not None and value < least:
                raise ValueError(f'{name} is {value}. Use at least {least}.')
        if self.clip_pixels is not None and not self.clip_pixels > 0:
            raise ValueError(
                f'clip_pixels is {self.clip_pixels}. Use more than 0 standard '
                f'deviations, or null for no limit.'
            )
        if self.side is not None:
            self._check_fits((self.side, self.side))

    def _check_fits(self, size: tuple[int, int]) -> None:
        if self.size_by == 'crop' and self.size > min(size):
            raise ValueError(
                f'size={self.size} is more than the {min(size)} px to crop from. Use '
                f'at most {min(size)}, or size_by resize or pad.'
            )
        if self.size_by == 'pad' and self.size < max(size):
            raise ValueError(
                f'size={self.size} is less than the {max(size)} px to pad. Use at '
                f'least {max(size)}, or size_by resize or crop.'
            )

    def check_batch_size(self, drawn: int | None = None) -> None:
        """Raise ValueError if a process has no batch to train on.

        Args:
            drawn: Samples per epoch. None is ``samples_per_epoch``, or each once.
        """
        world_size = self.rank()[1]
        total = drawn or self.samples_per_epoch or len(self.train_dataset)
        share = total // world_size
        if self.batch_size > share:
            raise ValueError(
                f'batch_size={self.batch_size} is larger than an epoch of '
                f'{total} training samples over {world_size} processes. '
                f'Use at most {share}, or raise samples_per_epoch.'
            )

    @override
    def teardown(self, stage: str) -> None:
        """Report how many patches were skipped, and list them in ``skipped.csv``."""
        super().teardown(stage)
        folder = None if self.trainer is None else self.trainer.log_dir  # on all ranks
        found: list[dict[str, str]] = [self.skipped]
        if dist.is_available() and dist.is_initialized():
            found = [{} for _ in range(dist.get_world_size())]
            dist.all_gather_object(found, self.skipped)
        skipped = {name: reason for part in found for name, reason in part.items()}
        self.skipped = {}
        if not skipped or self.rank()[0]:
            return
        listed = (
            '' if folder is None else f', see {list_skipped(folder, stage, skipped)}'
        )
        rank_zero_warn(f'{len(skipped)} patches could not be read{listed}.')
