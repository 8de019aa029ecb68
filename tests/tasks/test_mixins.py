"""What a task reads is in its checkpoints, and what a test makes of it."""

import logging
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.provenance.record import (
    KEY,
    UNKNOWN,
    DataRecord,
    Provenance,
    Training,
)
from torchgeo_channelmae.tasks import ChannelMAE, CrossModalClassification

OPTICAL = DataRecord(
    'Optical', ('B04', 'B03', 'B02'), ('Sentinel-2 L2A',), ('33UUP',), None, False
)
RADAR = DataRecord(
    'Radar',
    ('VV', 'VH'),
    ('Sentinel-1 GRD',),
    ('29TNE',),
    torch.tensor([50, 60]),
    False,
)
READ_OPTICAL = Training(OPTICAL, supervised=False)
READ_RADAR = Training(RADAR, supervised=True)
TEST = {
    'test_tiles': np.array(['33UUP', '29TNE', '33UUP', '31TFJ']),
    'test_patches': torch.tensor([1, 2, 3, 4]),
}


class Patches(Dataset):
    def __init__(self, bands):
        draw = torch.Generator().manual_seed(5)
        self.images = torch.randn(4, bands, 32, 32, generator=draw)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        label = torch.tensor([index % 2, 1])
        return {'image': self.images[index], 'index': index, 'label': label}


class Data(LightningDataModule):
    """Four patches, and what the datamodule tells of them."""

    def __init__(self, bands, **told):
        super().__init__()
        self.num_bands = bands
        self.test_groups = 2
        for name, value in told.items():
            setattr(self, name, value)

    def train_dataloader(self):
        return DataLoader(Patches(self.num_bands), batch_size=4)

    val_dataloader = test_dataloader = train_dataloader


def optical(**told):
    return Data(3, **({'record': OPTICAL} | told))


def radar(**told):
    return Data(2, **({'record': RADAR} | told))


def pretraining(**kwargs):
    torch.manual_seed(0)
    return ChannelMAE(
        'channelmae_tiny_patch16',
        in_channels=3,
        size=32,
        decoder_dim=32,
        decoder_depth=1,
        decoder_num_heads=2,
        plot_every_n_epochs=0,
        **kwargs,
    )


