"""Sentinel-1 and Sentinel-2 patches of BigEarthNet for training and testing."""

from collections.abc import Sequence
from typing import Any, override

import kornia.augmentation as K
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import DataLoader
from torchgeo.datamodules import NonGeoDataModule

from .. import sensors
from ..datasets import BigEarthNetLMDB
from ..randomness import derive_seed, global_seed
from ..samplers import EpochSampler, Visits
from .collate import collate

_SIZE_BY = ('resize', 'pad', 'crop')
_AVAILABLE = sensors.SENTINEL2_L2A + sensors.SENTINEL1_GRD


class BigEarthNetS1S2DataModule(NonGeoDataModule):
    """Named bands of BigEarthNet's Sentinel-1 and Sentinel-2 patches.

    On the device, each band is normalised with its own mean and standard deviation
    (:mod:`torchgeo_channelmae.sensors`), the patch is brought to ``size``, and training
    patches are flipped. What is drawn depends on the global seed, the epoch and the
    patches of the batch only, so reruns and resumed runs agree.

    Set up, it has ``bands`` (names), ``mean`` and ``std`` (a tensor each, band by
    band), ``size``, ``class_names``, ``num_patches``, ``test_groups``,
    ``test_group_seeds`` and, in every stage, ``train_class_frequencies``: the share of
    training patches with each class, (19,).

    Arguments are checked in :meth:`setup`, not here, because an error inside a
    constructor that a configuration file calls is hard to read.
    """

    def __init__(
        self,
        root: str | None = None,
        bands: list[str] | None = None,
        size: int = 128,
        size_by: str = 'resize',
        batch_size: int = 64,
        num_workers: int = 0,
        samples_per_epoch: int | None = None,
        augment: bool = True,
        test_groups: int = 5,
        test_group_seeds: Sequence[int] = (0, 1, 2),
        predict_split: str = 'test',
        lmdb: str | None = None,
        max_nonfinite: float = 0.01,
    ) -> None:
        """Initialise the datamodule.

        Args:
            root: Folder of the data, see
                :class:`~torchgeo_channelmae.datasets.BigEarthNetLMDB`. None is the
                bundled sample.
            bands: Names of the bands, in the order wanted. None is the 12 of
                Sentinel-2.
            size: Height and width of the images in pixels; patches have 120.
            size_by: How a patch gets that size. 'resize' is bilinear (smoothed before
                shrinking); 'pad' adds zeros, each band's mean, on the right and below;
                'crop' cuts out of the middle, in training anywhere if ``augment``.
            batch_size: Patches of a batch, on each device.
            num_workers: Processes that load data.
            samples_per_epoch: Training patches of an epoch over all devices. None is
                each once.
            augment: Whether training patches are flipped, and cropped anywhere.
            test_groups: Random groups into which a test splits its patches.
            test_group_seeds: Seeds of the random groupings.
            predict_split: The split to predict: 'train', 'val' or 'test'.
            lmdb: Folder of the LMDB where ``root`` has several.
            max_nonfinite: Largest share of NaN or infinite pixels in a band that is
                filled rather than an error.
        """
        self.bands = tuple(BigEarthNetLMDB.s2_bands if bands is None else bands)
        try:
            sensor = sensors.select(self.bands, _AVAILABLE)
        except ValueError:
            pass  # setup says what is wrong
        else:
            self.mean = torch.tensor([band.mean for band in sensor])
            self.std = torch.tensor([band.std for band in sensor])
        super().__init__(
            BigEarthNetLMDB,
            batch_size,
            num_workers,
            root=root,
            bands=self.bands,
            lmdb=lmdb,
            max_nonfinite=max_nonfinite,
        )
        self.collate_fn = collate
        self.size = size
        self.size_by = size_by
        self.samples_per_epoch = samples_per_epoch
        self.augment = augment
        self.test_groups = test_groups
        self.test_group_seeds = tuple(test_group_seeds)
        self.predict_split = predict_split
        self.class_names = BigEarthNetLMDB.classes
        self.train_class_frequencies: Tensor | None = None

    @override
    def setup(self, stage: str) -> None:
        """Check the arguments and build the datasets of a stage.

        Args:
            stage: 'fit', 'validate', 'test' or 'predict'.

        Raises:
            FileNotFoundError: If a file or folder of the data is missing.
            ValueError: If an argument makes no sense, or the data are not as expected.
        """
        self._check_arguments()
        super().setup(stage)
        if stage == 'predict':
            self.predict_dataset = self.dataset_class(
                split=self.predict_split, **self.kwargs
            )
        if stage == 'fit':
            self._check_batch_size()
        if stage == 'test' and self.test_groups > len(self.test_dataset):
            raise ValueError(
                f'test_groups is {self.test_groups}, more than the '
                f'{len(self.test_dataset)} test patches: give fewer.'
            )
        self.train_class_frequencies = self._dataset().class_frequencies('train')
        self.aug = self._augmentations(training=False)
        self.train_aug = self._augmentations(training=True)

    @property
    def note(self) -> str | None:
        """What a reader of scores on these data has to know first."""
        if self.kwargs['root'] is not None:
            return None
        return (
            'These are the patches of the bundled sample: the scores show that the '
            'pipeline works and say nothing about the model.'
        )

    @property
    def num_patches(self) -> dict[str, int]:
        """Number of patches of each split that is set up."""
        return {split: len(dataset) for split, dataset in self._datasets().items()}

    @override
    def on_after_batch_transfer(
        self, batch: dict[str, Any], dataloader_idx: int
    ) -> dict[str, Any]:
        """Normalise, size and, in training, augment a batch on its device.

        Args:
            batch: A batch in physical units.
            dataloader_idx: Index of the dataloader.

        Returns:
            The batch with another ``image``; the other keys pass through.
        """
        trainer = self.trainer
        augmented: dict[str, Any]
        if trainer is None or not trainer.training:
            augmented = self.aug(batch)
            return augmented
        seed = derive_seed(
            global_seed(), 'augment', trainer.current_epoch, *batch['visit']
        )
        with torch.random.fork_rng(devices=[]):  # Kornia draws on the CPU
            torch.default_generator.manual_seed(seed)
            augmented = self.train_aug(batch)
        return augmented

    @override
    def plot(self, *args: Any, **kwargs: Any) -> Figure | None:
        """Plot a sample in physical units, as the dataset does."""
        return self._dataset().plot(*args, **kwargs)

    @override
    def _dataloader_factory(self, split: str) -> DataLoader[dict[str, Any]]:
        """Return the loader of a split: in training shuffled, otherwise in order."""
        dataset: Any = self._valid_attribute(f'{split}_dataset')
        sampler = None
        if split == 'train':
            rank, world_size = self._rank()
            sampler = EpochSampler(
                dataset,
                self.samples_per_epoch,
                seed=global_seed(),
                num_replicas=world_size,
                rank=rank,
                drop_last=True,
            )
            sampler.set_epoch(self._next_epoch())
            dataset = Visits(dataset)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=self.collate_fn,
            drop_last=split == 'train',
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def _augmentations(self, training: bool) -> K.AugmentationSequential:
        size = (self.size, self.size)
        steps: list[torch.nn.Module] = [K.Normalize(self.mean, self.std)]
        varied = training and self.augment
        if varied:
            steps += [K.RandomHorizontalFlip(p=0.5), K.RandomVerticalFlip(p=0.5)]
        if self.size_by == 'resize':
            steps.append(
                K.Resize(size, 'bilinear', align_corners=False, antialias=True)
            )
        elif self.size_by == 'pad':
            steps.append(K.PadTo(size))
        elif varied:
            steps.append(K.RandomCrop(size, cropping_mode='slice'))
        else:
            steps.append(K.CenterCrop(size, cropping_mode='slice'))
        return K.AugmentationSequential(*steps, data_keys=None, keepdim=True)

    def _datasets(self) -> dict[str, BigEarthNetLMDB]:
        found = {
            split: getattr(self, f'{split}_dataset')
            for split in ('val', 'train', 'test', 'predict')
        }
        return {split: dataset for split, dataset in found.items() if dataset}

    def _dataset(self) -> BigEarthNetLMDB:
        return next(iter(self._datasets().values()))

    def _rank(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _next_epoch(self) -> int:
        """Return the epoch that training will start with.

        Lightning makes the first iterator of a resumed run before it tells the sampler
        the epoch, and counts an epoch whose checkpoint was written in its validation
        only later (``_FitLoop.reset``).
        """
        if self.trainer is None:
            return 0
        loop = self.trainer.fit_loop
        loop.update_restart_stage()
        counted_later = (
            loop.restarted_mid_epoch
            and loop.epoch_loop.restarted_on_train_batch_end
            and loop.epoch_loop.batch_progress.is_last_batch
        )
        return int(loop.epoch_progress.current.processed) + int(counted_later)

    def _check_arguments(self) -> None:
        pixels = BigEarthNetLMDB.image_size
        if self.size_by not in _SIZE_BY:
            choices = ', '.join(_SIZE_BY)
            raise ValueError(f'Unknown size_by {self.size_by!r}: use one of {choices}.')
        for name in ('size', 'batch_size', 'samples_per_epoch', 'test_groups'):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f'{name} is {value}: it must be at least 1.')
        if self.size_by == 'crop' and self.size > pixels:
            raise ValueError(
                f'size is {self.size}, more than the {pixels} px to crop from: give '
                f'at most {pixels}, or size_by resize or pad.'
            )
        if self.size_by == 'pad' and self.size < pixels:
            raise ValueError(
                f'size is {self.size}, less than the {pixels} px to pad: give at least '
                f'{pixels}, or size_by resize or crop.'
            )
        if self.num_workers < 0:
            raise ValueError(f'num_workers is {self.num_workers}: give 0 or more.')
        if not 0 <= self.kwargs['max_nonfinite'] <= 1:
            raise ValueError(
                f'max_nonfinite is {self.kwargs["max_nonfinite"]}: give a share from '
                f'0 to 1.'
            )
        seeds = self.test_group_seeds
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(
                f'test_group_seeds is {list(seeds)}: give at least one, each once.'
            )

    def _check_batch_size(self) -> None:
        _, world_size = self._rank()
        total = self.samples_per_epoch or len(self.train_dataset)
        share = total // world_size
        if self.batch_size <= share:
            return
        counted = f'{total} training patches'
        if self.samples_per_epoch:
            counted += ' of an epoch (samples_per_epoch)'
        if world_size > 1:
            counted = (
                f'{share} that each of {world_size} processes has of the {counted}'
            )
        raise ValueError(
            f'batch_size {self.batch_size} is larger than the {counted}: '
            + (f'use at most {share}.' if share else 'use fewer processes.')
        )
