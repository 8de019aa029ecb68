"""The datamodule normalizes by name, sizes, augments repeatably and checks itself."""

import logging
import warnings
from collections import Counter
from types import SimpleNamespace

import lightning.pytorch as pl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins import Precision
from torchgeo.datasets import unbind_samples
from torchgeo.tasks import Classification

from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.datamodules.collate import collate
from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.provenance.record import patch_hashes
from torchgeo_channelmae.tasks import CrossModalClassification

VV = (-12.644, 5.133)  # the published mean and standard deviation, dB
B04 = (588.41, 684.57)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv('PL_GLOBAL_SEED', '5')
    monkeypatch.setattr(logging.getLogger('lightning.pytorch'), 'disabled', True)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
    plt.close('all')


def ready(stage='fit', training=None, epoch=0, **kwargs):
    """Set a datamodule up, in training if asked for."""
    kwargs = {'bands': ['VV', 'B04'], 'batch_size': 8} | kwargs
    datamodule = BigEarthNetS1S2DataModule(**kwargs)
    datamodule.setup(stage)
    if training is not None:
        datamodule.trainer = SimpleNamespace(
            training=training, current_epoch=epoch, precision_plugin=Precision()
        )
    return datamodule


def raw(count=8, split='train', bands=('VV', 'B04')):
    dataset = BigEarthNetLMDB(split=split, bands=bands)
    datamodule = BigEarthNetS1S2DataModule()
    return datamodule.collate_fn([dataset[i] for i in range(count)])


def by_hand(image):
    normalized = [
        (image[:, row] - mean) / std for row, (mean, std) in enumerate([VV, B04])
    ]
    return torch.stack(normalized, dim=1)


# What a batch is


def test_each_band_is_normalized_with_its_own_statistics():
    image = ready(size=120).on_after_batch_transfer(raw(), 0)['image']
    torch.testing.assert_close(image, by_hand(raw()['image']))


def test_the_default_is_all_of_sentinel2_at_128_px():
    datamodule = BigEarthNetS1S2DataModule(batch_size=4)
    datamodule.setup('validate')
    batch = next(iter(datamodule.val_dataloader()))
    image = datamodule.on_after_batch_transfer(batch, 0)['image']
    assert image.shape == (4, 12, 128, 128)
    assert image.dtype == torch.float32


def test_other_keys_pass_through():
    before = raw()
    after = ready(training=True).on_after_batch_transfer(dict(before), 0)
    assert set(after) == {'image', 'label', 'patch_id', 'index', 'visit'}
    assert torch.equal(after['label'], before['label'])
    assert torch.equal(after['index'], torch.arange(8))
    assert after['patch_id'] == before['patch_id']
    assert after['label'].dtype == torch.int64


def test_resizing_is_bilinear_on_pixel_edges():
    image = ready(size=128).on_after_batch_transfer(raw(), 0)['image']
    expected = F.interpolate(
        by_hand(raw()['image']), size=128, mode='bilinear', align_corners=False
    )
    torch.testing.assert_close(image, expected)


def test_padding_is_each_bands_mean_on_the_right_and_below():
    datamodule = ready(size=128, size_by='pad')
    image = datamodule.on_after_batch_transfer(raw(), 0)['image']
    torch.testing.assert_close(image[..., :120, :120], by_hand(raw()['image']))
    assert (image[..., 120:, :] == 0).all()
    assert (image[..., :, 120:] == 0).all()


def test_training_crops_are_windows_of_the_normalized_patch():
    datamodule = ready(training=True, size=64, size_by='crop')
    image = datamodule.on_after_batch_transfer(raw(), 0)['image']
    windows = by_hand(raw()['image']).unfold(2, 64, 1).unfold(3, 64, 1)
    corners = set()
    for crop, options in zip(image, windows, strict=True):
        matches = [
            (y, x)
            for flips in ((), (1,), (2,), (1, 2))
            for y, x in (
                # the first band's corner pixel narrows the windows down
                (options[0, ..., 0, 0] - crop.flip(flips)[0, 0, 0]).abs() < 1e-5
            ).nonzero()
            if torch.allclose(options[:, y, x], crop.flip(flips), atol=1e-4)
        ]
        assert matches
        corners.add(tuple(int(at) for at in matches[0]))
    assert len(corners) > 1


