"""What the published weights of TorchGeo have read: sensors, bands and labels.

Weights are named by patterns, the first that fits counts. Each row is from the paper or
the code that it names; what these do not tell stays None, which is 'not known'. Weights
count as having read a sensor that they were trained *against*, too: a contrast with
radar shapes an optical encoder.
"""

from dataclasses import dataclass
from fnmatch import fnmatch

from torchvision.models import WeightsEnum

from .. import sensors

_L1C = sensors.names(sensors.SENTINEL2_L1C)
_L2A = sensors.names(sensors.SENTINEL2_L2A)
_RGB = sensors.names(sensors.RGB)
_S1 = sensors.names(sensors.SENTINEL1_GRD)
_COLOURS = ('red', 'green', 'blue')
_SATLAS = ('B04', 'B03', 'B02', 'B05', 'B06', 'B07', 'B08', 'B11', 'B12')
_FMOW = ('QuickBird-2', 'GeoEye-1', 'WorldView-2', 'WorldView-3')


@dataclass(frozen=True)
class Seen:
    """What weights were trained on.

    Attributes:
        dataset: Name of the dataset, or names.
        sensors: Names of the sensors, with product level where known.
        bands: Names of the bands, in the order of the input where it is fixed.
        source: Where this is from.
        supervised: Whether labels of the images were learned; None is not known.
        labels_steered: Whether labels decided which images there are; None is not
            known.
    """

    dataset: str
    sensors: tuple[str, ...]
    bands: tuple[str, ...]
    source: str
    supervised: bool | None = False
    labels_steered: bool | None = None


def _ssl4eo(
    bands: tuple[str, ...],
    source: str,
    sensor: str = 'Sentinel-2 L1C',
    *more: str,
    supervised: bool = False,
) -> Seen:
    # Places were drawn around cities, and not by labels.
    return Seen('SSL4EO-S12', (sensor, *more), bands, source, supervised, False)


def _landsat(sensor: str, *bands: str) -> Seen:
    return Seen('SSL4EO-L', (sensor,), bands, 'arXiv:2306.09424', False, False)


def _closp(bands: tuple[str, ...]) -> Seen:
    # Captions are made of land-cover and event labels, CORINE's of BigEarthNet v2 among
    # them, and bridge both sensors.
    both = ('Sentinel-2', 'Sentinel-1 GRD')
    return Seen('CrisisLandMark', both, bands, 'arXiv:2507.10403', True, True)


def _satlas(bands: tuple[str, ...]) -> Seen:
    one = ('Sentinel-2 L1C',)
    return Seen('SatlasPretrain', one, bands, 'arXiv:2211.15660', True, True)


_S12 = 'arXiv:2211.07044'
_SOFTCON = 'arXiv:2405.20462: soft contrast by land-cover labels'
_DECUR = 'arXiv:2309.05300: both sensors against each other'
_S1_GRD = 'Sentinel-1 GRD'

