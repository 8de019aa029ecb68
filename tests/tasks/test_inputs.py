"""Published weights in the protocol: the input's scale, checkpoints, what was read."""

import logging

import pytest
import timm
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, Dataset
from torchvision.models import WeightsEnum

from tests import peers
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.models.peers import PEERS
from torchgeo_channelmae.sensors import SENTINEL2_L2A, find, names
from torchgeo_channelmae.tasks import CrossModalClassification

RADAR, RGB, OPTICAL = ['VV', 'VH'], ['B04', 'B03', 'B02'], list(names(SENTINEL2_L2A))
TAKES = {name: RADAR for name in peers.NAMES} | {'scalemae_large_patch16': RGB}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    peers.shrink(monkeypatch)


def make_task(model, bands, **kwargs):
    torch.manual_seed(0)
    size = peers.SIDE.get(model, 32)
    given = {'size': size, 'drop_path': 0.0, 'layer_decay': 1.0} | kwargs
    return CrossModalClassification(
        model, in_channels=len(bands), bands=list(bands), **given
    )


def make_data(bands, size=32, **kwargs):
    given = {'batch_size': 8, 'augment': False, 'test_groups': 1} | kwargs
    return BigEarthNetS1S2DataModule(bands=list(bands), size=size, **given)


@pytest.fixture
def trainer(tmp_path):
    def make(**kwargs):
        given = {'limit_train_batches': 1, 'limit_val_batches': 1, 'logger': False}
        return Trainer(
            accelerator='cpu',
            devices=1,
            max_epochs=1,
            default_root_dir=tmp_path,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **(given | kwargs),
        )

    return make


@pytest.fixture
def online(monkeypatch):
    """Weights that would be downloaded are these tensors."""

    def put(tensors):
        monkeypatch.setattr(
            WeightsEnum, 'get_state_dict', lambda self, **kwargs: dict(tensors)
        )

    return put


def published(name, bands):
    """Tensors as TorchGeo's file of a foundation model has them, of a small one."""
    encoder = make_task(name, bands).model.encoder
    torch.manual_seed(1)
    tensors = {k: torch.randn_like(v) for k, v in encoder.state_dict().items()}
    if name != 'croma_base':
        return tensors
    modules = {'s1_encoder', 's1_GAP_FFN'}
    return {
        module: {
            k.removeprefix(f'{module}.'): v
            for k, v in tensors.items()
            if k.startswith(f'{module}.')
        }
        for module in modules
    }


@pytest.mark.parametrize('name', peers.NAMES)
def test_published_weights_reach_the_encoder_tensor_by_tensor(name, online, trainer):
    bands, size = TAKES[name], peers.SIDE.get(name, 32)
    tensors = published(name, bands)
    online(tensors)
    (weights, *_) = PEERS[name].weights
    task = make_task(name, bands, weights=str(weights), base_lr=0.0)
    trainer().fit(task, make_data(bands, size))
    own = task.model.encoder.state_dict()
    flat = {
        f'{module}.{k}': v
        for module, inner in tensors.items()
        if isinstance(inner, dict)
        for k, v in inner.items()
    } or tensors
    assert flat.keys() <= own.keys()
    assert all(torch.equal(own[k], value) for k, value in flat.items())
    assert set(own) - set(flat) <= {'attn_bias'}


def test_positions_of_224_px_are_resampled_to_smaller_images(online, trainer, caplog):
    caplog.set_level(logging.INFO)
    large = make_task('dofa_base_patch16_224', RADAR, size=64).model.encoder
    online(large.state_dict())
    weights = 'DOFABase16_Weights.DOFA_MAE'
    task = make_task('dofa_base_patch16_224', RADAR, weights=weights)
    report = task.load_weights(weights)
    assert report.resampled == ('encoder.pos_embed',)
    assert set(report.fresh) == {
        f'input_scaling.{part}' for part in ('factor', 'offset', 'low', 'high')
    }
    assert task.model.encoder.pos_embed.shape == (1, 1 + 4, 48)


@pytest.mark.parametrize(
    ('name', 'weights', 'free'),
    [
        ('croma_base', 'CROMABase_Weights.CROMA_VIT', 0),
        ('scalemae_large_patch16', 'ScaleMAELarge16_Weights.FMOW_RGB', 1),
    ],
)
def test_a_test_from_a_checkpoint_alone_tells_what_the_weights_have_read(
    name, weights, free, online, trainer, tmp_path, monkeypatch
):
    bands = TAKES[name]
    online(published(name, bands))
    task, fit = make_task(name, bands, weights=weights), trainer()
    fit.fit(task, make_data(bands))
    fit.save_checkpoint(tmp_path / 'one.ckpt')
    monkeypatch.undo()  # no weights and no small models from here on
    with pytest.MonkeyPatch.context() as patch:
        peers.shrink(patch)
        fresh = make_task(name, bands, weights='no/such/file.ckpt')
        logger = CSVLogger(tmp_path, 'test', version='0')
        test = trainer(logger=logger, limit_test_batches=1)
        path = tmp_path / 'one.ckpt'
        scores = test.test(fresh, make_data(bands), ckpt_path=path, verbose=False)
        loaded = CrossModalClassification.load_from_checkpoint(path)
    assert scores[0]['test_sensor_free'] == scores[0]['test_overlap_free'] == free
    answer = 'yes' if free else 'no'
    report = (tmp_path / 'test' / '0' / 'scores.md').read_text()
    assert f'| overlap_free | **{answer}** |' in report
    for key, value in task.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], value), key
        assert torch.equal(fresh.model.state_dict()[key], value), key


