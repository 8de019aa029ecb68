"""Fine-tuning and scoring, on the bundled sample's Sentinel-1 patches."""

import math

import pytest
import torch
from lightning.pytorch import Trainer
from torchgeo.tasks import Classification

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.models import ChannelViT
from torchgeo_channelmae.tasks import CrossModalClassification


def make_task(**kwargs):
    return CrossModalClassification(
        **{'model': 'channelmae_tiny_patch16', 'size': 32, **kwargs}
    )


def make_data(**kwargs):
    return BigEarthNetS1S2DataModule(
        **{'bands': ['VV', 'VH'], 'size': 32, 'batch_size': 8, **kwargs}
    )


@pytest.fixture
def trainer(tmp_path):
    def make(**kwargs):
        return Trainer(
            accelerator='cpu',
            devices=1,
            default_root_dir=tmp_path,
            enable_progress_bar=False,
            enable_model_summary=False,
            **{'max_epochs': 1, **kwargs},
        )

    return make


@pytest.fixture
def pretrained(tmp_path):
    """A file with the weights of an encoder of the 12 Sentinel-2 bands."""
    model = ChannelViT(img_size=32, embed_dim=192, depth=12, num_heads=3)
    path = tmp_path / 'pretrained.pt'
    torch.save({'model.' + k: v for k, v in model.state_dict().items()}, path)
    return str(path)


def test_it_is_a_torchgeo_classification_task():
    assert isinstance(make_task(), Classification)


def test_weights_are_read_when_fitting_starts_and_not_before(pretrained, trainer):
    task = make_task(weights=pretrained, base_lr=0.0)
    stored = torch.load(pretrained, weights_only=True)
    name = 'blocks.3.attn.qkv.weight'
    assert not torch.equal(task.model.state_dict()[name], stored['model.' + name])
    trainer().fit(task, make_data())
    assert torch.equal(task.model.state_dict()[name], stored['model.' + name])


@pytest.mark.parametrize('command', ['validate', 'test', 'predict'])
def test_commands_other_than_fit_do_not_need_the_weights(trainer, command):
    task = make_task(weights='no/such/file.ckpt')
    assert getattr(trainer(), command)(task, datamodule=make_data())


def test_a_resumed_fit_does_not_need_the_weights(pretrained, trainer, tmp_path):
    first = trainer()
    first.fit(make_task(weights=pretrained), make_data())
    first.save_checkpoint(tmp_path / 'one.ckpt')
    task = make_task(weights='no/such/file.ckpt')
    second = trainer(max_epochs=2)
    second.fit(task, make_data(), ckpt_path=tmp_path / 'one.ckpt')
    assert second.current_epoch == 2


def test_thresholds_are_tuned_in_validation_and_travel_with_the_checkpoint(
    trainer, tmp_path
):
    task, fit = make_task(), trainer()
    assert task.thresholds.isnan().all()
    fit.fit(task, make_data())
    assert task.thresholds.isfinite().all()
    fit.save_checkpoint(tmp_path / 'one.ckpt')
    loaded = CrossModalClassification.load_from_checkpoint(tmp_path / 'one.ckpt')
    assert torch.equal(loaded.thresholds, task.thresholds)


def test_an_untuned_task_reports_no_tuned_scores(trainer):
    scores = trainer().test(make_task(), make_data(), verbose=False)[0]
    assert 'test_F1_micro' in scores
    assert 'test_F1_micro_tuned' not in scores


def test_the_loss_of_a_set_is_that_of_all_its_patches_at_once(trainer):
    task, data = make_task(), make_data(batch_size=4)  # 21 patches: an uneven batch
    logged = trainer().test(task, data, verbose=False)[0]['test_loss']
    dataset = BigEarthNetLMDB(split='test', bands=['VV', 'VH'])
    batch = {
        'image': torch.stack([dataset[i]['image'] for i in range(21)]),
        'label': dataset.labels,
    }
    images = data.finish(batch, training=False)['image']
    with torch.no_grad():
        p = task.eval()(images).double().sigmoid()
    y = batch['label'].double()
    expected = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    assert logged == pytest.approx(float(expected), rel=1e-5)


