"""The pretraining task: what it hides, compares, logs and refuses."""

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch.utils.data import DataLoader, Dataset

from torchgeo_channelmae.masking import RandomTokens
from torchgeo_channelmae.tasks import ChannelMAE

SIZE = 32
CELLS = 4
BANDS = ('B02', 'B08', 'VV')


def task(**kwargs):
    arguments = {
        'model': 'channelmae_tiny_patch16',
        'in_channels': 3,
        'bands': list(BANDS),
        'size': SIZE,
        'decoder_dim': 32,
        'decoder_depth': 1,
        'decoder_num_heads': 2,
        'plot_every_n_epochs': 0,
    }
    torch.manual_seed(0)
    return ChannelMAE(**(arguments | kwargs))


class Patches(Dataset):
    def __init__(self, count, bands=3, size=SIZE):
        draw = torch.Generator().manual_seed(5)
        self.images = torch.randn(count, bands, size, size, generator=draw)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {'image': self.images[index], 'index': index}


class Data(LightningDataModule):
    def __init__(self, bands=BANDS, size=SIZE, batch_size=4):
        super().__init__()
        self.bands, self.size, self.batch_size = bands, size, batch_size

    def train_dataloader(self):
        return DataLoader(Patches(8, len(self.bands)), batch_size=self.batch_size)

    def val_dataloader(self):
        return DataLoader(Patches(6, len(self.bands)), batch_size=self.batch_size)

    predict_dataloader = val_dataloader


def trainer(folder, **kwargs):
    arguments = {
        'accelerator': 'cpu',
        'max_epochs': 2,
        'default_root_dir': folder,
        'logger': False,
        'enable_checkpointing': False,
        'enable_progress_bar': False,
        'enable_model_summary': False,
        'num_sanity_val_steps': 0,
    }
    return Trainer(**(arguments | kwargs))


def set_up(module, folder, stage='fit', datamodule=None):
    """Set a task up as a trainer does before it reads any data."""
    module.trainer = trainer(folder)
    module.trainer.datamodule = datamodule
    module.setup(stage)


def batch(count=2):
    dataset = Patches(count)
    return dataset.images, torch.arange(10, 10 + count)


def tokens_of(image):
    """Cut (B, 3, 32, 32) into (B, 12, 256) by slices."""
    return torch.stack(
        [
            image[:, c, y : y + 16, x : x + 16].flatten(1)
            for c in range(3)
            for y in (0, 16)
            for x in (0, 16)
        ],
        dim=1,
    )


def by_hand(module, image, keys):
    """Compose encoder, decoder and both losses' formulas; return losses and target."""
    hparams = module.hparams
    target = tokens_of(image)
    if hparams['norm_target']:
        mean = target.mean(-1, keepdim=True)
        target = (target - mean) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    mask = RandomTokens(hparams['mask_ratio'])(keys, 0, 3, CELLS)
    encoded = module.model.encode(image, mask.visible)
    everything = torch.arange(3 * CELLS).expand(len(image), -1)
    prediction = module.decoder(encoded, mask.visible, mask.hidden, (2, 2), everything)
    token, spectral = [], []
    for row in range(len(image)):
        error = prediction[row] - target[row]  # (12, 256)
        hidden = mask.hidden[row].tolist()
        token.append(sum((error[i] ** 2).mean() for i in hidden) / len(hidden))
        together = [
            error[cell] + error[4 + cell] + error[8 + cell] for cell in range(4)
        ]
        share = 1 if hparams['spectral_loss'] == 'sum' else 1 / 3
        spectral.append(sum(((share * cell) ** 2).mean() for cell in together) / 4)
    return torch.stack(token), torch.stack(spectral), target


# Losses


