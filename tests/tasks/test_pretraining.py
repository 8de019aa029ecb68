"""The pretraining task: what it hides, compares and logs."""

from functools import partial

import pytest
import torch

from tests.small_tasks import BANDS, Data, Patches, pretraining, trainer
from torchgeo_channelmae import sensors
from torchgeo_channelmae.band_guess import KEY, BandGuess, pixel_moments
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.masking import RandomTokens
from torchgeo_channelmae.tasks import ChannelMAE
from torchgeo_channelmae.tasks.base import sample_keys

CELLS = 4
MASKINGS = {
    'random': ('random', None),
    'same band': ('same_band', None),
    'same band, all visible': ('same_band', {'visible': 'all'}),
    'cross band': ('cross_band', None),
    'cross band of two': ('cross_band', {'bands': 2}),
    'columns': ('columns', None),
    'channels and patches': ('channels_and_patches', None),
}
each_masking = pytest.mark.parametrize(
    ('masking', 'masking_options'), MASKINGS.values(), ids=MASKINGS
)


def task(**kwargs):
    torch.manual_seed(0)
    return pretraining(**kwargs).train()


def batch(count=3):
    return Patches(count).images, torch.arange(10, 10 + count)


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


@each_masking
@pytest.mark.parametrize(
    ('spectral_loss', 'norm_target'), [('mean', True), ('sum', False)]
)
@torch.no_grad()
def test_both_losses_are_their_formulas_token_by_token(
    masking, masking_options, spectral_loss, norm_target
):
    module = task(
        masking=masking,
        masking_options=masking_options,
        spectral_loss=spectral_loss,
        norm_target=norm_target,
    )
    image, keys = batch()
    result = module.reconstruct(image, keys, 7)
    mask, truth = result.mask, tokens_of(image)
    if norm_target:
        mean = truth.mean(-1, keepdim=True)
        truth = (truth - mean) / (truth.var(-1, keepdim=True) + 1e-6).sqrt()
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
            numbers = [band * CELLS + cell for band in bands]
            together = sum(made[n] - truth[row, n] for n in numbers)
            if spectral_loss == 'mean':
                together = together / len(bands)
            total += together.square().mean().item()
        assert spectral[row] == pytest.approx(total / CELLS, rel=1e-4)


@torch.no_grad()
def test_without_spectral_loss_only_training_decodes_only_what_is_hidden():
    image, keys = batch()
    plain, weighted = (task(spectral_weight=w) for w in (0.0, 1.0))
    assert plain.reconstruct(image, keys).prediction.shape == (3, 9, 256)
    assert weighted.reconstruct(image, keys).prediction.shape == (3, 12, 256)
    token, spectral = plain.losses(plain.reconstruct(image, keys))
    expected, measured = weighted.losses(weighted.reconstruct(image, keys))
    torch.testing.assert_close(token, expected, rtol=1e-5, atol=1e-6)
    assert spectral.tolist() == [0, 0, 0]
    for module in (plain.eval(), task(decode_share=0.25).eval()):  # but in validation
        found = module.losses(module.reconstruct(image, keys))
        torch.testing.assert_close(found, (expected, measured))


@each_masking
@torch.no_grad()
def test_the_decoder_processes_sampled_cells_beside_visible_tokens(
    masking, masking_options
):
    module = task(masking=masking, masking_options=masking_options, decode_share=0.5)
    carried = []
    module.decoder.blocks.register_forward_hook(
        lambda layer, args, out: carried.append(out.shape[1])
    )
    result = module.reconstruct(*batch())
    hidden, produced = result.mask.hidden.shape[1], 2 * result.mask.bands.shape[1]
    assert result.prediction.shape[1] == produced
    assert carried == [1 + result.mask.visible.shape[1] + min(hidden, produced)]


@torch.no_grad()
def test_what_is_hidden_does_not_reach_the_prediction():
    module = task().eval()
    image, keys = batch()
    before = module.reconstruct(image, keys)
    hidden = torch.zeros(3, 12, dtype=torch.bool).scatter(1, before.mask.hidden, True)
    pixels = hidden.view(3, 3, 2, 2).repeat_interleave(16, 2).repeat_interleave(16, 3)
    after = module.reconstruct(image.masked_fill(pixels, 100.0), keys)
    assert torch.equal(after.prediction, before.prediction)
    assert not torch.equal(after.target, before.target)


