"""``channelmae probe`` on the bundled sample."""

import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import average_precision_score

from torchgeo_channelmae.cli import main
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.experiments.configuration import read_task
from torchgeo_channelmae.experiments.probes.encoders import (
    build_encoder,
    weights_to_probe,
)

from .conftest import SHALLOW


@pytest.fixture(scope='module')
def config(small):
    return small('finetune.yaml')


@pytest.fixture(scope='module')
def made(config, weights, tmp_path_factory):
    out = tmp_path_factory.mktemp('probe') / 'out'
    options = ('--weights', weights[0], '--depth', '0,1,out', '--out', str(out))
    assert main(['probe', '--config', str(config), *options]) == 0
    return out


def test_each_encoder_depth_and_probe_has_a_row_beside_chance(made, weights):
    table = pd.read_csv(made / 'probe.csv', keep_default_na=False)
    found = list(zip(table['encoder'], table['depth'], table['probe'], strict=True))
    assert found == [('chance', '', '')] + [
        (encoder, depth, probe)
        for encoder in ('untrained', weights[0])
        for depth in ('0', '1', 'out')
        for probe in ('knn', 'linear')
    ]
    assert table[['train', 'val', 'test']].drop_duplicates().values.tolist() == [
        [23, 15, 21]
    ]


def test_the_page_has_the_warning_of_the_data_and_every_row(made):
    text = (made / 'probe.md').read_text()
    assert 'say nothing about the model' in text
    assert '11 classes occur among the test samples' in text
    first = pd.read_csv(made / 'probe.csv').iloc[1]
    assert text.count('| untrained ') == 6
    mean, std = 100 * first['mAP_micro'], 100 * first['mAP_micro_std']
    assert f'| {mean:.1f} ± {std:.1f} |' in text


def test_chance_is_that_of_the_class_frequencies(made):
    data = BigEarthNetS1S2DataModule(bands=['VV', 'VH'], batch_size=8)
    data.setup('test')
    truth = data.test_dataset.labels.numpy()
    guess = data.train_class_frequencies.expand(21, -1).numpy()
    found = pd.read_csv(made / 'probe.csv').iloc[0]
    expected = average_precision_score(truth.ravel(), guess.ravel())
    assert found['mAP_micro'] == pytest.approx(expected, abs=1e-5)


def test_untrained_is_the_encoder_of_the_configurations_seed(config):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    encoder, seed = build_encoder([config])
    assert torch.equal(torch.rand(3), expected)  # random states are left alone
    torch.manual_seed(seed)  # as torchgeo fit seeds before it builds
    arguments = yaml.safe_load(config.read_text())['model']['init_args']
    task, _ = read_task([config])
    again = type(task)(**{k: v for k, v in arguments.items() if k != 'weights'})
    state = again.model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in encoder.state_dict().items())


def test_new_bands_start_as_asked_for_and_the_page_scores_validation(
    config, weights, tmp_path, capsys
):
    options = ['--weights', weights[0], '--fresh-bands', 'index', '--split', 'val']
    options += ['--pool', 'bands', '--precision', 'bf16', '--samples', '20']
    options += ['--neighbors', '5', '--out', str(tmp_path / 'out')]
    assert main(['probe', '--config', str(config), *options]) == 0
    table = pd.read_csv(tmp_path / 'out' / 'probe.csv')
    assert 'test' not in table
    assert len(table) == 1 + 2 * 2
    assert 'VV (index: as B04), VH (index: as B08)' in capsys.readouterr().out


def test_weights_default_to_those_of_the_configuration(conf):
    finetune = [conf / 'finetune.yaml']
    assert weights_to_probe(finetune, None) == ['runs/pretrain/last.ckpt']
    assert weights_to_probe(finetune, ['b', 'a', 'b']) == ['b', 'a']
    assert weights_to_probe([conf / 'pretrain.yaml'], None) == []


def test_torchgeos_datamodules_and_tasks_are_probed_with_one_class_per_sample(
    eurosat, tmp_path
):
    task = {'model': SHALLOW, 'in_channels': 13, 'num_classes': 10}
    content = {
        'model': {'class_path': 'torchgeo.tasks.Classification', 'init_args': task},
        'data': {
            'class_path': 'torchgeo.datamodules.EuroSATDataModule',
            'init_args': {'batch_size': 5},
            'dict_kwargs': {'root': str(eurosat)},
        },
    }
    config = tmp_path / 'config.yaml'
    config.write_text(yaml.safe_dump(content))
    options = ('--neighbors', '3', '--out', str(tmp_path / 'out'))
    assert main(['probe', '--config', str(config), *options]) == 0
    table = pd.read_csv(tmp_path / 'out' / 'probe.csv')
    assert 'F1_micro_tuned' not in table  # the most probable class counts
    assert table['F1_micro'].tolist() == [pytest.approx(1 / 3, abs=1e-5), 1, 1]


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        (['--weights', 'gone.ckpt'], 'gone.ckpt'),
        (['--neighbors', '24'], 'neighbors'),
        (['--depth', '13'], 'depth'),
        (['--device', 'abacus'], 'abacus'),
        (['--data.bands', '[B04]'], 'B04'),
    ],
)
def test_a_mistake_is_named_and_writes_nothing(
    options, named, config, tmp_path, capsys
):
    out = tmp_path / 'out'
    asked = ['probe', '--config', str(config), '--out', str(out), *options]
    assert main(asked) == 1
    assert named in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()
