"""The encoder as a model of torchgeo-bench, a public harness for frozen encoders.

https://github.com/torchgeo/torchgeo-bench; it comes with the extra ``bench``.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, override

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchgeo_bench.datasets.base import BandSpec
from torchgeo_bench.models import BenchModel

from .. import sensors
from ..models import ChannelViT
from ..models.checkpoints import read_checkpoint
from ..models.fresh_bands import FreshBands
from ..models.weights import load_encoder
from ..randomness import derive_seed
from .probes.features import Pool, check_pool, pooled_depths

_TOLERANCE = 0.02  # of a wavelength
_RADAR = ('VV', 'VH', 'HH', 'HV')
_COLOURS = {'red': 'B04', 'green': 'B03', 'blue': 'B02', 'nir': 'B08'}


class ChannelMAEBench(BenchModel):
    """A frozen channel-token encoder, as torchgeo-bench builds it for each dataset.

    Classification reads the pooled tokens after the last norm. Segmentation reads maps:
    ``maps.0`` to ``maps.11`` in ``eval.segmentation.layers`` are the outputs of the
    blocks, (B, D, h, w), averaged over the bands of each grid cell.
    """

    def __init__(
        self,
        bands: Sequence[BandSpec],
        weights: str | None = None,
        model: str = 'channelmae_base_patch16',
        img_size: int = 128,
        pool: Pool = 'mean',
        fresh_bands: FreshBands = 'sample',
        rename: Mapping[str, str] | None = None,
        embed_std: float = 0.02,
        seed: int = 0,
        normalization: str = 'bandspec_zscore',
        **kwargs: Any,
    ) -> None:
        """Initialize the encoder.

        Args:
            bands: The dataset's bands, passed by torchgeo-bench.
            weights: Checkpoint or .safetensors file; None for an untrained encoder,
                the baseline.
            model: Name of the encoder in timm, as pretrained.
            img_size: Image side in pixels of the pretraining.
            pool: How tokens become a feature: mean, bands or token.
            fresh_bands: How bands start that the weights do not know.
            rename: Our names by the dataset's, for bands that it names wrongly.
            embed_std: Initial standard deviation of positions and band embeddings.
            seed: Seed of everything that is not in the weights.
            normalization: Of torchgeo-bench; the default uses the dataset's own
                statistics, as in pretraining.
            **kwargs: Other entries of the harness's configuration, such as ``name``.

        Raises:
            FileNotFoundError: If the weights are missing.
            ValueError: If an argument does not fit or weights are of another model.
        """
        super().__init__(bands=list(bands), normalization=normalization)
        names = band_names(bands, rename or {})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, 'torchgeo-bench'))
            encoder: ChannelViT = timm.create_model(
                model, bands=list(names), img_size=img_size, embed_std=embed_std
            )
        check_pool(encoder, pool)
        if weights is not None:
            report = load_encoder(
                encoder, read_checkpoint(weights).tensors, fresh_bands
            )
            print(f'{weights} for {", ".join(names)}: {report}')
        self.encoder = encoder.requires_grad_(False).eval()
        self.maps = nn.ModuleList(nn.Identity() for _ in encoder.blocks)
        self.pool: Pool = pool

    @override
    def _forward_patch_features(self, images: Tensor) -> Tensor:
        """Encode normalized images (B, C, H, W) as (B, F) features.

        Any size is resized to the nearest multiple of the patch size.
        """
        side = self.encoder.patch_embed.patch_size[0]
        size = [max(side, round(length / side) * side) for length in images.shape[-2:]]
        if size != list(images.shape[-2:]):
            images = F.interpolate(images, size, mode='bilinear', antialias=True)
        asked = [i for i, layer in enumerate(self.maps) if layer._forward_hooks]
        if asked:
            found = self.encoder.forward_intermediates(
                images, indices=asked, intermediates_only=True
            )
            for number, feature in zip(asked, found, strict=True):
                self.maps[number](feature)
        return pooled_depths(self.encoder, images, ['out'], self.pool)['out']


def band_names(bands: Sequence[BandSpec], rename: Mapping[str, str]) -> tuple[str, ...]:
    """Name a dataset's bands as this package does.

    Sentinel-2's own bands are matched first, by wavelength; then the colors of other
    sensors by name, then their other bands by wavelength (within 2 %), if the name is
    free; radar bands by polarisation. Others keep the dataset's name, and start as
    bands that weights do not know.

    Names in `rename`, by the dataset's, take precedence.
    """
    own = [band.name for band in bands]
    if unknown := set(rename) - set(own):
        raise ValueError(f'rename has {min(unknown)!r}. Use names of {own}.')
    ours = {i: band for i, band in enumerate(bands) if band.sensor == 's2'}
    candidates = [
        *((i, rename[name]) for i, name in enumerate(own) if name in rename),
        *_by_wavelength(ours),
        *((i, _COLOURS[name]) for i, name in enumerate(own) if name in _COLOURS),
        *_by_wavelength(dict(enumerate(bands))),
        *((i, name.upper()) for i, name in enumerate(own) if name.upper() in _RADAR),
        *((i, name.replace('.', '_')) for i, name in enumerate(own)),
    ]
    result: dict[int, str] = {}
    for i, name in candidates:
        if i not in result and name not in result.values():
            result[i] = name
    names = tuple(result[i] for i in range(len(own)))
    known = dict(zip(names, bands, strict=True))
    for co, cross in (('VV', 'VH'), ('HH', 'HV')):  # land keeps the polarisation
        if {co, cross} <= known.keys() and known[co].mean < known[cross].mean < 0:
            swap = f'{{{known[co].name}: {cross}, {known[cross].name}: {co}}}'
            warnings.warn(
                f'The mean of {co} is below that of {cross}: the names or statistics '
                f'of the dataset are swapped. If the names, set rename to {swap}.',
                stacklevel=2,
            )
    return names


def _by_wavelength(bands: Mapping[int, BandSpec]) -> list[tuple[int, str]]:
    """Pair bands with Sentinel-2's of about their wavelength, the nearest first."""
    pairs = [
        (abs(1000 * band.wavelength_um / known.wavelength - 1), i, known.name)
        for i, band in bands.items()
        for known in sensors.SENTINEL2_L1C
        if band.wavelength_um is not None and known.wavelength is not None
    ]
    return [(i, name) for distance, i, name in sorted(pairs) if distance <= _TOLERANCE]