def test_every_parameter_gets_its_gradient_with_and_without_checkpointing():
    found, runs = [], []
    for checkpointed in (False, True):
        module = task(grad_checkpointing=checkpointed)
        for blocks in (module.model.blocks, module.decoder.blocks):
            run = partial(runs.append, checkpointed)
            blocks[0].register_forward_pre_hook(lambda *_, run=run: run())
        token, spectral = module.compute(*batch(), 0)
        (token + spectral).backward()
        found.append([parameter.grad for parameter in module.parameters()])
    assert runs.count(True) == 2 * runs.count(False) == 4  # recomputed
    assert all(gradient.any() for gradient in found[0])
    torch.testing.assert_close(found[1], found[0])


@torch.no_grad()
def test_an_image_of_another_size_than_the_positions_is_reconstructed():
    result = task().eval().reconstruct(torch.randn(2, 3, 48, 64), torch.arange(2))
    assert result.prediction.shape == (2, 3 * 3 * 4, 256)


# A short training


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('fit')
    module, fit = task(spectral_weight=0.5), trainer(folder)
    fit.fit(module, Data())
    fit.save_checkpoint(folder / 'last.ckpt')
    return module, fit, folder / 'last.ckpt'


@each_masking
def test_every_masking_trains_validates_and_plots(masking, masking_options, tmp_path):
    fit = trainer(tmp_path)
    module = task(
        masking=masking,
        masking_options=masking_options,
        plot_every_n_epochs=1,
        decode_share=0.25,
    )
    fit.fit(module, Data(batch_size=12))
    for name in ('train', 'val', 'val_spectral', 'val_trivial', 'val_band'):
        name = f'{name}_loss'
        assert fit.callback_metrics[name].isfinite(), name


def test_the_training_loss_is_the_token_loss_plus_the_weighted_spectral(trained):
    metrics = trained[1].callback_metrics
    expected = metrics['train_token_loss'] + 0.5 * metrics['train_spectral_loss']
    assert metrics['train_loss'].item() == pytest.approx(expected.item(), rel=1e-5)


