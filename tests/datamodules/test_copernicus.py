"""Copernicus-Bench's BigEarthNet comes by name, with labels in TorchGeo's order."""

import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from torchgeo.datasets import (
    BigEarthNet,
    CopernicusBenchBigEarthNetS2,
    unbind_samples,
)

from torchgeo_channelmae import sensors
from torchgeo_channelmae.datamodules.copernicus import (
    CopernicusBenchBigEarthNetDataModule,
)
from torchgeo_channelmae.datasets.copernicus import CopernicusBenchBigEarthNet
from torchgeo_channelmae.provenance.record import patch_hashes

S2 = CopernicusBenchBigEarthNet.s2_bands
CLASSES = BigEarthNet.class_sets[19]
COUNTS = {'train': 5, 'val': 3, 'test': 4}
TILES = {'train': '29UPU', 'val': '33UUP', 'test': '35VNK'}


def value(split, row, band):
    """What every pixel of a band is."""
    patch = 100 * list(COUNTS).index(split) + 10 * row
    if band in S2:
        return 1000 + 1000 * S2.index(band) // 10 + patch
    return {'VV': -8, 'VH': -15}[band] - 0.5 * row


def names(split, row):
    day = f'201804{20 + list(COUNTS).index(split)}T063852'
    s1 = f'S1A_IW_GRDH_1SDV_{day}_{TILES[split]}_7_{row}'
    s2 = f'S2B_MSIL2A_{day}_N9999_R123_T{TILES[split]}_07_{row:02}'
    return s1, s2


def labels(split, row):
    """Patch r has the classes r and r + 3."""
    return {CLASSES[row], CLASSES[row + 3]}


def paths(split, row):
    """Where TorchGeo's rows say that the two files are."""
    found = []
    for name, cut in zip(names(split, row), (3, 2), strict=True):
        scene = name.rsplit('_', cut)[0]
        found.append(f'{scene}/{name}/{name}_allbands.tif')
    return found