SEEN: dict[str, Seen] = {
    'DOFA*_Weights.DOFA_MAE': Seen(
        'SatlasPretrain, Five-Billion-Pixels, HySpecNet-11k',
        ('Sentinel-1 GRD', 'Sentinel-2 L1C', 'NAIP', 'Gaofen-2', 'EnMAP'),
        (*_S1, *_SATLAS),
        'arXiv:2403.15356: five sensors, with distillation; the teacher is not checked',
        supervised=None,
    ),
    'CROMA*_Weights.CROMA_VIT': Seen(
        'SSL4EO',
        ('Sentinel-1 GRD', 'Sentinel-2'),
        (*_S1, *_L2A),
        'arXiv:2311.00566: SSL4EO-S12, radar against optical',
        labels_steered=False,
    ),
    'CopernicusFM_Base_Weights.CopernicusFM_ViT': Seen(
        'Copernicus-Pretrain',
        (
            'Sentinel-1 GRD',
            'Sentinel-2 L1C',
            'Sentinel-3 OLCI',
            'Sentinel-5P',
            'Copernicus DEM',
        ),
        (*_S1, *_L1C),
        'arXiv:2503.11849',
    ),
    'Panopticon_Weights.VIT_BASE14': Seen(
        'fMoW, fMoW-Sentinel, MMEarth, SatlasPretrain, SpectralEarth',
        (*_FMOW, 'Sentinel-1 GRD', 'Sentinel-2', 'Landsat-8', 'Landsat-9', 'EnMAP'),
        (*_S1, *_L1C),
        'arXiv:2503.10845; dinov2/configs/stage2.yaml of Panopticon-FM/panopticon',
        labels_steered=True,  # fMoW's images were chosen by category
    ),
    'ScaleMAELarge16_Weights.FMOW_RGB': Seen(
        'fMoW', _FMOW, _COLOURS, 'arXiv:2212.14532', labels_steered=True
    ),
    'ResNet50_Weights.FMOW_RGB_GASSL': Seen(
        'fMoW Dataset', _FMOW, _COLOURS, 'arXiv:2011.09980', labels_steered=True
    ),
    '*.SENTINEL2_ALL_*CLOSP': _closp(_L1C),
    '*.SENTINEL1_GRD_*CLOSP': _closp(_S1),
    '*.SENTINEL2_ALL_DECUR': _ssl4eo(_L1C, _DECUR, 'Sentinel-2 L1C', _S1_GRD),
    '*.SENTINEL1_???_DECUR': _ssl4eo(_S1, _DECUR, _S1_GRD, 'Sentinel-2 L1C'),
    '*.SENTINEL2_ALL_SOFTCON': _ssl4eo(_L1C, _SOFTCON, supervised=True),
    '*.SENTINEL1_GRD_SOFTCON': _ssl4eo(_S1, _SOFTCON, _S1_GRD, supervised=True),
    '*.SENTINEL2_ALL_SECO_ECO': Seen(
        'SSL4Eco Dataset', ('Sentinel-2',), _L2A, 'arXiv:2504.18256'
    ),
    '*.SENTINEL2_ALL_NDVI_SECO_ECO': Seen(
        'SSL4Eco Dataset',
        ('Sentinel-2',),
        ('B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'NDVI'),
        'arXiv:2504.18256',
    ),
    '*.SENTINEL2_?I_MS_SATLAS': _satlas(_SATLAS),
    '*.SENTINEL2_?I_RGB_SATLAS': _satlas(_RGB),
    '*.SENTINEL2_RGB_SECO': Seen(
        'SeCo Dataset',
        ('Sentinel-2',),
        _RGB,
        'arXiv:2103.16607',
        labels_steered=False,  # around cities
    ),
    'ResNet*_Weights.SENTINEL2_RGB_MOCO': _ssl4eo(_RGB, _S12),
    'ResNet*_Weights.SENTINEL2_ALL_*': _ssl4eo(_L1C, _S12),
    'ViT*_Weights.SENTINEL2_ALL_*MAE': _ssl4eo(_L1C, f'{_S12}, arXiv:2310.18653'),
    'ViT*_Weights.SENTINEL2_ALL_*': _ssl4eo(_L1C, _S12),
    'ResNet*_Weights.SENTINEL1_???_MOCO': _ssl4eo(_S1, _S12, _S1_GRD),
    'ViT*_Weights.SENTINEL1_GRD_*MAE': _ssl4eo(
        _S1, f'{_S12}, arXiv:2310.18653', _S1_GRD
    ),
    '*.LANDSAT_TM_TOA_*': _landsat('Landsat-5 TOA', *(f'B{n}' for n in range(1, 8))),
    '*.LANDSAT_ETM_TOA_*': _landsat(
        'Landsat-7 TOA',
        *('B1', 'B2', 'B3', 'B4', 'B5', 'B6_VCID_1', 'B6_VCID_2', 'B7', 'B8'),
    ),
    '*.LANDSAT_ETM_SR_*': _landsat(
        'Landsat-7 SR', *(f'SR_B{n}' for n in (1, 2, 3, 4, 5, 7))
    ),
    '*.LANDSAT_OLI_TIRS_TOA_*': _landsat(
        'Landsat-8 TOA', *(f'B{n}' for n in range(1, 12))
    ),
    '*.LANDSAT_OLI_SR_*': _landsat('Landsat-8 SR', *(f'SR_B{n}' for n in range(1, 8))),
}
"""Patterns of weights, such as ``ResNet50_Weights.SENTINEL2_ALL_MOCO``, and what they
have read."""


def input_bands(weights: WeightsEnum) -> tuple[str, ...] | None:
    """Return the names that our bands have which published weights take, in order.

    Args:
        weights: Weights of TorchGeo.

    Returns:
        The names; bands of sensors that are not ours are named after their sensor, so
        that none is taken for another. None of weights that are not listed.
    """
    seen = seen_by(weights)
    if seen is None:
        return None
    if seen.bands == _COLOURS:
        return _RGB
    ours = any(name.startswith('Sentinel-') for name in seen.sensors)
    return seen.bands if ours else tuple(f'{seen.sensors[0]} {b}' for b in seen.bands)


def seen_by(weights: WeightsEnum) -> Seen | None:
    """Return what published weights have read, or None of weights that are not listed.

    Args:
        weights: Weights of TorchGeo.
    """
    name = str(weights)
    return next((seen for key, seen in SEEN.items() if fnmatch(name, key)), None)