@pytest.mark.parametrize('norm_target', [False, True])
@pytest.mark.parametrize('spectral_loss', ['mean', 'sum'])
@torch.no_grad()
def test_the_losses_are_their_formulas_over_encoder_and_decoder(
    norm_target, spectral_loss
):
    module = task(norm_target=norm_target, spectral_loss=spectral_loss).train()
    image, keys = batch()
    result = module.reconstruct(image, keys)
    token, spectral = module.losses(result)
    expected_token, expected_spectral, target = by_hand(module, image, keys)
    torch.testing.assert_close(token, expected_token, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(spectral, expected_spectral, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result.target, target, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_without_spectral_loss_training_decodes_only_what_is_hidden():
    image, keys = batch()
    plain, weighted = (task(spectral_weight=w).train() for w in (0.0, 1.0))
    assert plain.reconstruct(image, keys).prediction.shape == (2, 9, 256)
    assert weighted.reconstruct(image, keys).prediction.shape == (2, 12, 256)
    token, spectral = plain.losses(plain.reconstruct(image, keys))
    expected, _ = weighted.losses(weighted.reconstruct(image, keys))
    torch.testing.assert_close(token, expected, rtol=1e-5, atol=1e-6)
    assert spectral.tolist() == [0, 0]


@torch.no_grad()
def test_without_spectral_loss_validation_still_measures_it():
    module = task(spectral_weight=0.0).eval()
    image, keys = batch()
    _, spectral = module.losses(module.reconstruct(image, keys))
    torch.testing.assert_close(spectral, by_hand(module, image, keys)[1])


MASKINGS = {
    's1': ('random', None),
    's2': ('same_band', None),
    's2, the whole band': ('same_band', {'visible': 'all'}),
    's3': ('cross_band', None),
    's4': ('cross_band', {'bands': 2}),
    'columns': ('columns', None),
    'channels and patches': ('channels_and_patches', None),
}


@pytest.mark.parametrize(('masking', 'options'), MASKINGS.values(), ids=MASKINGS)
@pytest.mark.parametrize('spectral_loss', ['mean', 'sum'])
@torch.no_grad()
def test_both_losses_of_every_masking_are_their_formulas_token_by_token(
    masking, options, spectral_loss
):
    module = task(
        masking=masking, masking_options=options, spectral_loss=spectral_loss
    ).train()
    image, keys = batch(3)
    result = module.reconstruct(image, keys, 7)
    mask, truth = result.mask, tokens_of(image)
    # Every token that can be produced, whatever the losses read.
    filled = torch.cat([mask.visible, mask.hidden], dim=1)
    encoded = module.model.encode(image, mask.visible)
    pixels = module.decoder(encoded, mask.visible, mask.hidden, (2, 2), filled)
    token, spectral = module.losses(result)
    for row in range(3):
        made = dict(zip(filled[row].tolist(), pixels[row], strict=True))
        targets, bands = mask.target[row].tolist(), mask.bands[row].tolist()
        expected = sum((made[i] - truth[row, i]).square().mean() for i in targets)
        assert token[row] == pytest.approx(expected.item() / len(targets), rel=1e-4)
        total = 0.0
        for cell in range(CELLS):
            together = sum(
                made[band * CELLS + cell] - truth[row, band * CELLS + cell]
                for band in bands
            )
            if spectral_loss == 'mean':
                together = together / len(bands)
            total += together.square().mean().item()
        assert spectral[row] == pytest.approx(total / CELLS, rel=1e-4)


@pytest.mark.parametrize(('masking', 'options'), MASKINGS.values(), ids=MASKINGS)
@pytest.mark.parametrize('weight', [0.0, 1.0])
@torch.no_grad()
def test_no_pixel_is_computed_that_no_loss_reads(masking, options, weight):
    module = task(
        masking=masking, masking_options=options, spectral_weight=weight
    ).train()
    produced, carried = [], []
    module.decoder.pixels.register_forward_hook(
        lambda layer, args, out: produced.append(out.shape[1])
    )
    module.decoder.blocks.register_forward_hook(
        lambda layer, args, out: carried.append(out.shape[1])
    )
    image, keys = batch(3)
    mask = module.reconstruct(image, keys).mask
    read = {*mask.target[0].tolist()}
    if weight:
        read |= {
            band * CELLS + cell for band in mask.bands[0].tolist() for cell in range(4)
        }
    assert produced == [len(read)]
    assert carried == [1 + mask.visible.shape[1] + mask.hidden.shape[1]]
    assert read <= {*mask.visible[0].tolist(), *mask.hidden[0].tolist()}


@pytest.mark.parametrize(('masking', 'options'), MASKINGS.values(), ids=MASKINGS)
@torch.no_grad()
def test_sampled_cells_are_all_that_the_decoder_carries_beside_what_is_visible(
    masking, options
):
    module = task(masking=masking, masking_options=options, decode_share=0.5).train()
    carried = []
    module.decoder.blocks.register_forward_hook(
        lambda layer, args, out: carried.append(out.shape[1])
    )
    image, keys = batch(3)
    result = module.reconstruct(image, keys)
    visible, hidden = result.mask.visible.shape[1], result.mask.hidden.shape[1]
    num_bands = result.mask.bands.shape[1]
    assert result.prediction.shape[1] == 2 * num_bands
    assert carried == [1 + visible + min(hidden, 2 * num_bands)]
    for loss in module.losses(result):
        assert loss.shape == (3,)
        assert loss.isfinite().all()


@torch.no_grad()
def test_validation_decodes_all_cells_whatever_training_does():
    image, keys = batch()
    few, every = (task(decode_share=share).eval() for share in (0.25, 1.0))
    losses = [module.losses(module.reconstruct(image, keys)) for module in (few, every)]
    assert torch.equal(torch.stack(losses[0]), torch.stack(losses[1]))


@pytest.mark.parametrize(('masking', 'options'), MASKINGS.values(), ids=MASKINGS)
@pytest.mark.parametrize('decode_share', [1.0, 0.25])
def test_every_masking_trains_validates_and_draws(
    masking, options, decode_share, tmp_path
):
    module = task(
        masking=masking,
        masking_options=options,
        plot_every_n_epochs=1,
        decode_share=decode_share,
    )
    fitted = trainer(tmp_path, max_epochs=1)
    fitted.fit(module, datamodule=Data(batch_size=4))
    for name in ('train_loss', 'val_loss', 'val_spectral_loss', 'val_trivial_loss'):
        assert fitted.callback_metrics[name].isfinite(), name


def test_shared_bands_change_with_the_step_and_are_one_for_the_batch(tmp_path):
    module = task(masking='cross_band', masking_options={'shared': True})
    drawn = []
    original = module.reconstruct

    def watched(image, keys, shared):
        result = original(image, keys, shared)
        if module.training:
            drawn.append(result.mask.bands)
        return result

    module.reconstruct = watched
    trainer(tmp_path, max_epochs=6).fit(module, datamodule=Data(batch_size=4))
    assert all((bands == bands[0]).all() for bands in drawn)
    assert len({tuple(bands[0].tolist()) for bands in drawn}) == 3


@torch.no_grad()
def test_what_is_hidden_does_not_reach_the_prediction():
    module = task().eval()
    image, keys = batch()
    before = module.reconstruct(image, keys)
    changed = tokens_of(image)
    changed.scatter_(1, before.mask.hidden[:, :, None].expand(-1, -1, 256), 100.0)
    rows = changed.view(2, 3, 2, 2, 16, 16)
    blinded = torch.cat(
        [torch.cat(list(row.unbind(2)), -1) for row in rows.unbind(2)], dim=-2
    )
    after = module.reconstruct(blinded, keys)
    assert torch.equal(tokens_of(blinded), changed)
    assert torch.equal(after.prediction, before.prediction)


def test_every_parameter_that_is_trained_gets_a_gradient_but_the_head():
    module = task(spectral_weight=0.5)
    image, keys = batch(4)
    token, spectral = module.losses(module.reconstruct(image, keys))
    (token.mean() + 0.5 * spectral.mean()).backward()
    still = [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert still == []


def test_checkpointed_blocks_have_the_same_gradients_and_run_twice():
    image, keys = batch(4)
    found, runs = [], []
    for checkpointed in (False, True):
        module = task(grad_checkpointing=checkpointed).train()
        count = []
        for blocks in (module.model.blocks, module.decoder.blocks):
            blocks[0].register_forward_pre_hook(
                lambda *given, count=count: count.append(1)
            )
        token, spectral = module.compute(image, keys, 0)
        (token + spectral).backward()
        found.append([parameter.grad for parameter in module.parameters()])
        runs.append(len(count))
    assert runs == [2, 4]
    for plain, anew in zip(*found, strict=True):
        torch.testing.assert_close(anew, plain)


@torch.no_grad()
def test_an_image_of_another_size_than_the_positions_is_reconstructed():
    module = task().eval()
    image = torch.randn(2, 3, 48, 64)
    result = module.reconstruct(image, torch.arange(2))
    assert result.prediction.shape == (2, 3 * 3 * 4, 256)


# A short training


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('fit')
    module = task(spectral_weight=0.5, warmup_epochs=1, base_lr=1e-3)
    fitted = trainer(folder)
    fitted.fit(module, datamodule=Data())
    fitted.save_checkpoint(folder / 'last.ckpt')
    return module, fitted, folder / 'last.ckpt'


def test_the_training_loss_is_the_token_loss_plus_the_weighted_spectral(trained):
    metrics = trained[1].callback_metrics
    expected = metrics['train_token_loss'] + 0.5 * metrics['train_spectral_loss']
    assert metrics['train_loss'].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_validation_losses_are_the_means_over_its_samples(trained):
    module, fitted, _ = trained
    module.eval()
    images = Patches(6).images
    with torch.no_grad():
        # The same masks as in the run: found by the samples' own predictions.
        seen = []
        original = module.reconstruct
        module.reconstruct = lambda image, keys, shared: (
            seen.append(keys) or original(image, keys, shared)
        )
        fitted.validate(module, datamodule=Data(batch_size=2), verbose=False)
        del module.reconstruct
        keys = torch.cat(seen)
        token, spectral, _ = by_hand(module, images, keys)
        trivial = []
        for image, key in zip(images, keys, strict=True):
            tokens = tokens_of(image[None])[0]
            mask = RandomTokens(0.75)(key[None], 0, 3, CELLS)
            visible = mask.visible[0].tolist()
            errors = []
            for hidden in mask.hidden[0].tolist():
                own = [i for i in visible if i // CELLS == hidden // CELLS] or visible
                guess = torch.cat([tokens[i] for i in own]).mean()
                errors.append(((tokens[hidden] - guess) ** 2).mean())
            trivial.append(sum(errors) / len(errors))
    metrics = fitted.callback_metrics
    expected = (token, spectral, torch.stack(trivial))
    for name, values in zip(('', '_spectral', '_trivial'), expected, strict=True):
        assert metrics[f'val{name}_loss'].item() == pytest.approx(
            values.mean().item(), rel=1e-4
        )


def test_validation_hides_the_same_tokens_in_every_batch_size_and_run(trained):
    module, fitted, _ = trained
    scores = []
    for batch_size in (1, 4, 6):
        (found,) = fitted.validate(
            module, datamodule=Data(batch_size=batch_size), verbose=False
        )
        scores.append([found['val_loss'], found['val_spectral_loss']])
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)
    assert scores[2] == pytest.approx(scores[0], rel=1e-5)


def test_training_masks_change_with_the_epoch_and_not_with_the_batch(tmp_path):
    epochs = []
    for batch_size in (8, 2):
        module, drawn = task(), {}

        def watched(image, keys, shared, module=module, drawn=drawn):
            if module.training:
                drawn.setdefault(module.current_epoch, []).extend(keys.tolist())
            return ChannelMAE.reconstruct(module, image, keys, shared)

        module.reconstruct = watched
        trainer(tmp_path).fit(module, datamodule=Data(batch_size=batch_size))
        epochs.append(drawn)
    assert epochs[0] == epochs[1]
    assert not set(epochs[0][0]) & set(epochs[0][1])
    assert len(set(epochs[0][0])) == 8


def test_a_checkpoint_is_plain_data_that_loads_without_running_code(trained):
    content = torch.load(trained[2], map_location='cpu', weights_only=True)
    hparams = content['hyper_parameters']
    assert hparams['model'] == 'channelmae_tiny_patch16'
    assert hparams['bands'] == list(BANDS)
    assert 'weights' not in hparams
    plain = (str, int, float, bool, type(None), list, tuple)
    assert all(isinstance(value, plain) for value in hparams.values())
    prefixes = {key.split('.')[0] for key in content['state_dict']}
    assert prefixes == {'model', 'decoder'}


def test_a_checkpoint_gives_the_task_back(trained):
    module, _, path = trained
    again = ChannelMAE.load_from_checkpoint(path, map_location='cpu')
    assert again.model.bands == BANDS
    image, keys = batch()
    with torch.no_grad():
        expected = module.eval().reconstruct(image, keys).prediction
        found = again.eval().reconstruct(image, keys).prediction
    assert torch.equal(found, expected)


def test_predicting_gives_a_feature_a_sample(trained):
    module, fitted, _ = trained
    features = torch.cat(fitted.predict(module, datamodule=Data(batch_size=4)))
    with torch.no_grad():
        expected = module.model.eval()(Patches(6).images)
    assert features.shape == (6, 192)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


def test_the_learning_rate_grows_with_the_batch(tmp_path):
    for batch_size in (2, 4):
        fitted = trainer(tmp_path, max_epochs=1, accumulate_grad_batches=2)
        fitted.fit(task(base_lr=0.256), datamodule=Data(batch_size=batch_size))
        peaks = [group['initial_lr'] for group in fitted.optimizers[0].param_groups]
        assert peaks == pytest.approx([1e-3 * batch_size * 2] * len(peaks))


def test_weights_are_read_when_fitting_starts_and_at_no_other_stage(trained, tmp_path):
    module, _, path = trained
    expected = module.model.state_dict()
    fresh = task(weights=str(path))
    first = fresh.model.blocks[0].attn.qkv.weight
    untrained = first.detach().clone()
    for stage in ('validate', 'test', 'predict'):
        set_up(fresh, tmp_path, stage)
        assert torch.equal(first, untrained)
    set_up(fresh, tmp_path, 'fit')
    for name, tensor in fresh.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_pretraining_has_no_test_and_says_what_to_do(trained):
    with pytest.raises(ValueError, match=r'^[^\n]*fine-tune[^\n]*\.$'):
        trained[0].test_step({}, 0)


def test_a_batch_without_index_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^Batches have no 'index'[^\n]*\.$"):
        task().validation_step({'image': batch()[0]}, 0)


# Wrong arguments


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'bands': ['B02', 'B08', 'B02']}, ["'B02'", 'twice']),
        ({'bands': []}, ['bands']),
        ({'in_channels': 12}, ['12', '3', 'B02, B08, VV']),
        ({'in_channels': 5, 'bands': None}, ['5 channels', 'bands=']),
        ({'mask_ratio': 1.5}, ['mask_ratio 1.5']),
        ({'mask_ratio': 0.0}, ['mask_ratio 0.0']),
        ({'masking': 's9'}, ["masking 's9' is not known", 'cross_band']),
        (
            {'masking': 'cross_band', 'masking_options': {'bands': 3}},
            ['shows 3 bands', 'there are 3 in all'],
        ),
        (
            {'masking': 'columns', 'masking_options': {'bands': 3}},
            ["columns has no option 'bands'"],
        ),
        ({'size': 120}, ['120 px', '16 px', '112 or 128']),
        ({'model': 'channelmae_huge_patch16'}, ['huge', 'channelmae_base_patch16']),
        ({'model': 'resnet50'}, ["'resnet50'", 'channelmae_base_patch16']),
        ({'decoder_num_heads': 5}, ['width 32', '5 heads']),
        ({'decoder_depth': 0}, ['depth 0']),
        ({'decode_share': 0.0}, ['decode_share 0.0', '0.25']),
    ],
)
def test_a_wrong_argument_is_raised_in_one_line_when_the_task_is_set_up(
    tmp_path, arguments, words
):
    module = task(**arguments)  # a constructor's error would be buried by the parser
    with pytest.raises(ValueError, match=r'\.$') as error:
        set_up(module, tmp_path)
    message = str(error.value)
    assert '\n' not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize('stage', ['fit', 'validate', 'predict'])