def write(path, pixels, names=None, nodata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    with rasterio.open(
        path,
        'w',
        'GTiff',
        width=width,
        height=height,
        count=count,
        dtype=pixels.dtype,
        crs='EPSG:32629',
        transform=from_origin(692400, 5892840, 10, 10),
        nodata=nodata,
    ) as file:
        file.write(pixels)
        file.descriptions = names or [None] * count


def constant(split, row, bands, dtype):
    values = np.array([value(split, row, band) for band in bands])
    return np.broadcast_to(values[:, None, None], (len(bands), 120, 120)).astype(dtype)


@pytest.fixture(scope='session')
def untouched(tmp_path_factory):
    """Copernicus-Bench in its layout, a constant a band, columns by the alphabet."""
    root = tmp_path_factory.mktemp('copernicus')
    folder = root / 'bigearthnet_s1s2'
    for split, count in COUNTS.items():
        rows = []
        for row in range(count):
            s1, s2 = paths(split, row)
            write(
                folder / 'BigEarthNet-S1-5%' / s1,
                constant(split, row, ('VV', 'VH'), 'float32'),
            )
            write(folder / 'BigEarthNet-S2-5%' / s2, constant(split, row, S2, 'uint16'))
            hot = {name: int(name in labels(split, row)) for name in sorted(CLASSES)}
            rows.append({'s1_path': s1, 's2_path': s2} | hot)
        pd.DataFrame(rows).to_csv(folder / f'multilabel-{split}.csv', index=False)
    return root


@pytest.fixture
def root(untouched, tmp_path):
    """A copy to damage; files are links until they are replaced."""
    for path in untouched.rglob('*'):
        target = tmp_path / path.relative_to(untouched)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif path.suffix == '.csv':
            target.write_bytes(path.read_bytes())
        else:
            target.symlink_to(path)
    return tmp_path


def file_of(root, split, row, sensor):
    folder = root / 'bigearthnet_s1s2' / f'BigEarthNet-S{sensor}-5%'
    return folder / paths(split, row)[sensor - 1]


def replace(root, split, row, sensor, pixels, **kwargs):
    path = file_of(root, split, row, sensor)
    path.unlink()
    write(path, pixels, **kwargs)


def change_table(root, change, split='train'):
    path = root / 'bigearthnet_s1s2' / f'multilabel-{split}.csv'
    change(pd.read_csv(path)).to_csv(path, index=False)


def ready(root, stage='fit', **kwargs):
    kwargs = {'bands': ['VH', 'B04', 'VV'], 'batch_size': 2, 'size': 120} | kwargs
    datamodule = CopernicusBenchBigEarthNetDataModule(str(root), **kwargs)
    datamodule.setup(stage)
    return datamodule


# Samples


@pytest.mark.parametrize(
    'bands', [S2, ('VV', 'VH'), ('VH', 'B8A', 'VV', 'B02'), ('VH',), ('B12', 'B01')]
)
@pytest.mark.parametrize('native', [False, True])
def test_bands_of_one_sensor_or_both_come_by_name(untouched, bands, native):
    for split in COUNTS:
        dataset = CopernicusBenchBigEarthNet(untouched, split, bands, native=native)
        for row in range(COUNTS[split]):
            sample = dataset[row]
            if native:
                pixels = {
                    band: stack
                    for group, stacks in sample['native'].items()
                    for band, stack in zip(group, stacks, strict=True)
                }
            else:
                assert sample['image'].dtype == torch.float32
                pixels = dict(zip(bands, sample['image'].numpy(), strict=True))
            assert set(pixels) == set(bands)
            for band in bands:
                assert pixels[band].shape == (120, 120)
                assert (pixels[band] == value(split, row, band)).all()


def test_a_sample_has_the_keys_of_every_bigearthnet(untouched):
    sample = CopernicusBenchBigEarthNet(untouched, 'val')[2]
    assert set(sample) == {'image', 'label', 'patch_id', 'index'}
    assert sample['patch_id'] == names('val', 2)[1]
    assert sample['index'] == 2
    assert sample['label'].dtype == torch.int64


def test_the_order_of_the_classes_is_torchgeos():
    assert CopernicusBenchBigEarthNet.classes == tuple(CLASSES)
    assert CopernicusBenchBigEarthNetS2.classes == tuple(CLASSES)


@pytest.mark.parametrize('named', [True, False])
def test_labels_follow_the_names_of_their_columns(root, named):
    if not named:  # as TorchGeo takes them, by position

        def number(table):
            table = table[['s1_path', 's2_path', *CLASSES]]
            return table.set_axis([str(i) for i in range(21)], axis=1)

        change_table(root, number)
    dataset = CopernicusBenchBigEarthNet(root, 'train')
    for row in range(5):
        found = {CLASSES[i] for i in dataset[row]['label'].nonzero().flatten()}
        assert found == labels('train', row)


def test_pixels_are_those_of_torchgeos_dataset(untouched):
    bands = ('B11', 'B02')
    stock = CopernicusBenchBigEarthNetS2(untouched, 'train', bands)
    ours = CopernicusBenchBigEarthNet(untouched, 'train', bands)
    assert len(stock) == len(ours) == 5
    for one, other in zip(stock, ours, strict=True):
        assert torch.equal(one['image'], other['image'])


def test_a_file_that_names_its_bands_is_read_by_those_names(root):
    pixels = constant('train', 1, ('VH', 'VV'), 'float32')
    replace(root, 'train', 1, 1, pixels, names=['VH', 'VV'])
    sample = CopernicusBenchBigEarthNet(root, bands=['VV', 'VH'])[1]
    assert sample['image'][:, 0, 0].tolist() == [-8.5, -15.5]


def test_counts_that_are_stored_as_floats_are_read(root):
    replace(root, 'train', 0, 2, constant('train', 0, S2, 'float32'))
    image = CopernicusBenchBigEarthNet(root, bands=['B04'])[0]['image']
    assert (image == value('train', 0, 'B04')).all()


def test_counts_that_are_no_counts_are_an_error(root):
    replace(root, 'train', 0, 2, constant('train', 0, S2, 'float32') + 0.5)
    with pytest.raises(ValueError, match='float32, expected 120 x 120 uint16'):
        CopernicusBenchBigEarthNet(root, bands=['B04'])[0]


@pytest.mark.parametrize(
    ('dtype', 'bad', 'nodata'), [('uint16', 65535, 65535), ('float32', np.nan, None)]
)
def test_no_data_in_one_optical_band_is_an_error_and_never_dark(
    root, dtype, bad, nodata
):
    pixels = constant('train', 0, S2, dtype)
    pixels[S2.index('B04'), 0, :7] = bad
    replace(root, 'train', 0, 2, pixels, nodata=nodata)
    dataset = CopernicusBenchBigEarthNet(root, bands=['B04', 'B03'])
    with pytest.raises(ValueError, match='has 7 pixels without data that are not 0'):
        dataset[0]
    assert CopernicusBenchBigEarthNet(root, bands=['B03'])[0]['image'].all()


@pytest.mark.parametrize(('bad', 'nodata'), [(np.nan, None), (-99.0, -99.0)])
def test_few_pixels_without_data_are_filled_and_many_are_an_error(root, bad, nodata):
    pixels = constant('train', 3, ('VV', 'VH'), 'float32')
    pixels[1, 0, :7] = bad
    replace(root, 'train', 3, 1, pixels, nodata=nodata)
    dataset = CopernicusBenchBigEarthNet(root, bands=['VV', 'VH'])
    with pytest.warns(UserWarning, match='has 7 pixels NaN or infinite: filled'):
        image = dataset[3]['image']
    assert (image[1] == value('train', 3, 'VH')).all()
    strict = CopernicusBenchBigEarthNet(root, bands=['VH'], max_nonfinite=0)
    with pytest.raises(ValueError, match=r'0\.05% of its pixels'):
        strict[3]


# The datamodule


def test_a_batch_is_normalised_with_the_published_statistics(untouched):
    datamodule = ready(untouched, augment=False)
    batch = datamodule.on_after_batch_transfer(
        next(iter(datamodule.val_dataloader())), 0
    )
    assert set(batch) == {'image', 'label', 'patch_id', 'index', 'visit'}
    known = {band.name: band for band in sensors.SENTINEL1_GRD + sensors.SENTINEL2_L2A}
    for channel, band in enumerate(known[name] for name in ('VH', 'B04', 'VV')):
        for row in range(2):
            expected = (value('val', row, band.name) - band.mean) / band.std
            shown = batch['image'][row, channel]
            torch.testing.assert_close(shown, torch.full((120, 120), expected))


@pytest.mark.parametrize(
    ('stage', 'counts'),
    [
        ('fit', {'train': 5, 'val': 3}),
        ('validate', {'val': 3}),
        ('test', {'test': 4}),
        ('predict', {'predict': 4}),
    ],
)
def test_each_stage_has_its_patches_and_knows_the_training_classes(
    untouched, stage, counts
):
    datamodule = ready(untouched, stage, test_groups=2)
    assert datamodule.num_patches == counts
    expected = torch.zeros(19)
    for row in range(5):
        expected[[row, row + 3]] += 1 / 5
    torch.testing.assert_close(datamodule.train_class_frequencies, expected)
    assert datamodule.record.tiles == ('29UPU',)
    assert datamodule.record.bands == ('VH', 'B04', 'VV')
    assert datamodule.record.sensors == ('Sentinel-1 GRD', 'Sentinel-2 L2A')
    assert datamodule.record.labels_steered is False
    own = np.array([names('train', row)[1].encode() for row in range(5)])
    assert set(datamodule.record.patches.tolist()) == set(patch_hashes(own).tolist())
    assert '5 % of BigEarthNet v2' in datamodule.note


def test_a_test_knows_the_tile_and_the_name_of_each_patch(untouched):
    datamodule = ready(untouched, 'test', test_groups=2)
    assert datamodule.test_tiles.tolist() == ['35VNK'] * 4
    own = np.array([names('test', row)[1].encode() for row in range(4)])
    assert torch.equal(datamodule.test_patches[:, 0], patch_hashes(own))
    assert datamodule.test_name_spaces == datamodule.record.name_spaces == ('v2',)
    assert datamodule.test_patch_names.tolist() == own.tolist()
    assert datamodule.class_names == tuple(CLASSES)


def test_without_bands_it_is_sentinel_2(untouched):
    datamodule = ready(untouched, bands=None)
    assert datamodule.bands == S2
    assert datamodule.mean.shape == (12,)


def test_a_sample_is_plotted(untouched):
    datamodule = ready(untouched, 'validate')
    figure = datamodule.plot(datamodule.make_dataset('val', native=False)[0])
    assert [panel.get_title() for panel in figure.axes] == ['VV, VH, VV - VH']


@pytest.mark.parametrize('stage', ['fit', 'test'])
def test_its_own_samples_and_rows_of_its_batches_are_plotted(untouched, stage):
    datamodule = ready(untouched, stage, test_groups=1)
    dataset = datamodule.train_dataset if stage == 'fit' else datamodule.test_dataset
    assert datamodule.plot(dataset[0]).axes
    assert dataset.plot(dataset[0]).axes
    batch = datamodule.finish(datamodule.collate_fn([dataset[1]]), training=False)
    row = unbind_samples(batch)[0]
    split = 'train' if stage == 'fit' else 'test'
    levels = datamodule.physical(row)['image'][:, 0, 0].tolist()
    expected = [value(split, 1, band) for band in ('VH', 'B04', 'VV')]
    assert levels == pytest.approx(expected, rel=1e-4)
    assert datamodule.plot(row).axes


def test_a_plot_before_setup_asks_for_it(untouched):
    datamodule = CopernicusBenchBigEarthNetDataModule(str(untouched))
    with pytest.raises(RuntimeError, match='call setup first'):
        datamodule.plot({'image': torch.zeros(12, 8, 8)})


def test_radar_files_in_the_other_order_are_found_and_read(root):
    for split, count in COUNTS.items():
        for row in range(count):
            pixels = constant(split, row, ('VH', 'VV'), 'float32')
            replace(root, split, row, 1, pixels)
    message = r"5 of 5 files of split 'train'.* give radar_order \[VH, VV\]"
    with pytest.raises(ValueError, match=message):
        ready(root)
    datamodule = ready(root, radar_order=['VH', 'VV'])
    image = datamodule.make_dataset('train', native=False)[2]['image']
    assert image[[0, 2], 0, 0].tolist() == [-16, -9]
    ready(root, bands=['B04'])  # asks nothing of the radar


# Bad input


def both(table):
    return table.assign(s1_path=table['s1_path'].to_numpy()[::-1])


def lost(table):
    return table.assign(s2_path=[*table['s2_path'][:-1], 'gone/gone_allbands.tif'])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (both, 'stand in one row of .*, but are of two places by their names'),
        (lambda table: table.iloc[:, :-1], 'has 18 columns of labels, expected 19'),
        (
            lambda table: table.rename(columns={'Pastures': 'Meadows'}),
            "labels of 'Meadows', none of the classes",
        ),
        (lambda table: table.assign(Pastures=2), 'labels other than 0 and 1'),
        (lambda table: table.iloc[:0], "No patch of .* is in the split 'train'"),
    ],
)
def test_a_table_that_is_wrong_is_told(root, change, message):
    change_table(root, change)
    with pytest.raises(ValueError, match=message) as error:
        ready(root)
    assert '\n' not in str(error.value)


