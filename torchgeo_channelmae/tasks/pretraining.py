"""Pretraining: a masked autoencoder over channel tokens."""

from collections.abc import Mapping
from typing import Any, Literal, override

import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchgeo.datasets.utils import Sample
from torchgeo.tasks import BaseTask
from torchvision.models import WeightsEnum

from ..band_guess import KEY, BandGuess
from ..cell_sampling import count_cells, sample_cells
from ..evaluation.predictions import PredictionStore, sample_names, sample_numbers
from ..losses import (
    check_reduction,
    normalize_tokens,
    spectral_to_spectral,
    token_to_token,
    trivial_reconstruction,
)
from ..masking import make_masking
from ..models.decoder import ChannelMAEDecoder
from ..models.tokens import gather_tokens, patchify, unpatchify
from ..models.weights import load_decoder
from ..plotting import log_figure, plot_reconstruction
from ..randomness import derive_seed, global_seed, shared_key
from .base import ChannelTaskMixin, sample_keys
from .optim import create_optimizer, decay_groups, scaled_lr, schedule
from .rates import check_rate
from .reconstruction import Reconstruction, guess_error, to_images


class ChannelMAE(ChannelTaskMixin, BaseTask):
    """Pretrain a channel-token encoder by reconstructing hidden tokens.

    The loss is the error of the target tokens plus, weighted, the error of the combined
    bands at every grid cell. A masking strategy decides which tokens are visible, which
    are targets and which bands are combined, see :mod:`~torchgeo_channelmae.masking`;
    no other token is produced. The encoder is the attribute ``model``, so that
    TorchGeo's own tasks can load the checkpoints; the decoder is beside it.

    Batches need a normalized ``image`` (B, C, H, W) and ``index`` (B,), the index of
    each sample in its dataset: masks depend on (seed, epoch, index).

    Logs ``train_loss`` (the total), ``train_token_loss``, ``train_spectral_loss``;
    ``val_loss`` (the error of the target tokens only), ``val_spectral_loss`` and two
    errors to beat. ``val_trivial_loss`` fills every target token with the mean of the
    visible pixels of its band, or of all bands if none of its own is visible.
    ``val_band_loss`` fills it by linear regression, pixel by pixel, from the bands that
    are visible at its cell, or as the trivial guess if none is: see
    :func:`~torchgeo_channelmae.band_guess.band_reconstruction`. The regression is
    fitted to the pixels of the first epoch, up to its first validation, and then kept,
    in checkpoints too; it needs at least two bands. Validation hides the same tokens in
    every epoch and run.
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
        optimizer: str = 'adamw',
        optimizer_options: dict[str, Any] | None = None,
        base_lr: float = 1.5e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.05,
        warmup_epochs: float = 20,
        plot_every_n_epochs: int = 10,
        num_plots: int = 2,
    ) -> None:
        """Initialize a new ChannelMAE instance.

        Args:
            model: Name of the encoder: ``channelmae_{nano,tiny,small,base,large}`` with
                ``_patch8`` or ``_patch16``.
            weights: Weights to start from (checkpoint, export or TorchGeo weights), of
                the encoder and, if it has the same size, the decoder; None to start
                from scratch.
            in_channels: Number of bands.
            bands: Names of the bands, in the order of the channels. Defaults to
                :func:`~torchgeo_channelmae.sensors.default_names` of `in_channels`.
            size: Height and width of the images in pixels.
            embed_std: Standard deviation of initial positions and band embeddings;
                larger values learn faster at first.
            masking: Strategy: ``random``, ``same_band``, ``cross_band``, ``columns`` or
                ``channels_and_patches``, see :mod:`~torchgeo_channelmae.masking`.
            mask_ratio: Fraction of tokens to hide, in (0, 1), if the strategy uses it.
            masking_options: Further options of the strategy, such as ``{bands: 3}``.
            norm_target: Standardize target tokens by their own pixels, in both losses.
            spectral_loss: Combine bands by their mean or by their sum.
            spectral_weight: Weight of the spectral loss; 0 disables it.
            decode_share: Fraction of grid cells that the decoder produces in training,
                with all bands, drawn at random per sample. Below 1 is faster and gives
                unbiased estimates of the losses, see
                :mod:`~torchgeo_channelmae.cell_sampling`.
            decoder_dim: Width of the decoder.
            decoder_depth: Number of blocks of the decoder.
            decoder_num_heads: Number of attention heads of the decoder.
            grad_checkpointing: Recompute activations in the backward pass (activation
                checkpointing): less memory, more time.
            optimizer: Name of the optimizer in timm's factory, such as ``adamw`` or
                ``muon``, which trains the matrices of both models' blocks by Muon and
                the rest by AdamW.
            optimizer_options: Further arguments of the optimizer, such as
                ``{nesterov: true, fallback_lr_scale: 0.1}`` for ``muon``.
            base_lr: Learning rate at a global batch of 256; scaled with the batch, for
                ``muon`` with its square root.
            betas: Betas of AdamW and of Muon's AdamW; others use them if they have two.
            weight_decay: Weight decay, not for norms, biases and embeddings.
            warmup_epochs: Epochs of linear warm-up before the cosine.
            plot_every_n_epochs: Epochs between plots of reconstructions; 0 for none.
            num_plots: Number of plotted samples of the first validation batch.
        """
        self.weights = weights
        super().__init__()
        self.validation = PredictionStore()
        self.band_guess = BandGuess()

    @override
    def build_models(self) -> None:
        """Create encoder, masking and decoder."""
        hparams = self.hparams
        check_reduction(hparams['spectral_loss'])
        self.model = self.create_encoder(num_classes=0)
        patches = self.model.patch_embed
        self.masking = make_masking(
            hparams['masking'], hparams['mask_ratio'], hparams['masking_options']
        )
        self.masking.check(len(self.model.bands), patches.num_patches)
        count_cells(patches.num_patches, hparams['decode_share'])
        self.decoder = ChannelMAEDecoder(
            bands=self.model.bands,
            grid_size=patches.grid_size,
            patch_size=patches.patch_size[0],
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
        """Load the decoder, if the weights have one of this size."""
        found = load_decoder(self.decoder, tensors) or 'none of this size, not loaded.'
        rank_zero_info(f'Decoder of weights {weights}: {found}')

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create the optimizer with a learning rate for the global batch."""
        hparams, name = self.hparams, self.hparams['optimizer']
        models = self.model, self.decoder
        groups = decay_groups(models, hparams['weight_decay'], name)
        lr = scaled_lr(hparams['base_lr'], self.trainer, name)
        optimizer = create_optimizer(groups, lr, hparams)
        scheduled = schedule(self, optimizer, hparams['warmup_epochs'])
        check_rate(self, optimizer)
        return scheduled

    def reconstruct(
        self, image: Tensor, keys: Tensor, shared: int | Tensor = 0
    ) -> Reconstruction:
        """Hide tokens and reconstruct them.

        Args:
            image: (B, C, H, W), normalized.
            keys: (B,) int64, random keys of the samples' masks.
            shared: Random key of what a strategy draws for the whole batch.
        """
        target, scale = patchify(image, self.model.patch_embed.patch_size[0]), None
        grid = self.model.patch_embed.dynamic_feat_size(image.shape[-2:])
        bands, cells = len(self.model.bands), grid[0] * grid[1]
        mask = self.masking(keys, shared, bands, cells)
        if self.hparams['norm_target']:
            scale = normalize_tokens(target)
            target = scale.tokens
        share = self.hparams['decode_share'] if self.training else 1.0
        sampled = sample_cells(mask, keys, share, bands, cells)
        produced: Tensor = sampled.produced
        weight: Tensor | None = sampled.weight
        if self.training and not self.hparams['spectral_weight'] and share == 1:
            produced, weight = mask.target, None  # all that the token loss reads
        encoded = self.model.encode(image, mask.visible)
        wanted = None if produced is sampled.filled else produced
        prediction = self.decoder(encoded, mask.visible, sampled.filled, grid, wanted)
        prediction = prediction.to(target.dtype)
        return Reconstruction(prediction, produced, weight, target, scale, mask, grid)

    def losses(self, result: Reconstruction) -> tuple[Tensor, Tensor]:
        """Return the token and the spectral loss (0 if not produced), both (B,)."""
        target = result.target
        if result.produced.shape != target.shape[:2]:  # else all, in order
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
        """Return both losses of a training batch, see :meth:`reconstruct`."""
        token, spectral = self.losses(self.reconstruct(image, keys, shared))
        return token.mean(), spectral.mean()

    @override
    def reinitialize(self) -> None:
        """Forget the pixels of an earlier training."""
        self.band_guess = BandGuess()

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store also what the guess from other bands is fitted to."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[KEY] = vars(self.band_guess).copy()

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore also what the guess from other bands is fitted to."""
        super().on_load_checkpoint(checkpoint)
        self.band_guess = BandGuess(**checkpoint.get(KEY, {}))

    @override
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Fit the guess from other bands to the batch, until a validation."""
        super().on_train_batch_start(batch, batch_idx)
        if self.trainer.enable_validation:
            gather = self.trainer.strategy.all_gather
            self.band_guess.update(batch['image'], self.current_epoch, gather)

    @override
    def training_step(
        self, batch: Sample, batch_idx: int, dataloader_idx: int = 0
    ) -> Tensor:
        """Compute and log the training loss."""
        keys = sample_keys(batch['index'], global_seed(), 'mask', self.current_epoch)
        # A tensor, as a changing number would be compiled again and again.
        step = shared_key('bands', self.global_step)
        shared = torch.full((), step, device=keys.device)
        token, spectral = self.compute(batch['image'], keys, shared)
        loss: Tensor = token + self.hparams['spectral_weight'] * spectral
        parts = {'train_token_loss': token, 'train_spectral_loss': spectral}
        self.log_means({'train_loss': loss, **parts}, len(keys))
        return loss

    @override
    def validation_step(
        self, batch: Sample, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Store the errors of each sample and plot some reconstructions."""
        if 'image' not in batch:  # all samples were skipped
            return
        image, keys = batch['image'], sample_keys(batch['index'], 'validation mask')
        result = self.reconstruct(image, keys, derive_seed('validation bands'))
        token, spectral = self.losses(result)
        pixels = patchify(image, self.model.patch_embed.patch_size[0])
        visible, bands = result.mask.visible, len(self.model.bands)
        trivial = guess_error(trivial_reconstruction(pixels, visible, bands), result)
        losses = {'loss': token, 'spectral_loss': spectral, 'trivial_loss': trivial}
        if (guess := self.band_guess(pixels, visible)) is not None:
            losses['band_loss'] = guess_error(guess, result)
        numbers = sample_numbers(self.trainer, batch, batch_idx, dataloader_idx)
        self.validation.update(numbers, **losses)
        if batch_idx == 0:
            self._plot(image, sample_names(batch, numbers), result, guess)

    @override
    def on_validation_epoch_end(self) -> None:
        """Log the mean errors of the validation set."""
        rows = self.validation.gather()
        self.band_guess.freeze()
        for name in list(rows)[1:]:  # after the samples' numbers
            mean = rows[name].double().mean().float()
            self.log(f'val_{name}', mean, prog_bar=True, sync_dist=True)

    @override
    def test_step(self, batch: Sample, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Refuse to test; defined so that RunFolder can first check the checkpoint."""
        raise ValueError(
            'ChannelMAE has no test. Test a fine-tuning of its checkpoint, or run '
            'validate for the reconstruction error.'
        )

    @override
    def predict_step(
        self, batch: Sample, batch_idx: int, dataloader_idx: int = 0
    ) -> Tensor:
        """Return the pooled features of whole images, (B, D)."""
        if 'image' not in batch:  # all samples were skipped
            return torch.empty(0, self.model.num_features)
        features: Tensor = self.model(batch['image'])
        return features

    def _plot(
        self,
        image: Tensor,
        names: list[str],
        result: Reconstruction,
        guess: Tensor | None,
    ) -> None:
        """Plot some samples every `plot_every_n_epochs` and in the last epoch."""
        trainer, epoch = self.trainer, self.current_epoch + 1
        every = self.hparams['plot_every_n_epochs']
        due = every and (epoch % every == 0 or epoch == trainer.max_epochs)
        if not due or not trainer.is_global_zero or trainer.sanity_checking:
            return
        image, bands = image.float().cpu(), self.model.bands
        masked, made = to_images(result, len(bands))
        guessed: Any = [None] * len(image)
        if guess is not None:
            guessed = unpatchify(guess, len(bands), result.grid_size).float().cpu()
            guessed = guessed.masked_fill(made.isnan(), torch.nan)
        count = min(self.hparams['num_plots'], len(names))
        for number in range(count):  # from the first to the last: neighbors look alike
            row = number * (len(names) - 1) // max(1, count - 1)
            pictures = image[row], masked[row], made[row]
            title = f'{names[row]}, epoch {epoch}'
            figure = plot_reconstruction(*pictures, bands, title, guessed[row])
            log_figure(self, f'reconstruction/{number}', figure)
