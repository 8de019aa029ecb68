"""What both tasks do around training: check, load weights, record what was read."""

import logging
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from tests.small_tasks import SHALLOW, Data, fine_tuning, pretraining, trainer
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.facts import TestFacts
from torchgeo_channelmae.provenance.record import (
    KEY,
    UNKNOWN,
    DataRecord,
    Provenance,
    Training,
)
from torchgeo_channelmae.tasks import CrossModalClassification

RGB, VV_VH = ['B04', 'B03', 'B02'], ['VV', 'VH']
OPTICAL = DataRecord('Optical', RGB, ('Sentinel-2 L2A',), ('33UUP',), None, False)
RADAR = DataRecord(
    'Radar', VV_VH, ('Sentinel-1 GRD',), ('29TNE',), torch.tensor([50, 60]), False
)
READ_OPTICAL = Training(OPTICAL, supervised=False)
READ_RADAR = Training(RADAR, supervised=True)
TEST = TestFacts(
    groups=2,
    tiles=np.array(['33UUP', '29TNE', '33UUP', '31TFJ', '31TFJ', '31TFJ']),
    patches=torch.arange(6),
)


def optical(record=OPTICAL, **kwargs):
    return Data(RGB, record=record, **kwargs)


def radar(record=RADAR, test=TEST, **kwargs):
    return Data(VV_VH, record=record, test=test, **kwargs)


def pretrain(**kwargs):
    torch.manual_seed(0)
    return pretraining(model=SHALLOW, bands=RGB, **kwargs)


def transfer(**kwargs):
    torch.manual_seed(0)
    arguments = {'model': SHALLOW, 'bands': VV_VH, 'in_channels': 2}
    return fine_tuning(**arguments | kwargs)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('runs')


@pytest.fixture(scope='module')
def fitted(folder):
    """Fit a task and return the path of its checkpoint."""
    count = 0

    def fit(task, data, epochs=1, **kwargs):
        nonlocal count
        count += 1
        limits = {'limit_train_batches': 1, 'limit_val_batches': 0}
        run = trainer(folder, max_epochs=epochs, **limits)
        run.fit(task, data, **kwargs)
        run.save_checkpoint(folder / f'{count}.ckpt')
        return str(folder / f'{count}.ckpt')

    return fit


@pytest.fixture(scope='module')
def pretrained(fitted):
    return fitted(pretrain(), optical())


@pytest.fixture(scope='module')
def fine_tuned(fitted, pretrained):
    return fitted(transfer(weights=pretrained), radar())


def stored(checkpoint):
    """Load a checkpoint's provenance through a task, as Lightning does."""
    task = transfer()
    task.on_load_checkpoint(torch.load(checkpoint, weights_only=True))
    return task.provenance


def set_up(task, folder, stage='fit', datamodule=None):
    """Set a task up as a trainer does before it reads any data."""
    task.trainer = trainer(folder)
    task.trainer.datamodule = datamodule
    task.setup(stage)


# Checks against the data


def test_a_model_for_other_bands_than_those_of_the_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'VV, VH.*VH, VV'):
        set_up(transfer(), tmp_path, datamodule=Data(VV_VH[::-1]))


def test_data_of_a_size_that_the_patch_does_not_divide_are_refused(tmp_path):
    with pytest.raises(ValueError, match='120'):
        set_up(pretrain(), tmp_path, datamodule=optical(size=120))
    set_up(pretrain(), tmp_path, datamodule=optical(size=64))


# Weights


class Start(Callback):
    def on_train_start(self, trainer, task):
        self.weights = {k: v.clone() for k, v in task.model.state_dict().items()}


def test_weights_are_loaded_when_fitting_starts_and_at_no_other_stage(
    pretrained, tmp_path
):
    task = pretrain(weights=pretrained)
    expected = torch.load(pretrained, weights_only=True)['state_dict']
    name = 'model.blocks.1.attn.qkv.weight'
    task.state_dict()[name].zero_()
    for stage in ('validate', 'test', 'predict'):
        set_up(task, tmp_path, stage)
        assert not task.state_dict()[name].any()
    set_up(task, tmp_path, 'fit')
    assert all(torch.equal(v, expected[k]) for k, v in task.state_dict().items())


def test_only_a_new_fit_needs_the_file_of_its_weights(fine_tuned, tmp_path):
    gone = {'weights': 'no/such.ckpt'}
    assert trainer(tmp_path).test(transfer(**gone), radar(), verbose=False)
    resumed, start = trainer(tmp_path, max_epochs=2), Start()
    resumed.callbacks.append(start)
    resumed.fit(transfer(**gone), radar(), ckpt_path=fine_tuned)
    assert resumed.current_epoch == 2
    own = torch.load(fine_tuned, weights_only=True)['state_dict']
    assert all(torch.equal(v, own[f'model.{k}']) for k, v in start.weights.items())
    with pytest.raises(FileNotFoundError, match=r'no/such\.ckpt'):
        trainer(tmp_path).fit(transfer(**gone), radar())


