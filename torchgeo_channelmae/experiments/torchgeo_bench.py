"""The encoder as a model of torchgeo-bench, a public harness for frozen encoders.

https://github.com/torchgeo/torchgeo-bench; it comes with the extra ``bench``.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
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
from ..models.weights import FreshBands, load_encoder
from ..randomness import derive_seed
from .probes.encoders import check_policy
from .probes.features import Pool, check_pool, pooled_depths

_TOLERANCE = 0.02  # of a wavelength
_COLOURS = {'red': 'B04', 'green': 'B03', 'blue': 'B02', 'nir': 'B08'}


class ChannelMAEBench(BenchModel):
    """A channel-token encoder, frozen, as torchgeo-bench builds it for each dataset.

    Classification reads the pooled tokens after the last norm. Segmentation reads maps:
    ``maps.0`` to ``maps.11`` in ``eval.segmentation.layers`` are the outputs of the
    blocks, (B, D, h, w), the mean over the bands of each grid cell.
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
        """Initialize a new ChannelMAEBench instance.

        Args:
            bands: The dataset's bands, which torchgeo-bench gives.
            weights: Checkpoint or .safetensors file; None for an untrained encoder,
                the baseline.
            model: Name of the encoder in timm, as pretrained.
            img_size: Side in pixels that its positions were learned for.
            pool: How tokens become a feature: mean, bands or token.
            fresh_bands: How bands start that the weights do not know.
            rename: Our names by the dataset's, for bands that it names wrongly.
            embed_std: Start of positions and band embeddings without weights.
            seed: Seed of what is not in the weights.
            normalization: As torchgeo-bench; by the dataset's own statistics, as in
                pretraining, unless chosen otherwise.
            **kwargs: What else the harness has in its configuration, such as ``name``.

        Raises:
            FileNotFoundError: If the weights are missing.
            ValueError: If an argument makes no sense or weights are of another model.
        """
        super().__init__(bands=list(bands), normalization=normalization)
        check_policy(fresh_bands)
        names = band_names(bands, rename or {})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, 'torchgeo-bench'))
            encoder: ChannelViT = timm.create_model(
                model, bands=list(names), img_size=img_size, embed_std=embed_std
            )
        check_pool(encoder, pool)
        if weights is not None:
            tensors = read_checkpoint(weights).tensors
            report = load_encoder(encoder, tensors, fresh_bands)
            print(f'{weights} for {", ".join(names)}: {report}')
        self.encoder = encoder.requires_grad_(False).eval()
        self.maps = nn.ModuleList(nn.Identity() for _ in encoder.blocks)
        self.pool: Pool = pool

    @override
    def _forward_patch_features(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: (B, C, H, W), normalised; of any size, which is brought to the
                nearest that patches tile.

        Returns:
            (B, F) features.
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

    Sentinel-2's own bands first, by their wavelengths; then the colours of other
    sensors, by their names, then their other bands by wavelengths (within 2 %), where
    the name is free; radar bands by their polarisation. Others keep the dataset's name,
    and start as bands that weights do not know.

    Args:
        bands: The dataset's bands.
        rename: Names by the dataset's, which come first.

    Returns:
        A name a band.

    Raises:
        ValueError: If `rename` names a band that the dataset has not.
    """
    own = [band.name for band in bands]
    unknown = [name for name in rename if name not in own]
    if unknown:
        raise ValueError(
            f'rename has {unknown[0]!r}, which the dataset has not: its bands are '
            f'{", ".join(own)}.'
        )
    result: dict[int, str] = {
        i: rename[name] for i, name in enumerate(own) if name in rename
    }
    optical = [i for i, band in enumerate(bands) if band.sensor == 's2']
    groups = [
        _by_wavelength(bands, optical),
        [(i, _COLOURS[name]) for i, name in enumerate(own) if name in _COLOURS],
        _by_wavelength(bands, range(len(own))),
    ]
    for i, name in (pair for group in groups for pair in group):
        if i not in result and name not in result.values():
            result[i] = name
    polarisations = ('VV', 'VH', 'HH', 'HV')
    for i, name in enumerate(own):
        if i not in result:
            radar = bands[i].wavelength_um is None and name.upper() in polarisations
            result[i] = name.upper() if radar else name.replace('.', '_')
    _check_radar({result[i]: band for i, band in enumerate(bands)})
    return tuple(result[i] for i in range(len(own)))


def _by_wavelength(
    bands: Sequence[BandSpec], numbers: Iterable[int]
) -> list[tuple[int, str]]:
    """Pair bands with Sentinel-2's of about their wavelength, the nearest first."""
    pairs = [
        (abs(1000 * wavelength / known.wavelength - 1), i, known.name)
        for i in numbers
        if (wavelength := bands[i].wavelength_um) is not None
        for known in sensors.SENTINEL2_L1C
        if known.wavelength is not None
    ]
    return [(i, name) for distance, i, name in sorted(pairs) if distance <= _TOLERANCE]


def _check_radar(bands: Mapping[str, BandSpec]) -> None:
    """Warn where VV is darker than VH in decibels: land sends most back as it came."""
    for co, cross in (('VV', 'VH'), ('HH', 'HV')):
        if {co, cross} <= bands.keys() and bands[co].mean < bands[cross].mean < 0:
            warnings.warn(
                f'The dataset says that {co} has mean {bands[co].mean:g}, below that '
                f'of {cross} ({bands[cross].mean:g}): its names or its statistics are '
                f'swapped; if it is the names, give rename {{{bands[co].name}: '
                f'{cross}, {bands[cross].name}: {co}}}.',
                stacklevel=4,
            )