def test_a_file_that_only_the_table_knows_is_named(root):
    change_table(root, lost)
    with pytest.raises(FileNotFoundError, match=r'gone_allbands\.tif'):
        ready(root)


def test_absent_files_are_counted_and_named(root):
    change_table(root, lost)
    for row in (1, 3):
        file_of(root, 'train', row, 2).unlink()
    with pytest.raises(FileNotFoundError, match=r'3 of the files of the 5 .*_07_01'):
        ready(root, bands=['B04'])
    ready(root, bands=['VV'])  # Sentinel-1 alone needs only its files


def test_absent_files_are_skipped_and_listed_if_asked(root):
    file_of(root, 'train', 3, 2).unlink()
    datamodule = ready(root, bands=['B04'], batch_size=5, on_error='skip')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        batch = next(iter(datamodule.train_dataloader()))
        batch = datamodule.on_after_batch_transfer(batch, 0)
    assert len(batch['image']) == 4
    assert list(datamodule.skipped) == [names('train', 3)[1]]
    assert 'is missing' in datamodule.skipped[names('train', 3)[1]]


def test_a_test_needs_no_image_to_train_on(root):
    for row in range(COUNTS['train']):
        for sensor in (1, 2):
            file_of(root, 'train', row, sensor).unlink()
    datamodule = ready(root, 'test', test_groups=1)
    assert datamodule.num_patches == {'test': 4}
    assert datamodule.record.tiles == ('29UPU',)
    assert datamodule.train_class_frequencies.sum() == pytest.approx(2)


