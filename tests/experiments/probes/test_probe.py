"""``channelmae probe`` on the bundled sample: whose scores, beside what."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file
from sklearn.metrics import average_precision_score
from torchgeo.main import main as torchgeo

from tests.fabricate import write_tif
from torchgeo_channelmae.cli import main
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.experiments.configuration import read_task
from torchgeo_channelmae.experiments.probes.encoders import (
    build_encoder,
    short_names,
    weights_to_probe,
)
from torchgeo_channelmae.models import ChannelViT

QUICK = ('--samples', '20', '--neighbors', '5', '--device', 'cpu')


@pytest.fixture(scope='module')
def small(tmp_path_factory, conf):
    """The shipped fine-tuning with small images, without weights."""
    content = yaml.safe_load((conf / 'finetune.yaml').read_text())
    content['model']['init_args'] |= {'size': 32, 'weights': None}
    content['data']['init_args'] |= {'size': 32}
    path = tmp_path_factory.mktemp('conf') / 'small.yaml'
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope='module')
def optical(tmp_path_factory):
    """Weights of an encoder of three optical bands, as a checkpoint has them."""
    torch.manual_seed(7)
    model = ChannelViT(
        img_size=32, embed_dim=192, num_heads=3, bands=['B04', 'B03', 'B02']
    )
    path = tmp_path_factory.mktemp('weights') / 'optical.ckpt'
    tensors = {f'model.{name}': value for name, value in model.state_dict().items()}
    torch.save({'state_dict': tensors}, path)
    return path


@pytest.fixture(scope='module')
def made(small, optical, tmp_path_factory):
    out = tmp_path_factory.mktemp('probe') / 'out'
    options = ('--weights', str(optical), '--depth', '0,6,out', '--out', str(out))
    assert main(['probe', '--config', str(small), *options]) == 0
    return out


def test_each_encoder_stands_beside_untrained_and_chance(made):
    table = pd.read_csv(made / 'probe.csv')
    assert table['encoder'].iloc[0] == 'chance'
    rest = table.iloc[1:]
    rows = list(zip(rest['encoder'], rest['depth'], rest['probe'], strict=True))
    name = short_names(['x/optical.ckpt'])[0].partition('/')[2]
    assert [(e.rpartition('/')[2], d, p) for e, d, p in rows] == [
        (encoder, depth, probe)
        for encoder in ('untrained', name)
        for depth in ('0', '6', 'out')
        for probe in ('knn', 'linear')
    ]
    assert set(table['train']) == {23}
    assert set(table['val']) == {15}
    assert set(table['test']) == {21}
    text = (made / 'probe.md').read_text()
    assert 'say nothing about the model' in text
    assert '11 classes occur among the test samples' in text
    assert 'With 21 samples scored, differences of a few percent are noise' in text
    assert text.count('| untrained |') == 6


def test_chance_is_that_of_the_class_frequencies(made):
    data = BigEarthNetS1S2DataModule(bands=['VV', 'VH'], batch_size=8)
    data.setup('test')
    truth = data.test_dataset.labels.numpy()
    guess = data.train_class_frequencies.expand(21, -1).numpy()
    found = pd.read_csv(made / 'probe.csv').iloc[0]
    expected = average_precision_score(truth.ravel(), guess.ravel())
    assert found['mAP_micro'] == pytest.approx(expected, abs=1e-5)


def test_untrained_is_the_encoder_that_torchgeo_fit_starts_from(
    small, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torchgeo(
        [
            'fit',
            *('--config', str(small), '--trainer.accelerator=cpu'),
            '--model.init_args.base_lr=0.0',
            '--model.init_args.weight_decay=0.0',
            '--trainer.max_epochs=1',
            '--data.init_args.samples_per_epoch=16',
        ]
    )
    state = torch.load('runs/finetune/last.ckpt', weights_only=True)['state_dict']
    encoder, seed = build_encoder([small])
    assert seed == 0
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, state[f'model.{name}']), name


def test_building_leaves_random_states_alone(small):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    read_task([small])
    assert torch.equal(torch.rand(3), expected)


def test_formats_of_weights_give_the_same_scores(small, optical, tmp_path, capsys):
    tensors = torch.load(optical, weights_only=True)['state_dict']
    bare = {k.removeprefix('model.'): v.contiguous() for k, v in tensors.items()}
    save_file(bare, tmp_path / 'optical.safetensors')
    options = ('--weights', str(optical), str(tmp_path / 'optical.safetensors'))
    out = tmp_path / 'out'
    asked = ['probe', '--config', str(small), *QUICK, *options, '--out', str(out)]
    assert main(asked) == 0
    table = pd.read_csv(out / 'probe.csv')
    assert len(table) == 1 + 3 * 2
    pd.testing.assert_frame_equal(
        table.iloc[3:5].drop(columns='encoder').reset_index(drop=True),
        table.iloc[5:7].drop(columns='encoder').reset_index(drop=True),
    )
    told = capsys.readouterr().out
    assert 'fresh bands: VV (sample: around the mean of 3 bands)' in told


def test_a_policy_of_fresh_bands_can_be_asked_for(small, optical, tmp_path, capsys):
    options = ('--weights', str(optical), '--fresh-bands', 'index')
    out = ('--out', str(tmp_path / 'out'))
    assert main(['probe', '--config', str(small), *QUICK, *options, *out]) == 0
    assert 'VV (index: as B04), VH (index: as B03)' in capsys.readouterr().out


def test_validation_is_scored_where_there_is_no_test(small, tmp_path):
    options = ('--split', 'val', '--pool', 'bands', '--out', str(tmp_path / 'out'))
    assert main(['probe', '--config', str(small), *QUICK, *options]) == 0
    table = pd.read_csv(tmp_path / 'out' / 'probe.csv')
    assert 'test' not in table
    assert len(table) == 3  # chance, and two probes of the untrained encoder


def test_weights_default_to_those_of_the_configuration(conf):
    assert weights_to_probe([conf / 'finetune.yaml'], None) == [
        'runs/pretrain/last.ckpt'
    ]
    assert weights_to_probe([conf / 'finetune.yaml'], ['a']) == ['a']
    assert weights_to_probe([conf / 'pretrain.yaml'], None) == []


def test_names_are_as_short_as_tells_apart():
    assert short_names(['a/b/last.ckpt', 'c/last.ckpt']) == [
        'b/last.ckpt',
        'c/last.ckpt',
    ]
    assert short_names(['a/b/x', 'c/b/x']) == ['a/b/x', 'c/b/x']
    assert short_names([]) == []


@pytest.fixture(scope='module')
def eurosat(tmp_path_factory):
    """A configuration of TorchGeo's own EuroSAT and task, one class a sample."""
    root = tmp_path_factory.mktemp('eurosat')
    folder = root / 'ds/images/remote_sensing/otherDatasets/sentinel_2/tif'
    rng = np.random.default_rng(0)
    for split in ('train', 'val', 'test'):
        names = []
        for number, kind in enumerate(['Forest', 'River', 'SeaLake']):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            for i in range(4):
                name = f'{kind}_{split}{i}'
                look = np.roll(np.arange(13), 4 * number) * 200 + 500
                pixels = look[:, None, None] + rng.integers(0, 30, (13, 64, 64))
                write_tif(folder / kind / f'{name}.tif', pixels.astype(np.uint16))
                names.append(f'{name}.jpg')
        (root / f'eurosat-{split}.txt').write_text('\n'.join(names))
    path = root / 'config.yaml'
    task = {'model': 'channelmae_tiny_patch16', 'in_channels': 13, 'num_classes': 10}
    content = {
        'model': {'class_path': 'torchgeo.tasks.Classification', 'init_args': task},
        'data': {
            'class_path': 'torchgeo.datamodules.EuroSATDataModule',
            'init_args': {'batch_size': 5},
            'dict_kwargs': {'root': str(root)},
        },
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_datamodules_and_tasks_of_torchgeo_are_probed_one_class_a_sample(
    eurosat, tmp_path
):
    options = ('--neighbors', '3', '--out', str(tmp_path / 'out'))
    assert main(['probe', '--config', str(eurosat), *options]) == 0
    table = pd.read_csv(tmp_path / 'out' / 'probe.csv')
    assert 'F1_micro_tuned' not in table  # the most probable class counts
    assert table['F1_micro'].tolist() == [pytest.approx(1 / 3, abs=1e-5), 1, 1]
    assert '3 classes occur' in (tmp_path / 'out' / 'probe.md').read_text()


def test_a_datamodule_without_labels_is_told(small, eurosat, tmp_path, capsys):
    root = yaml.safe_load(eurosat.read_text())['data']['dict_kwargs']['root']
    data = {
        'class_path': 'torchgeo_channelmae.datamodules.PretrainingDataModule',
        'init_args': {
            'dataset': {'class_path': 'EuroSAT', 'init_args': {'root': root}},
            'bands': ['B04', 'B08'],
            'size': 32,
            'batch_size': 2,
            'val_by': 'random',
            'val_fraction': 0.34,
        },
    }
    task = yaml.safe_load(small.read_text())['model']
    task['init_args']['bands'] = ['B04', 'B08']
    path = tmp_path / 'unlabelled.yaml'
    path.write_text(yaml.safe_dump({'data': data, 'model': task}))
    asked = ['probe', '--config', str(path), '--out', str(tmp_path / 'out')]
    options = ['--neighbors', '2', '--split', 'val']
    assert main([*asked, *options]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert 'samples of PretrainingDataModule have no label to probe' in told
    assert main([*asked, *options[:2]]) == 1
    assert 'has no test samples' in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--weights', 'gone.ckpt'], "weights 'gone.ckpt' is neither a file nor"),
        (['--neighbors', '24'], 'neighbors is 24, but there are 23 training samples'),
        (['--depth', '13'], "depth is '13': this encoder has 0 to 12, out or all"),
        (['--pool', 'max'], "pool is 'max'"),
        (['--samples', '-5'], 'samples is -5: give at least 1'),
        (['--split', 'train'], "split is 'train': use test or val"),
        (['--fresh-bands', 'any'], "fresh_bands is 'any'"),
        (['--precision', '8'], "precision is '8': use 32 or bf16"),
        (['--device', 'abacus'], "device 'abacus' can not be used"),
        (['--data.bands', '[B04]'], 'The model has the bands VV, VH, but the data has'),
        (['--config', 'gone.yaml'], 'Configuration gone.yaml is not a file'),
    ],
)
def test_bad_requests_are_told_in_a_sentence(options, words, small, tmp_path, capsys):
    out = tmp_path / 'out'
    asked = ['probe', '--config', str(small), '--out', str(out), *options]
    assert main(asked) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert words in told
    assert not out.exists()


