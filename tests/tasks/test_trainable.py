"""Parts that learn, and all others that stay bit for bit."""

import pytest
import timm
import torch
from lightning.pytorch import Callback, Trainer
from torch.autograd.graph import saved_tensors_hooks

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.models import ChannelViT
from torchgeo_channelmae.tasks import CrossModalClassification
from torchgeo_channelmae.tasks.trainable import PARTS, part_of, parts_in

MODES = ['all', 'head', 'patch_embed+head', 'patch_embed+spectral+head']


def make_task(**kwargs):
    return CrossModalClassification(
        **{'model': 'channelmae_tiny_patch16', 'size': 32, **kwargs}
    )


def fit(task, folder, epochs=1, callbacks=(), **options):
    trainer = Trainer(
        accelerator='cpu',
        devices=1,
        default_root_dir=folder,
        max_epochs=epochs,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        callbacks=list(callbacks),
    )
    data = BigEarthNetS1S2DataModule(bands=['VV', 'VH'], size=32, batch_size=8)
    trainer.fit(task, data, **options)
    return trainer


@pytest.fixture
def pretrained(tmp_path):
    model = ChannelViT(img_size=32, embed_dim=192, depth=12, num_heads=3)
    path = tmp_path / 'pretrained.pt'
    torch.save({'model.' + k: v for k, v in model.state_dict().items()}, path)
    return str(path)


def start_of(task):
    return {name: value.clone() for name, value in task.model.state_dict().items()}


class Start(Callback):
    """Notes the weights that training starts from, and modes in it."""

    def on_train_start(self, trainer, task):
        self.weights = start_of(task)

    def on_train_batch_end(self, trainer, task, *args):
        self.training = {
            part_of(name, task.model)
            for name, module in task.model.named_modules()
            if name and module.training
        }


# Names of parts


def test_every_parameter_of_the_encoder_belongs_to_a_part_as_named():
    model = timm.create_model('channelmae_tiny_patch16', num_classes=19)
    found = {name: part_of(name, model) for name, _ in model.named_parameters()}
    assert found['patch_embed.proj.weight'] == 'patch_embed'
    assert found['spectral_embed.B8A'] == 'spectral'
    assert found['pos_embed'] == 'positions'
    assert found['head.bias'] == 'head'
    rest = {name for name, part in found.items() if part == 'blocks'}
    assert all(name.startswith(('blocks.', 'norm.', 'cls_token')) for name in rest)
    assert parts_in(model) == list(PARTS)


@pytest.mark.parametrize(
    ('name', 'parts'),
    [
        ('resnet18', ['patch_embed', 'blocks', 'head']),
        ('vit_tiny_patch16_224', ['patch_embed', 'positions', 'blocks', 'head']),
    ],
)
def test_other_models_have_the_parts_that_they_have(name, parts):
    model = timm.create_model(name, in_chans=2, num_classes=19)
    assert parts_in(model) == parts
    first = next(n for n, _ in model.named_parameters() if 'conv1' in n or 'proj' in n)
    assert part_of(first, model) == 'patch_embed'


# Training


@pytest.mark.parametrize('mode', MODES)
def test_what_is_frozen_stays_bit_for_bit_and_the_rest_learns(
    mode, pretrained, tmp_path
):
    task, start = make_task(weights=pretrained, trainable=mode), Start()
    trainer = fit(task, tmp_path, callbacks=[start])
    parts = set(PARTS) if mode == 'all' else set(mode.split('+'))
    for name, value in task.model.state_dict().items():
        same = torch.equal(value, start.weights[name])
        assert same == (part_of(name, task.model) not in parts), name
    optimizer = trainer.optimizers[0]
    learning = {id(p) for group in optimizer.param_groups for p in group['params']}
    for name, parameter in task.model.named_parameters():
        trains = part_of(name, task.model) in parts
        assert parameter.requires_grad == trains, name
        assert (id(parameter) in learning) == trains, name
        assert (parameter in optimizer.state) == trains, name
        assert (parameter.grad is not None) <= trains, name
    assert start.training == {part for part in parts if part in start.training}
    assert ('blocks' in start.training) == (mode == 'all')