@pytest.mark.parametrize(
    ('size', 'size_by'), [(64, 'resize'), (64, 'crop'), (128, 'pad')]
)
def test_clip_pixels_clamps_what_training_would_see_without_it(size, size_by):
    def seen(**kwargs):
        datamodule = ready(training=True, size=size, size_by=size_by, **kwargs)
        return datamodule.on_after_batch_transfer(raw(), 0)['image']

    assert seen().abs().max() > 2
    assert torch.equal(seen(clip_pixels=1.5), seen().clamp(-1.5, 1.5))


def test_training_keeps_the_normalization_and_flips_some_patches():
    image = ready(training=True, size=120).on_after_batch_transfer(raw(), 0)['image']
    seen = set()
    for augmented, patch in zip(image, by_hand(raw()['image']), strict=True):
        options = {(): patch} | {f: patch.flip(f) for f in ((1,), (2,), (1, 2))}
        same = [
            flips
            for flips, option in options.items()
            if torch.allclose(augmented, option, atol=1e-5)
        ]
        assert len(same) == 1
        seen.add(same[0])
    assert len(seen) > 1


def test_without_augment_training_sees_what_validation_sees():
    datamodule = ready(training=True, augment=False, size=64, size_by='crop')
    image = datamodule.on_after_batch_transfer(raw(), 0)['image']
    datamodule.trainer.training = False
    assert torch.equal(image, datamodule.on_after_batch_transfer(raw(), 0)['image'])


def test_draws_depend_on_seed_epoch_and_patches_alone(monkeypatch):
    def augmented(epoch=0, count=8):
        datamodule = ready(training=True, epoch=epoch, size=64, size_by='crop')
        return datamodule.on_after_batch_transfer(raw(count), 0)['image']

    once = augmented()
    torch.rand(100)
    state = torch.random.get_rng_state()
    assert torch.equal(augmented(), once)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(augmented(epoch=1), once)
    assert not torch.equal(augmented(count=7), once[:7])
    monkeypatch.setenv('PL_GLOBAL_SEED', '6')
    assert not torch.equal(augmented(), once)


def test_a_batch_moves_between_devices_with_its_names():
    datamodule = ready()
    moved = datamodule.transfer_batch_to_device(raw(), torch.device('meta'), 0)
    assert moved['image'].device.type == 'meta'
    assert moved['patch_id'] == raw()['patch_id']
    assert list(moved['visit']) == list(range(8))


# What a stage has


@pytest.mark.parametrize(
    ('stage', 'expected'),
    [
        ('fit', {'train': 23, 'val': 15}),
        ('validate', {'val': 15}),
        ('test', {'test': 21}),
        ('predict', {'predict': 21}),
    ],
)
def test_a_stage_sets_up_its_splits_and_knows_the_training_frequencies(stage, expected):
    datamodule = ready(stage)
    assert datamodule.num_patches == expected
    table = pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')
    labels = table[table['split'] == 'train']['labels']
    for name, frequency in zip(
        datamodule.class_names, datamodule.train_class_frequencies.tolist(), strict=True
    ):
        assert frequency == pytest.approx(sum(name in row for row in labels) / 23)
    assert isinstance(datamodule.plot(next(iter(raw_samples(stage)))), plt.Figure)


def test_a_row_of_a_batch_is_plotted_in_physical_units():
    bands = ['B04', 'VV', 'B03', 'VH', 'B02']
    datamodule = ready(bands=bands, size=120)
    batch = next(iter(datamodule.val_dataloader()))
    batch = datamodule.on_after_batch_transfer(batch, 0)
    row = unbind_samples(batch)[1]
    expected = BigEarthNetLMDB(split='val', bands=bands)[1]['image']
    restored = datamodule.physical(row)['image']
    torch.testing.assert_close(restored, expected, rtol=1e-4, atol=0.01)
    assert not torch.allclose(row['image'], expected)
    for found, wanted in zip(
        shown_pixels(datamodule.plot(row)),
        shown_pixels(datamodule.plot(datamodule.val_dataset[1])),
        strict=True,
    ):
        assert abs(found - wanted).max() < 0.01