def test_the_zip_file_is_unpacked_before_setup_by_one_process(untouched, tmp_path):
    shutil.make_archive(str(tmp_path / 'bigearthnetv2'), 'zip', untouched)
    datamodule = CopernicusBenchBigEarthNetDataModule(
        str(tmp_path), batch_size=2, checksum=False
    )
    datamodule.prepare_data()
    assert (tmp_path / 'bigearthnet_s1s2').is_dir()
    datamodule.setup('fit')
    assert datamodule.num_patches == {'train': 5, 'val': 3}


def test_an_empty_table_is_told(root):
    (root / 'bigearthnet_s1s2' / 'multilabel-train.csv').write_text('')
    with pytest.raises(ValueError, match=r'multilabel-train\.csv is no table'):
        ready(root)


def damage(root, how):
    path = file_of(root, 'train', 1, 2)
    if how == 'bands':
        replace(root, 'train', 1, 2, constant('train', 1, S2[:11], 'uint16'))
    else:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[:5000] if how == 'cut' else b'hello')


@pytest.mark.parametrize(
    ('how', 'message'),
    [
        ('bands', 'has 11 bands, expected B01, B02'),
        ('cut', 'is no readable GeoTIFF'),
        ('none', 'is no readable GeoTIFF'),
    ],
)
def test_a_damaged_file_ends_the_run_or_is_skipped_and_listed(root, how, message):
    damage(root, how)
    dataset = CopernicusBenchBigEarthNet(root, bands=['B04'])
    with pytest.raises(ValueError, match=message) as error:
        dataset[1]
    assert '\n' not in str(error.value)
    assert str(file_of(root, 'train', 1, 2)) in str(error.value)
    datamodule = ready(root, bands=['B04'], on_error='skip', batch_size=5)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        batch = next(iter(datamodule.train_dataloader()))
        batch = datamodule.on_after_batch_transfer(batch, 0)
    assert len(batch['image']) == 4
    assert list(datamodule.skipped) == [names('train', 1)[1]]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'bands': ['B10']}, "Unknown band 'B10'"),
        ({'bands': []}, 'No band is named'),
        ({'bands': 'B04'}, "bands is 'B04': give a list"),
        ({'size_by': 'zoom'}, "Unknown size_by 'zoom'"),
        ({'size_by': 'crop', 'size': 128}, 'more than the 120 px to crop from'),
        ({'batch_size': 6}, 'batch_size 6 is larger than the 5 training patches'),
        ({'test_groups': 0}, 'test_groups is 0'),
        ({'test_group_seeds': []}, 'test_group_seeds is'),
        ({'predict_split': 'all'}, "Unknown split 'all'"),
        ({'max_nonfinite': 2}, 'max_nonfinite is 2'),
        ({'on_error': 'stop'}, "on_error is 'stop'"),
        ({'radar_order': ['VV', 'HV']}, 'name VV and VH, each once'),
    ],
)
def test_arguments_are_checked_in_setup(untouched, arguments, message):
    datamodule = CopernicusBenchBigEarthNetDataModule(
        str(untouched), **{'batch_size': 2} | arguments
    )
    with pytest.raises(ValueError, match=message) as error:
        datamodule.setup('fit')
    assert '\n' not in str(error.value)


