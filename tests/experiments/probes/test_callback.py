"""A probe while training: its scores are real, and training does not notice it."""

import math
import random

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch import Trainer, seed_everything
from torchgeo.datamodules import NonGeoDataModule
from torchgeo.main import main

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.experiments.probes import FrozenProbe
from torchgeo_channelmae.experiments.probes.features import extract
from torchgeo_channelmae.experiments.probes.protocol import Protocol
from torchgeo_channelmae.tasks import ChannelMAE, CrossModalClassification

TINY = {
    'model': 'channelmae_tiny_patch16',
    'size': 32,
    'decoder_dim': 32,
    'decoder_depth': 1,
    'decoder_num_heads': 2,
    'plot_every_n_epochs': 0,
}
NAMES = {
    f'probe_{probe}_{score}'
    for probe in ('knn', 'linear')
    for score in ('mAP_micro', 'mAP_macro', 'F1_micro', 'F1_macro')
}


def data(bands=('B04', 'VV'), **kwargs):
    return BigEarthNetS1S2DataModule(
        **{'bands': list(bands), 'size': 32, 'batch_size': 8, **kwargs}
    )


def train(folder, *callbacks, epochs=2, datamodule=None, task=None):
    seed_everything(3)
    if task is None:
        task = ChannelMAE(**TINY, in_channels=2, bands=['B04', 'VV'])
    trainer = Trainer(
        accelerator='cpu',
        devices=1,
        max_epochs=epochs,
        default_root_dir=folder,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, datamodule=datamodule or data())
    states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    return trainer, task, states


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    return train(tmp_path_factory.mktemp('plain'))


@pytest.fixture(scope='module')
def probed(tmp_path_factory):
    return train(tmp_path_factory.mktemp('probed'), FrozenProbe())


@pytest.mark.parametrize('callback', ['own', 'radar'])
def test_training_ends_with_the_same_weights_and_random_states(
    callback, plain, probed, tmp_path
):
    found = probed
    if callback == 'radar':
        found = train(tmp_path, FrozenProbe(data(['VV', 'VH']), neighbors=5))
    trainer, task, states = found
    expected = plain[1].state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in task.state_dict().items())
    assert torch.equal(states[0], plain[2][0])
    assert (states[1] == plain[2][1]).all()
    assert states[2] == plain[2][2]
    assert trainer.callback_metrics['val_loss'] == plain[0].callback_metrics['val_loss']
    modes = [module.training for module in task.modules()]
    assert modes == [module.training for module in plain[1].modules()]


def test_scores_are_those_of_the_encoder_at_the_end_of_the_epoch(probed):
    trainer, task, _ = probed
    assert trainer.callback_metrics.keys() >= NAMES
    fresh = data()
    fresh.setup('fit')
    parts = {
        split: extract({'': (task.model, None)}, fresh, split, ['out'])['']
        for split in ('train', 'val')
    }
    labels = {split: part.labels for split, part in parts.items()}
    scores = Protocol(labels, 'val', '').scores(
        {split: part.depths['out'] for split, part in parts.items()}
    )
    for name in NAMES:
        _, probe, score = name.split('_', 2)
        logged = float(trainer.callback_metrics[name])
        assert logged == pytest.approx(scores[probe][score], nan_ok=True), name
    assert not math.isnan(float(trainer.callback_metrics['probe_linear_mAP_micro']))


def test_it_is_configured_in_yaml_beside_the_shipped_pretraining(conf, tmp_path):
    path = tmp_path / 'probe.yaml'
    callback = {
        'class_path': 'torchgeo_channelmae.experiments.probes.FrozenProbe',
        'init_args': {
            'datamodule': {
                'class_path': 'torchgeo_channelmae.datamodules.'
                'BigEarthNetS1S2DataModule',
                'init_args': {'bands': ['VV', 'VH'], 'size': 32, 'batch_size': 16},
            },
            'every_n_epochs': 2,
            'probes': ['knn'],
        },
    }
    path.write_text(yaml.safe_dump({'trainer': {'callbacks+': callback}}))
    init = '--model.init_args.'
    main(
        [
            'fit',
            *('--config', str(conf / 'pretrain.yaml'), '--config', str(path)),
            *(f'{init}{name}={value}' for name, value in TINY.items()),
            '--data.init_args.size=32',
            '--data.init_args.samples_per_epoch=16',
            '--trainer.max_epochs=2',
            '--trainer.accelerator=cpu',
            f'--trainer.default_root_dir={tmp_path / "run"}',
        ]
    )
    table = pd.read_csv(tmp_path / 'run' / 'fit' / 'metrics.csv')
    told = table[['epoch', 'probe_knn_mAP_micro']].dropna()
    assert told['epoch'].tolist() == [1]  # every second
    assert 'probe_linear_mAP_micro' not in table


def test_a_classification_can_be_probed_too(tmp_path):
    task = CrossModalClassification(model=TINY['model'], size=32)
    trainer, *_ = train(
        tmp_path,
        FrozenProbe(prefix='frozen', probes=['knn'], samples=20, pool='token'),
        epochs=1,
        task=task,
        datamodule=data(['VV', 'VH']),
    )
    assert 'frozen_knn_mAP_micro' in trainer.callback_metrics


class NoLabels(torch.utils.data.Dataset):
    def __init__(self, **kwargs):
        pass

    def __len__(self):
        return 16

    def __getitem__(self, index):
        return {'image': torch.zeros(2, 32, 32), 'index': index}


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'neighbors': 20}, 'neighbors is 20, but there are 19 training samples'),
        ({'every_n_epochs': 0}, 'every_n_epochs is 0: give at least 1'),
        ({'probes': ['svm']}, "probes is .'svm'.: give knn and linear"),
        ({'pool': 'max'}, "pool is 'max'"),
        ({'fresh_bands': 'any'}, "fresh_bands is 'any'"),
        (
            {'datamodule': NonGeoDataModule(NoLabels, batch_size=4)},
            'The samples of NonGeoDataModule have no label to probe',
        ),
    ],
)
def test_what_cannot_work_is_told_before_training(arguments, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        train(tmp_path, FrozenProbe(**arguments))
