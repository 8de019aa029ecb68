"""Test a fine-tuned head on bands that it was not trained on."""

from typing import Any, override

from lightning.pytorch.utilities import rank_zero_info
from torchvision.models import WeightsEnum

from ..models.checkpoints import Checkpoint, bands_of, read_checkpoint
from ..models.fresh_bands import FreshBands
from ..models.tokens import SPECTRAL
from ..models.weights import load_encoder
from ..provenance.record import Provenance
from .transfer import CrossModalClassification

_OF_TEST = ('in_channels', 'bands', 'fresh_bands')  # not the checkpoint's


class ZeroShotBands(CrossModalClassification):
    """Test a fine-tuned model on other bands, without any training.

    Model, head, tuned thresholds and classes are those of a checkpoint of
    :class:`CrossModalClassification`. A band has the embedding of the checkpoint, else
    of `embeddings`, else it is initialized by `fresh_bands`. On the bands of the
    fine-tuning, predictions are those of the checkpoint's own test, bit for bit.

    Logs and writes the same as :class:`CrossModalClassification`. The fine-tuning
    counts as pretraining here, as do the trainings of `embeddings`. The idea is from
    GeoCrossBench, which tests on bands without overlap and on supersets of bands.
    """

    ignore: tuple[str, ...] = ('weights', 'embeddings')  # type: ignore[assignment]
    brings_weights = True  # RunFolder requires no --ckpt_path

    def __init__(
        self,
        weights: str,
        in_channels: int = 2,
        bands: list[str] | None = None,
        embeddings: WeightsEnum | str | None = None,
        fresh_bands: FreshBands = 'sample',
    ) -> None:
        """Initialize a new ZeroShotBands instance.

        Args:
            weights: A checkpoint that fine-tuning wrote.
            in_channels: Number of bands to test on.
            bands: Names of the bands, in the order of the channels. Defaults to
                :func:`~torchgeo_channelmae.sensors.default_names` of `in_channels`.
            embeddings: Weights with bands that the checkpoint lacks: its pretraining,
                as a checkpoint or an export.
            fresh_bands: Initialization of bands that neither has, see
                :data:`~torchgeo_channelmae.models.fresh_bands.FreshBands`.
        """
        self.embeddings = embeddings
        super().__init__(
            weights=weights,
            in_channels=in_channels,
            bands=bands,
            fresh_bands=fresh_bands,
        )

    @override
    def build_models(self) -> None:
        """Create the model of the checkpoint for the bands of the test, and load it."""
        self.hparams.setdefault('pos_weight', None)  # if the checkpoint is unreadable
        try:
            tuned = read_checkpoint(self.weights or '')
            lender = read_checkpoint(self.embeddings) if self.embeddings else None
        except FileNotFoundError as error:
            raise ValueError(str(error)) from error
        needed = {'thresholds', 'head.weight', 'pos_embed', 'cls_token'}
        if not tuned.hyper_parameters or needed - tuned.tensors.keys():
            raise ValueError(
                f'{self.weights!r} is not a checkpoint of CrossModalClassification '
                f'with a channel-token encoder. Give one that a fine-tuning wrote, '
                f'such as runs/finetune/last.ckpt.'
            )
        self.hparams.update(
            (name, value)
            for name, value in tuned.hyper_parameters.items()
            if name not in _OF_TEST and not name.startswith('_')
        )
        super().build_models()
        self._load(tuned, lender)

    def _load(self, tuned: Checkpoint, lender: Checkpoint | None) -> None:
        """Load the checkpoint, and the embeddings of bands that it lacks."""
        own, lent = tuned.tensors, lender.tensors if lender else {}
        rows = {k: v for k, v in lent.items() if k.startswith(SPECTRAL)}
        report = load_encoder(self.model, own | rows | own, self.hparams['fresh_bands'])
        origin = {
            band: 'fine-tuned' if SPECTRAL + band in own else str(self.embeddings)
            for band in report.kept_bands
        } | report.fresh_bands
        if report.fresh:
            raise ValueError(
                f'{self.weights!r} lacks {", ".join(report.fresh)}. Run the '
                f'fine-tuning again.'
            )
        blind = [how.startswith(('sample', 'random')) for how in origin.values()]
        if not report.kept_bands and all(blind):
            raise ValueError(
                f'{self.weights!r} has embeddings for {", ".join(bands_of(own))} only, '
                f'and neither it nor embeddings {self.embeddings!r} has any of '
                f'{", ".join(self.model.bands)}. Pass as embeddings a pretraining on '
                f'these bands.'
            )
        head = {name: own[f'head.{name}'] for name in ('weight', 'bias')}
        self.model.head.load_state_dict(head)
        self.thresholds.copy_(own['thresholds'])
        self.val_patches.copy_(own.get('val_patches', self.val_patches))
        sources = {f'weights {self.weights}': tuned}
        if lender is not None and {*origin.values()} != {'fine-tuned'}:
            sources[f'embeddings {self.embeddings}'] = lender
        self.provenance = Provenance()
        for source in sources.values():
            self.provenance = self.provenance.started_from(source.provenance)
        self._normalizations = {k: v.normalization for k, v in sources.items()}
        listed = ', '.join(f'{band} ({how})' for band, how in origin.items())
        rank_zero_info(
            f'Model, head and thresholds are of {self.weights}; bands: {listed}.'
        )

    @override
    def setup(self, stage: str) -> None:
        """Check the model against the data."""
        if stage == 'fit':
            raise ValueError(
                f'{type(self).__name__} never trains. Run torchgeo test, or fit '
                f'CrossModalClassification.'
            )
        super().setup(stage)
        for source, normalization in self._normalizations.items():
            self.compare_normalization(source, normalization)

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint beside the one in weights."""
        raise ValueError(
            f'{type(self).__name__} takes no --ckpt_path. Name the fine-tuned '
            f'checkpoint in model.init_args.weights.'
        )


UnchangedHead = ZeroShotBands
"""The name until version 0.5."""
