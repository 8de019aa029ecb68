"""Any of TorchGeo's datasets for pretraining."""

from typing import Any, override

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from ..config import ClassSpec, deferred_errors
from ..datasets.names import name_spaces
from ..provenance.record import patch_hashes
from ..randomness import global_seed
from .holdout import VAL_BY, Holdout, exclude_test_tiles, transfer_tiles
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
            block_km: Side of a block.
            gap_km: With tiles and blocks, training samples within this distance of one
                that validates are left out, where files or tables have coordinates.
            sampler: ``{class_path: NAME, init_args: {...}}`` of another sampler of
                :mod:`torchgeo_channelmae.samplers`.
            on_error: What to do with a sample that cannot be read: raise or skip.
            **kwargs: See :class:`.SourceDataModule`.
        """
        super().__init__(dataset, **kwargs)
        self.val_by = val_by
        split = (self.val_fraction, self.split_seed, block_km, gap_km)
        self.holdout = Holdout(val_by, val_key, *split)
        self.sampler = sampler
        self.on_error = on_error
        with deferred_errors(self):
            self.check_choices(val_by=VAL_BY, on_error=('raise', 'skip'))
            if val_by == 'key' and val_key is None:
                raise ValueError('val_by key needs val_key: an entry of the samples.')
            if gap_km < 0 or block_km <= 0:
                raise ValueError(f'gap_km={gap_km}, block_km={block_km}. Use more.')

    @override
    def setup(self, stage: str) -> None:
        """Build the datasets of a stage: 'fit', 'validate' or 'predict'."""
        super().setup(stage)
        if stage == 'predict':
            self.predict_dataset = self._named(self.source.rows, 'predict')

    @override
    def make_source(self) -> Source:
        """Build the dataset and look up its facts."""
        dataset = self.build_dataset(lambda k: find_facts(k).arguments(self.wanted))
        return Source(dataset, find_facts(type(dataset)), **self.reading)

    @override
    def split(self) -> tuple[NamedBands, NamedBands | None]:
        """Return the samples to train on and those to validate on."""
        source, val = self.source, None
        rows = source.rows
        if self.transfer_test is not None:
            test = transfer_tiles(self.transfer_test)
            tiles = source.covering_tiles(rows, read=True)
            rows = exclude_test_tiles(rows, tiles, test, self.overlap, source.name)
        if self.val_fraction:
            rows, val_rows, note = self.holdout.split(source, rows)
            rank_zero_info(note)
            val = self._named(val_rows, 'validation')
        return self._named(rows, 'visit', global_seed()), val

    def _named(self, rows: Rows, *address: int | str) -> NamedBands:
        options = (self.max_nodata, self.on_error)
        return NamedBands(self.source, self.bands, rows, address, *options)

    @override
    def what_is_read(self, train: NamedBands) -> dict[str, Any]:
        """Return ``tiles``, ``patches`` and ``name_spaces`` of the record."""
        source, rows = train.source, train.rows
        tiles = source.covering_tiles(rows, read=False)
        found: dict[str, Any] = {'tiles': None, 'patches': None}
        if tiles is not None and (tiles != '').any(axis=1).all():
            found['tiles'] = tuple(np.unique(tiles[tiles != '']).tolist())
        v1_names = source.column('patches', rows)
        if v1_names is None:
            return found
        names = [v1_names, np.char.encode(np.asarray(train.names), 'utf-8')]
        hashes = patch_hashes(np.unique(np.concatenate(names)))
        return found | {'patches': hashes, 'name_spaces': name_spaces(*names)}
