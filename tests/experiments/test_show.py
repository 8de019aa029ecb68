"""A page of samples shows what is stored and what training sees, and nothing else."""

import itertools
import os
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image
from torchgeo.datamodules import EuroSATDataModule, GeoDataModule, NonGeoDataModule
from torchgeo.datasets import RasterDataset
from torchgeo.samplers import RandomPatchSampler

from tests.fabricate import sentinel2_scenes
from torchgeo_channelmae import cli
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.datamodules.geo import GeoPretrainingDataModule
from torchgeo_channelmae.datamodules.pretraining import PretrainingDataModule
from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.experiments.configuration import read_datamodule
from torchgeo_channelmae.experiments.page import Card, draw_page
from torchgeo_channelmae.experiments.show import choose, page_of, show
from torchgeo_channelmae.plotting import composites

BANDS = ['B02', 'B03', 'B04', 'VV', 'VH']
OURS = 'torchgeo_channelmae.datamodules.BigEarthNetS1S2DataModule'


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def shown(figure):
    return [np.asarray(panel.images[0].get_array()) for panel in figure.axes]


def config(folder, data, name='config.yaml', **sections):
    path = folder / name
    path.write_text(yaml.safe_dump({'data': data, 'model': {'a': 1}, **sections}))
    return path


# The samples of BigEarthNet


@pytest.fixture(scope='module')
def page():
    """Four patches, sized as they are, in the order of bands, before, after."""
    datamodule = BigEarthNetS1S2DataModule(bands=BANDS, size=120, batch_size=4)
    return page_of(datamodule, 4)


def test_before_is_the_patch_as_the_dataset_gives_it(page):
    figure, _ = page
    panels = shown(figure)
    dataset = BigEarthNetLMDB(bands=BANDS)
    names = [word for word in words(figure) if word.startswith('S2')]
    assert len(names) == 4
    for number, name in enumerate(names):
        image = dataset[dataset.patch_ids.index(name)]['image']
        for drawn, (_, expected) in zip(
            panels[4 * number :][:2], composites(image, BANDS), strict=True
        ):
            np.testing.assert_allclose(drawn[..., :3], expected, atol=1e-5)


def test_after_is_the_patch_as_training_flips_it(page):
    figure, _ = page
    panels = shown(figure)
    ways = []
    for number in range(4):
        before, after = panels[4 * number + 1], panels[4 * number + 3]  # of the radar
        options = {flip: np.flip(before, flip) for flip in [(), (0,), (1,), (0, 1)]}
        # normalising moves and scales each band, which the stretch undoes, but for the
        # third channel, a difference of two bands
        ways += [
            flip
            for flip, option in options.items()
            if np.allclose(option[..., :2], after[..., :2], atol=1e-3)
        ]
    assert len(ways) == 4
    assert len(set(ways)) > 1


def test_each_patch_has_its_labels_and_its_values_before_and_after(page):
    figure, said = page
    assert said == '4 of 23 training samples'
    everything = ' '.join(words(figure))
    dataset = BigEarthNetLMDB(bands=BANDS)
    for name in [word for word in words(figure) if word.startswith('S2')]:
        sample = dataset[dataset.patch_ids.index(name)]
        labels = [dataset.classes[i] for i in sample['label'].nonzero().flatten()]
        assert '; '.join(labels) in everything
        low, high = np.percentile(sample['image'][:3].numpy(), [2, 98])
        assert f'{low:,.0f} to {high:,.0f}' in everything
        low, high = np.percentile(sample['image'][3:].numpy(), [2, 98])
        values = f'radar {low:,.1f} to {high:,.1f}'
        assert values.replace('-', '\N{MINUS SIGN}') in everything
    assert 'say nothing about the model' in everything  # the sample's own note


def test_validation_patches_are_not_augmented():
    datamodule = BigEarthNetS1S2DataModule(bands=['VV', 'VH'], size=120)
    figure, said = page_of(datamodule, 15, 'val')
    assert said == '15 of 15 validation samples'
    panels = shown(figure)
    for before, after in itertools.batched(panels, 2):
        np.testing.assert_allclose(before[..., :2], after[..., :2], atol=1e-3)
    assert 'augmented' not in ' '.join(words(figure))


def test_patches_that_cannot_be_read_are_counted(broken_sample):
    first = BigEarthNetLMDB().patch_ids[0]
    root = broken_sample(lambda key, value: b'broken' if key == first else value)
    datamodule = BigEarthNetS1S2DataModule(
        root=str(root), on_error='skip', batch_size=4, bands=['B04']
    )
    figure, said = page_of(datamodule, 23)
    assert said == '22 of 23 training samples (1 more could not be read)'
    assert first not in words(figure)


