"""Fine-tuning on some of the bands at a time."""

import numpy as np
import pytest
import timm
import torch
from lightning.pytorch import Callback
from scipy import stats

from tests.transforms.test_augment import trainer_of
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.sensors import SENTINEL2_L2A, names
from torchgeo_channelmae.tasks import ChannelMAE, CrossModalClassification
from torchgeo_channelmae.transforms import AugmentBatches, SampleBands
from torchgeo_channelmae.transforms.band_sampling import sample_bands

BANDS = names(SENTINEL2_L2A)


def test_counts_are_uniform_and_sets_of_a_count_are_too():
    drawn = [sample_bands(BANDS[:4], 1, (), step).tolist() for step in range(6000)]
    counts = np.bincount([len(each) for each in drawn], minlength=5)[1:]
    assert stats.chisquare(counts).pvalue > 1e-3
    pairs = [tuple(each) for each in drawn if len(each) == 2]
    assert len(set(pairs)) == 6
    counts = np.unique(pairs, axis=0, return_counts=True)[1]
    assert stats.chisquare(counts).pvalue > 1e-3
    assert all(each == sorted(set(each)) for each in drawn)


def test_a_draw_depends_on_the_step_alone():
    torch.manual_seed(1)
    first = [sample_bands(BANDS, 2, ['B8A'], step).tolist() for step in range(20)]
    torch.manual_seed(2)
    again = [sample_bands(BANDS, 2, ['B8A'], step).tolist() for step in range(20)]
    assert first == again
    assert all(BANDS.index('B8A') in each and len(each) >= 2 for each in first)
    assert len({tuple(each) for each in first}) > 10


def test_a_model_on_chosen_bands_is_the_model_of_these_bands():
    torch.manual_seed(0)
    some = ['B08', 'B02', 'B11']
    name, options = 'channelmae_tiny_patch16', {'num_classes': 3, 'depth': 2}
    model = timm.create_model(name, bands=BANDS, **options).eval()
    small = timm.create_model(name, bands=some, **options).eval()
    small.load_state_dict(
        {k: v for k, v in model.state_dict().items() if k in small.state_dict()}
    )
    x = torch.randn(2, 3, 48, 64)
    model.choose_bands(some)
    torch.testing.assert_close(model(x), small(x))
    visible = torch.tensor([[0, 5, 20], [3, 4, 30]])
    torch.testing.assert_close(model.encode(x, visible), small.encode(x, visible))
    maps = model.forward_intermediates(x, intermediates_only=True)[-1]
    torch.testing.assert_close(
        maps, small.forward_intermediates(x, intermediates_only=True)[-1]
    )
    with pytest.raises(ValueError, match='B08, B02, B11'):
        model(torch.randn(2, 12, 64, 64))
    model.choose_bands(None)
    assert model(torch.randn(2, 12, 64, 64)).shape == (2, 3)


def test_every_band_has_a_gradient_for_processes_to_share():
    model = timm.create_model('channelmae_tiny_patch16', bands=BANDS, depth=1)
    model.choose_bands(['B02'])
    model(torch.randn(1, 1, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in model.spectral_embed.values())
    assert not model.spectral_embed['B03'].grad.any()
    assert model.spectral_embed['B02'].grad.any()


class Watch(Callback):
    def __init__(self):
        self.train, self.val = [], []

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        self.train.append((batch['image'].shape[1], task.model.num_chosen))

    def on_validation_batch_start(self, trainer, task, batch, batch_idx, *args):
        self.val.append((batch['image'].shape[1], task.model.num_chosen))


def fit(folder, sample, task=None, bands=BANDS, also=()):
    watch = Watch()
    trainer = trainer_of(folder, sample, *also, watch, limit_train_batches=4)
    data = BigEarthNetS1S2DataModule(
        bands=list(bands), size=32, batch_size=4, samples_per_epoch=16
    )
    task = task or CrossModalClassification(
        'channelmae_tiny_patch16', in_channels=len(bands), bands=list(bands), size=32
    )
    trainer.fit(task, data)
    return task, watch


def test_training_sees_some_bands_and_validation_all(tmp_path):
    task, watch = fit(tmp_path, SampleBands(min_bands=2))
    expected = [len(sample_bands(BANDS, 2, (), step)) for step in range(8)]
    assert watch.train == [(count, count) for count in expected]
    assert set(watch.val) == {(12, 12)}
    assert task.model.num_chosen == 12


@pytest.mark.parametrize(
    ('least', 'protect', 'named'),
    [(3, (), 'min_bands is 3'), (0, (), 'min_bands is 0'), (1, ['B02'], "'B02'")],
)
def test_bands_that_are_not_there_are_refused(least, protect, named):
    with pytest.raises(ValueError, match=named):
        sample_bands(('VV', 'VH'), least, protect, 0)


def test_other_tasks_and_models_are_refused(tmp_path):
    for task in (
        ChannelMAE(
            'channelmae_tiny_patch16', bands=['VV', 'VH'], in_channels=2, size=32
        ),
        CrossModalClassification('resnet18', bands=['VV', 'VH'], drop_path=0, size=32),
    ):
        with pytest.raises(ValueError, match='SampleBands'):
            fit(tmp_path, SampleBands(), task, ('VV', 'VH'))


def test_sampling_bands_before_augmenting_all_of_them_is_refused(tmp_path):
    with pytest.raises(ValueError, match='AugmentBatches first'):
        fit(tmp_path, SampleBands(), bands=('VV', 'VH'), also=[AugmentBatches()])
