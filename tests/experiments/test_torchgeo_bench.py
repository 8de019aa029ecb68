"""The encoder in the public harness torchgeo-bench, as released."""

import warnings

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.utils.data import DataLoader
from torchgeo_bench.datasets import get_bench_dataset_class
from torchgeo_bench.datasets.base import BandSpec
from torchgeo_bench.main import embed_split, evaluate_knn, evaluate_logistic
from torchgeo_bench.models import BenchModel
from torchgeo_bench.segmentation_probe import SegmentationProbe

from torchgeo_channelmae import sensors
from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.experiments.torchgeo_bench import ChannelMAEBench, band_names
from torchgeo_channelmae.models import ChannelViT

TINY = {'model': 'channelmae_tiny_patch16', 'img_size': 32}
ALL = sensors.names(sensors.SENTINEL2_L2A + sensors.SENTINEL1_GRD)


def specs(*names):
    """Bands as the harness describes them, with our statistics."""
    result = []
    for band in map(sensors.find, names):
        waves = band.wavelength and band.wavelength / 1000
        about = {'mean': band.mean, 'std': band.std, 'min': 0, 'max': 1}
        about |= {'sensor': 's2' if waves else 's1', 'wavelength_um': waves}
        result.append(BandSpec(name=band.name.lower(), source_name=band.name, **about))
    return result


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    torch.manual_seed(1)
    model = ChannelViT(img_size=32, embed_dim=192, num_heads=3, bands=['B04', 'VV'])
    path = tmp_path_factory.mktemp('weights') / 'weights.pt'
    torch.save(model.state_dict(), path)
    return path, model.eval()


def raw(split):
    """Return the bundled sample as the harness's datasets are: raw, in float32."""
    data = BigEarthNetLMDB(split=split, bands=['B04', 'VV'])
    samples = [data[i] for i in range(len(data))]
    return [
        {'image': sample['image'][:, :64, :64].float(), 'label': sample['label']}
        for sample in samples
    ]


def test_it_is_evaluated_by_the_harness_from_raw_pixels_to_scores(weights):
    bench = ChannelMAEBench(specs('B04', 'VV'), str(weights[0]), **TINY)
    assert isinstance(bench, BenchModel)
    parts = {}
    for split in ('train', 'val', 'test'):
        loader = DataLoader(raw(split), batch_size=8)
        parts[split] = embed_split(bench.eval(), loader, torch.device('cpu'), False)
    (x, y), (val, val_y), (test, test_y) = parts.values()
    assert x.shape == (23, 192)
    shared = {'seed': 0, 'n_bootstrap': 5}
    score, *_ = evaluate_knn(x, y, test, test_y, **shared)
    assert 0.1 < score < 1
    parts = (x, y, val, val_y, test, test_y, [0.01, 1])
    score, *_ = evaluate_logistic(*parts, merge_val=True, device='cpu', **shared)
    assert 0.1 < score < 1


def test_features_are_those_of_the_encoder_on_normalized_bands(weights):
    path, model = weights
    bench = ChannelMAEBench(specs('B04', 'VV'), str(path), **TINY)
    image = torch.stack([sample['image'] for sample in raw('val')[:3]])
    bands = [sensors.find(name) for name in ('B04', 'VV')]
    mean, std = torch.tensor([[band.mean, band.std] for band in bands]).T[
        ..., None, None
    ]
    with torch.no_grad():
        torch.testing.assert_close(bench(image), model((image - mean) / std))


def test_the_shipped_configuration_is_found_by_the_harness(conf, weights):
    folder = f'hydra.searchpath=[file://{conf / "torchgeo-bench"}]'
    asked = ['model=channelmae', f'model.weights={weights[0]}', folder]
    asked += [f'model.{name}={value}' for name, value in TINY.items()]
    with initialize_config_module('torchgeo_bench.conf', version_base=None):
        config = compose('config', asked)
    options = {'normalization': config.dataset.normalization, '_convert_': 'object'}
    bench = instantiate(config.model, bands=specs('B04', 'B08'), **options)
    assert bench.encoder.bands == ('B04', 'B08')
    assert config.model.name == 'channelmae'
    layers = OmegaConf.to_object(config.model.eval.segmentation.layers)
    assert layers == ['maps.11', 'maps.8', 'maps.5', 'maps.2']


def test_maps_for_segmentation_are_the_mean_over_bands_of_each_cell(weights):
    path, model = weights
    bench = ChannelMAEBench(specs('B04', 'VV'), str(path), **TINY)
    probe = SegmentationProbe(bench, ['maps.11', 'maps.2'], num_classes=3)
    assert probe.channels_list == [192, 192]
    assert probe.feature_hw_list == [(14, 14)] * 2  # of the harness's 224 px
    image = torch.randn(2, 2, 64, 64)
    with torch.no_grad():
        assert probe(image).shape == (2, 3, 64, 64)
        found = probe._features['maps.2']
        options = {'output_fmt': 'NLC', 'intermediates_only': True}
        seen = bench.normalize_inputs(image)
        (tokens,) = model.forward_intermediates(seen, indices=[2], **options)
    expected = (tokens[:, :16] + tokens[:, 16:]) / 2  # 4 x 4 cells of each band
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected)


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('benv2', ALL),
        ('m-eurosat', sensors.names(sensors.SENTINEL2_L1C)),
        ('m-pv4ger', ('B02', 'B03', 'B04')),  # aerial
        ('fotw', ('B04', 'B03', 'B02', 'B08')),
        ('kuro_siwo', ('VV', 'VH', 'dem')),
    ],
)
def test_bands_of_the_harness_have_our_names(name, expected):
    bands = get_bench_dataset_class(name)().bands
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert band_names(bands, {}) == expected


def test_swapped_names_of_radar_are_warned_of_and_can_be_renamed():
    swapped = [
        BandSpec('s1', 'vv', 'VV', mean=-19.4, std=5.6, min=-60, max=20),
        BandSpec('s1', 'vh', 'VH', mean=-12.6, std=5.1, min=-60, max=20),
    ]
    with pytest.warns(UserWarning, match='{vv: VH, vh: VV}'):
        assert band_names(swapped, {}) == ('VV', 'VH')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert band_names(swapped, {'vv': 'VH', 'vh': 'VV'}) == ('VH', 'VV')
        assert band_names(specs('VV', 'VH'), {}) == ('VV', 'VH')


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'rename': {'b99': 'B04'}}, 'b99'),
        ({'pool': 'max'}, 'max'),
        ({'weights': 'gone.ckpt'}, 'gone.ckpt'),
    ],
)
def test_a_mistake_is_named(changes, named):
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        ChannelMAEBench(specs('B04', 'VV'), **TINY | changes)


def test_images_of_any_size_are_pooled_per_band():
    bench = ChannelMAEBench(specs('VV', 'VH'), pool='bands', **TINY)
    with torch.no_grad():
        found = bench(torch.randn(1, 2, 61, 10))
    assert found.shape == (1, 2 * 192)
    assert found.isfinite().all()