def shown_pixels(figure):
    return [panel.images[0].get_array() for panel in figure.axes if panel.images]


def raw_samples(stage):
    split = {'fit': 'train', 'validate': 'val'}.get(stage, 'test')
    return BigEarthNetLMDB(split=split, bands=['VV', 'B04'])


def test_any_split_can_be_predicted():
    assert ready('predict', predict_split='val').num_patches == {'predict': 15}


def test_training_batches_are_full_and_evaluation_visits_everything_in_order():
    datamodule = ready()
    assert [len(batch['index']) for batch in datamodule.train_dataloader()] == [8, 8]
    in_order = torch.cat([batch['index'] for batch in datamodule.val_dataloader()])
    assert in_order.tolist() == list(range(15))


# Which patches


def published(frame):
    """The sample's table with the columns of the published one."""
    rows = range(len(frame))
    return frame.assign(
        s2v1_name=[f'S2A_MSIL2A_20170613T101031_{row}_0' for row in rows],
        contains_seasonal_snow=[row % 2 == 0 for row in rows],
        contains_cloud_or_shadow=[False for row in rows],
    )


def test_filters_and_fractions_choose_patches(broken_sample):
    root = str(broken_sample(change_table=published))
    frame = pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')
    kept = frame[[row % 2 == 1 for row in range(len(frame))]]
    train = kept[(kept['split'] == 'train') & (kept['country'] == 'Finland')]
    options = {'exclude_snow': True, 'countries': ['Finland'], 'batch_size': 1}
    datamodule = ready(root=root, **options)
    assert datamodule.train_dataset.patch_ids == list(train['patch_id'])
    half = ready(root=root, train_fraction=0.5, **options).train_dataset.patch_ids
    assert len(half) == -(-len(train) // 2)
    assert set(half) < set(train['patch_id'])


@given(st.floats(0.001, 1), st.integers(1, 2), st.integers(1, 23))
def test_full_epochs_have_as_many_steps_at_every_fraction(share, ranks, batch):
    options = {'train_fraction': share, 'full_epochs': True, 'batch_size': batch}
    steps = 23 // ranks // batch
    datamodule = BigEarthNetS1S2DataModule(bands=['VV'], **options)
    datamodule.rank = lambda: (0, ranks)
    if not steps:
        with pytest.raises(ValueError, match='23 training samples'):
            datamodule.setup('fit')
        return
    datamodule.setup('fit')
    loader, kept = datamodule.train_dataloader(), len(datamodule.train_dataset)
    assert len(loader) == steps
    counts = Counter(number % kept for number in loader.sampler.order())
    assert set(counts.values()) <= {23 // kept, -(-23 // kept)}
    assert len(counts) == kept


def test_a_full_epoch_of_all_labels_is_the_ordinary_one():
    options = {'size': 32, 'batch_size': 4}
    assert fit(2, full_epochs=True, **options) == fit(2, **options)


def test_a_fraction_of_the_validation_patches_validates_at_any_stage():
    for stage in ('fit', 'validate'):
        assert ready(stage, val_label_fraction=0.3).num_patches['val'] == 5
    assert ready('test', val_label_fraction=0.3).num_patches == {'test': 21}


def test_countries_left_out_of_training_test():
    options = {'split_by': 'country', 'test_countries': ['Austria'], 'batch_size': 1}
    tested = ready('test', **options).test_dataset.table
    trained = ready('fit', **options)
    assert set(tested.countries.tolist()) == {'Austria'}
    assert len(tested) == 23
    others = [trained.train_dataset.table, trained.val_dataset.table]
    assert sum(map(len, others)) == 36
    assert not any('Austria' in table.countries.tolist() for table in others)


def test_frequencies_are_those_of_the_patches_chosen():
    datamodule = ready('test', split_by='country', test_countries=['Austria'])
    table = datamodule.table
    expected = table.labels[torch.from_numpy(table.split == 'train')].double().mean(0)
    torch.testing.assert_close(
        datamodule.train_class_frequencies.double(), expected, atol=1e-6, rtol=0
    )


def test_another_version_than_asked_for_is_refused(broken_sample):
    def v2_only(frame):
        return frame[frame['version'] == 'v2']

    root = str(broken_sample(change_table=v2_only))
    assert ready('test', root=root, version='v2', test_groups=1).num_patches['test']
    with pytest.raises(ValueError, match='BigEarthNet v1'):
        ready('test', root=root, version='v1')


# What was read


def test_the_record_says_what_training_reads():
    datamodule = ready()
    record = datamodule.record
    frame = pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')
    train = frame[frame['split'] == 'train']
    assert record.bands == ('VV', 'B04')
    assert record.sensors == ('Sentinel-1 GRD', 'Sentinel-2 L2A')
    tiles = sorted({name.split('_')[-3] for name in train['s1_name']})
    assert list(record.tiles) == tiles
    assert record.labels_steered is False
    names = train['patch_id'].to_numpy(dtype='S')
    assert set(record.patches.tolist()) == set(patch_hashes(names).tolist())


def test_a_test_knows_its_tiles_and_its_patches_names_in_v1(broken_sample):
    datamodule = ready('test', root=str(broken_sample(change_table=published)))
    table = datamodule.test_dataset.table
    assert [
        f'_{tile}_' in name.decode()
        for tile, name in zip(datamodule.test_facts.tiles, table.s1_names, strict=True)
    ] == [True] * 21
    by_version = [patch_hashes(column) for column in (table.s2_names, table.v1_names)]
    assert torch.equal(datamodule.test_facts.patches, torch.stack(by_version, dim=1))


# Patches that can't be read


def cut_short(key, value):
    return value[:9000] if key == FIRST_TRAIN else value


FIRST_TRAIN = str(
    pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')
    .query("split == 'train'")['patch_id']
    .iloc[0]
)


@pytest.mark.parametrize('workers', [0, 2])
def test_patches_skipped_are_counted_and_listed(broken_sample, tmp_path, workers):
    datamodule = BigEarthNetS1S2DataModule(
        root=str(broken_sample(cut_short)),
        bands=['B04', 'B08'],
        size=32,
        batch_size=23,
        num_workers=workers,
        on_error='skip',
    )
    module = Recorder()
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator='cpu',
        logger=CSVLogger(tmp_path),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        trainer.fit(module, datamodule)
    assert [len(seen) for _, seen, _ in module.seen] == [22, 22]
    listed = pd.read_csv(next(tmp_path.rglob('skipped.csv')))
    assert listed['stage'].tolist() == ['fit']
    assert listed['patch_id'].tolist() == [FIRST_TRAIN]
    assert FIRST_TRAIN in listed['reason'][0]
    said = [str(warning.message) for warning in caught]
    assert sum(line.startswith(f'Skipped patch {FIRST_TRAIN}') for line in said) == 1
    assert any('1 patches could not be read' in line for line in said)


def test_every_stage_of_a_run_adds_what_it_skipped_to_one_list(tmp_path):
    datamodule = ready()
    datamodule.trainer = SimpleNamespace(
        log_dir=str(tmp_path / 'run'), loggers=[], global_rank=0, world_size=1
    )
    for stage, name in [('fit', 'a'), ('test', 'b'), ('test', 'b'), ('test', 'a')]:
        datamodule.skipped = {name: f'{name}, "cut" short'}
        datamodule.teardown(stage)
    listed = pd.read_csv(tmp_path / 'run' / 'skipped.csv')
    assert listed.to_numpy().tolist() == [
        ['fit', 'a', 'a, "cut" short'],
        ['test', 'b', 'b, "cut" short'],
        ['test', 'a', 'a, "cut" short'],
    ]


def first_val(frame):
    return str(frame.query("split == 'validation'")['patch_id'].iloc[-1])


def test_a_batch_of_which_all_are_skipped_is_passed_over_in_validation(
    broken_sample, tmp_path
):
    last = first_val(pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet'))
    root = broken_sample(lambda key, value: value[:9000] if key == last else value)
    datamodule = BigEarthNetS1S2DataModule(
        root=str(root), bands=['B04', 'B08'], size=32, batch_size=7, on_error='skip'
    )  # the last of 15 is alone in its batch
    task = CrossModalClassification(
        model='channelmae_tiny_patch16', bands=['B04', 'B08'], size=32
    )
    trainer = pl.Trainer(
        accelerator='cpu',
        logger=False,
        barebones=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path / 'run',
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        scores = trainer.validate(task, datamodule, verbose=False)
    assert scores[0]['val_loss'] > 0
    listed = pd.read_csv(tmp_path / 'run' / 'skipped.csv')
    assert listed['patch_id'].tolist() == [last]
    assert any('1 patches could not be read' in str(w.message) for w in caught)


def test_a_batch_of_which_all_are_skipped_ends_training():
    datamodule = ready(training=True)
    batch = collate([{'patch_id': 'a', 'index': 0, 'skipped': 'It is cut short.'}])
    with pytest.raises(ValueError, match=r'All 1 patches of a batch .*cut short'):
        datamodule.on_after_batch_transfer(batch, 0)


@pytest.mark.parametrize(('size_by', 'size'), [('pad', 128), ('crop', 96)])
def test_coarse_bands_alone_are_on_the_same_grid_as_with_fine_ones(size_by, size):
    images = []
    for bands in (['B05', 'B12'], ['B05', 'B12', 'B04']):
        datamodule = ready(bands=bands, size=size, size_by=size_by)
        samples = [datamodule.val_dataset[row] for row in range(4)]
        batch = datamodule.finish(datamodule.collate_fn(samples), training=False)
        images.append(batch['image'])
    assert torch.equal(images[0], images[1][:, :2])


# Wrong arguments


@pytest.mark.parametrize(
    ('wrong', 'named'),
    [
        ({'size': 0}, 'size is 0'),
        ({'size': 128, 'size_by': 'crop'}, '120 px'),
        ({'size': 64, 'size_by': 'pad'}, '120 px'),
        ({'size_by': 'stretch'}, 'stretch'),
        ({'samples_per_epoch': 0}, 'samples_per_epoch'),
        ({'clip_pixels': 0.0}, r'clip_pixels is 0.0. Use more than 0 standard'),
        ({'clip_pixels': float('nan')}, 'clip_pixels is nan'),
        ({'num_workers': -1}, 'num_workers'),
        ({'test_groups': 0}, 'test_groups'),
        ({'test_group_seeds': [1, 1]}, 'test_group_seeds'),
        ({'predict_split': 'all'}, "predict_split 'all'"),
        ({'max_nonfinite': 2}, 'max_nonfinite'),
        ({'on_error': 'ignore'}, 'ignore'),
        ({'version': 'v3'}, 'v3'),
        ({'split_by': 'scene'}, 'scene'),
        ({'train_fraction': 0}, 'train_fraction'),
        ({'full_epochs': True, 'samples_per_epoch': 9}, 'full_epochs and samples'),
        ({'bands': ['vv']}, "'VV'"),
        ({'bands': []}, 'band'),
        ({'bands': 'B04'}, 'B04'),
        ({'bands': ['VV', 'VV']}, 'VV'),
        ({'countries': 'Finland'}, 'Finland'),
    ],
)
def test_a_wrong_argument_is_an_error_of_the_constructor(wrong, named):
    with pytest.raises(ValueError, match=named):
        BigEarthNetS1S2DataModule(**wrong)


@pytest.mark.parametrize(
    ('stage', 'wrong', 'named'),
    [
        ('fit', {'batch_size': 64}, r'batch_size=64 .* 23 training samples'),
        ('fit', {'train_fraction': 0.1}, r'batch_size=8 .* 3 training samples'),
        ('fit', {'batch_size': 16, 'samples_per_epoch': 10}, 'samples_per_epoch'),
        ('test', {'test_groups': 22}, 'test_groups is 22'),
        ('fit', {'exclude_snow': True}, 'exclude_snow'),
        ('fit', {'countries': ['Atlantis']}, 'Atlantis'),
    ],
)
def test_an_argument_that_does_not_fit_the_data_is_an_error_of_setup(
    stage, wrong, named
):
    with pytest.raises(ValueError, match=named):
        ready(stage, **wrong)


# Under a trainer


class Recorder(pl.LightningModule):
    """Learns nothing and remembers the batches."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        pixels = batch['image'][:, 0, 0, 0].tolist()
        self.seen.append((self.current_epoch, batch['index'].tolist(), pixels))
        return self.layer(batch['image'].mean().reshape(1)).sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(epochs, folder=None, checkpoint=None, when=(), **kwargs):
    kwargs = {'size': 32, 'size_by': 'crop', 'bands': ['VV'], 'batch_size': 8} | kwargs
    saving = {'enable_checkpointing': False}
    if folder is not None:
        saving = {'callbacks': [ModelCheckpoint(folder, save_last=True, **dict(when))]}
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator='cpu',
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **saving,
    )
    module = Recorder()
    trainer.fit(module, BigEarthNetS1S2DataModule(**kwargs), ckpt_path=checkpoint)
    return module.seen


@pytest.mark.parametrize(
    ('when', 'num_workers'),
    [
        ({'save_on_train_epoch_end': True}, 2),
        ({'save_on_train_epoch_end': False}, 0),  # in the validation that ends an epoch
        ({'every_n_train_steps': 2}, 0),  # after an epoch's last step
    ],
)
def test_a_resumed_run_sees_what_an_uninterrupted_one_does(tmp_path, when, num_workers):
    whole = fit(3, num_workers=num_workers)
    assert [epoch for epoch, _, _ in whole] == [0, 0, 1, 1, 2, 2]
    assert whole[0][1:] != whole[2][1:] != whole[4][1:]
    start = fit(2, folder=tmp_path, when=when, num_workers=num_workers)
    rest = fit(3, checkpoint=tmp_path / 'last.ckpt', num_workers=num_workers)
    assert start + rest == whole


def test_a_full_epoch_of_few_labels_is_resumed_inside_it(tmp_path):
    few = {'train_fraction': 0.2, 'full_epochs': True, 'batch_size': 5}
    whole = fit(2, folder=tmp_path, when={'every_n_train_steps': 3}, **few)
    assert [epoch for epoch, _, _ in whole] == [0] * 4 + [1] * 4
    assert len({number % 5 for _, numbers, _ in whole for number in numbers}) == 5
    assert fit(2, checkpoint=tmp_path / 'last.ckpt', **few) == whole[6:]
    with pytest.raises(ValueError, match='samples_per_epoch 23, not None'):
        fit(2, checkpoint=tmp_path / 'last.ckpt', train_fraction=0.2, batch_size=5)


def test_ranks_share_an_epoch():
    seen = []
    for rank in range(2):
        datamodule = BigEarthNetS1S2DataModule(bands=['VV'], batch_size=11)
        datamodule.setup('fit')
        datamodule.trainer = SimpleNamespace(
            global_rank=rank, world_size=2, train_dataloader=None
        )
        (batch,) = datamodule.train_dataloader()
        seen += batch['index'].tolist()
    assert len(set(seen)) == 22


def test_the_stock_classification_task_trains_plots_tests_and_predicts(tmp_path):
    task = Classification(
        model='resnet18', in_channels=2, task='multilabel', num_labels=19, loss='bce'
    )
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator='cpu',
        logger=TensorBoardLogger(tmp_path),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    datamodule = BigEarthNetS1S2DataModule(
        bands=['VV', 'VH'], batch_size=8, size=32, size_by='crop'
    )
    trainer.fit(task, datamodule)
    assert trainer.global_step == 2
    assert 'test_loss' in trainer.test(task, datamodule, verbose=False)[0]
    predictions = trainer.predict(task, datamodule)
    assert torch.cat(predictions).shape == (21, 19)


def test_a_test_tells_tile_scene_and_country_of_each_patch_in_the_order_of_samples():
    data = BigEarthNetS1S2DataModule(bands=['VV', 'VH'])
    data.setup('test')
    table = pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet').set_index('patch_id')
    frame = data.test_facts.frame
    assert frame.index.tolist() == [
        data.test_dataset[row]['patch_id'] for row in range(len(data.test_dataset))
    ]
    assert frame['country'].tolist() == table.loc[frame.index, 'country'].tolist()
    radar = table.loc[frame.index, 's1_name'].str.split('_')
    assert frame['tile'].tolist() == radar.str[5].tolist()
    for patch, scene in frame['acquisition'].items():
        row_and_column = patch.removeprefix(scene).split('_')
        assert row_and_column[0] == ''
        assert len(row_and_column) == 3
        assert all(part.isdigit() for part in row_and_column[1:])