def test_two_processes_score_as_one_does(start, conf, tmp_path, torchgeo):
    quick = (
        '--config',
        conf / 'finetune.yaml',
        '--model.init_args.weights=null',
        '--trainer.max_epochs=1',
        '--data.init_args.batch_size=4',
        '--trainer.enable_progress_bar=false',
        '--trainer.accelerator=cpu',
    )
    assert torchgeo('fit', *quick, folder=tmp_path).code == 0
    checkpoint = ('--ckpt_path', 'runs/finetune/last.ckpt')
    two = ('--trainer.devices=2', '--trainer.strategy=ddp_fork')
    for command in ('test', 'predict'):
        for processes in ((), two):
            run = torchgeo(command, *quick, *checkpoint, *processes, folder=tmp_path)
            assert run.code == 0, run.output[-3000:]
    import pandas as pd

    home = tmp_path / 'runs/finetune'
    one, both = (
        pd.read_csv(home / name / 'metrics.csv').iloc[-1] for name in ('test.1', 'test')
    )
    assert one['test_num_samples'] == both['test_num_samples'] == 21
    for name, value in one.items():
        assert both[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name
    one, both = (
        pd.read_csv(home / name / 'predictions.csv')
        for name in ('predict.1', 'predict')
    )
    assert both.patch_id.tolist() == one.patch_id.tolist()
    assert abs(both.iloc[:, 1:] - one.iloc[:, 1:]).max().max() < 1e-6


def test_drop_path_grows_with_depth():
    task = make_task(drop_path=0.4)
    rates = [getattr(block.drop_path1, 'drop_prob', 0.0) for block in task.model.blocks]
    assert rates == pytest.approx([0.4 * i / 11 for i in range(12)])


def test_lower_layers_learn_slower(trainer):
    task, fit = make_task(layer_decay=0.5, base_lr=0.256), trainer(max_steps=1)
    fit.fit(task, make_data())
    rates = {}
    for group in fit.optimizers[0].param_groups:
        for parameter in group['params']:
            rates[parameter] = group['initial_lr']
    peak = 0.256 * 8 / 256
    assert rates[task.model.head.weight] == pytest.approx(peak)
    for depth, block in enumerate(task.model.blocks):
        expected = peak * 0.5 ** (12 - depth)
        assert rates[block.mlp.fc1.weight] == pytest.approx(expected)
    assert rates[task.model.spectral_embed['VV']] == pytest.approx(peak * 0.5**13)
    assert rates.keys() == set(task.model.parameters())


@pytest.mark.parametrize('model', ['channelmae_tiny_patch16', 'resnet18'])
def test_checkpointed_blocks_have_the_same_gradients(model):
    image = torch.randn(2, 2, 32, 32)
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        task = make_task(model=model, drop_path=0.0, grad_checkpointing=checkpointed)
        assert task.model.grad_checkpointing == checkpointed
        task.compute(image).square().sum().backward()
        found.append([parameter.grad for parameter in task.model.parameters()])
    for plain, anew in zip(*found, strict=True):
        torch.testing.assert_close(anew, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'num_labels': 0}, 'num_labels 0'),
        ({'labels': ['water']}, 'labels has 1 entries for 19'),
        ({'pos_weight': [1.0, 2.0]}, 'pos_weight has 2 entries for 19'),
        ({'drop_path': 1.0}, r'drop_path 1.0 is outside \[0, 1\)'),
        ({'fresh_bands': 'nearby'}, "fresh_bands 'nearby'"),
        ({'embed_std': 0.0}, 'embed_std is 0.0'),
        ({'model': 'resnet51'}, "'resnet51' is not known, did you mean 'resnet51q'"),
        ({'model': 'dofa_base'}, "not known, did you mean 'dofa_base_patch16_224'"),
        ({'model': 'croma_bass'}, "not known, did you mean 'croma_base'"),
        ({'model': 'panopticon'}, "not known, did you mean 'panopticon_vitb14'"),
        ({'model': 'xyz'}, 'not known: choose .*croma_base.* timm.list_models'),
        ({'model': 'channelmae_giant'}, "'channelmae_giant' is no channel-token"),
        (
            {'model': 'channelmae_tiny_patch61'},
            "did you mean 'channelmae_tiny_patch16': choose one of channelmae_base",
        ),
        ({'model': 'resnet18', 'bands': ['VV']}, 'in_channels is 2, but bands names 1'),
        (
            {'trainable': 'neck+head'},
            "trainable names 'neck', which this model has not",
        ),
        ({'reinit': ['neck']}, "reinit names 'neck', which this model has not"),
        (
            {'model': 'resnet18', 'trainable': 'spectral+head'},
            "names 'spectral', .* parts are patch_embed, blocks, head",
        ),
        ({'in_channels': 12}, 'in the same order'),
        ({'in_channels': 2, 'bands': ['VH', 'VV']}, 'VH, VV'),
        ({'size': 40}, '40 px is not a multiple'),
        (
            {'model': 'croma_base', 'drop_path': 0.0, 'grad_checkpointing': True},
            "'croma_base' has no gradient checkpointing: leave",
        ),
    ],
)
def test_a_wrong_argument_is_one_sentence_when_fitting_starts(
    kwargs, message, trainer, pretrained
):
    task = make_task(weights=pretrained, **kwargs)
    with pytest.raises(ValueError, match=message) as caught:
        trainer().fit(task, make_data())
    assert '\n' not in str(caught.value)


def test_training_learns_the_training_patches(trainer):
    torch.manual_seed(0)
    task, fit = make_task(base_lr=0.03, drop_path=0.0), trainer(max_epochs=12)
    fit.fit(task, make_data(augment=False))
    assert fit.callback_metrics['train_loss'] < 0.75 * math.log(2)
