"""`channelmae stats` measures what a training reads, and a training reads its file."""

import numpy as np
import pytest
import rasterio
import torch
import yaml

from tests import fabricate
from torchgeo_channelmae.cli import main
from torchgeo_channelmae.datamodules.pretraining import PretrainingDataModule
from torchgeo_channelmae.datamodules.statistics import read_statistics
from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.datasets.encode import encode
from torchgeo_channelmae.experiments.stats import stats

PLACES = [(9.0 + number, 50.0) for number in range(5)]


@pytest.fixture
def patches(tmp_path):
    """An S2-100K of random pixels, some without data; returns its pixels."""
    fabricate.s2100k(tmp_path, PLACES)
    rng = np.random.default_rng(4)
    pixels = rng.gamma(2, 500, (len(PLACES), 12, 8, 8)).astype('uint16') + 1
    pixels[1, :, :3] = 0
    for number, image in enumerate(pixels):
        fabricate.write_tif(tmp_path / 'images' / f'patch_{number}.tif', image)
    return pixels


def spec(name, root, **arguments):
    return {'class_path': name, 'init_args': {'root': str(root), **arguments}}


def test_the_figures_are_those_of_all_pixels_with_data(patches, tmp_path):
    out = tmp_path / 'stats.yaml'
    stats(out, dataset=spec('S2100k', tmp_path))
    content = yaml.safe_load(out.read_text())
    assert content['dataset'] == 'S2100k'
    assert content['samples'] == 5
    assert content['sensors'] == ['Sentinel-2 L2A']
    for channel, band in enumerate(fabricate.L2A):
        values = patches[:, channel].astype(float)
        values = values[values > 0]
        found = content['bands'][band]
        assert found['pixels_without_data'] == 24
        assert found['mean'] == pytest.approx(values.mean(), rel=1e-6)
        assert found['std'] == pytest.approx(values.std(), rel=1e-6)
        assert (found['min'], found['max']) == (values.min(), values.max())
        for percent, value in found['percentiles'].items():
            exact = np.percentile(values, percent, method='inverted_cdf')
            assert value == pytest.approx(exact, rel=1.001e-3)


def test_a_training_that_reads_the_file_sees_mean_0_and_std_1(patches, tmp_path):
    out = tmp_path / 'stats.yaml'
    stats(out, dataset=spec('S2100k', tmp_path), workers=1)
    datamodule = PretrainingDataModule(
        spec('S2100k', tmp_path), size=8, batch_size=4, val_fraction=0,
        statistics=str(out), bands=['B8A', 'B02'],
    )  # fmt: skip
    datamodule.setup('fit')
    data = datamodule.train_dataset
    samples = [data[number] for number in (0, 2, 3, 4)]
    batch = datamodule.finish(datamodule.collate_fn(samples), training=False)
    assert batch['image'].mean(dim=(0, 2, 3)).abs().max() < 0.1
    assert batch['image'].std(dim=(0, 2, 3)).sub(1).abs().max() < 0.1


def test_a_part_of_the_samples_is_drawn_by_the_seed(patches, tmp_path):
    texts = []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / f'{number}.yaml'
        stats(out, dataset=spec('S2100k', tmp_path), samples=2, seed=seed)
        texts.append(out.read_text())
    assert texts[0] == texts[1] != texts[2].replace('seed: 1', 'seed: 0')


def test_bands_without_known_statistics_get_some(tmp_path):
    fabricate.so2sat(tmp_path)
    out = tmp_path / 'stats.yaml'
    wanted = ['S1_B8', 'B02']
    stats(out, dataset=spec('So2Sat', tmp_path, checksum=False), bands=wanted)
    read = yaml.safe_load(out.read_text())['bands']
    assert read['S1_B8']['mean'] == 8
    assert read['B02']['mean'] == pytest.approx(fabricate.VALUES['B02'], rel=1e-5)


def test_a_folder_of_scenes_is_measured_at_random_places(tmp_path):
    fabricate.sentinel2_scenes(tmp_path, side=120, empty=30)
    out = tmp_path / 'stats.yaml'
    given = {'class_path': 'Sentinel2', 'init_args': {'paths': str(tmp_path)}}
    stats(out, dataset=given, geo=True, bands=['B03'], size=16, samples=10)
    content = yaml.safe_load(out.read_text())
    assert content['samples'] == 10
    assert content['bands']['B03']['mean'] == fabricate.VALUES['B03']


