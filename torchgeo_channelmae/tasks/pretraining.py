"""Pretraining: a masked autoencoder over channel tokens."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, override

import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import AdamW
from torchgeo.datasets.utils import Sample
from torchgeo.tasks import BaseTask
from torchvision.models import WeightsEnum

from ..cell_sampling import count_cells, sample_cells
from ..evaluation.predictions import PredictionStore
from ..losses import (
    check_reduction,
    normalize_tokens,
    spectral_to_spectral,
    token_to_token,
    trivial_reconstruction,
)
from ..masking import make_masking
from ..models.decoder import ChannelMAEDecoder
from ..models.tokens import gather_tokens, patchify
from ..models.weights import load_decoder
from ..plotting import log_figure, plot_reconstruction
from ..randomness import derive_seed, global_seed, shared_key
from .base import ChannelTaskMixin, sample_keys
from .optim import decay_groups, scaled_lr, schedule
from .reconstruction import Reconstruction, to_images


class ChannelMAE(ChannelTaskMixin, BaseTask):
    """ChannelMAE: pretrain a channel-token encoder by reconstructing hidden tokens.

    The loss is the error of the target tokens plus, weighted, the error of the bands
    taken together at every grid cell. A masking strategy says which tokens are visible,
    which are targets and which bands are taken together, see
    :mod:`~torchgeo_channelmae.masking`; no other token is produced. The encoder stands,
    bare, at ``self.model``, so that TorchGeo's own tasks load the checkpoints; the
    decoder is beside it.

    Batches need ``image`` (B, C, H, W), normalised, and ``index`` (B,), each sample's
    number in its dataset: masks are drawn from (seed, epoch, index).

    Logged: ``train_loss`` (the total), ``train_token_loss``, ``train_spectral_loss``;
    ``val_loss`` (the error of the target tokens alone), ``val_spectral_loss`` and
    ``val_trivial_loss``, the error of filling every target token with the mean of the
    visible pixels of its band, or of all where none is visible. Validation hides the
    same tokens in every epoch and run.
    """

    ignore = ('weights',)
    supervised = False

    def __init__(
        self,
        model: str = 'channelmae_base_patch16',
        weights: WeightsEnum | str | None = None,
        in_channels: int = 12,
        bands: list[str] | None = None,
        size: int = 128,
        embed_std: float = 0.02,
        masking: str = 'random',
        mask_ratio: float = 0.75,
        masking_options: dict[str, Any] | None = None,
        norm_target: bool = False,
        spectral_loss: Literal['mean', 'sum'] = 'mean',
        spectral_weight: float = 1.0,
        decode_share: float = 1.0,
        decoder_dim: int = 512,
        decoder_depth: int = 4,
        decoder_num_heads: int = 8,
        grad_checkpointing: bool = False,
        base_lr: float = 1.5e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.05,
        warmup_epochs: float = 20,
        plot_every_n_epochs: int = 10,
        num_plots: int = 2,
    ) -> None:
        """Initialize a new ChannelMAE instance.

        Args:
            model: Name of the encoder: ``channelmae_{tiny,small,base,large}`` with
                ``_patch8`` or ``_patch16``.
            weights: Weights to start from (a checkpoint, an export, or TorchGeo
                weights), of the encoder and, where they have one of these sizes, the
                decoder; None to start from scratch.
            in_channels: Number of bands.
            bands: Their names, in the order of the image's channels. Defaults to those
                that `in_channels` stands for, see
                :func:`~torchgeo_channelmae.sensors.default_names`.
            size: Side of the image in pixels that positions are learned for.
            embed_std: Standard deviation that positions and band embeddings start
                with, in encoder and decoder; larger ones learn faster at first.
            masking: Strategy: ``random``, ``same_band``, ``cross_band``, ``columns`` or
                ``channels_and_patches``, see :mod:`~torchgeo_channelmae.masking`.
            mask_ratio: Share of the tokens hidden from the encoder, in (0, 1), where
                the strategy has one.
            masking_options: Further attributes of the strategy, such as ``{bands: 3}``.
            norm_target: Standardise every target token by its own pixels, for both
                losses alike.
            spectral_loss: Take bands together by their mean or by their sum.
            spectral_weight: Weight of the spectral-to-spectral loss; 0 turns it off.
            decode_share: Share of the grid cells that the decoder produces in
                training, all bands of each, drawn at random for each sample. Less than
                1 is faster; the losses are then estimates without bias of those of all
                cells, see :mod:`~torchgeo_channelmae.cell_sampling`.
            decoder_dim: Width of the decoder.
            decoder_depth: Blocks of the decoder.
            decoder_num_heads: Attention heads of the decoder.
            grad_checkpointing: Compute what a block kept for its gradient anew, in
                encoder and decoder: less memory, more time.
            base_lr: Learning rate at a global batch of 256; it grows with the batch.
            betas: AdamW's betas.
            weight_decay: AdamW's weight decay, not on norms, biases and embeddings.
            warmup_epochs: Epochs of linear warm-up before the cosine.
            plot_every_n_epochs: How often reconstructions are drawn; 0 for never.
            num_plots: How many validation samples are drawn.
        """
        self.weights = weights
        super().__init__()
        self.validation = PredictionStore()

    @override
    def build_models(self) -> None:
        """Make the encoder and the decoder."""
        hparams = self.hparams
        check_reduction(hparams['spectral_loss'])
        self.model = self.create_encoder(num_classes=0)
        self.masking = make_masking(
            hparams['masking'], hparams['mask_ratio'], hparams['masking_options']
        )
        cells = self.model.patch_embed.num_patches
        self.masking.check(len(self.model.bands), cells)
        count_cells(cells, hparams['decode_share'])
        self.decoder = ChannelMAEDecoder(
            bands=self.model.bands,
            grid_size=self.model.patch_embed.grid_size,
            patch_size=self.model.patch_embed.patch_size[0],
            encoder_dim=self.model.embed_dim,
            embed_dim=hparams['decoder_dim'],
            depth=hparams['decoder_depth'],
            num_heads=hparams['decoder_num_heads'],
            embed_std=hparams['embed_std'],
        )
        for part in (self.model, self.decoder):
            part.set_grad_checkpointing(hparams['grad_checkpointing'])

    @override
    def load_further(
        self, weights: WeightsEnum | str, tensors: Mapping[str, Tensor]
    ) -> None:
        """Load the decoder, where the weights have one that fits."""
        told = load_decoder(self.decoder, tensors)
        rank_zero_info(
            f'Decoder of weights {weights}: {told}'
            if told
            else f'Weights {weights} have no decoder like this one: it starts afresh.'
        )

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Initialize AdamW with a learning rate for the global batch."""
        hparams = self.hparams
        optimizer = AdamW(
            decay_groups((self.model, self.decoder), hparams['weight_decay']),
            lr=scaled_lr(hparams['base_lr'], self.trainer),
            betas=tuple(hparams['betas']),
            fused=True,  # one pass over the parameters, also on a CPU
        )
        return schedule(self, optimizer, hparams['warmup_epochs'])

    def reconstruct(
        self, image: Tensor, keys: Tensor, shared: int | Tensor = 0
    ) -> Reconstruction:
        """Hide tokens and produce them.

        Args:
            image: (B, C, H, W), normalised.
            keys: (B,) int64, the address of each sample's mask.
            shared: The address of what a strategy draws for the whole batch.

        Returns:
            Predictions beside their targets.
        """
        patch_size = self.model.patch_embed.patch_size[0]
        grid = self.model.patch_embed.dynamic_feat_size(
            (image.shape[-2], image.shape[-1])
        )
        target, scale = patchify(image, patch_size), None
        bands, cells = len(self.model.bands), grid[0] * grid[1]
        mask = self.masking(keys, shared, bands, cells)
        if self.hparams['norm_target']:
            scale = normalize_tokens(target)
            target = scale.tokens
        share = self.hparams['decode_share'] if self.training else 1.0
        sampled = sample_cells(mask, keys, share, bands, cells)
        # The token loss of all cells, alone, reads the targets and no more.
        alone = self.training and not self.hparams['spectral_weight'] and share == 1
        produced = mask.target if alone else sampled.produced
        prediction = self.decoder(
            self.model.encode(image, mask.visible),
            mask.visible,
            sampled.filled,
            grid,
            None if produced is sampled.filled else produced,
        )
        return Reconstruction(
            prediction.to(target.dtype),
            produced,
            None if alone else sampled.weight,
            target,
            scale,
            mask,
        )

    def losses(self, result: Reconstruction) -> tuple[Tensor, Tensor]:
        """Compute both losses, sample by sample.

        Args:
            result: What :meth:`reconstruct` returned.

        Returns:
            Token-to-token and spectral-to-spectral loss, each (B,); the latter is zeros
            where only the targets were produced.
        """
        target = result.target
        if result.produced.shape != target.shape[:2]:  # else it is all, in order
            target = gather_tokens(target, result.produced)
        token = token_to_token(result.prediction, target, result.weight)
        if result.weight is None:
            return token, torch.zeros_like(token)
        spectral = spectral_to_spectral(
            result.prediction,
            target,
            result.mask.bands.shape[1],
            self.hparams['spectral_loss'],
        )
        return token, spectral

    def compute(
        self, image: Tensor, keys: Tensor, shared: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute both losses of a training batch, see :meth:`reconstruct`."""
        token, spectral = self.losses(self.reconstruct(image, keys, shared))
        return token.mean(), spectral.mean()

    @override
    def training_step(
        self, batch: Sample, batch_idx: int, dataloader_idx: int = 0
    ) -> Tensor:
        """Compute the training loss.

        Args:
            batch: The output of your DataLoader.
            batch_idx: Integer displaying index of this batch.
            dataloader_idx: Index of the current dataloader.

        Returns:
            The loss tensor.
        """
        epoch = self.current_epoch
        keys = sample_keys(_index(batch), global_seed(), 'mask', epoch)
        # As a tensor: a number that changes would be compiled again and again.
        step = shared_key('bands', self.global_step)
        shared = torch.full((), step, device=keys.device)
        token, spectral = self.compute(batch['image'], keys, shared)
        loss: Tensor = token + self.hparams['spectral_weight'] * spectral
        self.log_dict(
            {
                'train_loss': loss,
                'train_token_loss': token,
                'train_spectral_loss': spectral,
            },
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=len(keys),
        )
        return loss

    @override
    def validation_step(
        self, batch: Sample, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Compute each sample's errors and draw the first reconstructions.

        Args:
            batch: The output of your DataLoader.
            batch_idx: Integer displaying index of this batch.
            dataloader_idx: Index of the current dataloader.
        """
        if 'image' not in batch:  # all samples were skipped
            return
        index = _index(batch)
        result = self.reconstruct(
            batch['image'],
            sample_keys(index, 'validation mask'),
            derive_seed('validation bands'),
        )
        token, spectral = self.losses(result)
        pixels = patchify(batch['image'], self.model.patch_embed.patch_size[0])
        guess = trivial_reconstruction(
            pixels, result.mask.visible, len(self.model.bands)
        )
        if result.scale is not None:  # the same guess in the units of the target
            guess = (guess - result.scale.mean) / result.scale.std
        target = result.mask.target
        trivial = token_to_token(
            gather_tokens(guess, target), gather_tokens(result.target, target)
        )
        self.validation.update(index, token=token, spectral=spectral, trivial=trivial)
        if batch_idx == 0 and self._plots_now():
            self._plot(batch, result)

    @override
    def on_validation_epoch_end(self) -> None:
        """Log the mean errors of the validation set, each sample once."""
        rows = self.validation.gather()
        self.validation.reset()
        self.log_dict(
            {
                'val_loss': rows['token'].double().mean().float(),
                'val_spectral_loss': rows['spectral'].double().mean().float(),
                'val_trivial_loss': rows['trivial'].double().mean().float(),
            },
            prog_bar=True,
        )

    @override
    def test_step(self, batch: Sample, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Say that pretraining has no test: its score is that of a transfer."""
        raise ValueError(
            'ChannelMAE has nothing to test: fine-tune its checkpoint (weights: PATH) '
            'and test that, or run validate for the reconstruction error.'
        )

    @override
    def predict_step(
        self, batch: Sample, batch_idx: int, dataloader_idx: int = 0
    ) -> Tensor:
        """Encode whole images.

        Args:
            batch: The output of your DataLoader.
            batch_idx: Integer displaying index of this batch.
            dataloader_idx: Index of the current dataloader.

        Returns:
            (B, D) features, pooled as the encoder pools.
        """
        if 'image' not in batch:  # all samples were skipped
            return torch.empty(0, self.model.num_features)
        features: Tensor = self.model(batch['image'])
        return features

    def _plots_now(self) -> bool:
        every = self.hparams['plot_every_n_epochs']
        if self.trainer.sanity_checking or not every or not self.trainer.is_global_zero:
            return False
        epoch = self.current_epoch + 1
        return epoch % every == 0 or epoch == self.trainer.max_epochs

    def _plot(self, batch: Sample, result: Reconstruction) -> None:
        """Draw input, masked input and reconstruction of the first samples."""
        image = batch['image'].float().cpu()
        grid = self.model.patch_embed.dynamic_feat_size(tuple(image.shape[-2:]))
        masked, made = to_images(result, len(self.model.bands), grid)
        names: Sequence[Any] = batch.get('patch_id', _index(batch).tolist())
        for row in range(min(self.hparams['num_plots'], len(image))):
            figure = plot_reconstruction(
                image[row],
                masked[row],
                made[row],
                self.model.bands,
                title=f'{names[row]}, epoch {self.current_epoch + 1}',
            )
            log_figure(self, f'reconstruction/{row}', figure)


def _index(batch: Sample) -> Tensor:
    """Take each sample's number in its dataset from a batch."""
    if 'index' not in batch:
        raise ValueError(
            "Batches have no 'index': ChannelMAE draws masks from it, so let the "
            "dataset return each sample's number under that key."
        )
    index: Tensor = batch['index']
    return index