def test_a_wrong_argument_is_raised_at_every_stage(tmp_path, stage):
    with pytest.raises(ValueError, match='mask_ratio 2'):
        set_up(task(mask_ratio=2), tmp_path, stage)


@pytest.mark.parametrize('bands', [('B02', 'B08'), ('B08', 'B02', 'VV')])
def test_a_model_for_other_bands_than_the_datas_is_refused(tmp_path, bands):
    with pytest.raises(ValueError, match=r'^The model has the bands B02, B08, VV') as e:
        set_up(task(), tmp_path, datamodule=Data(bands=bands))
    assert ', '.join(bands) in str(e.value)
    assert '\n' not in str(e.value)


def test_data_of_a_size_that_the_patch_does_not_divide_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r'^A size of 120 px .* 16 px: use 112 or 128'):
        set_up(task(), tmp_path, datamodule=Data(size=120))


def test_data_of_another_usable_size_are_taken(tmp_path):
    set_up(task(), tmp_path, datamodule=Data(size=64))


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^weights 'no/such\.ckpt' is neither"):
        set_up(task(weights='no/such.ckpt'), tmp_path)


class WriteMasks(Callback):
    """Writes what the encoder saw of each sample, a file a process."""

    def __init__(self, folder):
        self.folder = folder
        self.seen = []

    def on_train_start(self, trainer, task):
        masking = task.masking

        def watched(keys, *rest):
            mask = masking(keys, *rest)
            self.seen[-1].setdefault('visible', mask.visible.clone())  # not validation
            return mask

        task.__dict__['masking'] = watched

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        address = {'epoch': trainer.current_epoch, 'step': trainer.global_step}
        self.seen.append(address | {'index': batch['index']})

    def on_train_end(self, trainer, task):
        torch.save(
            self.seen, self.folder / f'{trainer.world_size}-{trainer.global_rank}'
        )


