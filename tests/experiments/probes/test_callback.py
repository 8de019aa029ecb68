"""A probe during training: its scores are real, and training does not notice it."""

import itertools
import random

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.experiments.probes import FrozenProbe
from torchgeo_channelmae.experiments.probes.classifiers import Protocol
from torchgeo_channelmae.experiments.probes.features import extract
from torchgeo_channelmae.tasks import ChannelMAE, CrossModalClassification

from .conftest import SHALLOW

TINY = {
    'model': SHALLOW,
    'size': 32,
    'decoder_dim': 32,
    'decoder_depth': 1,
    'decoder_num_heads': 2,
    'plot_every_n_epochs': 0,
}


def data(bands=('B04', 'VV')):
    return BigEarthNetS1S2DataModule(bands=list(bands), size=32, batch_size=8)


def train(folder, *callbacks, epochs=2, datamodule=None, task=None):
    seed_everything(3)
    task = task or ChannelMAE(**TINY, in_channels=2, bands=['B04', 'VV'])
    off = 'logger', 'enable_checkpointing', 'enable_progress_bar'
    trainer = Trainer(
        accelerator='cpu',
        devices=1,
        max_epochs=epochs,
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_model_summary=False,
        **dict.fromkeys(off, False),
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


@pytest.mark.parametrize('bands', ['same', 'radar'])
def test_training_ends_with_the_same_weights_modes_and_random_states(
    bands, plain, probed, tmp_path
):
    found = probed
    if bands == 'radar':
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
    fresh = data()
    fresh.setup('fit')
    model = {'': task.model.eval()}
    parts = {split: extract(model, fresh, split)[''] for split in ('train', 'val')}
    labels = {split: part.labels for split, part in parts.items()}
    features = {split: part.depths['out'] for split, part in parts.items()}
    expected = Protocol(labels, 'val', '').scores(features)
    for probe, score in itertools.product(('knn', 'linear'), ('mAP_micro', 'F1_macro')):
        logged = float(trainer.callback_metrics[f'probe_{probe}_{score}'])
        assert logged == pytest.approx(expected[probe][score])


def test_a_classification_is_probed_every_few_epochs(tmp_path):
    task = CrossModalClassification(model=SHALLOW, size=32)
    options = {'prefix': 'frozen', 'probes': ['knn'], 'samples': 20, 'pool': 'token'}
    callback = FrozenProbe(every_n_epochs=2, **options)
    trainer, *_ = train(
        tmp_path, callback, epochs=1, task=task, datamodule=data(['VV', 'VH'])
    )
    assert 'frozen_knn_mAP_micro' not in trainer.callback_metrics
    trainer.fit_loop.max_epochs = 2
    trainer.fit(task, datamodule=data(['VV', 'VH']))
    assert 'frozen_knn_mAP_micro' in trainer.callback_metrics
    assert 'frozen_linear_mAP_micro' not in trainer.callback_metrics


def test_too_few_samples_are_an_error_before_training(tmp_path):
    with pytest.raises(ValueError, match='neighbors is 20'):
        train(tmp_path, FrozenProbe(neighbors=20, every_n_epochs=100))


def test_an_unknown_probe_is_an_error():
    with pytest.raises(ValueError, match='svm'):
        FrozenProbe(probes=['svm'])