# Other datamodules


@pytest.fixture(scope='module')
def eurosat(tmp_path_factory):
    """A EuroSAT of six images whose bands have the values 1000 x class + band."""
    root = tmp_path_factory.mktemp('eurosat')
    folder = root / 'ds/images/remote_sensing/otherDatasets/sentinel_2/tif'
    ramp = np.arange(64, dtype=np.uint16)
    names = []
    for number, kind in enumerate(['Forest', 'River']):
        (folder / kind).mkdir(parents=True)
        for i in range(3):
            name = f'{kind}_{i}.tif'
            pixels = 1000 * number + np.arange(13)[:, None, None] + ramp[:, None]
            profile = {'width': 64, 'height': 64, 'count': 13, 'dtype': 'uint16'}
            with rasterio.open(folder / kind / name, 'w', 'GTiff', **profile) as file:
                file.write(np.broadcast_to(pixels, (13, 64, 64)).astype(np.uint16))
            names.append(name.replace('.tif', '.jpg'))
    for split in ('train', 'val', 'test'):
        (root / f'eurosat-{split}.txt').write_text('\n'.join(names))
    return root


@pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_a_stock_datamodule_is_shown_with_its_bands_and_classes(eurosat, split):
    figure, _ = page_of(EuroSATDataModule(root=str(eurosat)), 6, split)
    said = words(figure)
    assert said.count('Forest') == said.count('River') == 3
    assert said.count('true colour') == said.count('false colour') == 6
    assert 'B8A' in ' '.join(said)  # the bands are named
    assert f'sample {5}' in said
    for before, after in itertools.batched(shown(figure)[1::2], 2):  # false colour
        np.testing.assert_allclose(before, after, atol=1e-3)


@pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
def test_any_dataset_for_pretraining_is_shown(eurosat):
    datamodule = PretrainingDataModule(
        {'class_path': 'EuroSAT', 'init_args': {'root': str(eurosat)}},
        bands=['B8A', 'B02', 'B03', 'B04'],
        size=32,
        batch_size=2,
        val_by='random',
        val_fraction=0.34,
    )
    figure, said = page_of(datamodule, 4)
    assert said == '4 of 4 training samples'
    assert 'B8A, B02, B03, B04' in ' '.join(words(figure))
    assert [panel.shape[0] for panel in shown(figure)] == [64, 32] * 4


def test_places_of_scenes_for_pretraining_are_shown(tmp_path):
    sentinel2_scenes(tmp_path)
    datamodule = GeoPretrainingDataModule(
        {'class_path': 'Sentinel2', 'init_args': {'paths': str(tmp_path)}},
        bands=['B04', 'B03', 'B02'],
        size=64,
        batch_size=2,
        samples_per_epoch=8,
        val_fraction=0,
    )
    figure, said = page_of(datamodule, 3)
    assert said == '3 of 8 training samples'
    assert [panel.shape for panel in shown(figure)] == [(64, 64, 4)] * 6


class Scenes(RasterDataset):
    filename_glob = '*.tif'
    is_image = True
    all_bands = ('VV', 'VH')


class ScenesDataModule(GeoDataModule):
    def setup(self, stage):
        self.train_dataset = Scenes(self.kwargs['paths'])
        self.train_sampler = RandomPatchSampler(self.train_dataset, size=16, length=9)


def test_patches_that_a_sampler_cuts_are_shown(tmp_path):
    profile = {'width': 64, 'height': 64, 'count': 2, 'dtype': 'float32'}
    where = rasterio.transform.from_origin(500000, 5300000, 10, 10)
    path = tmp_path / 'scene.tif'
    with rasterio.open(
        path, 'w', 'GTiff', crs='EPSG:32633', transform=where, **profile
    ) as file:
        file.write(np.random.default_rng(1).random((2, 64, 64)).astype('float32'))
    datamodule = ScenesDataModule(Scenes, paths=str(tmp_path))
    figure, said = page_of(datamodule, 3)
    assert said == '3 of 9 training samples'
    assert [panel.shape for panel in shown(figure)] == [(16, 16, 4)] * 6


class Photos(torch.utils.data.Dataset):
    classes = ('cat', 'dog')

    def __init__(self, split='train', shape=(3, 8, 8), key='image', label=1):
        self.shape, self.key, self.label = shape, key, torch.tensor(label)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return {self.key: torch.rand(self.shape), 'label': self.label}


def photos(**kwargs):
    return NonGeoDataModule(Photos, **kwargs)


