"""Fine-tuning on the bundled sample's Sentinel-1 patches."""

import copy
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from tests import peers
from tests.small_tasks import trainer
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.tasks import CrossModalClassification


def make_task(**kwargs):
    return CrossModalClassification(
        **{'model': 'channelmae_tiny_patch16', 'size': 32, **kwargs}
    )


def make_data(**kwargs):
    return BigEarthNetS1S2DataModule(
        **{'bands': ['VV', 'VH'], 'size': 32, 'batch_size': 8, **kwargs}
    )


def test_thresholds_are_tuned_in_validation_and_saved_with_the_checkpoint(tmp_path):
    task, fit = make_task(), trainer(tmp_path)
    untuned = fit.test(task, make_data(), verbose=False)[0]
    assert 'test_F1_micro' in untuned
    assert 'test_F1_micro_tuned' not in untuned
    fit.fit(task, make_data())
    assert task.thresholds.isfinite().all()
    fit.save_checkpoint(tmp_path / 'one.ckpt')
    loaded = CrossModalClassification.load_from_checkpoint(tmp_path / 'one.ckpt')
    assert torch.equal(loaded.thresholds, task.thresholds)


def test_a_test_says_how_many_validation_patches_tuned_thresholds(tmp_path):
    task, fit = make_task(), trainer(tmp_path, logger=CSVLogger(tmp_path))
    assert 'test_val_patches' not in fit.test(task, make_data(), verbose=False)[0]
    fit.fit(task, make_data(val_label_fraction=0.3))
    logged = pd.read_csv(tmp_path / 'lightning_logs/version_0/metrics.csv')
    assert logged['val_patches'].dropna().tolist() == [5]
    fit.save_checkpoint(tmp_path / 'new.ckpt')
    content = torch.load(tmp_path / 'new.ckpt')
    del content['state_dict']['val_patches']
    torch.save(content, tmp_path / 'old.ckpt')
    for name, expected in (('new', 5), ('old', None)):  # whatever the test reads
        run = trainer(tmp_path / name, logger=CSVLogger(tmp_path / name))
        path = str(tmp_path / f'{name}.ckpt')
        (scores,) = run.test(make_task(), make_data(), ckpt_path=path, verbose=False)
        assert scores.get('test_val_patches') == expected
        assert 'test_F1_micro_tuned' in scores
        report = (Path(run.log_dir) / 'scores.md').read_text()
        assert ('tuned on 5 validation patches' in report) == (expected == 5)


def test_the_loss_of_a_set_is_that_of_all_its_patches_at_once(tmp_path):
    weight = torch.linspace(0.5, 2, 19)
    task, data = make_task(pos_weight=weight.tolist()), make_data(batch_size=4)
    logged = trainer(tmp_path).test(task, data, verbose=False)[0]['test_loss']
    dataset = BigEarthNetLMDB(split='test', bands=['VV', 'VH'])
    images = torch.stack([dataset[i]['image'] for i in range(21)])
    batch = data.finish({'image': images, 'label': dataset.labels}, training=False)
    with torch.no_grad():
        p = task.eval()(batch['image']).double().sigmoid()
    y = dataset.labels.double()
    expected = -(weight * y * p.log() + (1 - y) * (1 - p).log()).mean()
    assert logged == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize('model', ['channelmae_tiny_patch16', 'resnet18'])
def test_checkpointed_blocks_have_the_same_gradients(model):
    image = torch.randn(2, 2, 32, 32)
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        task = make_task(model=model, drop_path=0.0, grad_checkpointing=checkpointed)
        task.compute(image).square().sum().backward()
        found.append([parameter.grad for parameter in task.model.parameters()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    'model', ['channelmae_tiny_patch16', 'resnet18', 'dla46_c', 'croma_base']
)
def test_mixed_precision_rounds_features_but_not_logits(model, monkeypatch):
    peers.shrink(monkeypatch)
    task = make_task(model=model, drop_path=0.0).eval()
    head = next(m for name, m in task.model.named_modules() if name in HEADS)
    seen = []
    head.register_forward_pre_hook(lambda head, inputs: seen.append(inputs[0]))
    with torch.autocast('cpu', torch.bfloat16), torch.no_grad():
        logits = copy.deepcopy(task)(torch.randn(4, 2, 32, 32))
    weight, features = head.weight.flatten(1), seen[0].float().flatten(1)
    exact = torch.addmm(head.bias.double(), features.double(), weight.T.double())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), exact, rtol=1e-5, atol=1e-5)
    assert logits.unique().numel() > logits.bfloat16().unique().numel()


HEADS = ('head', 'fc')  # of the task's model


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        ({'num_labels': 0}, 'num_labels'),
        ({'labels': ['water']}, 'labels'),
        ({'pos_weight': [1.0, 2.0]}, 'pos_weight'),
        ({'drop_path': 1.0}, 'drop_path'),
        ({'embed_std': 0.0}, 'embed_std'),
        ({'model': 'resnet51'}, 'resnet51q'),
        ({'model': 'channelmae_tiny_patch61'}, "'channelmae_tiny_patch16'"),
        ({'model': 'resnet18', 'bands': ['VV']}, 'in_channels'),
        ({'model': 'vgg11'}, 'drop_path'),
        ({'trainable': 'patch_embed+neck'}, "'neck' in trainable"),
        ({'reinit': ['neck']}, "'neck' in reinit"),
        ({'model': 'resnet18', 'trainable': 'spectral+head'}, 'spectral'),
        ({'size': 40}, '40'),
        ({'model': 'croma_base', 'drop_path': 0.0, 'grad_checkpointing': True}, 'grad'),
    ],
)
def test_a_wrong_argument_raises_in_the_constructor(arguments, named):
    with pytest.raises(ValueError, match=named):
        make_task(**arguments)


def test_the_loss_that_an_old_checkpoint_names_is_ignored():
    assert isinstance(make_task(loss='focal').criterion, torch.nn.BCEWithLogitsLoss)


def test_training_learns_the_training_patches(tmp_path):
    torch.manual_seed(0)
    task = make_task(base_lr=0.03, drop_path=0.0)
    fit = trainer(tmp_path, max_epochs=12, limit_val_batches=0)
    fit.fit(task, make_data(augment=False))
    assert fit.callback_metrics['train_loss'] < 0.75 * math.log(2)
