"""A fine-tuned head on other bands, on the bundled sample's patches."""

import logging
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torchgeo.main import main as torchgeo_main

from tests.small_tasks import pretraining, trainer
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.provenance.record import KEY
from torchgeo_channelmae.tasks import CrossModalClassification, ZeroShotBands

RADAR = ['VV', 'VH']
RGB = ['B04', 'B03', 'B02']
MODEL = 'channelmae_tiny_patch16'


def data(bands):
    return BigEarthNetS1S2DataModule(bands=bands, size=32, batch_size=8)


def zero_shot(weights, bands, **kwargs):
    return ZeroShotBands(str(weights), len(bands), list(bands), **kwargs)


def tensors(path):
    return torch.load(path, weights_only=True)['state_dict']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('zero_shot')


@pytest.fixture(scope='module')
def pretrained(folder):
    """A pretraining of one epoch on red, green and blue."""
    torch.manual_seed(0)
    fit = trainer(folder, limit_val_batches=0)
    fit.fit(pretraining(bands=RGB, embed_std=0.5), data(RGB))
    fit.save_checkpoint(folder / 'pretrained.ckpt')
    return str(folder / 'pretrained.ckpt')


@pytest.fixture(scope='module')
def fine_tuned(folder, pretrained):
    """A fine-tuning of that on radar."""
    torch.manual_seed(0)
    task = CrossModalClassification(
        MODEL, weights=pretrained, bands=RADAR, size=32, embed_std=0.5
    )
    fit = trainer(folder)
    fit.fit(task, data(RADAR))
    fit.save_checkpoint(folder / 'fine_tuned.ckpt')
    return folder / 'fine_tuned.ckpt'


def test_on_the_bands_of_the_fine_tuning_it_is_the_checkpoints_own_test(
    fine_tuned, tmp_path
):
    own = CrossModalClassification(MODEL, bands=RADAR, size=32)
    scores, files = [], []
    for task, path in ((own, fine_tuned), (zero_shot(fine_tuned, RADAR), None)):
        run = trainer(tmp_path, logger=CSVLogger(tmp_path))
        scores += run.test(task, data(RADAR), ckpt_path=path, verbose=False)
        names = ('predictions.csv', 'per_class.csv')
        files.append([(Path(run.log_dir) / name).read_text() for name in names])
    assert files[0] == files[1]
    assert 'test_F1_micro_tuned' in scores[1]  # at the checkpoint's thresholds
    for name, score in scores[0].items():
        if not name.endswith(('_free', '_overlap')):  # fine-tuning counts as past
            assert scores[1][name] == score, name


def test_bands_come_from_the_fine_tuning_then_the_pretraining_then_fresh(
    fine_tuned, pretrained, caplog, tmp_path
):
    bands = [*RADAR, *RGB, 'B11']
    with caplog.at_level(logging.INFO):
        task = zero_shot(fine_tuned, bands, embeddings=pretrained)
    trainer(tmp_path).test(task, data(bands), verbose=False)
    (line,) = [m for m in caplog.messages if m.startswith('Model, head')]
    assert f'VH (fine-tuned), B04 ({pretrained})' in line
    assert 'B11 (sample: around the mean of 5 bands, draw ' in line
    tuned, first, own = tensors(fine_tuned), tensors(pretrained), task.state_dict()
    for band in bands[:5]:
        name = f'model.spectral_embed.{band}'
        source = tuned if band in RADAR else first
        assert torch.equal(own.pop(name), source[name]), band
    assert len(own) == len(tuned) - 1  # without VV and VH, with B11
    assert all(torch.equal(v, tuned[k]) for k, v in own.items() if 'B11' not in k)
    image = torch.randn(2, 6, 32, 32)
    other = zero_shot(fine_tuned, bands[::-1], embeddings=pretrained)
    with torch.no_grad():  # whatever the order of the bands
        one, two = task.eval()(image), other.eval()(image.flip(1))
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)


def test_what_fine_tuning_and_pretraining_read_counts_as_read_before(
    fine_tuned, pretrained, tmp_path
):
    def scores(weights, bands, **kwargs):
        task = zero_shot(weights, bands, **kwargs)
        return trainer(tmp_path).test(task, data(bands), verbose=False)[0]

    optical = scores(fine_tuned, RGB, embeddings=pretrained)
    assert optical['test_sensor_free'] == optical['test_label_free'] == 0
    content = torch.load(fine_tuned, weights_only=True)
    content[KEY]['inherited'] = []
    torch.save(content, tmp_path / 'from_scratch.ckpt')
    free = scores(tmp_path / 'from_scratch.ckpt', RGB, fresh_bands='index')
    assert free['test_sensor_free'] == free['test_overlap_free'] == 1


@pytest.mark.parametrize(
    ('weights', 'bands', 'options', 'named'),
    [
        ('gone', RADAR, {}, r'gone\.ckpt'),
        ('pretrained', RADAR, {}, r'pretrained\.ckpt'),
        ('cut', RADAR, {}, r'blocks\.3\.attn'),
        ('fine_tuned', RGB, {}, 'VV, VH only.*B04, B03, B02'),
        ('fine_tuned', ['B11'], {'embeddings': 'pretrained'}, r'pretrained\.ckpt.*B11'),
        ('fine_tuned', RGB, {'embeddings': 'gone'}, r'gone\.ckpt'),
    ],
)
def test_what_does_not_fit_raises_in_the_constructor(
    weights, bands, options, named, fine_tuned, pretrained, folder
):
    content = torch.load(fine_tuned, weights_only=True)
    state = {k: v for k, v in content['state_dict'].items() if 'blocks.3.attn' not in k}
    torch.save(content | {'state_dict': state}, folder / 'cut.ckpt')
    if 'embeddings' in options:
        options = {'embeddings': str(folder / f'{options["embeddings"]}.ckpt')}
    with pytest.raises(ValueError, match=named):
        zero_shot(folder / f'{weights}.ckpt', bands, **options)


def test_training_and_a_checkpoint_beside_its_own_are_refused(fine_tuned, tmp_path):
    with pytest.raises(ValueError, match='never trains'):
        trainer(tmp_path).fit(zero_shot(fine_tuned, RADAR), data(RADAR))
    with pytest.raises(ValueError, match='ckpt_path'):
        trainer(tmp_path).test(
            zero_shot(fine_tuned, RADAR), data(RADAR), ckpt_path=fine_tuned
        )


def test_the_overlay_tests_a_fine_tuning_from_the_command_line(
    fine_tuned, pretrained, conf, tmp_path
):
    names = ('finetune.yaml', 'paper/bands/s1s2.yaml', 'unchanged.yaml')
    args = [
        *(f'--config={conf / name}' for name in names),
        f'--model.init_args.weights={fine_tuned}',
        f'--model.init_args.embeddings={pretrained}',
        '--data.init_args.size=32',
        f'--trainer.default_root_dir={tmp_path / "run"}',
        '--trainer.enable_progress_bar=false',
        '--trainer.accelerator=cpu',
    ]
    torchgeo_main(['test', *args])
    table = pd.read_csv(tmp_path / 'run' / 'test' / 'predictions.csv')
    assert table.shape == (21, 20)
    with pytest.raises(ValueError, match=r'gone\.ckpt'):
        torchgeo_main(['test', *args, '--model.init_args.weights=gone.ckpt'])
