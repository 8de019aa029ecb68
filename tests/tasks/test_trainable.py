"""Trained parts change, all other parts stay bit for bit."""

import pytest
import timm
import torch
from lightning.pytorch import Callback

from tests.small_tasks import Data, fine_tuning, trainer
from torchgeo_channelmae.tasks.trainable import PARTS, part_of, parts_in

MODES = ['all', 'head', 'patch_embed+head', 'patch_embed+spectral+head']


def task(**kwargs):
    torch.manual_seed(0)
    return fine_tuning(**{'drop_path': 0.1} | kwargs)


def fit(module, folder, epochs=1, callbacks=(), **options):
    run = trainer(
        folder, max_epochs=epochs, callbacks=list(callbacks), limit_val_batches=0
    )
    run.fit(module, Data(batch_size=12), **options)
    return run


def state_of(module):
    return {name: value.clone() for name, value in module.model.state_dict().items()}


@pytest.fixture
def pretrained(tmp_path):
    path = tmp_path / 'pretrained.pt'
    torch.manual_seed(1)
    torch.save(fine_tuning().state_dict(), path)
    return str(path)


class Start(Callback):
    """Notes the weights that training starts from, and modes in it."""

    def on_train_start(self, trainer, module):
        self.weights = state_of(module)

    def on_train_batch_end(self, trainer, module, *args):
        self.training = {
            part_of(name, module.model)
            for name, each in module.model.named_modules()
            if name and each.training
        }


def test_every_parameter_of_the_encoder_belongs_to_a_part_as_named():
    model = task().model
    found = {name: part_of(name, model) for name, _ in model.named_parameters()}
    assert found['patch_embed.proj.weight'] == 'patch_embed'
    assert found['spectral_embed.VV'] == 'spectral'
    assert found['pos_embed'] == 'positions'
    assert found['head.bias'] == 'head'
    rest = {name for name, part in found.items() if part == 'blocks'}
    assert all(name.startswith(('blocks.', 'norm.', 'cls_token')) for name in rest)
    assert parts_in(model) == list(PARTS)


def test_parts_of_other_models_follow_their_timm_configuration():
    resnet = timm.create_model('resnet18', in_chans=2)
    assert parts_in(resnet) == ['patch_embed', 'blocks', 'head']
    assert part_of('conv1.weight', resnet) == 'patch_embed'
    deit = timm.create_model('deit_tiny_distilled_patch16_224')
    assert parts_in(deit) == ['patch_embed', 'positions', 'blocks', 'head']
    assert part_of('head_dist.bias', deit) == 'head'


@pytest.mark.parametrize('mode', MODES)
def test_frozen_parts_stay_bit_for_bit_and_the_others_are_trained(
    mode, pretrained, tmp_path
):
    module, start = task(weights=pretrained, trainable=mode), Start()
    run = fit(module, tmp_path, callbacks=[start])
    parts = set(PARTS) if mode == 'all' else set(mode.split('+'))
    for name, value in module.model.state_dict().items():
        same = torch.equal(value, start.weights[name])
        assert same == (part_of(name, module.model) not in parts), name
    groups = run.optimizers[0].param_groups
    optimized = {id(p) for group in groups for p in group['params']}
    for name, parameter in module.model.named_parameters():
        trains = part_of(name, module.model) in parts
        assert parameter.requires_grad == (id(parameter) in optimized) == trains, name
    assert start.training <= parts
    assert ('blocks' in start.training) == (mode == 'all')


def test_frozen_batch_statistics_stay_whatever_calls_train(tmp_path):
    module, start = task(model='resnet18', trainable='head').eval().train(), Start()
    assert not module.model.layer1.training
    fit(module, tmp_path, callbacks=[start])
    for name, value in module.model.state_dict().items():
        same = torch.equal(value, start.weights[name])
        assert same == (not name.startswith('fc.')), name


def test_layers_decay_only_if_all_parts_are_trained(tmp_path):
    rates = {}
    for mode in ('all', '+'.join(PARTS), 'patch_embed+head'):
        groups = fit(task(trainable=mode, layer_decay=0.5), tmp_path).optimizers[0]
        rates[mode] = {group['initial_lr'] for group in groups.param_groups}
    assert len(rates['all']) == 14  # the stem, 12 blocks, and what is above
    assert rates['+'.join(PARTS)] == rates['all']
    assert rates['patch_embed+head'] == {max(rates['all'])}


def test_a_resumed_partial_training_ends_where_an_unbroken_one_does(
    pretrained, tmp_path
):
    class Halfway(Callback):
        def on_train_epoch_end(self, trainer, module):
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / 'one.ckpt')

    def partial():
        return task(
            weights=pretrained, trainable='patch_embed+head', reinit=['patch_embed']
        )

    whole, resumed, start = partial(), partial(), Start()
    fit(whole, tmp_path, epochs=2, callbacks=[Halfway()])
    path = tmp_path / 'one.ckpt'
    fit(resumed, tmp_path, epochs=2, callbacks=[start], ckpt_path=path)
    halfway = start.weights['head.weight']
    assert not torch.equal(halfway, whole.model.head.weight)  # half was left to learn
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_parts_are_initialized_again_after_weights_are_loaded(
    pretrained, tmp_path, caplog
):
    caplog.set_level('INFO')
    starts = []
    for _ in range(2):
        torch.randn(7)  # whatever was drawn before
        starts.append(Start())
        module = task(weights=pretrained, reinit=['patch_embed'])
        fit(module, tmp_path, callbacks=starts[-1:])
    stored = torch.load(pretrained, weights_only=True)
    one, other = (start.weights for start in starts)
    for name in ('patch_embed.proj.weight', 'blocks.3.attn.qkv.weight', 'pos_embed'):
        fresh = not torch.equal(one[name], stored[f'model.{name}'])
        assert fresh == (name == 'patch_embed.proj.weight')
        assert torch.equal(one[name], other[name])
    assert caplog.text.count('patch_embed.proj.weight, patch_embed.proj.bias.') == 2
