"""Mistakes, through the command: exit code not 0, and the last line names the thing."""

import json
import struct

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy as st
import torch

from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT


def assert_refused(command, *named):
    """The command failed, and its last line is one sentence that has these words."""
    assert command.code not in (0, None), command.output[-3000:]
    assert command.code > 0, 'killed by a signal'
    last = command.last_line
    for word in named:
        assert word in last, f'{word!r} is not in: {last}'
    assert last.endswith('.'), last


def quick(config):
    return (
        '--config',
        config,
        '--trainer.max_epochs=1',
        '--trainer.enable_progress_bar=false',
        '--data.init_args.samples_per_epoch=16',
    )


@pytest.fixture
def pretrain(torchgeo, conf, tmp_path):
    return lambda *args: torchgeo(
        'fit', *quick(conf / 'pretrain.yaml'), *args, folder=tmp_path
    )


@pytest.fixture
def finetune(torchgeo, conf, tmp_path):
    return lambda *args: torchgeo(
        'fit', *quick(conf / 'finetune.yaml'), *args, folder=tmp_path
    )


def test_an_unknown_band(pretrain):
    command = pretrain('--data.init_args.bands=[B02, B99]')
    assert_refused(command, "'B99'", 'B8A', 'VV')


def test_a_repeated_band(pretrain):
    command = pretrain('--data.init_args.bands=[B02, B03, B02]')
    assert_refused(command, "'B02'", 'twice')


def test_a_mis_cased_band(pretrain):
    command = pretrain('--data.init_args.bands=[B02, B8a]')
    assert_refused(command, "'B8a'", "'B8A'")


def test_a_repeated_band_of_the_model(pretrain):
    command = pretrain(
        '--model.init_args.bands=[B02, B02]', '--model.init_args.in_channels=2'
    )
    assert_refused(command, "'B02'", 'twice')


def test_bands_of_the_model_that_the_data_do_not_have(pretrain):
    command = pretrain(
        '--model.init_args.bands=[B02, B03]', '--model.init_args.in_channels=2'
    )
    assert_refused(command, 'B02, B03', 'data', 'B8A')


@pytest.mark.parametrize('where', ['data', 'model'])
def test_a_size_that_the_patch_does_not_divide(pretrain, where):
    command = pretrain(f'--{where}.init_args.size=100')
    assert_refused(command, '100', '16', '96 or 112')


@pytest.mark.parametrize('ratio', ['0', '1', '-0.5', '1.75'])
def test_a_mask_ratio_outside_its_range(pretrain, ratio):
    command = pretrain(f'--model.init_args.mask_ratio={ratio}')
    assert_refused(command, 'mask_ratio', str(float(ratio)), '(0, 1)')


def test_a_mask_ratio_that_leaves_nothing_visible(pretrain):
    command = pretrain('--model.init_args.mask_ratio=0.9999')
    assert_refused(command, 'mask_ratio', '0 of 192')


def test_a_batch_larger_than_the_training_set(pretrain):
    command = pretrain(
        '--data.init_args.batch_size=24', '--data.init_args.samples_per_epoch=null'
    )
    assert_refused(command, '24', '23')


def test_a_missing_root(pretrain):
    assert_refused(pretrain('--data.init_args.root=no/such/folder'), 'no/such/folder')


def test_an_lmdb_without_metadata(pretrain, broken_sample):
    root = broken_sample()
    (root / 'metadata.parquet').unlink()
    command = pretrain(f'--data.init_args.root={root}')
    assert_refused(command, 'metadata.parquet', str(root))


def test_a_patch_of_the_metadata_that_the_lmdb_lacks(pretrain, broken_sample):
    dropped = []

    def drop(key, value):
        if not dropped and key.startswith('S2'):
            dropped.append(key)
            return None
        return value

    command = pretrain(f'--data.init_args.root={broken_sample(drop)}')
    assert_refused(command, dropped[0])


@pytest.fixture
def training_patch():
    table = pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')
    return table[table.split == 'train'].patch_id.iloc[0]


def everywhere(pretrain, root):
    """Read every training patch at least once."""
    return pretrain(
        f'--data.init_args.root={root}', '--data.init_args.samples_per_epoch=32'
    )


def test_a_truncated_record(pretrain, broken_sample, training_patch):
    root = broken_sample(
        lambda key, value: value[:9000] if key == training_patch else value
    )
    assert_refused(everywhere(pretrain, root), training_patch)


def test_a_record_that_is_no_record(pretrain, broken_sample, training_patch):
    junk = struct.pack('<Q', 1 << 60) + json.dumps({'a': 1}).encode()
    root = broken_sample(lambda key, value: junk if key == training_patch else value)
    assert_refused(everywhere(pretrain, root), training_patch)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_many_pixels_that_are_no_numbers(finetune, broken_sample, value):
    spoiled = []

    def spoil(key, record):
        if not key.startswith('S1'):
            return record
        spoiled.append(key)
        bands = st.load(record)
        bands['VV'] = bands['VV'].copy()
        bands['VV'][:20] = value
        return st.save(bands)

    command = finetune(
        f'--data.init_args.root={broken_sample(spoil)}',
        '--model.init_args.weights=null',
    )
    assert_refused(command, 'VV', 'NaN or infinite', 'max_nonfinite')
    assert any(key in command.last_line for key in spoiled)


