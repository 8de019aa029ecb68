"""What published weights have read is listed for all that this package offers."""

from fnmatch import fnmatch

import pytest
from torchgeo.models import get_model_weights, get_weight

from torchgeo_channelmae.models.checkpoints import published_provenance
from torchgeo_channelmae.models.peers import PEERS
from torchgeo_channelmae.provenance.overlap import label_free, sensor_free
from torchgeo_channelmae.provenance.published import SEEN, input_bands, seen_by

PLAIN = (
    *('resnet18', 'resnet50', 'resnet152'),
    *('vit_small_patch16_224', 'vit_base_patch16_224', 'vit_large_patch16_224'),
    *('vit_huge_patch14_224', 'vit_small_patch14_dinov2', 'vit_base_patch14_dinov2'),
)
OFFERED = [
    weights
    for name in (*PLAIN, *(name for name, entry in PEERS.items() if entry.weights))
    for weights in get_model_weights(name)
]


@pytest.mark.parametrize('weights', OFFERED, ids=str)
def test_every_member_has_a_row_that_agrees_with_its_entry(weights):
    seen, meta = seen_by(weights), weights.meta
    assert seen is not None
    assert meta.get('dataset', seen.dataset) == seen.dataset
    if 'in_chans' in meta:
        assert len(seen.bands) == meta['in_chans']
    if 'bands' in meta:
        told = [name.upper() for name in meta['bands']]
        listed = [name.upper().replace('B0', 'B') for name in seen.bands]
        assert [name.replace('B0', 'B') for name in told] == listed
    assert seen.source
    assert all(seen.sensors)


def test_no_row_is_for_weights_that_are_not_there():
    names = [str(weights) for weights in OFFERED]
    first = {next(key for key in SEEN if fnmatch(name, key)) for name in names}
    assert first == set(SEEN)


def test_peers_list_all_weights_that_torchgeo_has_for_them():
    for name, entry in PEERS.items():
        if entry.weights is not None:
            assert get_model_weights(name) is entry.weights
        else:
            with pytest.raises(KeyError, match=name):
                get_model_weights(name)


S1, S2, L8 = ('Sentinel-1 GRD',), ('Sentinel-2 L2A',), ('Landsat-8 SR',)


@pytest.mark.parametrize(
    ('name', 'target', 'free'),
    [
        ('DOFABase16_Weights.DOFA_MAE', S1, False),
        ('DOFABase16_Weights.DOFA_MAE', L8, True),
        ('CROMALarge_Weights.CROMA_VIT', S1, False),
        ('CROMABase_Weights.CROMA_VIT', S2, False),
        ('CopernicusFM_Base_Weights.CopernicusFM_ViT', S1, False),
        ('Panopticon_Weights.VIT_BASE14', S1, False),
        ('Panopticon_Weights.VIT_BASE14', S2, False),
        ('ScaleMAELarge16_Weights.FMOW_RGB', S1, True),
        ('ScaleMAELarge16_Weights.FMOW_RGB', S2, True),
        ('ResNet50_Weights.SENTINEL2_ALL_MOCO', S1, True),
        ('ResNet50_Weights.SENTINEL2_ALL_MOCO', S2, False),
        ('ResNet50_Weights.SENTINEL2_ALL_DECUR', S1, False),  # trained against it
        ('ResNet50_Weights.SENTINEL1_ALL_DECUR', S2, False),
        ('ViTSmall16_Weights.LANDSAT_OLI_SR_MOCO', S1, True),
        ('ViTSmall16_Weights.SENTINEL1_GRD_MAE', S1, False),
    ],
)
def test_weights_are_free_of_the_sensors_that_they_have_not_read(name, target, free):
    past = published_provenance(get_weight(name))
    assert sensor_free(past.trainings, target) is free


@pytest.mark.parametrize(
    ('name', 'free'),
    [
        ('ResNet50_Weights.SENTINEL2_ALL_MOCO', True),
        ('ResNet50_Weights.SENTINEL2_ALL_SOFTCON', False),
        ('ResNet50_Weights.SENTINEL2_MI_MS_SATLAS', False),
        ('ScaleMAELarge16_Weights.FMOW_RGB', False),
        ('DOFABase16_Weights.DOFA_MAE', None),
        ('CopernicusFM_Base_Weights.CopernicusFM_ViT', None),
    ],
)
def test_what_is_not_known_of_labels_is_no_claim(name, free):
    assert label_free(published_provenance(get_weight(name)).trainings) is free


def test_bands_of_another_satellite_are_not_taken_for_ours():
    for weights in get_model_weights('resnet50'):
        if 'LANDSAT' in weights.name:
            bands = input_bands(weights)
            assert all(band.startswith('Landsat-') for band in bands)
            assert not set(bands) & {'B10', 'B11'}