@pytest.mark.parametrize(
    ('shape', 'titles'),
    [
        ((3, 8, 8), {'true colour'}),
        ((5, 8, 8), {'channel 1'}),
        ((1, 6, 9), {'channel 1'}),
    ],
)
def test_channels_without_names_are_numbered_but_for_three_of_a_photo(shape, titles):
    figure, _ = page_of(photos(shape=shape), 2)
    said = words(figure)
    assert titles <= set(said)
    assert said.count('dog') == 2
    assert shown(figure)[0].shape[:2] == shape[-2:]


def test_of_several_dates_the_first_is_shown():
    datamodule = photos(shape=(4, 3, 8, 8))
    datamodule.aug = lambda batch: batch | {'image': batch['image'] * 2}
    figure, _ = page_of(datamodule, 1)
    before, after = shown(figure)
    np.testing.assert_allclose(before, after, atol=1e-5)
    assert before.shape == (8, 8, 4)


@pytest.mark.parametrize(
    ('label', 'text'),
    [
        (0, 'cat'),
        (7, 'class 7'),
        ([1, 1], 'cat; dog'),
        ([0, 0], 'no class'),
        (0.25, '0.25'),
    ],
)
def test_labels_are_named_whatever_their_kind(label, text):
    assert text in words(page_of(photos(label=label), 1)[0])


def test_samples_without_an_image_are_an_error():
    with pytest.raises(ValueError, match='no image to draw, only photo, label'):
        page_of(photos(key='photo'), 1)


# The choice of samples


@given(st.integers(1, 500), st.data())
def test_the_choice_has_one_sample_of_each_part_of_the_dataset(length, data):
    n = data.draw(st.integers(1, length))
    chosen = choose(length, n, 'train', 0)
    assert len(set(chosen)) == n
    for part, index in enumerate(chosen):
        assert part * length // n <= index < (part + 1) * length // n
    assert chosen == choose(length, n, 'train', 0)


def test_the_choice_depends_on_seed_and_split():
    choices = {
        tuple(choose(1000, 10, *key))
        for key in [('train', 0), ('train', 1), ('val', 0)]
    }
    assert len(choices) == 3


# The command


def test_the_shipped_configurations_make_the_same_page_each_time(
    conf, tmp_path, capsys
):
    before = torch.get_rng_state(), os.environ.get('PL_GLOBAL_SEED')
    for name in ('one.png', 'two.png'):
        options = ['show', '--config', str(conf / 'pretrain.yaml'), '--n', '3']
        code = cli.main([*options, '--out', str(tmp_path / name)])
        assert code == 0
        assert capsys.readouterr().out == (
            f'{tmp_path / name}: 3 of 23 training samples\n'
        )
    one, two = (np.asarray(Image.open(tmp_path / f'{n}.png')) for n in ('one', 'two'))
    np.testing.assert_array_equal(one, two)
    assert one.std() > 20
    assert torch.equal(torch.get_rng_state(), before[0])
    assert os.environ.get('PL_GLOBAL_SEED') == before[1]


def test_configurations_are_laid_over_each_other_and_changed(conf, tmp_path):
    larger = config(tmp_path, {'init_args': {'batch_size': 32}}, 'larger.yaml')
    seeded = config(tmp_path, {'init_args': {'bands': ['VV']}}, seed_everything=7)
    datamodule, seed = read_datamodule(
        [conf / 'pretrain.yaml', larger, seeded],
        {'size': 32, 'init_args.root': 'somewhere'},
    )
    assert isinstance(datamodule, BigEarthNetS1S2DataModule)
    assert datamodule.batch_size == 32  # of the second, over the first
    assert datamodule.size_by == 'crop'  # of the first
    assert datamodule.bands == ('VV',)
    assert datamodule.size == 32
    assert datamodule.root == 'somewhere'
    assert seed == 7


def test_a_change_reaches_into_what_a_datamodule_builds(tmp_path):
    path = config(
        tmp_path, {'class_path': 'EuroSATDataModule', 'dict_kwargs': {'root': 'a'}}
    )
    datamodule, seed = read_datamodule([path], {'dict_kwargs.root': 'b'})
    assert datamodule.kwargs == {'root': 'b'}
    assert seed == 0


def test_a_change_from_the_command_line(conf, tmp_path):
    out = tmp_path / 'page.png'
    options = ['--data.bands', '[VV, VH]', '--data.init_args.size', '32']
    code = cli.main(
        ['show', '--config', str(conf / 'pretrain.yaml'), '--out', str(out), *options]
    )
    assert code == 0
    assert out.exists()


def test_a_page_can_be_a_pdf(conf, tmp_path):
    show([conf / 'finetune.yaml'], tmp_path / 'page.pdf', n=1)
    assert (tmp_path / 'page.pdf').read_bytes().startswith(b'%PDF')