def test_the_command_measures_what_a_configuration_trains_on(conf, tmp_path, capsys):
    out = tmp_path / 'stats.yaml'
    code = main(
        ['stats', f'--out={out}', f'--training={conf / "pretrain.yaml"}', '--workers=0']
    )
    assert code == 0, capsys.readouterr().err
    found = read_statistics(out, BigEarthNetLMDB.s2_bands)
    train = BigEarthNetLMDB(split='train')
    pixels = torch.stack([train[i]['image'] for i in range(len(train))]).double()
    ten = [BigEarthNetLMDB.s2_bands.index(band) for band in ('B02', 'B08')]
    for channel in ten:  # at 10 m; the others are measured as stored or resampled
        band = BigEarthNetLMDB.s2_bands[channel]
        mean = pixels[:, channel].mean().item()
        std = pixels[:, channel].std(unbiased=False).item()
        assert found[band] == pytest.approx((mean, std), rel=1e-6)
    assert str(out) in capsys.readouterr().out


def test_options_and_further_configurations_change_what_a_training_says(
    patches, conf, tmp_path
):
    out = tmp_path / 'stats.yaml'
    other = tmp_path / 'other.yaml'
    dataset = {'class_path': 'S2100k', 'init_args': {}}
    init_args = {'dataset': dataset, 'level': None, 'val_fraction': 0}
    other.write_text(yaml.safe_dump({'data': {'init_args': init_args}}))
    configs = f'[{conf / "pretrain.yaml"}, {conf / "any" / "samples.yaml"}, {other}]'
    options = [f'--training={configs}', f'--root={tmp_path}', '--bands=[B03, B8A]']
    (tmp_path / 'index.csv').rename(tmp_path / 'table.csv')
    (tmp_path / 'moved').mkdir()
    for name in ('table.csv', 'images'):
        (tmp_path / name).rename(tmp_path / 'moved' / name.replace('table', 'index'))
    changed = f'--data={{dataset.init_args.root: {tmp_path / "moved"}}}'
    assert main(['stats', f'--out={out}', *options, changed]) == 0
    content = yaml.safe_load(out.read_text())
    assert content['samples'] == len(PLACES)
    assert set(content['bands']) == {'B03', 'B8A'}


@pytest.fixture
def holed(tmp_path):
    """A BigEarthNet v2 without data in the first 14 rows of 10 m, 6 of 20 and 60 m.

    The others are a ramp, so that filling with its mean would show in the figures.
    """
    fabricate.bigearthnet_v2(tmp_path, ('train', 'val'))
    for path in tmp_path.glob('BigEarthNet-S2/*/*/*.tif'):
        with rasterio.open(path, 'r+') as file:
            pixels = file.read() + np.arange(file.width, dtype='uint16')
            pixels[:, : {120: 14, 60: 6, 20: 2}[file.width]] = 0
            file.write(pixels)
    encode(tmp_path, tmp_path / 'encoded', workers=0)
    return tmp_path / 'encoded'


def ramp(band, side, rows):
    values = fabricate.VALUES[band] + np.arange(side, dtype=float)
    return np.broadcast_to(values, (side - rows, side))


@pytest.mark.parametrize('form', ['training', 'dataset'])
def test_pixels_without_data_are_left_out_and_not_filled(form, holed):
    out = holed.with_name('stats.yaml')
    if form == 'training':
        config = holed.with_name('config.yaml')
        init_args = {'root': str(holed), 'bands': ['B05', 'B02']}
        kind = 'torchgeo_channelmae.datamodules.BigEarthNetS1S2DataModule'
        data = {'class_path': kind, 'init_args': init_args}
        config.write_text(yaml.safe_dump({'data': data}))
        stats(out, training=config)
    else:
        own = spec('BigEarthNetLMDB', holed, split='train')
        stats(out, dataset=own, bands=['B05', 'B02'])
    found = yaml.safe_load(out.read_text())['bands']
    for band, side, rows in (('B02', 120, 14), ('B05', 60, 6)):
        values = ramp(band, side, rows)
        assert found[band]['pixels_without_data'] == rows * side
        assert found[band]['pixels'] == values.size
        assert found[band]['mean'] == pytest.approx(values.mean(), rel=1e-6)
        assert found[band]['std'] == pytest.approx(values.std(), rel=1e-6)


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ([], 'training'),
        (['--samples=0', '--dataset={class_path: S2100k}'], 'samples is 0'),
        (['--training=none.yaml'], 'none.yaml'),
        (['--dataset={class_path: S2100K}'], 'S2100K'),
        (['--dataset={class_path: S2100k}', '--data={a: 1}'], 'data'),
        (['--training=none.yaml', '--geo'], 'geo'),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_file(options, named, tmp_path, capsys):
    out = tmp_path / 'stats.yaml'
    assert main(['stats', f'--out={out}', *options]) == 1
    error = capsys.readouterr().err
    assert named in error
    assert len(error.strip().splitlines()) == 1
    assert not out.exists()
