"""Unchanged: a fine-tuned head tested on bands that it was not trained on."""

import inspect
import os
from collections.abc import Mapping
from typing import Any, override

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torchvision.models import WeightsEnum

from ..config import requested_checkpoint
from ..models.fresh import FreshBands
from ..models.weights import load_encoder, read_weights
from ..provenance.normalization import (
    difference,
    normalization_of,
    noted,
    read_normalization,
)
from ..provenance.record import KEY, Provenance, from_state, read_provenance
from .transfer import CrossModalClassification

_SPECTRAL = 'spectral_embed.'
_BLIND = ('sample', 'random')  # starts that tell nothing of a band

#: Hyperparameters that the test decides; a fine-tuned checkpoint decides all others.
_OF_TEST = ('in_channels', 'bands', 'fresh_bands')


class UnchangedHead(CrossModalClassification):
    """A fine-tuned model tested on other bands, without any training.

    Model, head, tuned thresholds and classes are those of a checkpoint of
    :class:`CrossModalClassification`. The bands are those of the test: others than it
    was fine-tuned on, or these and more. A band that it was fine-tuned on keeps its
    embedding, another takes that of `embeddings`, and one that neither knows starts as
    `fresh_bands` says. On the bands of the fine-tuning, its test is that of the
    checkpoint itself, bit for bit.

    Logs and writes what :class:`CrossModalClassification` does. The fine-tuning counts
    as read before, as do the trainings of `embeddings`: ``test_sensor_free`` tells
    whether none of them read a sensor of the bands that are tested, and a test on
    patches whose labels were trained on is refused. The floor is of the datamodule.

    The idea is that of GeoCrossBench's evaluations without overlap and on supersets of
    bands.
    """

    ignore: tuple[str, ...] = ('weights', 'embeddings')  # type: ignore[assignment]

    #: A command needs no ``--ckpt_path``.
    brings_weights = True

    def __init__(
        self,
        weights: str | None = None,
        in_channels: int = 2,
        bands: list[str] | None = None,
        embeddings: WeightsEnum | str | None = None,
        fresh_bands: FreshBands = 'sample',
    ) -> None:
        """Initialize a new UnchangedHead instance.

        Args:
            weights: A checkpoint that fine-tuning wrote. Read when a command starts.
            in_channels: Number of bands to test on.
            bands: Their names, in the order of the image's channels. Defaults to those
                that `in_channels` stands for, see
                :func:`~torchgeo_channelmae.sensors.default_names`.
            embeddings: Weights that know bands which the checkpoint lacks: its
                pretraining, as a checkpoint or an export. None for none.
            fresh_bands: How bands start that neither knows, see
                :data:`~torchgeo_channelmae.models.fresh.FreshBands`.
        """
        self.embeddings = embeddings
        super().__init__(
            weights=weights,
            in_channels=in_channels,
            bands=bands,
            fresh_bands=fresh_bands,
        )

    @override
    def configure_models(self) -> None:
        """Build nothing yet: what to build is in the checkpoint."""

    @override
    def configure_losses(self) -> None:
        """Initialize nothing yet, either."""

    @override
    def setup(self, stage: str) -> None:
        """Build the model of the checkpoint for the bands of the test.

        Args:
            stage: Either 'validate', 'test' or 'predict'.

        Raises:
            ValueError: If the stage is 'fit', a checkpoint is resumed, `weights` is no
                fine-tuned checkpoint, `embeddings` does not fit it, or nothing is known
                of any band.
            FileNotFoundError: If `weights` or `embeddings` is neither a file nor a
                name.
        """
        if stage == 'fit':
            raise ValueError(
                'UnchangedHead tests a head as it is and never trains: use torchgeo '
                'test, or fit CrossModalClassification.'
            )
        if requested_checkpoint(self.trainer) is not None:
            raise ValueError(
                'UnchangedHead brings its weights and takes no --ckpt_path: name the '
                'fine-tuned checkpoint in model.init_args.weights.'
            )
        content = read_fine_tuned(self.weights)
        self.hparams.update(_taken(content['hyper_parameters']))
        super().configure_models()
        super().setup(stage)  # which checks what was built against the data
        super().configure_losses()
        self.start_evaluation(self.hparams['num_labels'])
        self._load(content)

    def _load(self, content: Mapping[str, Any]) -> None:
        """Load the checkpoint's tensors, and the embeddings of bands that it lacks."""
        state: dict[str, Tensor] = content['state_dict']
        model = {k.removeprefix('model.'): v for k, v in state.items()}
        own = [band for band in self.model.bands if _SPECTRAL + band in model]
        lent = self._embeddings(model)
        policy = self.hparams['fresh_bands']
        report = load_encoder(self.model, model | lent, policy, takes_grid=True)
        if report.fresh:
            raise ValueError(
                f'weights {self.weights!r} lacks {", ".join(report.fresh)}: it is no '
                f'whole checkpoint; run the fine-tuning again.'
            )
        fresh = report.fresh_bands
        if not report.kept_bands and all(h.startswith(_BLIND) for h in fresh.values()):
            known = [key.removeprefix(_SPECTRAL) for key in model if _SPECTRAL in key]
            also = f', nor does embeddings {self.embeddings}' if self.embeddings else ''
            raise ValueError(
                f'weights {self.weights!r} knows none of the bands '
                f'{", ".join(self.model.bands)}, but {", ".join(known)}{also}: give '
                f'embeddings, a pretraining that knows them, or test on bands that are '
                f'known.'
            )
        head = {k: v for k, v in model.items() if k.startswith('head.')}
        self.model.head.load_state_dict(
            {k.removeprefix('head.'): v for k, v in head.items()}
        )
        self.thresholds.copy_(state['thresholds'])
        taken = [band for band in report.kept_bands if band not in own]
        self._note_past(content, bool(taken or (lent and fresh)))
        rank_zero_info(_told(str(self.weights), own, self.embeddings, taken, fresh))

    def _embeddings(self, model: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the embeddings of bands that the checkpoint lacks."""
        lacks = [band for band in self.model.bands if _SPECTRAL + band not in model]
        if not (self.embeddings and lacks):
            return {}
        read = read_weights(self.embeddings)
        rows = {key: value for key, value in read.items() if key.startswith(_SPECTRAL)}
        width = (self.model.embed_dim,)
        if not rows or any(row.shape != width for row in rows.values()):
            found = {'x'.join(map(str, row.shape)) for row in rows.values()}
            raise ValueError(
                f'embeddings {self.embeddings} has {", ".join(sorted(found)) or "no"} '
                f'band embeddings, but the checkpoint {self.weights} is '
                f'{width[0]} wide: give the pretraining that it started from.'
            )
        return {key: value for key, value in rows.items() if key not in model}

    def _note_past(self, content: Mapping[str, Any], is_lent: bool) -> None:
        """Note all that was read before as past, and warn of other normalisation."""
        past = Provenance().started_from(from_state(content.get(KEY)))
        sources = {f'weights {self.weights}': noted(content)}
        if is_lent:
            past = past.started_from(read_provenance(self.embeddings))
            lender = f'embeddings {self.embeddings}'
            sources[lender] = read_normalization(self.embeddings)
        self.provenance = past
        own = normalization_of(getattr(self.trainer, 'datamodule', None))
        for name, normalization in sources.items():
            if told := difference(normalization, own):
                rank_zero_warn(
                    f'The images of {name} were normalised notably differently in the '
                    f'same bands: {told}; give the datamodule the statistics of those.'
                )


def _taken(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the checkpoint decides, with defaults of what it does not tell."""
    parameters = inspect.signature(CrossModalClassification).parameters.values()
    return {
        each.name: stored.get(each.name, each.default)
        for each in parameters
        if each.name not in (*_OF_TEST, 'weights')
    }


def read_fine_tuned(path: str | None) -> dict[str, Any]:
    """Read a checkpoint of a fine-tuned channel-token encoder.

    Args:
        path: The checkpoint. No code in it is ever run.

    Returns:
        Its content, with ``state_dict`` and ``hyper_parameters``.

    Raises:
        ValueError: If it is none, or of another task or model.
        FileNotFoundError: If there is no such file.
    """
    if not path:
        raise ValueError(
            'weights is not given: give the checkpoint that a fine-tuning wrote.'
        )
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f'weights {path!r} is no file: give the checkpoint that a fine-tuning '
            f'wrote, such as runs/finetune/last.ckpt.'
        )
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # an unpickler of wrong bytes may raise anything
        raise ValueError(
            f'weights {path!r} is no checkpoint that can be read: give the .ckpt file '
            f'of a fine-tuning; exports have no head.'
        ) from error
    content = content if isinstance(content, dict) else {}
    state = content.get('state_dict')
    stored = content.get('hyper_parameters')
    needed = {'thresholds', 'model.head.weight', 'model.head.bias'}
    if not (isinstance(state, Mapping) and isinstance(stored, Mapping)) or (
        needed - set(state)
    ):
        raise ValueError(
            f'weights {path!r} is no checkpoint of CrossModalClassification: give one '
            f'that a fine-tuning wrote; a pretraining goes to embeddings.'
        )
    if not any(name.startswith(f'model.{_SPECTRAL}') for name in state):
        raise ValueError(
            f'weights {path!r} is of {stored.get("model")}, whose first layer takes '
            f'its own bands alone: give a checkpoint of a channel-token encoder.'
        )
    return content


def _told(
    weights: str,
    own: list[str],
    embeddings: object,
    taken: list[str],
    fresh: Mapping[str, str],
) -> str:
    """Say in one line what came from where."""
    parts = [f'Unchanged: model, head and thresholds from {weights}']
    if own:
        parts.append(f'bands with their weights: {", ".join(own)}')
    if taken:
        parts.append(f'from {embeddings}: {", ".join(taken)}')
    if fresh:
        listed = ', '.join(f'{band} ({how})' for band, how in fresh.items())
        parts.append(f'fresh bands: {listed}')
    return '; '.join(parts) + '.'
