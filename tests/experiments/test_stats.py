"""`channelmae stats` measures what a training reads, and a training reads its file."""

import numpy as np
import pytest
import yaml
from safetensors.numpy import load

from tests import fabricate
from torchgeo_channelmae.cli import main
from torchgeo_channelmae.datamodules.pretraining import PretrainingDataModule
from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.datasets.records import pack
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
    about = {'dataset': 'S2100k', 'samples': 5, 'sensors': ['Sentinel-2 L2A']}
    assert content | about == content
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
    options = {'size': 8, 'batch_size': 4, 'val_fraction': 0, 'bands': ['B8A', 'B02']}
    data = spec('S2100k', tmp_path)
    datamodule = PretrainingDataModule(data, statistics=str(out), **options)
    datamodule.setup('fit')
    samples = [datamodule.train_dataset[number] for number in (0, 2, 3, 4)]
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


def test_a_folder_of_scenes_is_measured_at_random_places(tmp_path):
    fabricate.sentinel2_scenes(tmp_path, side=120, empty=30)
    out = tmp_path / 'stats.yaml'
    given = {'class_path': 'Sentinel2', 'init_args': {'paths': str(tmp_path)}}
    stats(out, dataset=given, geo=True, bands=['B03'], size=16, samples=10)
    content = yaml.safe_load(out.read_text())
    assert content['samples'] == 10
    assert content['bands']['B03']['mean'] == fabricate.VALUES['B03']


def test_options_and_further_configurations_change_what_a_training_says(
    patches, conf, tmp_path, capsys
):
    out = tmp_path / 'stats.yaml'
    other = tmp_path / 'other.yaml'
    dataset = {'class_path': 'S2100k', 'init_args': {'root': 'nowhere'}}
    init_args = {'dataset': dataset, 'level': None, 'val_fraction': 0}
    other.write_text(yaml.safe_dump({'data': {'init_args': init_args}}))
    configs = f'[{conf / "pretrain.yaml"}, {conf / "any" / "samples.yaml"}, {other}]'
    changed = f'--data={{dataset.init_args.root: {tmp_path}}}'
    options = [f'--training={configs}', '--bands=[B03, B8A]', changed]
    assert main(['stats', f'--out={out}', *options]) == 0
    content = yaml.safe_load(out.read_text())
    assert content['samples'] == len(PLACES)
    assert set(content['bands']) == {'B03', 'B8A'}
    assert str(out) in capsys.readouterr().out


@pytest.mark.parametrize('form', ['training', 'dataset'])
def test_pixels_without_data_are_left_out_and_not_filled(form, broken_sample, tmp_path):
    """The optical bands of 10 and of 20 m each end at another row."""
    ends = {120: 100, 60: 40}

    def cut(key, value):
        pixels = {name: band.copy() for name, band in load(value).items()}
        for band in set(pixels) - {'VV', 'VH'}:
            pixels[band][ends.get(len(pixels[band]), 20) :] = 0
        return pack(pixels)

    root, out = str(broken_sample(cut)), tmp_path / 'stats.yaml'
    if form == 'training':
        kind = 'torchgeo_channelmae.datamodules.BigEarthNetS1S2DataModule'
        data = {'class_path': kind, 'init_args': {'root': root}}
        config = tmp_path / 'config.yaml'
        config.write_text(yaml.safe_dump({'data': data}))
        stats(out, training=config, bands=['B05', 'B02', 'VV'])
    else:
        own = spec('BigEarthNetLMDB', root, split='train')
        stats(out, dataset=own, bands=['B05', 'B02', 'VV'])
    found = yaml.safe_load(out.read_text())['bands']
    train = BigEarthNetLMDB(split='train', bands=['B05', 'B02', 'VV'])
    for band, rows in {'B05': 40, 'B02': 100, 'VV': 120}.items():
        stored = np.stack([train.read(row)[band] for row in range(len(train))])
        values = stored[:, :rows].astype(float)
        assert found[band]['pixels_without_data'] == stored.size - values.size
        assert found[band]['mean'] == pytest.approx(values.mean(), rel=1e-6)
        assert found[band]['std'] == pytest.approx(values.std(), rel=1e-6)


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ([], 'training'),
        (['--training=none.yaml'], 'none.yaml'),
        (['--dataset={class_path: S2100K}'], 'S2100K'),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_file(options, named, tmp_path, capsys):
    out = tmp_path / 'stats.yaml'
    assert main(['stats', f'--out={out}', *options]) == 1
    error = capsys.readouterr().err
    assert named in error
    assert len(error.strip().splitlines()) == 1
    assert not out.exists()