def masks(folder, processes, batch_size, **kwargs):
    """Visible tokens of every epoch and sample, and bands seen at every step."""
    strategy = 'auto' if processes == 1 else 'ddp_fork'
    engine = trainer(
        folder, devices=processes, strategy=strategy, callbacks=[WriteMasks(folder)]
    )
    engine.fit(task(**kwargs), Data(batch_size=batch_size))
    samples, steps = {}, {}
    for rank in range(processes):
        for batch in torch.load(folder / f'{processes}-{rank}', weights_only=True):
            for index, row in zip(batch['index'], batch['visible'], strict=True):
                samples[batch['epoch'], index.item()] = row.tolist()
                bands = tuple(sorted({token // CELLS for token in row.tolist()}))
                steps.setdefault(batch['step'], set()).add(bands)
    return samples, steps


def test_a_sample_has_its_mask_in_one_process_and_in_two(tmp_path):
    alone, _ = masks(tmp_path, 1, 4)
    shared, _ = masks(tmp_path, 2, 2)
    assert len(alone) == 16  # 8 samples, 2 epochs
    assert alone == shared
    assert alone[0, 3] != alone[1, 3]


def test_two_processes_show_the_same_bands_at_a_step(tmp_path):
    options = {'masking': 'cross_band', 'masking_options': {'bands': 1, 'shared': True}}
    _, alone = masks(tmp_path, 1, 4, **options)
    _, shared = masks(tmp_path, 2, 2, **options)
    assert alone == shared
    assert all(len(bands) == 1 for bands in shared.values())
    assert len(shared) == 4
