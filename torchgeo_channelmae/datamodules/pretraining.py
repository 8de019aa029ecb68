"""Any of TorchGeo's datasets for pretraining."""

from dataclasses import replace
from typing import Any, override

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from ..config import ClassSpec, build, deferred_errors, find_class
from ..datasets.names import name_spaces
from ..provenance.record import DataRecord, patch_hashes
from ..randomness import global_seed
from ..samplers import epoch as samplers
from .holdout import (
    VAL_BY,
    Holdout,
    exclude_test_tiles,
    known_tiles,
    transfer_tiles,
)
from .known_sources import find_facts
from .named_bands import NamedBands
from .source_datamodule import SourceDataModule
from .sources import Rows, Source


class PretrainingDataModule(SourceDataModule):
    """Named bands of any ``NonGeoDataset`` of TorchGeo, to pretrain on.

    The channels of MMEarth, S2100k, SSL4EOS12, SeasonalContrastS2, SEN12MS, EuroSAT,
    So2Sat and BigEarthNet are known; those of others are named by ``dataset_bands``.
    Bands are selected by name, in physical units (digital numbers, decibels), and
    normalized, sized and flipped on the device.

    Once set up, it has ``facts``, ``train_dataset`` and ``val_dataset``.
    """

    def __init__(
        self,
        dataset: ClassSpec | None = None,
        *,
        val_by: str = 'auto',
        val_key: str | None = None,
        val_dataset: ClassSpec | None = None,
        block_km: float = 100.0,
        gap_km: float = 5.0,
        sampler: ClassSpec | None = None,
        on_error: str = 'raise',
        **kwargs: Any,
    ) -> None:
        """Initialize the datamodule.

        Args:
            dataset: ``{class_path: NAME, init_args: {...}}`` of the dataset.
            val_by: What groups are, so that no neighbors are on both sides: scene,
                tile (MGRS, 100 km), block (of coordinates), key (``val_key``) or random
                (single samples). auto is the first of scene (where scenes lie apart,
                rather than being dates of one place), tile and block that is known
                from tables and names.
            val_key: With val_by key, a sequence that is an attribute of the dataset, or
                an entry of its samples; all samples are read once for the latter.
            val_dataset: Another dataset to validate on, instead of groups.
            block_km: Side of a block.
            gap_km: With tiles and blocks, training samples within this distance of one
                that validates are left out, where files or tables have coordinates.
            sampler: ``{class_path: NAME, init_args: {...}}`` of another sampler of
                :mod:`torchgeo_channelmae.samplers`.
            on_error: What to do with a sample that cannot be read: raise or skip.
            **kwargs: See :class:`.SourceDataModule`.

        Raises:
            ValueError: If an argument is wrong.
        """
        super().__init__(dataset, **kwargs)
        self.val_by = val_by
        self.val_specification = val_dataset
        split = (self.val_fraction, self.split_seed, block_km, gap_km)
        self.holdout = Holdout(val_by, val_key, *split)
        self.sampler = sampler
        self.on_error = on_error
        with deferred_errors(self):
            self.check_choices(val_by=VAL_BY, on_error=('raise', 'skip'))
            if val_by == 'key' and val_key is None:
                raise ValueError('val_by key needs val_key: an entry of the samples.')
            if gap_km < 0 or block_km <= 0:
                raise ValueError(
                    f'gap_km is {gap_km} and block_km {block_km}. Use a gap of at '
                    f'least 0 and a block above 0.'
                )

    @override
    def setup(self, stage: str) -> None:
        """Build the datasets of a stage: 'fit', 'validate' or 'predict'."""
        super().setup(stage)
        if stage == 'fit':
            if self.sampler is not None:
                made = self._made_sampler = self._build_sampler(self.sampler)
                plain = type(made) is samplers.EpochSampler
                steered = False if plain else getattr(made, 'uses_labels', None)
                self.record = replace(self.record, labels_steered=steered)
            self.check_batch_size(
                getattr(self._made_sampler, 'samples_per_epoch', None)
            )
        if stage == 'predict':
            rows = self.source.rows
            self.predict_dataset = self._named(self.source, rows, 'predict')

    @override
    def make_source(self, spec: Any, role: str) -> Source:
        """Build a dataset and look up its facts."""
        dataset = self.build_dataset(
            spec, role, lambda kind: find_facts(kind).arguments(self.wanted)
        )
        return Source(dataset, find_facts(type(dataset)), **self.reading)

    def _build_sampler(self, spec: ClassSpec) -> Any:
        kind = find_class(spec, 'sampler', (samplers,))
        given = {'samples_per_epoch': self.samples_per_epoch, **self.shared()}
        return build(spec, 'sampler', kind, dataset=self.train_dataset, **given)

    @override
    def split(self) -> tuple[NamedBands, NamedBands | None]:
        """Return the samples to train on and those to validate on."""
        other, val_rows = self.source, None
        rows = self._usable_rows(self.source)
        if self.val_specification is not None:
            other = self.make_source(self.val_specification, 'val_dataset')
            val_rows = self._usable_rows(other)
        elif self.val_fraction:
            rows, val_rows, note = self.holdout.split(self.source, rows)
            rank_zero_info(note)
        train = self._named(self.source, rows, 'visit', global_seed())
        if val_rows is None:
            return train, None
        return train, self._named(other, val_rows, 'validation')

    def _named(self, source: Source, rows: Rows, *address: int | str) -> NamedBands:
        return NamedBands(
            source, self.bands, rows, address, self.max_nodata, self.on_error
        )

    def _usable_rows(self, source: Source) -> Rows:
        """Return the rows off the tiles of the transfer's test split."""
        rows = source.rows
        if self.transfer_test is None:
            return rows
        test = transfer_tiles(self.transfer_test)
        tiles = source.covering_tiles(rows, read=True)
        return exclude_test_tiles(rows, tiles, test, self.overlap, source.name)

    @override
    def make_record(self, train: NamedBands) -> DataRecord:
        """Return what training reads."""
        source, rows = train.source, train.rows
        v1_names, known = source.column('patches', rows), []
        if v1_names is not None:
            known = [v1_names, np.char.encode(train.names, 'utf-8')]
        return DataRecord(
            dataset=source.name,
            bands=self.bands,
            sensors=self.sensor_names,
            tiles=known_tiles(source.covering_tiles(rows, read=False)),
            patches=patch_hashes(np.unique(np.concatenate(known))) if known else None,
            labels_steered=None if self.sampler else False,
            name_spaces=name_spaces(*known) if known else (),
        )