def test_fitting_says_in_a_line_what_a_peer_has_read(online, trainer, caplog):
    caplog.set_level(logging.INFO)
    online(published('croma_base', RADAR))
    task = make_task('croma_base', RADAR, weights='CROMABase_Weights.CROMA_VIT')
    trainer().fit(task, make_data(RADAR))
    (line,) = [r.message for r in caplog.records if r.message.startswith('Pretraining')]
    assert 'SSL4EO (Sentinel-1 GRD, Sentinel-2: ' in line
    assert 'sensor_free no, label_free yes, overlap_free no' in line


def test_a_peer_from_scratch_has_the_scale_of_its_weights_and_keeps_it(trainer):
    task, fit = make_task('copernicusfm_base', ['B04']), trainer()
    data = make_data(['B04'])
    fit.fit(task, data)
    red = find('B04')
    assert data.mean.tolist() == pytest.approx([red.mean])
    image = torch.tensor([[[[-0.7]]]])
    physical = -0.7 * red.std + red.mean
    wanted = (physical - 1373.1) / 1144.9
    assert task.model.input_scaling(image).item() == pytest.approx(wanted, rel=1e-5)
    data.mean += 500  # whatever another set has: the model stays as it was trained
    fit.test(task, data, verbose=False)
    assert task.model.input_scaling(image).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize('reinit', [['blocks'], ['patch_embed', 'head']])
def test_starting_parts_afresh_does_not_undo_the_scale(reinit, trainer):
    task = make_task('copernicusfm_base', RADAR, reinit=reinit)
    trainer().fit(task, make_data(RADAR))
    assert task.model.input_scaling.factor.tolist() == pytest.approx(
        [find('VV').std / 5.26, find('VH').std / 5.91]
    )


@pytest.mark.parametrize('trainable', ['head', 'patch_embed+head', 'all'])
def test_parts_of_a_peer_learn_and_the_rest_stays(trainable, trainer):
    task = make_task('panopticon_vitb14', RADAR, trainable=trainable, base_lr=1.0)
    before = {k: v.clone() for k, v in task.model.named_parameters()}
    trainer().fit(task, make_data(RADAR, 28))
    moved = {
        k for k, v in task.model.named_parameters() if not torch.equal(v, before[k])
    }
    heads = {k for k in before if k.startswith('head.')}
    first = {k for k in before if '.patch_embed.' in k and '.chnemb.' not in k}
    if trainable == 'head':
        assert moved == heads
    elif trainable == 'patch_embed+head':
        assert heads <= moved <= heads | first
        assert moved & first
    else:
        assert len(moved) > 0.9 * len(before)


# Models of timm


def test_a_first_layer_takes_the_bands_by_name_and_its_input_the_scale(
    online, trainer, caplog
):
    caplog.set_level(logging.INFO)
    stock = timm.create_model('resnet18', in_chans=13, num_classes=0)
    online(stock.state_dict())
    weights = 'ResNet18_Weights.SENTINEL2_ALL_MOCO'
    bands = OPTICAL[::-1]
    task = make_task('resnet18', bands, weights=weights, trainable='head')
    trainer().fit(task, make_data(bands))
    with_cirrus = [*OPTICAL[:10], 'B10', *OPTICAL[10:]]
    (line,) = [r.message for r in caplog.records if r.message.startswith('Weights ')]
    assert f'bands with their weights: {", ".join(bands)}' in line
    assert 'left over: conv1.weight of B10' in line
    # The whole is the published model on reflectance, with nothing in cirrus.
    image = torch.randn(2, 12, 32, 32)
    mean, std = (
        torch.tensor([getattr(find(b), key) for b in bands])[:, None, None]
        for key in ('mean', 'std')
    )
    reflectance = (image * std + mean) / 10_000
    full = torch.zeros(2, 13, 32, 32)
    for band in OPTICAL:
        full[:, with_cirrus.index(band)] = reflectance[:, bands.index(band)]
    with torch.no_grad():
        task.model.reset_classifier(0)
        got, wanted = task.model.eval()(image), stock.eval()(full)
    assert torch.allclose(got, wanted, rtol=1e-3, atol=1e-3)


