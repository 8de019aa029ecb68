"""Any of TorchGeo's ``GeoDataset``s for pretraining, such as a folder of scenes."""

from typing import Any, override

import numpy as np
import torchgeo.datasets as tg
from lightning.pytorch.utilities import rank_zero_info

from .. import sensors
from ..config import ClassSpec, deferred_errors
from ..randomness import global_seed
from .geo_source import GeoSource, split_area
from .holdout import report_overlap, transfer_tiles
from .named_bands import NamedBands
from .source_datamodule import SourceDataModule
from .sources import LEVELS


class GeoPretrainingDataModule(SourceDataModule):
    """Named bands at random places of any ``GeoDataset`` of TorchGeo.

    For a folder of Sentinel-2 scenes, that is TorchGeo's ``Sentinel2``. Each epoch
    draws new places, each of one date; blocks of the area validate, at fixed places.

    Once set up, it has ``facts``, ``train_dataset`` and ``val_dataset``.
    """

    root_argument = 'paths'

    def __init__(
        self,
        dataset: ClassSpec | None = None,
        *,
        val_samples: int | None = None,
        block: float | None = None,
        gap: float | None = None,
        max_nodata: float = 0.1,
        **kwargs: Any,
    ) -> None:
        """Initialize the datamodule.

        Args:
            dataset: ``{class_path: NAME, init_args: {...}}`` of the dataset.
            val_samples: Number of places to validate at. None is about as many as fit.
            block: Side of a block in units of the dataset's coordinate reference
                system. None is 20 places.
            gap: Distance of training from blocks that validate, in the same units. None
                is one place.
            max_nodata: Largest share of a band's pixels without data; places with more
                are passed over.
            **kwargs: See :class:`.SourceDataModule`.

        Raises:
            ValueError: If an argument is wrong.
        """
        super().__init__(dataset, max_nodata=max_nodata, **kwargs)
        self.val_samples = val_samples
        self.block = block
        self.gap = gap
        with deferred_errors(self):
            self.check_choices()
            for name in ('val_samples', 'block', 'gap'):
                value = vars(self)[name]
                if value is not None and (value < 0 or (not value and name != 'gap')):
                    raise ValueError(f'{name} is {value}. Use more.')

    @override
    def make_source(self) -> GeoSource:
        """Build the dataset and look up its facts."""
        dataset = self.build_dataset(self._band_arguments)
        return GeoSource(dataset, self.size, self.max_nodata, **self.reading)

    def _band_arguments(self, kind: Any) -> dict[str, Any]:
        """Return arguments that make a class read the bands; B10 is not in L2A."""
        if issubclass(kind, tg.Sentinel2):
            bands = self.wanted or sensors.names(LEVELS['L2A'])
            return {'bands': list(sensors.names(sensors.select(bands, LEVELS['L1C'])))}
        known = set(self.wanted or ()) <= set(getattr(kind, 'all_bands', ()))
        return {'bands': self.wanted} if self.wanted and known else {}

    @override
    def split(self) -> tuple[NamedBands, NamedBands | None]:
        """Return places to train at and places to validate at."""
        source = self.source
        assert isinstance(source, GeoSource)
        areas, val = (source.area, source.area), None
        if self.val_fraction:
            side = self.size * max(source.dataset.res)
            block, gap = self.block or 20 * side, side if self.gap is None else self.gap
            areas = split_area(
                source.area, block, self.val_fraction, gap, self.split_seed
            )
            shares = [f'{area.area / source.area.area:.0%}' for area in areas]
            rank_zero_info(
                f'{source.name}: {len(source.dataset)} files, {shares[0]} of their '
                f'area trains, {shares[1]} validates.'
            )
        train = source.within(areas[0], self.samples_per_epoch)
        if self.transfer_test is not None:
            tiles, test = train.area_tiles(), transfer_tiles(self.transfer_test)
            shared = np.intersect1d(tiles, test)
            report_overlap(f'The area of {train.name}', shared, self.overlap)
            if self.overlap == 'drop':
                train.excluded = test
        if self.val_fraction:
            places = source.within(areas[1], self.val_samples)
            places.excluded = train.excluded
            val = self._named(places, 'validation')
        return self._named(train, 'place', global_seed()), val

    def _named(self, places: GeoSource, *address: int | str) -> NamedBands:
        return NamedBands(places, self.bands, places.rows, address, self.max_nodata)

    @override
    def what_is_read(self, train: NamedBands) -> dict[str, Any]:
        """Return ``tiles`` and ``patches`` of the record."""
        source = train.source
        assert isinstance(source, GeoSource)
        tiles = np.setdiff1d(source.area_tiles(), source.excluded)
        return {'tiles': tuple(tiles.tolist()), 'patches': None}
