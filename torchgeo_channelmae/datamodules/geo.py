"""Any of TorchGeo's ``GeoDataset``s for pretraining, such as a folder of scenes."""

from typing import Any, override

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from ..config import ClassSpec, build, find_class, is_geo
from ..provenance.record import DataRecord
from ..randomness import global_seed
from .common import SourceDataModule
from .grouping import transfer_tiles
from .places import Places, raster_arguments, split_area
from .visits import NamedBands


class GeoPretrainingDataModule(SourceDataModule):
    """Named bands at random places of any ``GeoDataset`` of TorchGeo.

    For a folder of Sentinel-2 scenes, that is TorchGeo's ``Sentinel2``. Each epoch
    draws new places, each of one date; blocks of the area validate, at fixed places.

    Set up, it has ``bands``, ``mean``, ``std``, ``size``, ``num_patches``, ``record``
    (what training reads), ``train_dataset`` and ``val_dataset``.
    """

    def __init__(
        self,
        dataset: ClassSpec | None = None,
        bands: list[str] | None = None,
        root: str | None = None,
        size: int = 128,
        batch_size: int = 64,
        num_workers: int = 0,
        samples_per_epoch: int | None = None,
        augment: bool = True,
        dataset_bands: list[str] | None = None,
        image_key: str = 'image',
        level: str | None = None,
        statistics: str | None = None,
        val_fraction: float = 0.1,
        val_samples: int | None = None,
        block: float | None = None,
        gap: float | None = None,
        split_seed: int = 0,
        transfer_test: str | None = None,
        overlap: str = 'raise',
        nodata: float | None = None,
        max_nodata: float = 0.1,
    ) -> None:
        """Initialise the datamodule.

        Args:
            dataset: ``{class_path: NAME, init_args: {...}}`` of the dataset. NAME is
                that of a TorchGeo dataset or dotted.
            bands: Names of the bands, in the order wanted. None is all, of Sentinel-2
                all but B10.
            root: Folder of the data, ``paths`` of the dataset, if it is not in
                ``init_args``.
            size: Height and width of the places in pixels of the dataset.
            batch_size: Samples of a batch, on each device.
            num_workers: Processes that load data.
            samples_per_epoch: Training samples of an epoch over all devices. None is
                about as many as fit into the area without overlap.
            augment: Whether training images are flipped.
            dataset_bands: Names of the channels, in order, of a dataset whose class
                does not name them.
            image_key: Key of the image in a sample.
            level: Product level of Sentinel-2 bands, L1C or L2A. None is what the names
                of Sentinel-2's files tell.
            statistics: YAML file with the mean and standard deviation of each band, as
                `channelmae stats` writes it. None is those of
                :mod:`torchgeo_channelmae.sensors`.
            val_fraction: Share of the blocks that validate; 0 for no validation.
            val_samples: Number of places to validate at. None is about as many as fit.
            block: Side of a block in units of the dataset's coordinate reference
                system. None is 20 places.
            gap: Distance that training keeps from blocks that validate, in the same
                units. None is one place.
            split_seed: Seed of the choice of blocks.
            transfer_test: Folder of a BigEarthNet on whose test split a transfer will
                be tested, to check that no tile of it is pretrained on.
            overlap: What to do with places on such tiles: raise, drop or allow.
            nodata: Pixel value that stands for no data where all bands have it. None is
                0 for Sentinel-2.
            max_nodata: Largest share of a band's pixels without data; places with more
                are passed over. The others are filled with the mean of the rest.
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
            size_by='resize',
            batch_size=batch_size,
            num_workers=num_workers,
            samples_per_epoch=samples_per_epoch,
            augment=augment,
        )
        self.dataset_bands = dataset_bands
        self.image_key = image_key
        self.val_samples = val_samples
        self.block = block
        self.gap = gap

    @override
    def setup(self, stage: str) -> None:
        """Check the arguments and choose the areas of a stage.

        Args:
            stage: 'fit' or 'validate'.

        Raises:
            FileNotFoundError: If a file or folder of the data is missing.
            ValueError: If an argument makes no sense, or the data are not as expected.
        """
        self._check()
        if self._source is None:
            self._source = self.make_source(self.specification, 'dataset')
        source = self._source
        assert isinstance(source, Places)
        self.dataset = source.dataset
        self.choose_bands(source)
        train, val = self._split(source)
        self._keep_apart(train)
        if stage in ('fit', 'validate') and val is not None:
            val.avoid = train.avoid
            self.val_dataset = self._named(val, 'validation')
        if stage == 'fit':
            self.train_dataset = self._named(train, 'place', global_seed())
            self.check_batch_size()
        tiles = np.setdiff1d(train.area_tiles(), train.avoid)
        self.record = DataRecord(
            dataset=source.name,
            bands=self.bands,
            sensors=self.sensor_names,
            tiles=tuple(tiles.tolist()),
            patches=None,
            labels_steered=False,
        )

    @override
    def make_source(self, spec: Any, role: str) -> Places:
        """Build a dataset and find out what is known of it."""
        spec = self.with_root(spec, 'paths')
        kind = find_class(spec, role)
        if not is_geo(kind):
            raise ValueError(
                f'{kind.__name__} has samples of its own: use PretrainingDataModule.'
            )
        dataset = build(spec, role, **raster_arguments(kind, self.wanted))
        return Places(
            dataset,
            self.size,
            self.max_nodata,
            self.level,
            self.image_key,
            self.dataset_bands,
            self.nodata,
        )

    def _check(self) -> None:
        self.check_source_arguments()
        for name in ('val_samples', 'block'):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f'{name} is {value}: it must be above 0.')
        if self.gap is not None and self.gap < 0:
            raise ValueError(f'gap is {self.gap}: give 0 or more.')

    def _split(self, source: Places) -> tuple[Places, Places | None]:
        if not self.val_fraction:
            return source.within(source.area, self.samples_per_epoch, 'training'), None
        side = self.size * max(source.dataset.res)
        block = self.block or 20 * side
        gap = side if self.gap is None else self.gap
        areas = split_area(source.area, block, self.val_fraction, gap, self.split_seed)
        train = source.within(areas[0], self.samples_per_epoch, 'training')
        val = source.within(areas[1], self.val_samples, 'validation')
        shares = [area.area / source.area.area for area in areas]
        rank_zero_info(
            f'{source.name}: {len(source.dataset)} files, {shares[0]:.0%} of their '
            f'area trains, {shares[1]:.0%} validates.'
        )
        return train, val

    def _named(self, places: Places, *address: int | str) -> NamedBands:
        return NamedBands(places, self.bands, places.rows(), address, places.max_nodata)

    def _keep_apart(self, train: Places) -> None:
        """Keep off the tiles of the transfer's test split."""
        if self.transfer_test is None:
            return
        test = transfer_tiles(self.transfer_test)
        shared = np.intersect1d(train.area_tiles(), test)
        if not len(shared):
            return
        said = (
            f'The area of {train.name} may have {len(shared)} tiles of the transfer '
            f'test, such as {shared[0]}'
        )
        if self.overlap == 'raise':
            raise ValueError(
                f'{said}: keep off them with overlap drop, or use them with overlap '
                f'allow.'
            )
        dropped = self.overlap == 'drop'
        rank_zero_warn(f'{said}: they are {"left out" if dropped else "used"}.')
        if dropped:
            train.avoid = test
