"""A callback that probes the encoder during training, without affecting training."""

from collections.abc import Sequence
from typing import Any, Literal, override

from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torchgeo.datamodules import BaseDataModule

from ...facts import data_facts
from ...models import ChannelViT
from ...models.fresh_bands import FreshBands
from ...randomness import global_seed
from .classifiers import PROBES, Protocol, check_neighbors, hold_out
from .encoders import check_bands, with_bands
from .features import OUT, Pool, check_pool, choose_samples, extract

_LOGGED = ('mAP_micro', 'mAP_macro', 'F1_micro', 'F1_macro')


class FrozenProbe(Callback):
    """Probe the frozen encoder every few epochs on labelled data.

    After an epoch, a k-nearest-neighbor vote and a logistic regression learn from the
    features of the training samples and predict the validation samples. Test samples
    are not read. Training is not affected: random states and modes are restored,
    nothing gets a gradient, and the final weights are bit for bit those of a training
    without the callback.

    Logged: ``probe_knn_mAP_micro``, ``probe_linear_mAP_micro`` and so on, with
    ``mAP_macro``, ``F1_micro`` and ``F1_macro``.

    A channel-token encoder can be probed on other bands than it trains on, such as
    radar: their embeddings start as in a fine-tuning.
    """

    def __init__(
        self,
        datamodule: BaseDataModule | None = None,
        every_n_epochs: PositiveInt | None = 1,
        probes: list[Literal['knn', 'linear']] | None = None,
        neighbors: PositiveInt = 10,
        samples: PositiveInt | None = None,
        pool: Pool = 'mean',
        fresh_bands: FreshBands = 'sample',
        prefix: str = 'probe',
    ) -> None:
        """Initialize the callback; no data are read yet.

        Args:
            datamodule: The labelled data. None for the trainer's own, if their samples
                have labels; training still does not use them.
            every_n_epochs: Number of epochs between probes. None for one probe, after
                the last epoch.
            probes: ``knn``, ``linear`` or both (None).
            neighbors: Number of neighbors that vote.
            samples: Maximum number of samples of each split, the same each time. None
                for all.
            pool: How tokens become a feature: ``mean``, ``bands`` or ``token``.
            fresh_bands: How bands start that the encoder does not know.
            prefix: Prefix of the logged names.
        """
        super().__init__()
        self.datamodule = datamodule
        self.every_n_epochs = every_n_epochs
        self.probes: Sequence[str] = probes or PROBES
        self.neighbors = neighbors
        self.samples = samples
        self.pool: Pool = pool
        self.fresh_bands: FreshBands = fresh_bands
        self.prefix = prefix
        if not set(self.probes) <= set(PROBES):
            raise ValueError(f'probes is {probes}. Use {" or ".join(PROBES)}.')

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the arguments and set up the data before training starts."""
        if stage != 'fit':
            return
        check_pool(pl_module.model, self.pool)  # type: ignore[arg-type]
        if self.datamodule is not None:
            with isolate_rng():
                if trainer.local_rank == 0:
                    self.datamodule.prepare_data()
                trainer.strategy.barrier('probe data')
                self.datamodule.setup('fit')
        data: Any = self.datamodule or getattr(trainer, 'datamodule', None)
        choose_samples(data, 'val')
        _, learn = choose_samples(data, 'train', self.samples)
        check_neighbors(self.neighbors, int((~hold_out(len(learn))).sum()))

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe, and log the scores."""
        every = self.every_n_epochs or trainer.max_epochs or 1
        if (trainer.current_epoch + 1) % every:
            return
        modes = {module: module.training for module in pl_module.modules()}
        try:
            with isolate_rng():
                found = self._probe(trainer, pl_module)
        finally:
            for module, mode in modes.items():
                module.training = mode
        pl_module.log_dict({f'{self.prefix}_{k}': v for k, v in found.items()})

    def _probe(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        data: Any = self.datamodule or getattr(trainer, 'datamodule', None)
        model: Any = pl_module.model
        facts = data_facts(data)
        if isinstance(model, ChannelViT) and facts and facts.bands != model.bands:
            model, _ = with_bands(model, facts.bands, policy=self.fresh_bands)
        check_bands(model, data)
        models = {'': model.eval()}
        options = [OUT], self.pool, self.samples, global_seed(), pl_module.device
        parts = {
            split: extract(
                models, data, split, *options, trainer.precision_plugin, True
            )
            for split in ('train', 'val')
        }
        found: dict[str, float] = {}
        if trainer.is_global_zero:
            labels = {split: part[''].labels for split, part in parts.items()}
            features = {split: part[''].depths[OUT] for split, part in parts.items()}
            protocol = Protocol(labels, 'val', type(data).__name__, self.neighbors)
            for probe, values in protocol.scores(features, self.probes).items():
                found |= {f'{probe}_{name}': values[name] for name in _LOGGED}
        return trainer.strategy.broadcast(found)
