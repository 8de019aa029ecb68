"""Augmentations in training, whatever the datamodule."""

import pytest
import torch
from kornia.augmentation import RandomHorizontalFlip
from lightning.pytorch import Callback, Trainer
from torchgeo.datamodules import EuroSATDataModule
from torchgeo.main import main
from torchgeo.tasks import Classification

from tests.fabricate import eurosat
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.tasks import CrossModalClassification
from torchgeo_channelmae.transforms import (
    AugmentBatches,
    RandomBandDropout,
    RandomBandGain,
    RandomHaze,
    RandomSpeckle,
)


class Watch(Callback):
    """Keeps the images that the model gets."""

    def __init__(self):
        self.train, self.val = [], []

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        self.train.append(batch['image'].clone())

    def on_validation_batch_start(self, trainer, task, batch, batch_idx, *args):
        self.val.append(batch['image'].clone())


def trainer_of(folder, *callbacks, **kwargs):
    return Trainer(
        **{
            'accelerator': 'cpu',
            'devices': 1,
            'default_root_dir': folder,
            'max_epochs': 2,
            'enable_progress_bar': False,
            'enable_model_summary': False,
            'logger': False,
            'callbacks': list(callbacks),
            'num_sanity_val_steps': 0,
            **kwargs,
        }
    )


def seen(folder, *augmentations, ckpt_path=None, bands=('VV', 'VH'), **kwargs):
    """What a small task is trained and validated on."""
    watch = Watch()
    callbacks = [AugmentBatches([*augmentations])] if augmentations else []
    trainer = trainer_of(folder, *callbacks, watch, **kwargs)
    data = BigEarthNetS1S2DataModule(bands=list(bands), size=32, batch_size=8)
    task = CrossModalClassification(
        'channelmae_tiny_patch16', in_channels=len(bands), bands=list(bands), size=32
    )
    trainer.fit(task, data, ckpt_path=ckpt_path)
    return trainer, watch


def test_training_is_augmented_after_normalization_and_validation_is_not(tmp_path):
    _, plain = seen(tmp_path)
    _, dropped = seen(tmp_path, RandomBandDropout((1, 1)))
    assert len(plain.train) == len(dropped.train) == 4
    for before, after in zip(plain.train, dropped.train, strict=True):
        gone = (after == 0).flatten(2).all(2)
        assert (gone.sum(1) == 1).all()
        assert torch.equal(after, before.masked_fill(gone[:, :, None, None], 0))
    for before, after in zip(plain.val, dropped.val, strict=True):
        assert torch.equal(after, before)


def test_statistics_come_from_the_datamodule(tmp_path):
    haze, speckle = RandomHaze((0.5, 0.5)), RandomSpeckle((2, 2))
    trainer, _ = seen(tmp_path, haze, speckle, bands=('B02', 'VH', 'B08'), max_epochs=1)
    for augmentation in (haze, speckle):
        assert augmentation.bands == ('B02', 'VH', 'B08')
        assert torch.equal(augmentation.std, trainer.datamodule.std)
        assert torch.equal(augmentation.mean, trainer.datamodule.mean)


def test_the_draws_of_others_are_left_alone(tmp_path):
    """A model's own draws are the same with and without augmentation."""
    callback = AugmentBatches([RandomBandGain()])
    trainer, task = trainer_of(tmp_path), Classification('resnet18', num_classes=2)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    callback.on_train_batch_start(trainer, task, {'image': torch.ones(2, 2, 4, 4)}, 0)
    assert torch.equal(torch.rand(3), expected)


def test_torchgeos_own_datamodule_keeps_its_normalization(tmp_path):
    for split in ('train', 'val', 'test'):
        eurosat(tmp_path, places=((9.0, 50.0),) * 4, split=split)
    watch, plain = Watch(), Watch()
    for callbacks in (
        [AugmentBatches([RandomBandGain((2, 2), (1, 1))]), watch],
        [plain],
    ):
        data = EuroSATDataModule(batch_size=2, root=tmp_path)
        task = Classification('resnet18', in_channels=13, num_classes=10)
        torch.manual_seed(0)
        trainer_of(tmp_path, *callbacks, max_epochs=1).fit(task, data)
    assert plain.train
    torch.manual_seed(0)
    for before, after in zip(plain.train, watch.train, strict=True):
        torch.testing.assert_close(after, 2 * before + 1)


def test_augmentations_of_a_configuration_are_found_by_short_or_dotted_name(tmp_path):
    callback = AugmentBatches(
        [
            {'class_path': 'RandomBandGain', 'init_args': {'gain': [2, 2]}},
            {'class_path': 'torchgeo_channelmae.transforms.RandomHaze'},
            {'class_path': 'RandomHorizontalFlip', 'init_args': {'p': 1.0}},
        ]
    )
    callback.setup(trainer_of(tmp_path), None, 'fit')
    one, two, three = callback.augmentations
    assert isinstance(one, RandomBandGain)
    assert one.gain == (2, 2)
    assert isinstance(two, RandomHaze)
    assert isinstance(three, RandomHorizontalFlip)
    x = images = torch.randn(2, 2, 4, 4)
    batch = {'image': x}
    callback.augmentations = [one, three]
    callback.on_train_batch_start(trainer_of(tmp_path), None, batch, 0)
    shift = batch['image'] - 2 * images.flip(-1)
    torch.testing.assert_close(shift, shift[:, :, :1, :1].expand_as(shift))


@pytest.mark.parametrize(
    ('name', 'arguments', 'named'),
    [
        ('RandomBandGain', {'gain': [-0.5, 1.2]}, 'gain of RandomBandGain'),
        ('RandomBandGain', {'loss': 1}, "'loss'"),
        ('RandomBandGian', {}, 'RandomBandGian'),
    ],
)
def test_a_wrong_augmentation_of_a_configuration_is_one_sentence(
    name, arguments, named, tmp_path
):
    callback = AugmentBatches([{'class_path': name, 'init_args': arguments}])
    with pytest.raises((ValueError, TypeError), match=named) as error:
        callback.setup(trainer_of(tmp_path), None, 'fit')
    assert '\n' not in str(error.value)


def test_augmentations_that_do_not_fit_the_batches_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'image'"):
        AugmentBatches().on_train_batch_start(trainer_of(tmp_path), None, {'x': 1}, 0)
    with pytest.raises(ValueError, match=r'B02.*VV'):
        seen(tmp_path, RandomBandGain(bands=['B02']))


def test_the_overlay_trains_over_a_configuration(conf, tmp_path, monkeypatch, shallow):
    monkeypatch.chdir(tmp_path)
    options = ['--trainer.max_epochs=1', '--trainer.limit_train_batches=2']
    configs = [conf / 'finetune.yaml', conf / 'augment.yaml']
    asked = [part for path in configs for part in ('--config', str(path))]
    weights = '--model.init_args.weights=null'
    main(['fit', *asked, *map(str, shallow), *options, weights])
    assert (tmp_path / 'runs/finetune/last.ckpt').exists()