def test_radar_on_optical_weights_has_a_fresh_first_layer_and_no_scale(
    online, trainer, caplog
):
    caplog.set_level(logging.INFO)
    online(timm.create_model('resnet18', in_chans=13, num_classes=0).state_dict())
    weights = 'ResNet18_Weights.SENTINEL2_ALL_MOCO'
    task = make_task('resnet18', RADAR, weights=weights, base_lr=0.0)
    trainer().fit(task, make_data(RADAR))
    (line,) = [r.message for r in caplog.records if r.message.startswith('Weights ')]
    assert 'other fresh tensors: conv1.weight (of the bands B01, B02' in line
    assert not hasattr(task.model, 'input_scaling')
    (line,) = [r.message for r in caplog.records if r.message.startswith('Pretraining')]
    assert 'sensor_free yes' in line


def test_bands_of_landsat_are_not_those_of_sentinel_by_the_same_name(online):
    online(timm.create_model('resnet18', in_chans=11, num_classes=0).state_dict())
    task = make_task('resnet18', ['B10', 'B11'])
    report = task.load_weights('ResNet18_Weights.LANDSAT_OLI_TIRS_TOA_MOCO')
    assert list(report.fresh) == ['conv1.weight']
    assert report.kept_bands == ()


def test_the_scale_of_a_timm_model_travels_with_its_checkpoint(
    online, trainer, tmp_path
):
    online(timm.create_model('resnet18', in_chans=3, num_classes=0).state_dict())
    weights = 'ResNet18_Weights.SENTINEL2_RGB_MOCO'
    task, fit = make_task('resnet18', RGB, weights=weights), trainer()
    fit.fit(task, make_data(RGB))
    fit.save_checkpoint(tmp_path / 'one.ckpt')
    wanted = task.model.input_scaling.factor
    assert wanted.tolist() == pytest.approx([find(b).std / 10_000 for b in RGB])
    loaded = CrossModalClassification.load_from_checkpoint(tmp_path / 'one.ckpt')
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(image), task.eval()(image))
    # And as weights of another task, band by band.
    other = make_task('resnet18', RGB[::-1])
    report = other.load_weights(str(tmp_path / 'one.ckpt'))
    assert report.kept_bands == ('B02', 'B03', 'B04')
    assert torch.equal(other.model.input_scaling.factor, wanted.flip(0))
    first = task.model.conv1.weight
    assert torch.equal(other.model.conv1.weight, first.flip(1))


def test_a_scale_that_is_not_told_is_logged(online, trainer, caplog):
    caplog.set_level(logging.INFO)
    online(timm.create_model('resnet18', in_chans=3, num_classes=0).state_dict())
    task = make_task('resnet18', RGB, weights='ResNet18_Weights.SENTINEL2_RGB_SECO')
    trainer().fit(task, make_data(RGB))
    assert any(
        'is not known: the bands come standard' in r.message for r in caplog.records
    )


class Silent(LightningDataModule):
    """Data that tell neither bands nor how they are normalised."""

    class Patches(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            image = torch.randn(2, 32, 32)
            return {'image': image, 'index': index, 'label': torch.ones(19).long()}

    def train_dataloader(self):
        return DataLoader(self.Patches(), batch_size=2)


def test_data_that_do_not_tell_their_normalisation_are_warned_of(trainer):
    task = make_task('copernicusfm_base', RADAR)
    with pytest.warns(UserWarning, match='do not tell by which mean and std'):
        trainer(limit_val_batches=0).fit(task, Silent())


# What does not fit


@pytest.mark.parametrize(
    ('model', 'bands', 'kwargs', 'message'),
    [
        ('croma_base', ['VV'], {}, 'croma_base takes both channels'),
        ('croma_base', RADAR, {'drop_path': 0.1}, 'set drop_path to 0'),
        ('croma_base', RADAR, {'size': 24}, 'takes images of 24 px, but .* 32 px'),
        ('scalemae_large_patch16', RADAR, {}, 'red, green and blue alone'),
        ('dofa_base_patch16_224', RADAR, {'size': 40}, 'such as 32 or 48'),
        ('dofa_base_patch16', RADAR, {}, "did you mean 'dofa_base_patch16_224'"),
        (
            'croma_base',
            RADAR,
            {'weights': 'DOFABase16_Weights.DOFA_MAE'},
            'are of the model dofa_base_patch16_224, and the model here is croma_base',
        ),
        (
            'resnet18',
            RADAR,
            {'weights': 'ResNet50_Weights.SENTINEL2_ALL_MOCO'},
            'of the model resnet50',
        ),
        (
            'dofa_base_patch16_224',
            RADAR,
            {'trainable': 'positions+head'},
            "'positions', which this model has not: its parts are patch_embed, blocks",
        ),
        ('croma_base', ['VV', 'VH', 'B04'], {'in_channels': 2}, 'in_channels is 2'),
    ],
)
def test_what_does_not_fit_is_one_sentence_when_fitting_starts(
    model, bands, kwargs, message, trainer
):
    given = {'in_channels': len(bands), 'bands': bands, 'drop_path': 0.0, 'size': 32}
    task = CrossModalClassification(model, **(given | kwargs))
    with pytest.raises(ValueError, match=message) as caught:
        trainer().fit(task, make_data(bands))
    assert '\n' not in str(caught.value)
