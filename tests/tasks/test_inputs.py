"""Published weights in the protocol: the input's scale, checkpoints, what was read."""

import logging

import pytest
import timm
import torch
from lightning.pytorch.loggers import CSVLogger
from torchvision.models import WeightsEnum

from tests import peers, small_tasks
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.models.peers import PEERS
from torchgeo_channelmae.sensors import SENTINEL2_L2A, find, names
from torchgeo_channelmae.tasks import CrossModalClassification

RADAR, RGB, OPTICAL = ['VV', 'VH'], ['B04', 'B03', 'B02'], list(names(SENTINEL2_L2A))
TAKES = {name: RADAR for name in peers.BUILDERS} | {'scalemae_large_patch16': RGB}
SCALING = {f'input_scaling.{part}' for part in ('factor', 'offset', 'low', 'high')}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    peers.shrink(monkeypatch)


def make_task(model, bands, **kwargs):
    torch.manual_seed(0)
    given = {'size': peers.SIDE.get(model, 32), 'drop_path': 0.0, 'layer_decay': 1.0}
    return CrossModalClassification(
        model, in_channels=len(bands), bands=list(bands), **(given | kwargs)
    )


def make_data(bands, size=32):
    return BigEarthNetS1S2DataModule(
        bands=list(bands), size=size, batch_size=8, augment=False, test_groups=1
    )


def trainer(folder, **kwargs):
    limits = {'limit_train_batches': 1, 'limit_val_batches': 0}
    return small_tasks.trainer(folder, **limits | kwargs)


@pytest.fixture
def online(monkeypatch):
    """Make these tensors the weights that would be downloaded."""

    def put(tensors):
        read = lambda self, **kwargs: dict(tensors)  # noqa: E731
        monkeypatch.setattr(WeightsEnum, 'get_state_dict', read)

    return put


def encoder_of(name, bands):
    """Random tensors of a small foundation model."""
    encoder = make_task(name, bands).model.encoder
    torch.manual_seed(1)
    return {k: torch.randn_like(v) for k, v in encoder.state_dict().items()}


def as_published(name, tensors):
    """Nest the tensors as in TorchGeo's file: CROMA's are by module."""
    if name != 'croma_base':
        return tensors
    nested = {'s1_encoder': {}, 's1_GAP_FFN': {}}
    for key, value in tensors.items():
        module, _, inner = key.partition('.')
        if inner:
            nested[module][inner] = value
    return nested


def resnet(channels):
    return timm.create_model('resnet18', in_chans=channels, num_classes=0)


@pytest.mark.parametrize('name', peers.BUILDERS)
def test_published_weights_reach_the_encoder_tensor_by_tensor(name, online):
    tensors = encoder_of(name, TAKES[name])
    online(as_published(name, tensors))
    task = make_task(name, TAKES[name])
    (weights, *_) = PEERS[name].weights
    report = task.load_weights(str(weights))
    own = task.model.encoder.state_dict()
    differ = {k for k, value in tensors.items() if not torch.equal(own[k], value)}
    assert differ <= {'attn_bias'}
    assert {n for n in report.fresh if 'attn_bias' not in n} == SCALING


def test_a_test_from_a_checkpoint_alone_reports_what_the_weights_have_read(
    online, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    online(as_published('croma_base', encoder_of('croma_base', RADAR)))
    task = make_task('croma_base', RADAR, weights='CROMABase_Weights.CROMA_VIT')
    fit, path = trainer(tmp_path), tmp_path / 'one.ckpt'
    fit.fit(task, make_data(RADAR))
    assert 'SSL4EO (Sentinel-1 GRD, Sentinel-2' in caplog.text
    fit.save_checkpoint(path)
    monkeypatch.undo()  # no weights from here on
    peers.shrink(monkeypatch)
    fresh = make_task('croma_base', RADAR, weights='no/such/file.ckpt')
    logger = CSVLogger(tmp_path, 'test', version='0')
    test = trainer(tmp_path, logger=logger, limit_test_batches=1)
    scores = test.test(fresh, make_data(RADAR), ckpt_path=path, verbose=False)
    assert scores[0]['test_sensor_free'] == scores[0]['test_overlap_free'] == 0
    assert '| overlap_free | **no** |' in (tmp_path / 'test/0/scores.md').read_text()
    for key, value in task.model.state_dict().items():
        assert torch.equal(fresh.model.state_dict()[key], value), key


def test_a_peer_from_scratch_gets_the_scale_of_its_weights_and_keeps_it(tmp_path):
    task = make_task('copernicusfm_base', ['B04'], reinit=['blocks'])
    fit, data = trainer(tmp_path), make_data(['B04'])
    fit.fit(task, data)
    red = find('B04')
    image = torch.tensor([[[[-0.7]]]])
    wanted = (-0.7 * red.std + red.mean - 1373.1) / 1144.9
    assert task.model.input_scaling(image).item() == pytest.approx(wanted, rel=1e-5)
    data.mean += 500  # whatever another set has: the model stays as it was trained
    fit.test(task, data, verbose=False)
    assert task.model.input_scaling(image).item() == pytest.approx(wanted, rel=1e-5)


def test_parts_of_a_peer_learn_and_the_rest_stays(tmp_path):
    trainable = 'patch_embed+head'
    task = make_task('panopticon_vitb14', RADAR, trainable=trainable, base_lr=1.0)
    before = {k: v.clone() for k, v in task.model.named_parameters()}
    trainer(tmp_path).fit(task, make_data(RADAR, 28))
    after = dict(task.model.named_parameters())
    moved = {k for k, value in before.items() if not torch.equal(after[k], value)}
    first = {k for k in before if '.patch_embed.' in k and '.chnemb.' not in k}
    assert moved & first
    assert moved - first == {'head.weight', 'head.bias'}


# Models of timm


def test_a_first_layer_gets_its_bands_by_name_and_its_input_the_scale(online, tmp_path):
    stock = resnet(13)
    online(stock.state_dict())
    bands = OPTICAL[::-1]
    weights = 'ResNet18_Weights.SENTINEL2_ALL_MOCO'
    task = make_task('resnet18', bands, weights=weights, trainable='head')
    trainer(tmp_path).fit(task, make_data(bands))
    # The whole is the published model on reflectance, with nothing in cirrus.
    image = torch.randn(2, 12, 32, 32)
    numbers = torch.tensor([(find(band).mean, find(band).std) for band in bands])
    mean, std = numbers.T[:, :, None, None]
    first, last = ((image * std + mean) / 10_000).flip(1).split([10, 2], dim=1)
    full = torch.cat([first, torch.zeros(2, 1, 32, 32), last], 1)
    with torch.no_grad():
        task.model.reset_classifier(0)
        got, wanted = task.model.eval()(image), stock.eval()(full)
    assert torch.allclose(got, wanted, rtol=1e-3, atol=1e-3)


def test_the_scale_of_a_timm_model_travels_with_its_checkpoint(online, tmp_path):
    online(resnet(3).state_dict())
    weights = 'ResNet18_Weights.SENTINEL2_RGB_MOCO'
    task, fit = make_task('resnet18', RGB, weights=weights), trainer(tmp_path)
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
    assert torch.equal(other.model.conv1.weight, task.model.conv1.weight.flip(1))


def test_an_unknown_scale_is_logged(online, caplog):
    caplog.set_level(logging.INFO)
    online(resnet(3).state_dict())
    weights = 'ResNet18_Weights.SENTINEL2_RGB_SECO'
    task = make_task('resnet18', RGB)
    task.load_weights(weights)
    assert not hasattr(task.model, 'input_scaling')
    assert f'{weights} have no known input scale' in caplog.text