def transfer(**kwargs):
    torch.manual_seed(0)
    return CrossModalClassification(
        'channelmae_tiny_patch16', size=32, num_labels=2, **kwargs
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('runs')


@pytest.fixture(scope='module')
def trainer(folder):
    def make(epochs=1, logger=False, **kwargs):
        return Trainer(
            accelerator='cpu',
            default_root_dir=folder,
            max_epochs=epochs,
            logger=logger,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **kwargs,
        )

    return make


@pytest.fixture(scope='module')
def fitted(trainer, folder):
    """Fit a task and return the path of its checkpoint."""
    count = 0

    def fit(task, data, epochs=1, **kwargs):
        nonlocal count
        count += 1
        run = trainer(epochs, limit_val_batches=0)
        run.fit(task, data, **kwargs)
        run.save_checkpoint(folder / f'{count}.ckpt')
        return str(folder / f'{count}.ckpt')

    return fit


@pytest.fixture(scope='module')
def pretrained(fitted):
    return fitted(pretraining(), optical())


@pytest.fixture(scope='module')
def fine_tuned(fitted, pretrained):
    return fitted(transfer(weights=pretrained), radar())


@pytest.fixture(scope='module')
def tested(trainer, folder):
    """Test a checkpoint; returns what was logged and the report."""
    count = 0

    def test(checkpoint, data, task=None):
        nonlocal count
        count += 1
        run = trainer(logger=CSVLogger(folder, 'test', version=str(count)))
        scores = run.test(task or transfer(), data, ckpt_path=checkpoint, verbose=False)
        return scores[0], (folder / 'test' / str(count) / 'scores.md').read_text()

    return test


def stored(checkpoint):
    """Load a checkpoint's provenance through a task, as Lightning does."""
    content = torch.load(checkpoint, weights_only=True)
    task = transfer()
    task.on_load_checkpoint(content)
    return task.provenance


# What checkpoints hold


def test_a_checkpoint_tells_what_its_training_read(pretrained):
    assert stored(pretrained) == Provenance(own=(READ_OPTICAL,))


def test_a_fine_tuned_checkpoint_tells_what_its_weights_had_read_too(fine_tuned):
    expected = Provenance(inherited=(READ_OPTICAL,), own=(READ_RADAR,))
    assert stored(fine_tuned) == expected
    loaded = CrossModalClassification.load_from_checkpoint(fine_tuned)
    assert loaded.provenance == expected


def test_continued_pretraining_keeps_what_was_read_before(fitted, pretrained):
    other = replace(OPTICAL, tiles=('32TNT',))
    path = fitted(pretraining(weights=pretrained), optical(record=other))
    assert stored(path) == Provenance((READ_OPTICAL,), (Training(other, False),))


def test_a_resume_adds_only_what_is_new(fitted, pretrained):
    same = fitted(pretraining(), optical(), epochs=2, ckpt_path=pretrained)
    assert stored(same) == stored(pretrained)
    other = replace(OPTICAL, labels_steered=True)
    more = fitted(pretraining(), optical(record=other), epochs=2, ckpt_path=pretrained)
    assert stored(more).own == (READ_OPTICAL, Training(other, False))


def test_equal_runs_store_equal_checkpoints(fitted, folder):
    record = replace(OPTICAL, patches=torch.arange(1000))
    files = []
    for _ in range(2):
        path = fitted(pretraining(), optical(record=record))
        # A file's own name is in it.
        torch.save(torch.load(path, weights_only=True), folder / 'same.ckpt')
        files.append((folder / 'same.ckpt').read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize('told', [{'record': None}, {'record': 'a name'}, {}])
def test_data_that_do_not_tell_are_unknown(fitted, told):
    data = Data(3, **told)
    assert stored(fitted(pretraining(), data)).own == (Training(None, False),)


def test_a_checkpoint_from_before_still_loads_as_unknown(fitted, pretrained, folder):
    content = torch.load(pretrained, weights_only=True)
    del content[KEY]
    torch.save(content, folder / 'before.ckpt')
    before = str(folder / 'before.ckpt')
    resumed = fitted(pretraining(), optical(), epochs=2, ckpt_path=before)
    assert stored(resumed) == UNKNOWN.trained(READ_OPTICAL)
    started = fitted(transfer(weights=before), radar())
    assert stored(started) == Provenance(UNKNOWN.inherited, (READ_RADAR,))


def test_tensors_alone_do_not_tell_what_they_read(fitted, pretrained, folder):
    tensors = torch.load(pretrained, weights_only=True)['state_dict']
    save_file(tensors, folder / 'weights.safetensors')
    path = fitted(transfer(weights=str(folder / 'weights.safetensors')), radar())
    assert stored(path).inherited == UNKNOWN.inherited


# What a transfer makes of it


def line_of(caplog):
    lines = [r.getMessage() for r in caplog.records if 'retrain' in r.getMessage()]
    return next(line for line in lines if not line.startswith('Weights '))


@pytest.fixture
def logged(caplog):
    with caplog.at_level(logging.INFO, 'lightning.pytorch.utilities.rank_zero'):
        yield caplog


def test_fitting_says_in_a_line_what_the_weights_have_read(logged, fitted, pretrained):
    fitted(transfer(weights=pretrained), radar())
    line = line_of(logged)
    assert line == (
        'Pretraining read Optical (Sentinel-2 L2A: B04, B03, B02; unknown patches; 1 '
        'tile; without labels). This task reads Sentinel-1 GRD: sensor_free yes, '
        'label_free yes, overlap_free yes (of sensors alone); place_free is for a test '
        'to tell.'
    )


def test_fitting_from_scratch_says_so(logged, fitted):
    fitted(transfer(), radar())
    assert line_of(logged).startswith('Nothing was pretrained')


def test_fitting_on_unknown_data_claims_nothing(logged, fitted, pretrained):
    fitted(transfer(weights=pretrained), radar(record=None))
    assert 'sensor_free unknown, label_free yes, overlap_free unknown' in line_of(
        logged
    )


def test_a_test_logs_what_it_shares_with_pretraining(tested, fine_tuned):
    scores, report = tested(fine_tuned, radar(**TEST))
    assert scores['test_sensor_free'] == scores['test_overlap_free'] == 1
    assert scores['test_label_free'] == 1
    assert scores['test_place_free'] == 0
    assert scores['test_place_overlap'] == 0.5
    assert math.isnan(scores['test_patch_overlap'])  # its patches had no names
    assert '| place_free | **no** |' in report
    assert '2 of 4 (50.00 %)' in report
    assert '| overlap_free | **yes** | of sensors alone' in report
    assert 'labels were trained on: 0 of 4' in report


def test_a_test_of_what_does_not_tell_is_unknown(tested, fitted, folder, pretrained):
    content = torch.load(pretrained, weights_only=True)
    torch.save(content['state_dict'], folder / 'tensors.pt')
    path = fitted(transfer(weights=str(folder / 'tensors.pt')), radar())
    scores, report = tested(path, radar())
    for name in ('sensor_free', 'place_free', 'label_free', 'overlap_free'):
        assert math.isnan(scores[f'test_{name}'])
        assert f'| {name} | **unknown** |' in report


def test_an_encoder_that_saw_the_sensor_is_not_overlap_free(tested, fitted, fine_tuned):
    scores, report = tested(
        fitted(transfer(weights=fine_tuned), radar()), radar(**TEST)
    )
    assert scores['test_sensor_free'] == scores['test_overlap_free'] == 0
    assert scores['test_label_free'] == 0
    assert '| overlap_free | **no** |' in report


def test_a_test_on_patches_that_were_trained_on_is_refused(trainer, fine_tuned):
    data = radar(
        test_patches=torch.tensor([10, 60, 50, 20]), test_patch_names=list('wxyz')
    )
    with pytest.raises(ValueError, match=r'^2 of the 4 test patches.*such as x: '):
        trainer().test(transfer(), data, ckpt_path=fine_tuned)


def test_a_test_by_other_names_than_training_has_warns_and_reports_unknown(
    tested, fitted, pretrained
):
    data = radar(record=replace(RADAR, name_spaces=('v2',)))
    path = fitted(transfer(weights=pretrained), data)
    with pytest.warns(UserWarning, match='learned the labels of test patches can not'):
        _, report = tested(path, radar(**TEST, test_name_spaces=('v1',)))
    assert 'labels were trained on: unknown.' in report


def test_so_is_one_right_after_fitting_and_one_of_a_later_fine_tuning(
    trainer, fitted, fine_tuned
):
    data = radar(test_patches=torch.tensor([60]))
    task = transfer()
    trainer(limit_val_batches=0).fit(task, data)
    with pytest.raises(ValueError, match=r'^1 of the 1 test patches'):
        trainer().test(task, data)
    other = replace(RADAR, patches=torch.tensor([70]))
    later = fitted(transfer(weights=fine_tuned), radar(record=other))
    with pytest.raises(ValueError, match=r'^1 of the 1 test patches'):
        trainer().test(transfer(), data, ckpt_path=later)


# The real data


def sample(**kwargs):
    return BigEarthNetS1S2DataModule(
        bands=['VV', 'VH'], size=32, batch_size=8, test_groups=1, **kwargs
    )


def test_training_on_a_version_and_testing_on_it_in_the_other_is_caught(
    trainer, broken_sample
):
    """Three training patches of v2 are said to be three test patches in v1."""
    table = pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')
    is_v1 = table['version'] == 'v1'
    in_v1 = table[is_v1 & (table['split'] == 'test')]['patch_id'].tolist()[:3]

    def linked(frame):
        rows = frame[(frame['split'] == 'train') & (frame['version'] == 'v2')].index[:3]
        frame['s2v1_name'] = frame['patch_id']
        frame.loc[rows, 's2v1_name'] = in_v1
        return frame

    task = CrossModalClassification('channelmae_tiny_patch16', size=32)
    trainer(limit_val_batches=0).fit(
        task, sample(root=str(broken_sample(None, linked)))
    )
    with pytest.raises(ValueError, match=r'^3 of the 21 test patches .*BigEarthNet'):
        trainer().test(task, sample())


def test_the_sample_tells_its_places_from_pretraining_to_test(
    tested, fitted, pretrained
):
    optical_sample = BigEarthNetS1S2DataModule(
        bands=['B04', 'B03', 'B02'], size=32, batch_size=8
    )
    start = fitted(pretraining(), optical_sample)
    task = CrossModalClassification('channelmae_tiny_patch16', size=32, weights=start)
    path = fitted(task, sample())
    fresh = CrossModalClassification('channelmae_tiny_patch16', size=32)
    scores, report = tested(path, sample(), fresh)
    table = pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')
    tiles = table['s1_name'].str.split('_').str[-3]
    train, test = (tiles[table['split'] == name] for name in ('train', 'test'))
    assert scores['test_place_overlap'] == pytest.approx(test.isin(set(train)).mean())
    assert scores['test_sensor_free'] == scores['test_label_free'] == 1
    assert scores['test_patch_overlap'] == 0
    assert f'{test.isin(set(train)).sum()} of 21' in report
