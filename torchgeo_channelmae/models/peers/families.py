"""The families of TorchGeo's foundation models; ``families.yaml`` has their data.

Sources: DOFA https://arxiv.org/abs/2403.15356; CROMA https://arxiv.org/abs/2311.00566;
Copernicus-FM https://arxiv.org/abs/2503.11849; Panopticon
https://arxiv.org/abs/2503.10845; Scale-MAE https://arxiv.org/abs/2212.14532.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torchgeo.models as torchgeo
import yaml
from torch import Tensor, nn
from torchgeo.models.scale_mae import get_2d_sincos_pos_embed_with_resolution
from torchvision.models import WeightsEnum

from ... import sensors
from .scaling import IMAGENET, Expected, picture

Bands = tuple[str, ...]
Built = tuple[nn.Module, Any]
_TABLE = yaml.safe_load(Path(__file__).with_suffix('.yaml').read_text('utf-8'))
_SPECTRUM: dict[str, tuple[float, float]] = _TABLE['spectrum']
_STATISTICS = {  # of Copernicus-FM's pretraining: digital numbers, decibels
    **{band.name: (band.mean, band.std) for band in sensors.SENTINEL2_L1C},
    **{'VV': (-12.59, 5.26), 'VH': (-20.26, 5.91)},
}
_MODALITIES = {
    'sar': sensors.names(sensors.SENTINEL1_GRD),
    'optical': sensors.names(sensors.SENTINEL2_L2A),
}


@dataclass(frozen=True)
class Model:
    """A foundation model.

    Attributes:
        builder: TorchGeo's constructor.
        patch_size: Side of a patch in pixels.
        weights: Its published weights, if any.
        build: Build the encoder from ``(name, builder, bands, size)``; return it and
            what it needs to know about its channels, such as wavelengths.
        features: Encode images: ``(encoder, image, channels)`` to (B, D).
        expected: Return the scale of the input for ``(bands, level)``, level L1C or L2A
            of Sentinel-2.
        parts: Names of its first layer, positions and band embeddings.
        layers: Regular expressions of its layers, for layer-wise decay.
    """

    builder: Callable[..., Any]
    patch_size: int
    weights: type[WeightsEnum] | None
    build: Callable[[str, Any, Bands, int], Built]
    features: Callable[[Any, Tensor, Any], Tensor]
    expected: Callable[[Bands, str], Expected]
    parts: Mapping[str, Any]
    layers: Mapping[str, Any]


def _normalized(bands: Bands, level: str) -> Expected:
    return Expected()


def _build_dofa(name: str, builder: Any, bands: Bands, size: int) -> Built:
    # The placeholder for VV and VH is that of version 1, whose weights TorchGeo has;
    # 5.405 um is version 2's (https://github.com/torchgeo/torchgeo/pull/3942).
    channels = [nm / 1000 for nm in _wavelengths(name, bands, VV=3750, VH=3750)]
    encoder = builder(img_size=size, num_classes=0)
    _fix_positions(encoder)
    return encoder, channels


def _dofa(encoder: Any, image: Tensor, wavelengths: list[float]) -> Any:
    return encoder.forward_features(image, wavelengths)


def _build_croma(name: str, builder: Any, bands: Bands, size: int) -> Built:
    given = {k: own for k, own in _MODALITIES.items() if set(own) & set(bands)}
    if sorted(bands) != sorted(chain(*given.values())):
        radar, optical = map(', '.join, _MODALITIES.values())
        raise ValueError(
            f'{name} does not take the bands {", ".join(bands)}. Give the channels of '
            f'Sentinel-1 ({radar}), the bands of Sentinel-2 L2A ({optical}), or both.'
        )
    encoder = builder(modalities=list(given), image_size=size)
    if len(given) == 2:  # only the joint encoding is used
        encoder.s1_GAP_FFN, encoder.s2_GAP_FFN = nn.Identity(), nn.Identity()
    return encoder, {k: [bands.index(band) for band in own] for k, own in given.items()}


def _croma(encoder: Any, image: Tensor, orders: dict[str, list[int]]) -> Any:
    out = encoder(**{f'x_{key}': _pick(image, order) for key, order in orders.items()})
    return out['joint_GAP' if len(orders) == 2 else f'{next(iter(orders))}_GAP']


def _croma_expected(bands: Bands, level: str) -> Expected:
    # Two standard deviations around the mean become 0 to 1.
    return Expected((-2.0,), (4.0,), low=(0.0,), high=(1.0,))


def _build_copernicusfm(name: str, builder: Any, bands: Bands, size: int) -> Built:
    if unknown := [band for band in bands if band not in _SPECTRUM]:
        raise ValueError(
            f'{name} needs the wavelength and bandwidth of every band; those of '
            f'{unknown[0]!r} are unknown. Use {", ".join(_SPECTRUM)}.'
        )
    encoder = builder(img_size=size, num_classes=0)
    # The projection of variables without a spectrum and the token of an unknown area
    # are unused: as parameters they would get no gradient.
    del encoder.patch_embed_variable
    _fix(encoder, 'scale_token', encoder.scale_token)
    _fix_positions(encoder)
    # The area of a patch, in km2, is at native resolution as in Copernicus-Bench.
    found = [sensors.find(band) for band in bands]
    area = (16 * min(band.resolution for band in found if band) / 1000) ** 2
    wavelengths, bandwidths = zip(*(_SPECTRUM[band] for band in bands), strict=True)
    return encoder, (list(wavelengths), list(bandwidths), area)


def _copernicusfm(encoder: Any, image: Tensor, channels: tuple[Any, Any, float]) -> Any:
    wavelengths, bandwidths, area = channels
    # Place and date are unknown, for which the model has tokens.
    row = torch.tensor([math.nan, math.nan, math.nan, area], device=image.device)
    metadata = row.expand(len(image), -1)
    return encoder.forward_features(image, metadata, wavelengths, bandwidths)


def _copernicusfm_expected(bands: Bands, level: str) -> Expected:
    mean, std = zip(*(_STATISTICS[band] for band in bands), strict=True)
    return Expected(mean, std, physical=True)


def _build_panopticon(name: str, builder: Any, bands: Bands, size: int) -> Built:
    # Of an unknown orbit; -5 and -6 are ascending, -9 and -10 descending.
    channels = _wavelengths(name, bands, VV=-1.0, VH=-2.0)
    return builder(img_size=size).model, channels


def _panopticon(encoder: Any, image: Tensor, channels: list[float]) -> Any:
    # The model writes into its ids: each batch has its own.
    ids = torch.tensor(channels, device=image.device).repeat(len(image), 1)
    return encoder({'imgs': image, 'chn_ids': ids})


def _build_scalemae(name: str, builder: Any, bands: Bands, size: int) -> Built:
    if sorted(bands) != sorted(IMAGENET):
        raise ValueError(
            f'{name} does not take the bands {", ".join(bands)}. Give B04, B03, B02 '
            f'(bands/rgb.yaml).'
        )
    encoder = builder(res=sensors.RGB[0].resolution, img_size=size, num_classes=0)
    encoder.pos_embed = None  # unused: positions are computed
    return encoder, [bands.index(band) for band in IMAGENET]


def _scalemae(encoder: Any, image: Tensor, order: list[int]) -> Any:
    return encoder(_pick(image, order))


def _wavelengths(name: str, bands: Bands, **radar: float) -> list[float]:
    """Return wavelengths in nm, with the given stand-ins for VV and VH."""
    found = [sensors.find(band) for band in bands]
    nm: list[Any] = [
        radar.get(band) or getattr(known, 'wavelength', None)
        for band, known in zip(bands, found, strict=True)
    ]
    if None in nm:
        raise ValueError(
            f'{name} needs the wavelength of every band; that of '
            f'{bands[nm.index(None)]!r} is unknown. Use names of bands of Sentinel-2 '
            f'(B01 to B12) and Sentinel-1 (VV, VH).'
        )
    return nm


def _pick(image: Tensor, order: Sequence[int]) -> Tensor:
    """Reorder the channels of images, without copying an index to the device."""
    return torch.stack([image[:, channel] for channel in order], 1)


def _fix(module: nn.Module, name: str, value: Tensor) -> None:
    """Replace a parameter that is not trained by a buffer of the same name."""
    delattr(module, name)
    module.register_buffer(name, value.detach().clone())


def _fix_positions(encoder: Any) -> None:
    """Set positions, else 0, to the sines of https://arxiv.org/abs/2111.06377."""
    width, side = encoder.cls_token.shape[-1], math.isqrt(encoder.num_patches)
    one = torch.ones(1)
    positions = get_2d_sincos_pos_embed_with_resolution(width, side, one, True)
    _fix(encoder, 'pos_embed', positions)


_FAMILIES: dict[str, tuple[Any, Any, Any]] = {
    'dofa': (_build_dofa, _dofa, _normalized),
    'croma': (_build_croma, _croma, _croma_expected),
    'copernicusfm': (_build_copernicusfm, _copernicusfm, _copernicusfm_expected),
    'panopticon': (_build_panopticon, _panopticon, _normalized),
    'scalemae': (_build_scalemae, _scalemae, picture),
}
PEERS: dict[str, Model] = {
    name: Model(
        getattr(torchgeo, name),
        row['patch_size'],
        getattr(torchgeo, row.get('weights', ''), None),
        *_FAMILIES[row['family']],
        **_TABLE['families'][row['family']],
    )
    for name, row in _TABLE['models'].items()
}
"""The models by TorchGeo's own names."""
