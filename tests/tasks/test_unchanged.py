"""A fine-tuned head on other bands, on the bundled sample's patches."""

import logging

import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from torchgeo.main import main as torchgeo_main
from torchgeo.tasks import Classification

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.provenance.record import KEY
from torchgeo_channelmae.tasks import (
    ChannelMAE,
    CrossModalClassification,
    UnchangedHead,
)

RADAR = ['VV', 'VH']
RGB = ['B04', 'B03', 'B02']
MODEL = 'channelmae_tiny_patch16'


def data(bands, **kwargs):
    return BigEarthNetS1S2DataModule(bands=bands, size=32, batch_size=8, **kwargs)


def unchanged(weights, bands, **kwargs):
    return UnchangedHead(
        str(weights), in_channels=len(bands), bands=list(bands), **kwargs
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('unchanged')


@pytest.fixture(scope='module')
def trainer(folder):
    def make(name='run', **kwargs):
        return Trainer(
            accelerator='cpu',
            devices=1,
            default_root_dir=folder,
            logger=CSVLogger(folder, name),
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            **{'max_epochs': 1, **kwargs},
        )

    return make


@pytest.fixture(scope='module')
def pretrained(folder, trainer):
    """A pretraining of one epoch on red, green and blue."""
    torch.manual_seed(0)
    task = ChannelMAE(
        MODEL,
        in_channels=3,
        bands=RGB,
        size=32,
        embed_std=0.5,
        decoder_dim=32,
        decoder_depth=1,
        decoder_num_heads=2,
        plot_every_n_epochs=0,
    )
    fit = trainer(limit_val_batches=0)
    fit.fit(task, data(RGB))
    fit.save_checkpoint(folder / 'pretrained.ckpt')
    return folder / 'pretrained.ckpt'


@pytest.fixture(scope='module')
def fine_tuned(folder, trainer, pretrained):
    """A fine-tuning of that on radar."""
    torch.manual_seed(0)
    task = CrossModalClassification(
        MODEL, weights=str(pretrained), bands=RADAR, size=32, embed_std=0.5
    )
    fit = trainer()
    fit.fit(task, data(RADAR))
    fit.save_checkpoint(folder / 'fine_tuned.ckpt')
    return folder / 'fine_tuned.ckpt'


def probabilities(trainer, task, bands, **kwargs):
    return torch.cat(trainer().predict(task, data(bands, **kwargs)))


def test_on_the_bands_of_the_fine_tuning_it_is_the_checkpoints_own_test(
    trainer, fine_tuned, folder
):
    found = {}
    for name, task, path in (
        ('own', CrossModalClassification(MODEL, bands=RADAR, size=32), fine_tuned),
        ('unchanged', unchanged(fine_tuned, RADAR), None),
    ):
        test = trainer(name)
        scores = test.test(task, data(RADAR), ckpt_path=path, verbose=False)[0]
        where = test.log_dir
        found[name] = {
            'scores': {k: v for k, v in scores.items() if not k.endswith('_free')},
            'predictions': pd.read_csv(f'{where}/predictions.csv'),
            'classes': pd.read_csv(f'{where}/per_class.csv'),
        }
    own, other = found.values()
    pd.testing.assert_frame_equal(
        own['predictions'], other['predictions'], check_exact=True
    )
    pd.testing.assert_frame_equal(own['classes'], other['classes'], check_exact=True)
    overlaps = {'test_place_overlap', 'test_patch_overlap'}  # fine-tuning is past here
    for name in own['scores'].keys() - overlaps:
        assert other['scores'][name] == own['scores'][name], name
    assert 'test_F1_micro_tuned' in other['scores']  # at the checkpoint's thresholds


def test_bands_come_from_the_fine_tuning_then_the_pretraining_then_afresh(
    trainer, fine_tuned, pretrained, caplog
):
    bands = [*RADAR, *RGB, 'B11']
    task = unchanged(fine_tuned, bands, embeddings=str(pretrained))
    with caplog.at_level(logging.INFO):
        trainer().test(task, data(bands), verbose=False)
    (line,) = [m for m in caplog.messages if m.startswith('Unchanged: ')]
    assert 'bands with their weights: VV, VH;' in line
    assert f'from {pretrained}: B04, B03, B02;' in line
    assert 'fresh bands: B11 (sample: around the mean of 5 bands)' in line
    tuned, first = (
        torch.load(path, weights_only=True)['state_dict']
        for path in (fine_tuned, pretrained)
    )
    own = task.state_dict()
    for band in bands[:5]:
        source = tuned if band in RADAR else first
        name = f'model.spectral_embed.{band}'
        assert torch.equal(own[name], source[name]), band
    rest = [k for k in tuned if 'spectral_embed' not in k]
    assert all(torch.equal(own[name], tuned[name]) for name in rest)


def test_the_order_of_the_bands_does_not_matter(trainer, fine_tuned, pretrained):
    orders = [[*RADAR, *RGB], ['B02', 'VH', 'B04', 'VV', 'B03']]
    one, other = (
        probabilities(
            trainer,
            unchanged(fine_tuned, bands, embeddings=str(pretrained)),
            bands,
        )
        for bands in orders
    )
    assert (one - other).abs().max() < 1e-5
    alone = probabilities(trainer, unchanged(fine_tuned, RADAR), RADAR)
    assert (one - alone).abs().max() > 1e-4  # the further bands are read


@pytest.mark.parametrize('command', ['validate', 'predict'])
def test_nothing_is_trained_by_any_command(trainer, fine_tuned, pretrained, command):
    task = unchanged(fine_tuned, RGB, embeddings=str(pretrained))
    assert getattr(trainer(), command)(task, datamodule=data(RGB))
    tuned = torch.load(fine_tuned, weights_only=True)['state_dict']
    own = task.state_dict()
    assert torch.equal(own['model.head.weight'], tuned['model.head.weight'])
    trainer().test(task, data(RGB), verbose=False)
    assert torch.equal(task.thresholds, tuned['thresholds'])


def test_what_fine_tuning_and_pretraining_read_counts_as_read_before(
    trainer, fine_tuned, pretrained
):
    def scores(bands, **kwargs):
        task = unchanged(fine_tuned, bands, **kwargs)
        return trainer().test(task, data(bands), verbose=False)[0]

    assert scores(RADAR)['test_sensor_free'] == 0  # fine-tuned on it
    optical = scores(RGB, embeddings=str(pretrained))
    assert optical['test_sensor_free'] == optical['test_label_free'] == 0
    assert optical['test_patch_overlap'] == 0
    blank = fine_tuned.with_name('from_scratch.ckpt')
    content = torch.load(fine_tuned, weights_only=True)
    content[KEY]['inherited'] = []
    torch.save(content, blank)
    fine = UnchangedHead(str(blank), in_channels=3, bands=RGB, fresh_bands='index')
    free = trainer().test(fine, data(RGB), verbose=False)[0]
    assert free['test_sensor_free'] == free['test_overlap_free'] == 1


def test_patches_that_were_trained_on_are_refused(trainer, fine_tuned, pretrained):
    module = data(RGB)
    module.setup('fit')
    trained = module.record.patches

    class Leaking(BigEarthNetS1S2DataModule):
        def setup(self, stage):
            super().setup(stage)
            self.test_patches, self.test_patch_names = trained, None

    task = unchanged(fine_tuned, RGB, embeddings=str(pretrained))
    with pytest.raises(ValueError, match='test patches are patches whose labels'):
        trainer().test(task, Leaking(bands=RGB, size=32, batch_size=8))


@pytest.fixture(scope='module')
def files(folder, pretrained, fine_tuned):
    """What a user may give for the checkpoint by mistake."""
    stock = Classification(
        'resnet18', in_channels=2, task='multilabel', num_labels=19, loss='bce'
    )
    tuned = torch.load(fine_tuned, weights_only=True)
    wide = {f'spectral_embed.{band}': torch.zeros(8) for band in RGB}
    contents = {
        'stock': {'state_dict': stock.state_dict(), 'hyper_parameters': {}},
        'cut': {
            **tuned,
            'state_dict': {
                k: v for k, v in tuned['state_dict'].items() if 'blocks.3.attn' not in k
            },
        },
        'bare': tuned['state_dict'],
        'wide': wide,
    }
    state = {f'model.head.{n}': torch.zeros(19) for n in ('weight', 'bias')}
    contents['plain'] = {
        'state_dict': {**state, 'thresholds': torch.zeros(19)},
        'hyper_parameters': {'model': 'resnet18'},
    }
    for name, content in contents.items():
        torch.save(content, folder / f'{name}.ckpt')
    (folder / 'damaged.ckpt').write_bytes(b'not a checkpoint')
    return {
        'pretrained': pretrained,
        'fine_tuned': fine_tuned,
        'none': '',
        'gone': folder / 'gone.ckpt',
        **{name: folder / f'{name}.ckpt' for name in (*contents, 'damaged')},
    }


@pytest.mark.parametrize(
    ('weights', 'bands', 'options', 'words'),
    [
        ('none', RADAR, {}, 'weights is not given: give the checkpoint'),
        ('gone', RADAR, {}, r"gone.ckpt' is no file: give the checkpoint"),
        ('damaged', RADAR, {}, 'no checkpoint that can be read'),
        ('pretrained', RADAR, {}, 'is no checkpoint of CrossModalClassification'),
        ('stock', RADAR, {}, 'is no checkpoint of CrossModalClassification'),
        ('bare', RADAR, {}, 'is no checkpoint of CrossModalClassification'),
        ('plain', RADAR, {}, 'is of resnet18, whose first layer takes its own bands'),
        ('cut', RADAR, {}, 'lacks blocks.3.attn.* it is no whole checkpoint'),
        ('fine_tuned', RGB, {}, 'knows none of the bands B04, B03, B02, but VV, VH: '),
        ('fine_tuned', RGB, {'fresh_bands': 'random'}, 'knows none of the bands'),
        ('fine_tuned', RGB, {'fresh_bands': 'nearest'}, 'knows none of the bands'),
        (
            'fine_tuned',
            ['B11', 'B12'],
            {'embeddings': 'pretrained'},
            'knows none of the bands B11, B12, .* nor does embeddings',
        ),
        ('fine_tuned', RGB, {'embeddings': 'gone'}, 'gone.ckpt.* is neither a file'),
        ('fine_tuned', RGB, {'embeddings': 'wide'}, 'has 8 band embeddings, .* 192'),
        ('fine_tuned', RGB, {'embeddings': 'stock'}, 'has no band embeddings'),
        ('fine_tuned', [*RADAR, 'B11'], {'fresh_bands': 'near'}, "fresh_bands 'near'"),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(
    weights, bands, options, words, trainer, files
):
    given = {
        key: str(files[value]) if key == 'embeddings' else value
        for key, value in options.items()
    }
    task = unchanged(files[weights], bands, **given)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as told:
        trainer().test(task, data(bands))
    assert '\n' not in str(told.value)


def test_bands_of_the_data_and_the_test_have_to_agree(trainer, fine_tuned):
    with pytest.raises(ValueError, match='in the same order'):
        trainer().test(unchanged(fine_tuned, RADAR), data(['VH', 'VV']))


def test_training_and_a_checkpoint_beside_its_own_are_refused(trainer, fine_tuned):
    with pytest.raises(ValueError, match='never trains: use torchgeo test'):
        trainer().fit(unchanged(fine_tuned, RADAR), data(RADAR))
    with pytest.raises(ValueError, match='takes no --ckpt_path'):
        trainer().test(
            unchanged(fine_tuned, RADAR), data(RADAR), ckpt_path=str(fine_tuned)
        )


def test_the_overlay_tests_a_fine_tuning_from_the_command_line(
    fine_tuned, pretrained, conf, tmp_path
):
    args = [
        *('--config', str(conf / 'finetune.yaml')),
        *('--config', str(conf / 'paper' / 'bands' / 's1s2.yaml')),
        *('--config', str(conf / 'unchanged.yaml')),
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
    before = sorted((tmp_path / 'run').rglob('*'))
    content = torch.load(fine_tuned, weights_only=True)
    content['hyper_parameters'] = {  # as the command line notes them
        '_class_path': 'torchgeo_channelmae.tasks.CrossModalClassification',
        'model': MODEL,
    }
    torch.save(content, tmp_path / 'noted.ckpt')
    with pytest.raises(ValueError, match='this configuration is for UnchangedHead'):
        torchgeo_main(['test', *args, '--ckpt_path', str(tmp_path / 'noted.ckpt')])
    with pytest.raises(ValueError, match='never trains'):
        torchgeo_main(['fit', *args])
    assert sorted((tmp_path / 'run').rglob('*')) == before