def test_validation_losses_are_means_over_samples_for_every_batch_size(trained):
    module, fit, _ = trained
    images, keys = Patches(6).images, sample_keys(torch.arange(6), 'validation mask')
    with torch.no_grad():
        losses = module.eval().losses(module.reconstruct(images, keys))
    trivial = []
    for image, key in zip(images, keys, strict=True):
        tokens = tokens_of(image[None])[0]
        mask = RandomTokens(0.75)(key[None], 0, 3, CELLS)
        visible = mask.visible[0].tolist()
        for hidden in mask.hidden[0].tolist():
            own = [i for i in visible if i // CELLS == hidden // CELLS] or visible
            guess = torch.cat([tokens[i] for i in own]).mean()
            trivial.append((tokens[hidden] - guess).square().mean())
    expected = [loss.mean().item() for loss in (*losses, torch.stack(trivial))]
    for batch_size in (1, 4, 6):
        (scores,) = fit.validate(module, Data(batch_size=batch_size), verbose=False)
        found = [scores[f'val{name}_loss'] for name in ('', '_spectral', '_trivial')]
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize('norm_target', [False, True])
def test_the_band_loss_is_the_error_of_a_regression_on_the_first_epoch(
    norm_target, tmp_path
):
    data, fit = Data(bands=BANDS), trainer(tmp_path, max_epochs=2)
    module = task(norm_target=norm_target)
    fit.fit(module, data)
    found = fit.callback_metrics['val_band_loss'].item()
    seen = torch.stack([each['image'] for each in data.loader(24).dataset])
    images, keys = Patches(6).images, sample_keys(torch.arange(6), 'validation mask')
    mask, truth = module.masking(keys, 0, 3, CELLS), tokens_of(images)
    guess = BandGuess(pixel_moments(seen))(truth, mask.visible)
    if norm_target:
        truth, guess = (
            (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-6).sqrt()
            for x in (truth, guess)
        )
    hidden = torch.ones(6, 12, dtype=torch.bool).scatter(1, mask.visible, False)
    expected = (guess - truth)[hidden].square().mean().item()
    assert found == pytest.approx(expected, rel=1e-4)
    if norm_target:  # a token has unit variance, and a constant is a guess of zeros
        blind = fit.callback_metrics['val_trivial_loss'].item()
        assert blind == pytest.approx(truth[hidden].square().mean().item(), rel=1e-4)
    path, again = tmp_path / 'last.ckpt', task(norm_target=norm_target)
    fit.save_checkpoint(path)
    (scores,) = trainer(tmp_path).validate(again, data, path, verbose=False)
    assert scores['val_band_loss'] == found


def test_there_is_no_band_loss_without_a_fit_or_a_second_band(trained, tmp_path):
    path = trained[2]
    content = torch.load(path, weights_only=True)
    del content[KEY]  # as in older checkpoints
    torch.save(content, tmp_path / 'old.ckpt')
    fit = trainer(tmp_path)
    (scores,) = fit.validate(task(), Data(), tmp_path / 'old.ckpt', verbose=False)
    assert {'val_loss', 'val_trivial_loss'} < scores.keys()
    fit.fit(task(bands=['VV'], in_channels=1), Data(bands=['VV']))
    for found in (scores, fit.callback_metrics):
        assert 'val_band_loss' not in found


def test_clip_pixels_bounds_the_target_and_logs_the_share_of_pixels_beyond(tmp_path):
    data = BigEarthNetS1S2DataModule(
        bands=BANDS, size=32, size_by='crop', batch_size=23, clip_pixels=1.5
    )
    module, found = task(), []
    losses = module.losses
    module.losses = lambda result: found.append(result.target) or losses(result)
    fit = trainer(tmp_path, limit_val_batches=0)
    fit.fit(module, data)
    (target,) = found
    assert target.abs().max() == 1.5
    beyond = total = 0
    for sample in BigEarthNetLMDB(split='train', bands=BANDS):
        for name, pixels in zip(BANDS, sample['image'].double(), strict=True):
            band = sensors.find(name)
            beyond += int(((pixels - band.mean).abs() > 1.5 * band.std).sum())
            total += pixels.numel()
    share = fit.logged_metrics['train_clipped_pixels']
    assert share.item() == pytest.approx(beyond / total, rel=1e-3)
    assert 0.01 < share < 0.2


def test_training_masks_change_with_the_epoch_and_not_with_the_batch(tmp_path):
    runs = []
    for batch_size in (12, 4):
        module, drawn = task(), []

        def watched(image, keys, shared, module=module, drawn=drawn):
            drawn.extend(keys.tolist())
            return ChannelMAE.compute(module, image, keys, shared)

        module.compute = watched
        trainer(tmp_path, max_epochs=2).fit(module, Data(batch_size=batch_size))
        runs.append(drawn)
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 2 * 24


def test_a_checkpoint_is_plain_data_that_gives_the_task_back(trained):
    module, _, path = trained
    content = torch.load(path, map_location='cpu', weights_only=True)
    assert content['hyper_parameters']['bands'] == BANDS
    assert 'weights' not in content['hyper_parameters']
    assert {key.split('.')[0] for key in content['state_dict']} == {'model', 'decoder'}
    again = ChannelMAE.load_from_checkpoint(path, map_location='cpu')
    with torch.no_grad():
        one, other = (
            m.eval().reconstruct(*batch()).prediction for m in (module, again)
        )
    assert torch.equal(one, other)


def test_prediction_returns_one_feature_vector_per_sample(trained):
    module, fit, _ = trained
    features = torch.cat(fit.predict(module, Data()))
    with torch.no_grad():
        expected = module.model.eval()(Patches(6).images)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('batch_size', [2, 4])
def test_the_learning_rate_grows_with_the_batch(batch_size, tmp_path):
    fit = trainer(tmp_path, accumulate_grad_batches=2, max_steps=1)
    fit.fit(task(base_lr=0.256), Data(batch_size=batch_size))
    peaks = [group['initial_lr'] for group in fit.optimizers[0].param_groups]
    assert peaks == pytest.approx([1e-3 * batch_size * 2] * len(peaks))


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        ({'bands': ['B02', 'B08', 'B02']}, 'B02'),
        ({'mask_ratio': 1.5}, 'mask_ratio'),
        ({'masking': 's9'}, 's9'),
        ({'masking': 'columns', 'masking_options': {'bands': 3}}, 'bands'),
        ({'size': 120}, '120'),
        ({'model': 'channelmae_huge_patch16'}, 'channelmae_huge_patch16'),
        ({'spectral_loss': 'median'}, 'median'),
        ({'decoder_num_heads': 5}, '5'),
        ({'decode_share': 0.0}, 'decode_share'),
    ],
)
def test_a_wrong_argument_raises_in_the_constructor(arguments, named):
    with pytest.raises(ValueError, match=named):
        task(**arguments)
