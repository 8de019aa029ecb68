"""Any of TorchGeo's datasets for pretraining."""

from typing import Any, override

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from ..config import (
    ClassSpec,
    build,
    check_arguments,
    find_class,
    guarded,
    is_geo,
)
from ..datasets.names import name_spaces
from ..provenance.record import DataRecord, patch_hashes
from ..randomness import global_seed
from ..samplers import epoch as samplers
from .common import SourceDataModule, keep_apart, known_tiles
from .grouping import VAL_BY, split_rows, tiles_of, transfer_tiles
from .known import Rows, Source, make_source, source_class
from .visits import NamedBands


class PretrainingDataModule(SourceDataModule):
    """Named bands of any ``NonGeoDataset`` of TorchGeo, to pretrain on.

    What the channels of MMEarth, S2100k, SSL4EOS12, SeasonalContrastS2, SEN12MS,
    EuroSAT, So2Sat and BigEarthNet are is known; of other datasets, ``dataset_bands``
    says it. Bands are picked by name, in physical units (digital numbers, decibels),
    and normalised, sized and flipped on the device.

    Set up, it has ``bands``, ``mean``, ``std``, ``size``, ``num_patches``, ``record``
    (what training reads), ``train_dataset`` and ``val_dataset``.
    """

    def __init__(
        self,
        dataset: ClassSpec | None = None,
        bands: list[str] | None = None,
        root: str | None = None,
        size: int = 128,
        size_by: str = 'resize',
        batch_size: int = 64,
        num_workers: int = 0,
        samples_per_epoch: int | None = None,
        augment: bool = True,
        dataset_bands: list[str] | None = None,
        image_key: str = 'image',
        level: str | None = None,
        statistics: str | None = None,
        val_fraction: float = 0.1,
        val_by: str = 'auto',
        val_key: str | None = None,
        val_dataset: ClassSpec | None = None,
        block_km: float = 100.0,
        gap_km: float = 5.0,
        split_seed: int = 0,
        sampler: ClassSpec | None = None,
        transfer_test: str | None = None,
        overlap: str = 'raise',
        nodata: float | None = None,
        max_nodata: float = 0.5,
        on_error: str = 'raise',
    ) -> None:
        """Initialise the datamodule.

        Args:
            dataset: ``{class_path: NAME, init_args: {...}}`` of the dataset. NAME is
                that of a TorchGeo dataset or dotted. Arguments that make a known
                dataset read the bands wanted are added, unless given.
            bands: Names of the bands, in the order wanted. None is all.
            root: Folder of the data, if it is not in ``init_args``.
            size: Height and width of the images in pixels.
            size_by: How an image gets that size: 'resize' (bilinear), 'pad' (zeros on
                the right and below) or 'crop' (in training anywhere if ``augment``).
            batch_size: Samples of a batch, on each device.
            num_workers: Processes that load data.
            samples_per_epoch: Training samples of an epoch over all devices. None is
                each once.
            augment: Whether training images are flipped, and cropped anywhere.
            dataset_bands: Names of the channels of a dataset that is not known, in
                order.
            image_key: Key of the image in the samples of a dataset that is not known.
            level: Product level of the Sentinel-2 bands, L1C or L2A, where the dataset
                has both (MMEarth; L2A unless given) or is not known.
            statistics: YAML file with the mean and standard deviation of each band, as
                `channelmae stats` writes it. None is those of
                :mod:`torchgeo_channelmae.sensors`.
            val_fraction: Share of the groups that validate; 0 for no validation.
            val_by: What groups are, so that no neighbours are on both sides: scene,
                tile (MGRS, 100 km), block (of coordinates), key (``val_key``) or random
                (single samples). auto is the first of scene (where scenes lie apart,
                rather than being dates of one place), tile and block that is known
                from tables and names.
            val_key: With val_by key, a sequence that the dataset has as an attribute,
                or an entry of its samples; all samples are read once for the latter.
            val_dataset: Another dataset to validate on, instead of groups.
            block_km: Side of a block.
            gap_km: Training samples nearer than this to a block or tile that validates
                are left out, where files or tables tell coordinates; of tiles known by
                name, to a sample there.
            split_seed: Seed of the choice of groups.
            sampler: ``{class_path: NAME, init_args: {...}}`` of another sampler of
                :mod:`torchgeo_channelmae.samplers`.
            transfer_test: Folder of a BigEarthNet on whose test split a transfer will
                be tested, to check that no tile of it is pretrained or validated on.
                Samples with coordinates count as on all tiles that may cover them.
            overlap: What to do with samples on such tiles: raise, drop or allow.
            nodata: Pixel value that stands for no data where all bands of a sensor have
                it. None is that of the known dataset (0 for Sentinel-2).
            max_nodata: Largest share of a band's pixels without data that is filled
                with the mean of its others. More is an error.
            on_error: What to do with a sample that can't be read: raise or skip.
        """
        super().__init__(
            dataset,
            root,
            bands,
            level,
            statistics,
            val_fraction,
            split_seed,
            transfer_test,
            overlap,
            nodata,
            max_nodata,
            size=size,
            size_by=size_by,
            batch_size=batch_size,
            num_workers=num_workers,
            samples_per_epoch=samples_per_epoch,
            augment=augment,
        )
        self.dataset_bands = dataset_bands
        self.image_key = image_key
        self.val_by = val_by
        self.val_key = val_key
        self.val_specification = val_dataset
        self.block_km = block_km
        self.gap_km = gap_km
        self.sampler = sampler
        self.on_error = on_error
        self._made: tuple[dict[str, Any], Any] | None = None

    @override
    def setup(self, stage: str) -> None:
        """Check the arguments and build the datasets of a stage.

        Args:
            stage: 'fit', 'validate' or 'predict'.

        Raises:
            FileNotFoundError: If a file or folder of the data is missing.
            ValueError: If an argument makes no sense, or the data are not as expected.
        """
        self._check()
        if self._source is None:
            self._source = self.make_source(self.specification, 'dataset')
        source = self._source
        self.dataset = source.dataset
        self.choose_bands(source)
        train, val = self._split(source)
        steered = None if self.sampler else False
        if stage in ('fit', 'validate') and val is not None:
            self.val_dataset = val
        if stage == 'fit':
            self.train_dataset = self._named(source, train, 'visit', global_seed())
            drawn = None
            if self.sampler is not None:
                sampler = self.visit_sampler(self.train_dataset, **self.shared())
                steered = _steered(sampler)
                drawn = getattr(sampler, 'samples_per_epoch', None)
            self.check_batch_size(drawn)
        if stage == 'predict':
            rows = source.rows()
            self.predict_dataset = self._named(source, rows, 'predict')
        self.record = self._record(source, train, steered)

    @override
    def make_source(self, spec: Any, role: str) -> Source:
        """Build a dataset and find out what is known of it."""
        spec = self.with_root(spec, 'root')
        kind = find_class(spec, role)
        if is_geo(kind):
            raise ValueError(
                f'{kind.__name__} is sampled by place: use GeoPretrainingDataModule.'
            )
        known = source_class(kind)
        source = make_source(
            build(
                spec, role, known.dataset_class(kind), **known.arguments(self.wanted)
            ),
            self.level,
            self.image_key,
            self.dataset_bands,
            self.nodata,
        )
        if not len(source.rows()):
            raise ValueError(f'{role} {source.name} has no sample to use.')
        return source

    @override
    def visit_sampler(self, dataset: Any, **shared: Any) -> Any:
        """Return the sampler that decides what an epoch visits, made once."""
        if self.sampler is None:
            return super().visit_sampler(dataset, **shared)
        if self._made is None or self._made[0] != shared:
            kind = find_class(self.sampler, 'sampler', (samplers,))
            given = {
                'samples_per_epoch': self.samples_per_epoch,
                **shared,
                **(self.sampler.get('init_args') or {}),
            }
            given['dataset'] = dataset
            check_arguments(kind, given, 'sampler')
            made = guarded(lambda: kind(**given), f'sampler {kind.__name__}', {})
            self._made = (shared, made)
        return self._made[1]

    def _check(self) -> None:
        self.check_source_arguments()
        if self.val_by not in VAL_BY:
            raise ValueError(
                f'val_by is {self.val_by!r}: use one of {", ".join(VAL_BY)}.'
            )
        if self.on_error not in ('raise', 'skip'):
            raise ValueError(f"on_error is {self.on_error!r}: use 'raise' or 'skip'.")
        if self.gap_km < 0 or self.block_km <= 0 or 2 * self.gap_km > self.block_km:
            raise ValueError(
                f'gap_km is {self.gap_km} and block_km {self.block_km}: give a block '
                f'of at least twice the gap, which is 0 or more.'
            )

    def _split(self, source: Source) -> tuple[Rows, NamedBands | None]:
        """Return the rows to train on, and the samples to validate on."""
        rows = source.rows()
        if len(rows) < len(source.dataset):
            rank_zero_info(
                f'{source.name}: {len(rows)} of {len(source.dataset)} samples are used'
                + (
                    f' (level {source.level}).'
                    if source.level
                    else ', the others are not in its folder.'
                )
            )
        rows = self._apart(source, rows)
        if self.val_specification is not None:
            other = self.make_source(self.val_specification, 'val_dataset')
            chosen = self._apart(other, other.rows())
            self._check_other(source, rows, other, chosen)
            return rows, self._named(other, chosen, 'validation')
        if not self.val_fraction:
            return rows, None
        train, val, note = split_rows(
            source,
            rows,
            self.val_by,
            self.val_fraction,
            self.split_seed,
            self.block_km,
            self.gap_km,
            self.val_key,
        )
        rank_zero_info(note)
        return train, self._named(source, val, 'validation')

    def _check_other(
        self, source: Source, rows: Rows, other: Source, chosen: Rows
    ) -> None:
        """Check that val_dataset has no sample that trains."""
        roots = {str(getattr(one.dataset, 'root', '')) for one in (source, other)}
        if other.name != source.name or len(roots) > 1:
            return
        names, others = source.names(rows), other.names(chosen)
        if names is None or others is None:
            assert self.specification is not None
            assert self.val_specification is not None
            same = dict(self.specification) == dict(self.val_specification)
            count, example = (len(chosen), '') if same else (0, '')
        else:
            shared = np.intersect1d(names, others)
            count, example = len(shared), f', such as {next(iter(shared), "")}'
        if count:
            raise ValueError(
                f'{count} samples of val_dataset are also trained on{example}: give '
                f'another split or folder, or val_fraction without val_dataset.'
            )

    def _named(self, source: Source, rows: Rows, *address: int | str) -> NamedBands:
        return NamedBands(
            source, self.bands, rows, address, self.max_nodata, self.on_error
        )

    def _apart(self, source: Source, rows: Rows) -> Rows:
        """Keep the tiles of the transfer's test split out."""
        if self.transfer_test is None:
            return rows
        test = transfer_tiles(self.transfer_test)
        tiles = tiles_of(source, rows, read=True)
        return keep_apart(rows, tiles, test, self.overlap, source.name)

    def _record(
        self, source: Source, rows: Rows, labels_steered: bool | None
    ) -> DataRecord:
        tiles = tiles_of(source, rows, read=False)
        names, own = source.patches(rows), source.names(rows)
        known = [] if names is None else [names, _encoded(own)]
        return DataRecord(
            dataset=source.name,
            bands=self.bands,
            sensors=self.sensor_names,
            tiles=known_tiles(tiles),
            patches=patch_hashes(np.unique(np.concatenate(known))) if known else None,
            labels_steered=labels_steered,
            name_spaces=name_spaces(*known) if known else (),
        )


def _steered(sampler: Any) -> bool | None:
    """Whether labels decide what a sampler draws; None is unknown."""
    if type(sampler) is samplers.EpochSampler:
        return False
    return getattr(sampler, 'uses_labels', None)


def _encoded(names: Any) -> Any:
    return np.char.encode(np.asarray(names, dtype=np.str_), 'utf-8')
