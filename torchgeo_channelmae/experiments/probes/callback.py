"""A callback that probes the encoder while it trains, without a trace in training."""

from typing import Any, override

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn
from torchgeo.datamodules import BaseDataModule

from ...models import ChannelViT
from ...models.weights import FreshBands
from ...randomness import global_seed
from .classifiers import PROBES, check_labels, check_neighbors, hold_out
from .encoders import check_policy, with_bands
from .features import OUT, Features, Pool, check_pool, extract, split_size
from .protocol import Protocol

_LOGGED = ('mAP_micro', 'mAP_macro', 'F1_micro', 'F1_macro')


class FrozenProbe(Callback):
    """Probes the frozen encoder every few epochs, on labelled data.

    After an epoch, features of the training and validation samples are computed with
    the encoder as it is; a k-nearest-neighbour vote and a logistic regression learn
    from the former and predict the latter. Test samples are not looked at. Training is
    not disturbed: random states and modes are as before, nothing gets a gradient, and
    the weights at the end are bit for bit those of a training without the callback.

    Logged: ``probe_knn_mAP_micro``, ``probe_linear_mAP_micro`` and so on, with
    ``mAP_macro``, ``F1_micro`` and ``F1_macro``.

    An encoder of channel tokens can be probed on other bands than it trains on, such
    as radar: their embeddings start as in a fine-tuning.
    """

    def __init__(
        self,
        datamodule: BaseDataModule | None = None,
        every_n_epochs: int = 1,
        probes: list[str] | None = None,
        neighbors: int = 10,
        samples: int | None = None,
        pool: Pool = 'mean',
        fresh_bands: FreshBands = 'sample',
        prefix: str = 'probe',
    ) -> None:
        """Describe the probe; nothing is read yet.

        Args:
            datamodule: The labelled data. None is the trainer's own, whose samples then
                need labels, which training still does not see.
            every_n_epochs: How often to probe.
            probes: ``knn``, ``linear`` or both (None).
            neighbors: Neighbours of the vote.
            samples: Samples of each split at most, the same each time. None is all.
            pool: How tokens become a feature: ``mean``, ``bands`` or ``token``.
            fresh_bands: How bands start that the encoder does not know.
            prefix: Start of the names that are logged.
        """
        super().__init__()
        self.datamodule = datamodule
        self.every_n_epochs = every_n_epochs
        self.probes = list(PROBES) if probes is None else list(probes)
        self.neighbors = neighbors
        self.samples = samples
        self.pool: Pool = pool
        self.fresh_bands: FreshBands = fresh_bands
        self.prefix = prefix

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the arguments and set the data up, before training starts.

        Raises:
            ValueError: If an argument makes no sense, the data have no labels or too
                few samples, or the encoder has other channels than the data.
        """
        if stage != 'fit':
            return
        self._check_arguments(getattr(pl_module, 'model', None))
        if self.datamodule is not None:
            with isolate_rng():
                if trainer.local_rank == 0:
                    self.datamodule.prepare_data()
                trainer.strategy.barrier('probe data')
                self.datamodule.setup('fit')
        data = self._data(trainer)
        train = split_size(data, 'train')
        for split in ('train', 'val'):
            if not split_size(data, split):
                raise ValueError(
                    f'{type(data).__name__} has no {split} samples to probe with: give '
                    f'the callback a datamodule that has.'
                )
        if 'knn' in self.probes:
            used = min(self.samples or train, train)
            check_neighbors(self.neighbors, int((~hold_out(used)).sum()))
        with isolate_rng():  # a dataset may draw
            sample = data.train_dataset[0]
        if 'skipped' not in sample and 'label' not in sample:
            check_labels(None, type(data).__name__)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe, and log the scores."""
        if (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        with isolate_rng():
            found = self._probe(trainer, pl_module)
        pl_module.log_dict({f'{self.prefix}_{k}': v for k, v in found.items()})

    def _probe(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        data = self._data(trainer)
        plugin: Any = trainer.precision_plugin
        model = self._model(pl_module, data)

        def features(split: str) -> Features:
            return extract(
                {'': (model, None)},
                data,
                split,
                [OUT],
                self.pool,
                self.samples,
                global_seed(),
                pl_module.device,
                plugin.forward_context,
                plugin.convert_input,
                (trainer.global_rank, trainer.world_size),
                quiet=True,
            )['']

        train, val = features('train'), features('val')
        found: dict[str, float] = {}
        if trainer.is_global_zero:
            found = self._scores(train, val, type(data).__name__)
        return trainer.strategy.broadcast(found)

    def _scores(self, train: Features, val: Features, whose: str) -> dict[str, float]:
        labels = {'train': train.labels, 'val': val.labels}
        protocol = Protocol(labels, 'val', whose, self.neighbors)
        parts = {'train': train.depths[OUT], 'val': val.depths[OUT]}
        return {
            f'{probe}_{name}': value
            for probe, found in protocol.scores(parts, self.probes).items()
            for name, value in found.items()
            if name in _LOGGED
        }

    def _model(self, pl_module: LightningModule, data: Any) -> nn.Module:
        model: Any = pl_module.model
        bands = getattr(data, 'bands', None)
        own = getattr(model, 'bands', None)
        if bands is None or own is None or tuple(bands) == tuple(own):
            return model
        if not isinstance(model, ChannelViT):
            raise ValueError(
                f'The encoder has the bands {", ".join(own)}, but the data to probe '
                f'with have {", ".join(bands)}: name the same.'
            )
        return with_bands(model, bands, policy=self.fresh_bands)[0]

    def _check_arguments(self, model: nn.Module | None) -> None:
        unknown = [name for name in self.probes if name not in PROBES]
        if unknown or not self.probes:
            raise ValueError(f'probes is {self.probes}: give {" and ".join(PROBES)}.')
        for name in ('every_n_epochs', 'samples', 'neighbors'):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f'{name} is {value}: give at least 1.')
        check_policy(self.fresh_bands)
        if model is not None:  # else the task says what is wrong with it
            check_pool(model, self.pool)

    def _data(self, trainer: Any) -> Any:
        data = self.datamodule or getattr(trainer, 'datamodule', None)
        if data is None:
            raise ValueError(
                'The trainer has no datamodule to probe with: give FrozenProbe one as '
                'datamodule.'
            )
        return data