def test_a_few_pixels_that_are_no_numbers_are_filled_and_said(finetune, broken_sample):
    def spoil(key, record):
        if not key.startswith('S1'):
            return record
        bands = st.load(record)
        bands['VH'] = bands['VH'].copy()
        bands['VH'][0, :3] = np.nan
        return st.save(bands)

    command = finetune(
        f'--data.init_args.root={broken_sample(spoil)}',
        '--model.init_args.weights=null',
    )
    assert command.code == 0, command.output[-3000:]
    assert 'VH' in command.output
    assert 'filled' in command.output


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        (lambda table: table.assign(split='val'), "'val'"),
        (lambda table: pd.concat([table, table.iloc[:1]]), 'twice'),
        (lambda table: table.assign(labels=[None, *table.labels[1:]]), 'no labels'),
    ],
)
def test_rows_that_would_be_lost_or_miscounted(pretrain, broken_sample, change, named):
    root = broken_sample(change_table=change)
    assert_refused(pretrain(f'--data.init_args.root={root}'), named, 'parquet')


@pytest.mark.parametrize('command', ['test', 'predict', 'validate'])
def test_a_command_that_would_score_an_untrained_model(
    torchgeo, conf, tmp_path, command
):
    run = torchgeo(command, '--config', conf / 'finetune.yaml', folder=tmp_path)
    assert_refused(run, 'untrained', '--ckpt_path', 'runs/finetune/last.ckpt')
    assert not (tmp_path / 'runs').exists()


def test_a_checkpoint_that_is_not_there(torchgeo, conf, tmp_path):
    args = ('--config', conf / 'finetune.yaml', '--ckpt_path', 'no/such.ckpt')
    run = torchgeo('test', *args, folder=tmp_path)
    assert run.code == 1
    assert 'no/such.ckpt' in run.last_line


def test_a_label_that_is_not_one_of_the_19(pretrain, broken_sample):
    def misspell(table):
        table.at[3, 'labels'] = ['Mixed forrest']
        return table

    root = broken_sample(change_table=misspell)
    assert_refused(pretrain(f'--data.init_args.root={root}'), "'Mixed forrest'")


def test_weights_that_are_not_there(finetune):
    command = finetune('--model.init_args.weights=no/such.ckpt')
    assert_refused(command, 'no/such.ckpt')


def test_the_shipped_configuration_before_any_pretraining(finetune):
    assert_refused(finetune(), 'runs/pretrain/last.ckpt')


def test_weights_that_are_no_checkpoint(finetune, tmp_path):
    (tmp_path / 'notes.ckpt').write_text('not a checkpoint')
    command = finetune('--model.init_args.weights=notes.ckpt')
    assert_refused(command, 'notes.ckpt', 'no checkpoint')


def test_weights_of_another_model(finetune, tmp_path):
    torch.save({'state_dict': {'model.conv1.weight': torch.ones(3)}}, tmp_path / 'r.pt')
    assert_refused(finetune('--model.init_args.weights=r.pt'), 'match 0 of')


def test_a_channel_count_against_the_bands(pretrain):
    command = pretrain('--model.init_args.in_channels=3')
    assert_refused(command, 'in_channels is 3', '12')


def test_a_model_that_is_not_ours(pretrain):
    assert_refused(pretrain('--model.init_args.model=resnet18'), "'resnet18'")


def test_decoder_heads_that_do_not_divide_its_width(pretrain):
    assert_refused(pretrain('--model.init_args.decoder_num_heads=5'), '128', '5')


@pytest.mark.parametrize('command', ['fit', 'test', 'predict'])
def test_a_pretraining_checkpoint_for_a_fine_tuning_configuration(
    torchgeo, conf, tmp_path, pretrain, command
):
    assert pretrain().code == 0
    checkpoint = tmp_path / 'runs' / 'pretrain' / 'last.ckpt'
    before = checkpoint.read_bytes()
    refused = torchgeo(
        command,
        '--config',
        conf / 'finetune.yaml',
        '--ckpt_path',
        'runs/pretrain/last.ckpt',
        folder=tmp_path,
    )
    assert_refused(refused, 'runs/pretrain/last.ckpt', 'ChannelMAE', 'weights')
    assert checkpoint.read_bytes() == before
    assert not (tmp_path / 'runs' / 'finetune').exists()


def test_an_unwritable_run_folder(pretrain, tmp_path):
    (tmp_path / 'runs').write_text('a file where the folder should be')
    assert_refused(pretrain(), 'runs/pretrain')


def test_a_mistake_leaves_the_earlier_run_in_its_place(pretrain, tmp_path):
    assert pretrain().code == 0
    before = {
        path.relative_to(tmp_path): path.read_bytes()
        for path in (tmp_path / 'runs').rglob('*')
        if path.is_file()
    }
    assert pretrain('--model.init_args.mask_ratio=2').code != 0
    after = {
        path.relative_to(tmp_path): path.read_bytes()
        for path in (tmp_path / 'runs').rglob('*')
        if path.is_file()
    }
    assert after == before
