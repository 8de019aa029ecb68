"""The commands of the README, end to end, on the bundled sample."""

import json
import shutil

import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.evaluation.metrics import subsets

SCORES = ('mAP_micro', 'mAP_macro', 'F1_micro', 'F1_macro')


def quick(config, epochs=1, samples=16):
    return (
        '--config',
        config,
        f'--trainer.max_epochs={epochs}',
        '--trainer.enable_progress_bar=false',
        f'--data.init_args.samples_per_epoch={samples}',
    )


def succeed(command):
    assert command.code == 0, command.output[-4000:]
    return command


@pytest.fixture(scope='module')
def project(torchgeo, conf, tmp_path_factory):
    """A folder after: fit pretraining, fit fine-tuning, test, predict."""
    folder = tmp_path_factory.mktemp('project')
    finetune = conf / 'finetune.yaml'
    succeed(
        torchgeo(
            'fit',
            *quick(conf / 'pretrain.yaml'),
            '--model.init_args.plot_every_n_epochs=1',
            folder=folder,
        )
    )
    logs = {'fit': succeed(torchgeo('fit', *quick(finetune, 3, 32), folder=folder))}
    shutil.move(folder / 'runs' / 'pretrain', folder / 'elsewhere')
    for name in ('test', 'predict'):
        logs[name] = succeed(
            torchgeo(
                name,
                '--config',
                finetune,
                '--ckpt_path',
                'runs/finetune/last.ckpt',
                folder=folder,
            )
        )
    shutil.move(folder / 'elsewhere', folder / 'runs' / 'pretrain')
    return folder, logs


def scores_of(folder):
    return pd.read_csv(folder / 'runs/finetune/test/metrics.csv').iloc[-1]


def test_pretraining_logs_each_loss_term(project):
    folder, _ = project
    table = pd.read_csv(folder / 'runs/pretrain/fit/metrics.csv')
    train = table.dropna(subset='train_loss').iloc[-1]
    parts = train['train_token_loss'] + train['train_spectral_loss']
    assert train['train_loss'] == pytest.approx(parts, rel=1e-6)
    for name in ('val_loss', 'val_spectral_loss', 'val_trivial_loss'):
        assert (table[name].dropna() > 0).all(), name


def test_pretraining_draws_reconstructions_for_tensorboard(project):
    folder, _ = project
    events = EventAccumulator(str(folder / 'runs/pretrain/fit')).Reload()
    assert {'reconstruction/0', 'reconstruction/1'} <= set(events.Tags()['images'])


def test_fine_tuning_says_which_weights_arrived_where(project):
    _, logs = project
    line = next(li for li in logs['fit'].output.splitlines() if 'tensors loaded' in li)
    assert 'runs/pretrain/last.ckpt' in line
    assert 'VV (sample: around the mean of 12 bands, draw 0)' in line
    assert 'VH (sample' in line
    assert 'left over' in line
    assert 'decoder' in line


def test_scikit_learn_finds_the_same_scores_in_the_predictions(project):
    folder, _ = project
    table = pd.read_csv(folder / 'runs/finetune/predict/predictions.csv')
    dataset = BigEarthNetLMDB(split='test', bands=['VV'])
    assert list(table.patch_id) == dataset.patch_ids
    assert list(table.columns[1:]) == list(dataset.classes)
    probabilities, labels = table.iloc[:, 1:].to_numpy(), dataset.labels.numpy()
    classes = labels.any(axis=0)
    logged = scores_of(folder)

    def expected(rows):
        p, y = probabilities[rows], labels[rows]
        kept = classes & y.any(axis=0)
        p_kept, y_kept = p[:, kept], y[:, kept]
        return {
            'mAP_micro': average_precision_score(y, p, average='micro'),
            'mAP_macro': average_precision_score(y_kept, p_kept, average='macro'),
            'F1_micro': f1_score(y, p > 0.5, average='micro', zero_division=0),
            'F1_macro': f1_score(
                y_kept, p_kept > 0.5, average='macro', zero_division=0
            ),
        }

    for name, value in expected(slice(None)).items():
        assert logged[f'test_{name}'] == pytest.approx(value, abs=1e-6), name
    parts = pd.DataFrame([expected(r.numpy()) for r in subsets(21, 5, (0, 1, 2))])
    for name in SCORES:
        assert logged[f'test_{name}_mean'] == pytest.approx(
            parts[name].mean(), abs=1e-6
        )
        assert logged[f'test_{name}_std'] == pytest.approx(parts[name].std(), abs=1e-6)


def test_scores_on_the_sample_say_what_they_are_worth(project):
    folder, logs = project
    for text in (
        logs['test'].output,
        (folder / 'runs/finetune/test/scores.md').read_text(),
    ):
        assert 'say nothing about the model' in text
        assert 'seeds 0, 1, 2' in text


def test_the_configurations_of_the_paper_run(torchgeo, conf, tmp_path):
    small = (
        '--trainer.fast_dev_run=1',
        '--trainer.accelerator=cpu',
        '--data.init_args.num_workers=0',
        '--data.init_args.batch_size=2',
        '--model.init_args.model=channelmae_tiny_patch16',
    )
    for files, extra in (
        (('pretrain', 'bigearthnet', 'masking/s4'), ()),
        (
            ('finetune', 'bands/s2', 'trainable/patch_embed_reinit'),
            ('--model.init_args.weights=null',),
        ),
    ):
        paths = [conf / f'paper/{name}.yaml' for name in files]
        configs = [part for path in paths for part in ('--config', path)]
        succeed(torchgeo('fit', *configs, *small, *extra, folder=tmp_path))


def test_checkpoints_hold_plain_values_only(project):
    folder, _ = project
    for run in ('pretrain', 'finetune'):
        loaded = torch.load(folder / f'runs/{run}/last.ckpt', weights_only=True)
        json.dumps(loaded['hyper_parameters'], default=list)
