"""What published weights have read is listed for all that this package offers."""

import pytest
from torchgeo.models import get_model_weights, get_weight

from torchgeo_channelmae.models.checkpoints import published_provenance
from torchgeo_channelmae.models.peers import PEERS
from torchgeo_channelmae.provenance.overlap import label_free, sensor_free
from torchgeo_channelmae.provenance.published import input_bands, seen_by

CONTROLS = (
    *('resnet18', 'resnet50', 'resnet152'),
    *('vit_small_patch16_224', 'vit_base_patch16_224', 'vit_large_patch16_224'),
    *('vit_huge_patch14_224', 'vit_small_patch14_dinov2', 'vit_base_patch14_dinov2'),
)
OFFERED = [
    weights
    for name in (*CONTROLS, *(name for name, model in PEERS.items() if model.weights))
    for weights in get_model_weights(name)
]


def test_every_member_has_a_row_that_agrees_with_its_entry():
    for weights in OFFERED:
        seen, meta = seen_by(weights), weights.meta
        assert seen is not None, weights
        assert seen.source
        assert all(seen.sensors)
        assert meta.get('dataset', seen.dataset) == seen.dataset
        assert len(seen.bands) == meta.get('in_chans', len(seen.bands)), weights
        if 'bands' in meta:
            given = [name.upper().replace('B0', 'B') for name in meta['bands']]
            assert given == [name.upper().replace('B0', 'B') for name in seen.bands]


S1, S2 = ('Sentinel-1 GRD',), ('Sentinel-2 L2A',)


@pytest.mark.parametrize(
    ('name', 'target', 'free'),
    [
        ('DOFABase16_Weights.DOFA_MAE', S1, False),
        ('ScaleMAELarge16_Weights.FMOW_RGB', S1, True),
        ('ResNet50_Weights.SENTINEL2_ALL_MOCO', S1, True),
        ('ResNet50_Weights.SENTINEL2_ALL_MOCO', S2, False),
        ('ResNet50_Weights.SENTINEL2_ALL_DECUR', S1, False),  # trained against it
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
        ('ScaleMAELarge16_Weights.FMOW_RGB', False),
        ('DOFABase16_Weights.DOFA_MAE', None),
    ],
)
def test_what_is_unknown_of_labels_is_no_claim(name, free):
    assert label_free(published_provenance(get_weight(name)).trainings) is free


def test_bands_of_another_satellite_are_not_mistaken_for_ours():
    bands = input_bands(get_weight('ResNet18_Weights.LANDSAT_OLI_TIRS_TOA_MOCO'))
    assert bands[-2:] == ('Landsat-8 TOA B10', 'Landsat-8 TOA B11')