DATA = {'class_path': OURS}


@pytest.mark.parametrize(
    ('data', 'options', 'message'),
    [
        (None, {}, 'has no data section: give a configuration of torchgeo fit'),
        ({'class_path': 'foo.Bar'}, {}, "makes no datamodule: .*'foo.Bar'.*No module"),
        ({'class_path': 'torch.nn.Linear'}, {}, 'not correspond to a subclass'),
        ({'init_args': {'size': 3}}, {}, "'size' is not accepted"),
        (DATA | {'init_args': {'rot': 3}}, {}, "Option 'rot' is not accepted"),
        (DATA | {'init_args': {'size': 'big'}}, {}, "class 'int'>. Got value: big"),
        (DATA, {'data': {'size': 'big'}}, 'Got value: big'),
        (3, {}, 'Not a valid subclass'),
        (DATA, {'n': 0}, 'n is 0: a page has 1 to 200 samples'),
        (DATA, {'n': 201}, 'n is 201: a page has'),
        (
            DATA | {'init_args': {'batch_size': 4}},
            {'n': 24},
            'n is 24, but there are 23',
        ),
        (DATA, {'split': 'all'}, "Unknown split 'all': use one of train, val, test"),
        (DATA, {'out': 'page.doc'}, 'page.doc does not end like a picture'),
        (DATA, {'out': 'page'}, 'page does not end like a picture'),
        (DATA, {'out': 'none/page.png'}, 'none, the folder of the picture, does not'),
        (DATA, {'data': {'root': 'nowhere'}}, 'BigEarthNet root nowhere is not a'),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    data, options, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = config(tmp_path, data)
    if data is None:
        path.write_text('model: {}\n')
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        show([path], **{'out': 'page.png'} | options)
    assert '\n' not in str(error.value)
    assert str(error.value).endswith('.')
    assert [file.name for file in tmp_path.iterdir()] == ['config.yaml']


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'is not a file: give that of torchgeo fit'),
        ('data: [1', 'is not YAML: '),
        ('hello', 'has no sections'),
    ],
)
def test_a_configuration_that_cannot_be_read_is_named(content, message, tmp_path):
    path = tmp_path / 'config.yaml'
    if content is not None:
        path.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        show([path], tmp_path / 'page.png')
    assert '\n' not in str(error.value)
    assert str(path) in str(error.value)


def test_no_file_is_overwritten(conf, tmp_path):
    out = tmp_path / 'page.png'
    out.write_text('mine')
    with pytest.raises(FileExistsError, match=r'page\.png exists: give another'):
        show([conf / 'pretrain.yaml'], out)
    assert out.read_text() == 'mine'


def test_a_mistake_in_a_command_is_told_on_one_line(tmp_path, capsys):
    path = tmp_path / 'config.yaml'
    path.write_text('model: {}\n')
    code = cli.main(['show', '--config', str(path), '--out', str(tmp_path / 'p.png')])
    assert code == 1
    assert capsys.readouterr().err.count('\n') == 1


def test_a_datamodule_without_such_samples_is_an_error():
    datamodule = SimpleNamespace(setup=lambda stage: None, prepare_data=lambda: None)
    datamodule.dataset = datamodule.test_dataset = None
    with pytest.raises(ValueError, match='has no test samples: choose another split'):
        page_of(datamodule, 1, 'test')


# The page


@pytest.mark.parametrize(
    'bands', [('VV', 'VH'), ('B02', 'B03', 'B04', 'B08', 'VV', 'VH')]
)
def test_no_text_of_a_page_runs_into_another_or_off_the_page(bands):
    draw = torch.Generator().manual_seed(1)
    classes = BigEarthNetLMDB.classes
    cards = [
        Card(
            name='S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_37_88'
            * (1 + number % 2),
            labels=classes[number : number + 9],
            before=-12345 * torch.rand(len(bands), 8, 8, generator=draw),
            after=torch.rand(len(bands), 8, 8, generator=draw),
        )
        for number in range(5)
    ]
    figure = draw_page(cards, bands, 'Title', ['A long note. ' * 30])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = [text for text in figure.findobj(Text) if text.get_text()]
    boxes = [text.get_window_extent() for text in drawn]
    boxes += [panel.get_window_extent() for panel in figure.axes]
    for box in boxes:
        assert figure.bbox.contains(box.x0, box.y0)
        assert figure.bbox.contains(box.x1, box.y1)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def test_a_band_without_data_is_said():
    empty = torch.full((1, 4, 4), torch.nan)
    figure = draw_page([Card('a', None, empty, empty)], ['VV'], 'Title')
    assert words(figure).count('no data') == 2