def test_more_groups_than_test_patches_are_an_error(untouched):
    with pytest.raises(ValueError, match='more than the 4 test patches'):
        ready(untouched, 'test')


def test_a_folder_without_the_data_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match='neither bigearthnet_s1s2 nor'):
        ready(tmp_path)
    datamodule = CopernicusBenchBigEarthNetDataModule()
    datamodule.prepare_data()
    with pytest.raises(ValueError, match='root is not given'):
        datamodule.setup('fit')


# The configurations


@pytest.mark.parametrize('task', ['pretrain', 'finetune'])
def test_the_shipped_overlays_train(torchgeo, conf, untouched, tmp_path, task):
    options = [
        f'--data.init_args.root={untouched}',
        '--data.init_args.batch_size=2',
        '--data.init_args.num_workers=0',
        '--model.init_args.model=channelmae_tiny_patch16',
        '--trainer.accelerator=cpu',
        '--trainer.fast_dev_run=1',
    ]
    if task == 'finetune':
        options.append('--model.init_args.weights=null')
    command = torchgeo(
        'fit',
        f'--config={conf / f"{task}.yaml"}',
        f'--config={conf / f"copernicus/{task}.yaml"}',
        *options,
        folder=tmp_path,
    )
    assert command.code == 0, command.output


def test_a_test_tells_the_scene_of_each_patch_and_no_country(untouched):
    frame = ready(untouched, 'test', test_groups=2).test_frame
    assert frame.index.tolist() == [names('test', row)[1] for row in range(4)]
    scene = 'S2B_MSIL2A_20180422T063852_N9999_R123_T35VNK'
    assert frame['acquisition'].tolist() == [scene] * 4
    assert frame['country'].tolist() == [''] * 4