def test_data_that_are_normalized_differently_than_those_of_the_weights_warn(
    pretrained, tmp_path
):
    data = optical()
    data.facts = replace(data.facts, std=torch.tensor([1.0, 1.0, 3.0]))
    with pytest.warns(UserWarning, match='B02'):
        set_up(pretrain(weights=pretrained), tmp_path, datamodule=data)


# What checkpoints contain


def test_a_checkpoint_has_the_records_of_its_training_and_of_its_weights(
    pretrained, fine_tuned
):
    assert stored(pretrained) == Provenance(own=(READ_OPTICAL,))
    expected = Provenance(inherited=(READ_OPTICAL,), own=(READ_RADAR,))
    loaded = CrossModalClassification.load_from_checkpoint(fine_tuned)
    assert loaded.provenance == stored(fine_tuned) == expected


def test_a_resume_adds_only_what_is_new(fitted, pretrained):
    same = fitted(pretrain(), optical(), epochs=2, ckpt_path=pretrained)
    assert stored(same) == stored(pretrained)
    other = replace(OPTICAL, labels_steered=True)
    more = fitted(pretrain(), optical(other), epochs=2, ckpt_path=pretrained)
    assert stored(more).own == (READ_OPTICAL, Training(other, False))


def test_data_and_checkpoints_without_records_are_unknown(fitted, pretrained, folder):
    assert stored(fitted(pretrain(), Data())).own == (Training(None, False),)
    content = torch.load(pretrained, weights_only=True)
    del content[KEY]
    torch.save(content, folder / 'before.ckpt')
    before = str(folder / 'before.ckpt')
    resumed = fitted(pretrain(), optical(), epochs=2, ckpt_path=before)
    assert stored(resumed) == UNKNOWN.trained(READ_OPTICAL)
    started = fitted(transfer(weights=before), radar())
    assert stored(started) == Provenance(UNKNOWN.inherited, (READ_RADAR,))


# What a transfer reports


def test_fitting_logs_what_the_weights_have_read(caplog, fitted, pretrained):
    with caplog.at_level(logging.INFO):
        fitted(transfer(weights=pretrained), radar())
        fitted(transfer(), radar())
    first, second = (m for m in caplog.messages if 'retrain' in m[:20])
    assert 'Optical (Sentinel-2 L2A: B04, B03, B02' in first
    assert 'sensor_free yes, label_free yes, overlap_free yes' in first
    assert second.startswith('Nothing was pretrained')


def test_a_test_logs_what_it_shares_with_pretraining(fine_tuned, tmp_path):
    run = trainer(tmp_path, logger=CSVLogger(tmp_path, version='0'))
    (scores,) = run.test(transfer(), radar(), ckpt_path=fine_tuned, verbose=False)
    report = (tmp_path / 'lightning_logs' / '0' / 'scores.md').read_text()
    assert scores['test_sensor_free'] == scores['test_overlap_free'] == 1
    assert scores['test_label_free'] == 1
    assert scores['test_place_free'] == 0
    assert scores['test_place_overlap'] == pytest.approx(2 / 6)
    assert math.isnan(scores['test_patch_overlap'])  # its patches had no names
    assert '| place_free | **no** |' in report


def test_a_test_on_patches_that_were_trained_on_is_refused(
    tmp_path, fine_tuned, fitted
):
    patches = torch.tensor([10, 60, 50, 20, 0, 1])
    test = replace(TEST, patches=patches, patch_names=np.array(list('uvwxyz')))
    other = replace(RADAR, patches=torch.tensor([70]))
    later = fitted(transfer(weights=fine_tuned), radar(other))
    for path in (fine_tuned, later):
        with pytest.raises(ValueError, match=r'2 of the 6 test patches.* v\.'):
            trainer(tmp_path).test(transfer(), radar(test=test), ckpt_path=path)


def test_training_on_a_version_and_testing_on_it_in_the_other_is_caught(
    tmp_path, broken_sample
):
    """Three training patches of v2 get the names of three test patches of v1."""
    table = pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')
    in_v1 = table[(table['version'] == 'v1') & (table['split'] == 'test')]['patch_id']

    def linked(frame):
        is_v2 = (frame['split'] == 'train') & (frame['version'] == 'v2')
        frame['s2v1_name'] = frame['patch_id']
        frame.loc[frame[is_v2].index[:3], 's2v1_name'] = in_v1.tolist()[:3]
        return frame

    task = CrossModalClassification(SHALLOW, size=32)
    options = {'bands': VV_VH, 'size': 32, 'batch_size': 8}
    root = str(broken_sample(None, linked))
    data = BigEarthNetS1S2DataModule(root=root, **options)
    trainer(tmp_path, limit_val_batches=0).fit(task, data)
    with pytest.raises(ValueError, match='3 of the 21 test patches'):
        trainer(tmp_path).test(task, BigEarthNetS1S2DataModule(**options))
