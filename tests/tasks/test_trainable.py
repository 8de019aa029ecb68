"""Parts that learn, and all others that stay bit for bit."""

import pytest
import timm
import torch
from lightning.pytorch import Callback, Trainer
from torch.autograd.graph import saved_tensors_hooks

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.models import ChannelViT
from torchgeo_channelmae.provenance.record import KEY, DataRecord, Provenance, Training
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
    class Halfway(Callback):
        def on_train_epoch_end(self, trainer, task):
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / 'one.ckpt')

    def task():
        return make_task(
            weights=pretrained, trainable='patch_embed+head', reinit=['patch_embed']
        )

    whole, resumed, start = task(), task(), Start()
    fit(whole, tmp_path, epochs=2, callbacks=[Halfway()])
    path = tmp_path / 'one.ckpt'
    fit(resumed, tmp_path, epochs=2, callbacks=[start], ckpt_path=path)
    halfway = start.weights['head.weight']
    assert not torch.equal(halfway, whole.model.head.weight)  # half was left to learn
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


@pytest.mark.parametrize('model', ['channelmae_tiny_patch16', 'resnet18'])
def test_frozen_parts_stay_in_eval_mode_whoever_asks_for_training(model):
    task = make_task(model=model, trainable='patch_embed+head', drop_path=0.5)
    task.eval()
    task.train()
    modes = {
        (part_of(name, task.model), module.training)
        for name, module in task.model.named_modules()
        if name
    }
    assert modes >= {('patch_embed', True), ('head', True), ('blocks', False)}
    assert ('blocks', True) not in modes


def test_naming_every_part_is_to_train_all(tmp_path):
    rates = []
    for trainable in ('all', '+'.join(PARTS)):
        task = make_task(trainable=trainable, layer_decay=0.5)
        groups = fit(task, tmp_path).optimizers[0].param_groups
        rates.append(sorted(group['initial_lr'] for group in groups))
    assert rates[0] == rates[1]


def test_a_model_with_two_heads_has_both_in_its_head():
    model = timm.create_model('deit_tiny_distilled_patch16_224', num_classes=19)
    assert part_of('head.weight', model) == part_of('head_dist.bias', model) == 'head'


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (
            {'trainable': 'patch_embed+neck'},
            "trainable names 'neck', .* patch_embed, spectral, positions, blocks, head",
        ),
        ({'reinit': ['neck']}, "reinit names 'neck'"),
        (
            {'model': 'resnet18', 'trainable': 'spectral+head'},
            "'spectral', .* its parts are patch_embed, blocks, head",
        ),
        ({'model': 'vit_tiny_patch16_224', 'size': 64}, '64 px, .* 32 px'),
        ({'model': 'vgg11'}, "Model 'vgg11' .* set drop_path to 0"),
    ],
)
def test_parts_or_models_that_do_not_fit_are_one_sentence(kwargs, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        fit(make_task(**kwargs), tmp_path)
    assert '\n' not in str(caught.value)


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


def test_without_weights_a_part_may_start_afresh_as_well(tmp_path):
    task, start = make_task(reinit=['patch_embed']), Start()
    before = start_of(task)
    fit(task, tmp_path, callbacks=[start])
    changed = {n for n, v in before.items() if not torch.equal(v, start.weights[n])}
    assert changed == {'patch_embed.proj.weight', 'patch_embed.proj.bias'}


@pytest.mark.parametrize(
    ('bands', 'kept'),
    [(('VH', 'VV'), True), (('B04', 'VH', 'VV'), True), (('VH', 'HH'), False)],
)
def test_a_first_layer_takes_its_bands_by_name_or_starts_afresh(bands, kept, tmp_path):
    before = make_task(model='resnet18', bands=list(bands), in_channels=len(bands))
    after = make_task(model='resnet18')
    record = DataRecord('Set', bands, ('Some',), None, None, False)
    path = tmp_path / 'before.ckpt'
    torch.save(
        {
            'state_dict': {f'model.{k}': v for k, v in start_of(before).items()},
            KEY: Provenance(own=(Training(record, True),)).state(),
        },
        path,
    )
    first = after.model.conv1.weight.clone()
    report = after.load_weights(str(path))
    if kept:
        stored = before.model.conv1.weight
        wanted = torch.stack([stored[:, bands.index(b)] for b in ('VV', 'VH')], dim=1)
        assert report.fresh == {}
        assert report.kept_bands == ('VV', 'VH')
        assert ('conv1.weight of B04' in report.left_over) == ('B04' in bands)
        assert torch.equal(after.model.conv1.weight, wanted)
    else:
        why = f'of the bands {", ".join(bands)} in the weights'
        assert report.fresh == {'conv1.weight': why}
        assert torch.equal(after.model.conv1.weight, first)
    name = 'layer1.0.conv1.weight'
    assert torch.equal(start_of(after)[name], start_of(before)[name])
