"""Mistakes: an error that names the thing, and on the command line as its last line."""

import json
import struct

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy as st
import torch

from tests.small_tasks import fine_tuning
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT

TABLE = pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')
PATCH = TABLE[TABLE['split'] == 'train']['patch_id'].iloc[0]
JUNK = struct.pack('<Q', 1 << 60) + json.dumps({'a': 1}).encode()


def read(**kwargs):
    """Read every training patch once."""
    arguments = {'size': 32, 'batch_size': 1, 'num_workers': 0}
    data = BigEarthNetS1S2DataModule(**arguments | kwargs)
    data.setup('fit')
    for batch in data.train_dataloader():
        data.on_after_batch_transfer(batch, 0)


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        ({'bands': ['B02', 'B99']}, 'B99'),
        ({'bands': ['B02', 'B03', 'B02']}, 'B02'),
        ({'bands': ['B02', 'B8a']}, 'B8A'),
        ({'batch_size': 24}, 'batch_size'),
        ({'root': 'no/such/folder'}, 'no/such/folder'),
    ],
)
def test_data_arguments_that_make_no_sense(arguments, named):
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        read(**arguments)


def spoiled(band, rows, value):
    """Return a change of records that spoils some rows of a band of Sentinel-1."""

    def change(key, record):
        if not key.startswith('S1'):
            return record
        bands = {name: pixels.copy() for name, pixels in st.load(record).items()}
        bands[band][rows] = value
        return st.save(bands)

    return change


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        (lambda key, value: None if key == PATCH else value, PATCH),
        (lambda key, value: value[:9000] if key == PATCH else value, PATCH),
        (lambda key, value: JUNK if key == PATCH else value, PATCH),
    ],
    ids=['missing', 'truncated', 'no record'],
)
def test_a_record_that_cannot_be_read(change, named, broken_sample):
    with pytest.raises((ValueError, KeyError), match=named):
        read(root=str(broken_sample(change)))


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_pixels_that_are_no_numbers(value, broken_sample):
    root = str(broken_sample(spoiled('VV', slice(20), value)))
    with pytest.raises(ValueError, match=r'VV.*max_nonfinite'):
        read(bands=['VV', 'VH'], root=root)


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        (lambda table: table.assign(split='val'), "'val'"),
        (lambda table: pd.concat([table, table.iloc[:1]]), 'twice'),
        (lambda table: table.assign(labels=[None, *table.labels[1:]]), 'labels'),
        (
            lambda table: table.assign(labels=[['Forrest'], *table.labels[1:]]),
            'Forrest',
        ),
    ],
    ids=['split', 'row twice', 'no labels', 'unknown label'],
)
def test_rows_that_would_be_lost_or_miscounted(broken_sample, change, named):
    with pytest.raises(ValueError, match=named):
        read(root=str(broken_sample(change_table=change)))


def test_an_lmdb_without_metadata(broken_sample):
    root = broken_sample()
    (root / 'metadata.parquet').unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=r'metadata\.parquet'):
        read(root=str(root))


@pytest.mark.parametrize(
    ('content', 'named'),
    [
        (b'not a checkpoint', r'notes\.ckpt'),
        ({'state_dict': {'model.conv1.weight': torch.ones(3)}}, 'match 0 of'),
    ],
    ids=['no checkpoint', 'another model'],
)
def test_weights_that_do_not_fit(content, named, tmp_path):
    path = tmp_path / 'notes.ckpt'
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=named):
        fine_tuning().load_weights(str(path))


# The command line


def files_in(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def project(torchgeo, conf, shallow, tmp_path_factory):
    """Run a command that fails, beside a pretraining, and return its last line."""
    folder = tmp_path_factory.mktemp('project')
    quick = (
        '--trainer.max_epochs=1',
        '--data.init_args.samples_per_epoch=16',
        *shallow,
    )
    made = torchgeo('fit', '--config', conf / 'pretrain.yaml', *quick, folder=folder)
    assert made.code == 0, made.output[-3000:]
    before = files_in(folder / 'runs')

    def refused(command, config, *args):
        run = torchgeo(command, '--config', conf / config, *args, folder=folder)
        assert run.code == 1, run.output[-3000:]
        assert files_in(folder / 'runs') == before
        return run.last_line

    return refused


@pytest.mark.parametrize(
    ('args', 'named'),
    [
        (('fit', 'pretrain.yaml', '--model.init_args.mask_ratio=2'), 'mask_ratio'),
        (('fit', 'pretrain.yaml', '--data.init_args.bands=[B02, B99]'), 'B99'),
        (('fit', 'finetune.yaml', '--model.init_args.weights=no.ckpt'), 'no.ckpt'),
        (('test', 'finetune.yaml'), '--ckpt_path'),
        (
            ('test', 'finetune.yaml', '--ckpt_path=runs/pretrain/last.ckpt'),
            'runs/pretrain/last.ckpt',
        ),
    ],
    ids=['model', 'data', 'weights', 'untrained', 'another task'],
)
def test_a_command_ends_with_the_error_and_leaves_the_runs_as_they_were(
    args, named, project
):
    last = project(*args)
    assert named in last
    assert last.endswith('.')