def test_weights_of_another_model_are_told(small, tmp_path, capsys):
    model = ChannelViT(img_size=32, embed_dim=24, depth=1, num_heads=2)
    torch.save(model.state_dict(), tmp_path / 'other.pt')
    weights = ('--weights', str(tmp_path / 'other.pt'))
    out = ('--out', str(tmp_path / 'out'))
    assert main(['probe', '--config', str(small), *weights, *out]) == 1
    assert 'they are of another model' in capsys.readouterr().err.splitlines()[-1]


def test_a_configuration_without_an_encoder_is_told(small, tmp_path, capsys):
    content = yaml.safe_load(small.read_text())
    path = tmp_path / 'some.yaml'
    asked = ['probe', '--config', str(path), '--out', str(tmp_path / 'out')]
    path.write_text(yaml.safe_dump({'data': content['data']}))
    assert main(asked) == 1
    assert 'some.yaml has no model section' in capsys.readouterr().err
    content['model']['init_args']['model'] = 'channelmae_huge'
    path.write_text(yaml.safe_dump(content))
    assert main(asked) == 1
    assert (
        "Model 'channelmae_huge' is no channel-token encoder" in capsys.readouterr().err
    )


def test_nothing_is_overwritten(small, made, capsys):
    before = (made / 'probe.csv').read_bytes()
    assert main(['probe', '--config', str(small), '--out', str(made)]) == 1
    assert 'exists: give another out' in capsys.readouterr().err
    assert (made / 'probe.csv').read_bytes() == before