def test_frozen_batch_statistics_stay_too(tmp_path):
    task, start = make_task(model='resnet18', trainable='head'), Start()
    fit(task, tmp_path, callbacks=[start])
    for name, value in task.model.state_dict().items():
        same = torch.equal(value, start.weights[name])
        assert same == (not name.startswith('fc.')), name


def saved_bytes(mode):
    """Bytes that a forward pass keeps for the backward pass, parameters aside."""
    task = make_task(trainable=mode, drop_path=0.0)
    task.trainer = None
    for name, parameter in task.model.named_parameters():
        parameter.requires_grad_(part_of(name, task.model) in task.parts)
    own = {p.untyped_storage().data_ptr() for p in task.model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        task.model(torch.randn(4, 2, 32, 32)).sum()
    return sum(kept.values())


def test_frozen_parts_keep_nothing_for_the_backward_pass():
    kept = {mode: saved_bytes(mode) for mode in MODES}
    assert kept['head'] < 0.01 * kept['all']
    assert kept['patch_embed+head'] < 0.8 * kept['all']
    assert kept['patch_embed+spectral+head'] < 0.8 * kept['all']


def test_the_log_lists_what_learns_by_part_and_count(tmp_path, caplog):
    caplog.set_level('INFO')
    task = make_task(trainable='patch_embed+head')
    fit(task, tmp_path)
    model = task.model
    projection = sum(p.numel() for p in model.patch_embed.parameters())
    head = sum(p.numel() for p in model.head.parameters())
    lines = [r.message for r in caplog.records if r.message.startswith('Trainable')]
    assert len(lines) == 1
    assert lines[0].startswith(
        f'Trainable: patch_embed {projection:,}, head {head:,} ({projection + head:,} '
        f'parameters); frozen: spectral 384, positions '
    )


def test_parts_that_learn_alone_learn_at_the_rate_of_the_head(tmp_path):
    rates = {}
    for mode in ('all', 'patch_embed+head'):
        task = make_task(trainable=mode, layer_decay=0.5)
        groups = fit(task, tmp_path).optimizers[0].param_groups
        rates[mode] = {group['initial_lr'] for group in groups}
    assert len(rates['all']) == 14  # layers: the stem, 12 blocks, and what is above
    assert rates['patch_embed+head'] == {max(rates['all'])}


def test_a_resumed_partial_training_ends_where_an_unbroken_one_does(
    pretrained, tmp_path
):
    def task():
        return make_task(
            weights=pretrained, trainable='patch_embed+head', reinit=['patch_embed']
        )

    whole = task()
    fit(whole, tmp_path, epochs=2)
    first = fit(task(), tmp_path, epochs=1)
    first.save_checkpoint(tmp_path / 'one.ckpt')
    resumed = task()
    fit(resumed, tmp_path, epochs=2, ckpt_path=tmp_path / 'one.ckpt')
    frozen = [n for n in whole.model.state_dict() if n.startswith('blocks')]
    for name in frozen:
        assert torch.equal(
            whole.model.state_dict()[name], resumed.model.state_dict()[name]
        )


# Starting parts afresh


def test_parts_start_afresh_after_weights_are_loaded_and_others_do_not(
    pretrained, tmp_path
):
    task, start = make_task(weights=pretrained, reinit=['patch_embed']), Start()
    fit(task, tmp_path, callbacks=[start])
    stored = torch.load(pretrained, weights_only=True)
    for name in ('patch_embed.proj.weight', 'blocks.3.attn.qkv.weight', 'pos_embed'):
        fresh = not torch.equal(start.weights[name], stored[f'model.{name}'])
        assert fresh == (name == 'patch_embed.proj.weight')
    again, twin = make_task(weights=pretrained, reinit=['patch_embed']), Start()
    torch.randn(7)  # whatever was drawn before
    fit(again, tmp_path, callbacks=[twin])
    name = 'patch_embed.proj.weight'
    assert torch.equal(start.weights[name], twin.weights[name])


def test_starting_afresh_is_logged_by_tensor(pretrained, tmp_path, caplog):
    caplog.set_level('INFO')
    fit(make_task(weights=pretrained, reinit=['patch_embed', 'head']), tmp_path)
    lines = [r.message for r in caplog.records if 'afresh (reinit)' in r.message]
    (line,) = lines
    assert line == (
        'Started afresh (reinit): patch_embed.proj.weight, patch_embed.proj.bias, '
        'head.weight, head.bias.'
    )
