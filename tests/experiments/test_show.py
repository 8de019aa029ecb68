"""A page of samples shows what is stored and what training sees, and nothing else."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image
from torchgeo.datamodules import EuroSATDataModule, GeoDataModule, NonGeoDataModule
from torchgeo.datasets import RasterDataset
from torchgeo.samplers import RandomPatchSampler

from tests.fabricate import write_tif
from torchgeo_channelmae import cli
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.datasets import BigEarthNetLMDB
from torchgeo_channelmae.experiments.show import Card, choose, draw_page, page_of, show
from torchgeo_channelmae.plotting import composites

BANDS = ['B02', 'B03', 'B04', 'VV', 'VH']


def texts(figure):
    found = [text for text in figure.findobj(Text) if text.get_visible()]
    return [text for text in found if text.get_text().strip()]


def words(figure):
    """Return all texts, those of several lines as one."""
    lines = [text.get_text().split() for text in texts(figure)]
    return [' '.join(line).replace('_ ', '_') for line in lines]


def shown(figure):
    """Return the pixels of each picture, (H, W, 3)."""
    panels = [panel.images[0].get_array() for panel in figure.axes if panel.images]
    return [np.asarray(pixels)[..., :3] for pixels in panels]


# The samples of BigEarthNet


@pytest.fixture(scope='module')
def page():
    """Four patches, sized as they are, with two pictures each before and after."""
    datamodule = BigEarthNetS1S2DataModule(bands=BANDS, size=120, batch_size=4)
    return page_of(datamodule, 4)


def test_before_is_the_patch_as_stored_with_its_labels_and_values(page):
    figure, counted = page
    assert counted == '4 of 23 train samples'
    everything = words(figure)
    dataset = BigEarthNetLMDB(bands=BANDS)
    names = [word for word in everything if word.startswith('S2')]
    before = list(itertools.batched(shown(figure), 2))[::2]
    for name, pictures in zip(names, before, strict=True):
        sample = dataset[dataset.patch_ids.index(name)]
        expected = [picture for _, picture in composites(sample['image'], BANDS)]
        for drawn, stored in zip(pictures, expected, strict=True):
            np.testing.assert_allclose(drawn, stored, atol=1e-5)
        labels = [dataset.classes[i] for i in sample['label'].nonzero().flatten()]
        assert '; '.join(labels) in everything
        optical, radar = sample['image'].numpy()[:3], sample['image'].numpy()[3:]
        ranges = [*np.percentile(optical, [2, 98]), *np.percentile(radar, [2, 98])]
        text = 'before {:,.0f} to {:,.0f} radar {:,.1f} to {:,.1f}'.format(*ranges)
        assert text in everything
    assert 'say nothing about the model' in ' '.join(everything)  # the data's own note


def test_after_is_the_patch_as_training_flips_it(page):
    radar = shown(page[0])[1::2]
    flips = set()
    for before, after in itertools.batched(radar, 2):
        # Normalizing moves and scales each band, which the stretch undoes, but for the
        # third channel, a difference of two bands.
        found = [
            flip
            for flip in [(), (0,), (1,), (0, 1)]
            if np.allclose(np.flip(before, flip)[..., :2], after[..., :2], atol=1e-3)
        ]
        assert len(found) == 1
        flips |= {*found}
    assert len(flips) > 1


def test_validation_patches_are_not_augmented():
    datamodule = BigEarthNetS1S2DataModule(bands=['VV', 'VH'], size=120)
    pictures = shown(page_of(datamodule, 4, 'val')[0])
    for before, after in itertools.batched(pictures, 2):
        np.testing.assert_allclose(before[..., :2], after[..., :2], atol=1e-3)


def test_patches_that_cannot_be_read_are_counted(broken_sample):
    first = BigEarthNetLMDB().patch_ids[0]
    root = broken_sample(lambda key, value: b'broken' if key == first else value)
    datamodule = BigEarthNetS1S2DataModule(
        root=str(root), on_error='skip', batch_size=4, bands=['B04']
    )
    figure, counted = page_of(datamodule, 23)
    assert counted == '22 of 23 train samples (1 more could not be read)'
    assert first not in words(figure)


# Other datamodules


@pytest.mark.parametrize('split', ['train', 'test'])
def test_a_datamodule_of_torchgeo_is_shown_with_its_bands_and_classes(eurosat, split):
    figure, _ = page_of(EuroSATDataModule(root=str(eurosat)), 12, split)
    said = words(figure)
    assert said.count('Forest') == said.count('River') == 4
    assert said.count('true color') == said.count('false color') == 12
    assert 'B8A' in ' '.join(said)
    assert 'sample 5' in said


class ScenesDataModule(GeoDataModule):
    def setup(self, stage):
        self.train_dataset = Sentinel1(self.kwargs['paths'])
        self.train_sampler = RandomPatchSampler(self.train_dataset, size=16, length=9)


class Sentinel1(RasterDataset):
    filename_glob = '*.tif'
    all_bands = ('VV', 'VH')


def test_patches_that_a_sampler_cuts_are_shown(tmp_path):
    pixels = np.random.default_rng(1).random((2, 64, 64)).astype('float32')
    write_tif(tmp_path / 'scene.tif', pixels, 500000, 5300000, 'EPSG:32633', 10)
    datamodule = ScenesDataModule(Sentinel1, paths=str(tmp_path))
    figure, counted = page_of(datamodule, 3)
    assert counted == '3 of 9 train samples'
    assert [picture.shape for picture in shown(figure)] == [(16, 16, 3)] * 6


class Photos(torch.utils.data.Dataset):
    classes = ('cat', 'dog')

    def __init__(self, split='train', shape=(3, 8, 8), key='image', label=1):
        self.shape, self.key, self.label = shape, key, torch.tensor(label)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return {self.key: torch.rand(self.shape), 'label': self.label}


@pytest.mark.parametrize(
    ('shape', 'title'),
    [
        ((3, 8, 8), 'true color'),  # of a photo
        ((5, 8, 8), 'channel 1'),
        ((4, 3, 8, 8), 'true color'),  # the first of several dates
    ],
)
def test_channels_without_names_are_numbered_or_those_of_a_photo(shape, title):
    datamodule = NonGeoDataModule(Photos, shape=shape)
    datamodule.aug = lambda batch: batch | {'image': batch['image'] * 2}
    figure, _ = page_of(datamodule, 2)
    assert words(figure).count(title) == 2


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
def test_labels_of_every_kind_are_named(label, text):
    datamodule = NonGeoDataModule(Photos, label=label)
    assert text in words(page_of(datamodule, 1)[0])


def test_samples_without_an_image_are_an_error():
    with pytest.raises(ValueError, match='photo, label'):
        page_of(NonGeoDataModule(Photos, key='photo'), 1)


# The choice of samples


@given(st.integers(1, 500), st.data())
def test_the_choice_has_one_sample_of_each_part_of_the_dataset(length, data):
    n = data.draw(st.integers(1, length))
    chosen = choose(length, n, 'train', 0)
    for part, index in enumerate(chosen):
        assert part * length // n <= index < (part + 1) * length // n
    assert len(chosen) == n


# The command


def test_the_same_page_is_made_each_time_and_never_overwritten(conf, tmp_path):
    before = torch.get_rng_state()
    for name in ('one.png', 'two.png'):
        options = ['--config', str(conf / 'pretrain.yaml'), '--n', '3']
        options += ['--data.bands', '[VV, VH]', '--data.init_args.size', '32']
        assert cli.main(['show', *options, '--out', str(tmp_path / name)]) == 0
    one, two = (np.asarray(Image.open(tmp_path / f'{n}.png')) for n in ('one', 'two'))
    np.testing.assert_array_equal(one, two)
    assert one.std() > 20
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(FileExistsError, match=r'one\.png'):
        show([conf / 'pretrain.yaml'], tmp_path / 'one.png', n=1)


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'n': 24}, 'n is 24'),
        ({'out': 'page.doc'}, 'doc'),
        ({'data': {'root': 'nowhere'}}, 'nowhere'),
    ],
)
def test_a_mistake_is_named_and_writes_nothing(
    options, named, conf, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    given = {'out': 'page.png', 'data': {}} | options
    flags = [f'--{name}={value}' for name, value in given.items()]
    assert cli.main(['show', '--config', str(conf / 'finetune.yaml'), *flags]) == 1
    assert named in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# The page


@pytest.mark.parametrize('bands', [('VV', 'VH'), ('B08', *BANDS)])
def test_no_text_of_a_page_runs_into_another_or_off_the_page(bands):
    classes, name = BigEarthNetLMDB.classes, BigEarthNetLMDB().patch_ids[0]
    image = torch.rand(len(bands), 8, 8, generator=torch.Generator().manual_seed(1))
    cards = [
        Card(name * (1 + i % 2), '; '.join(classes[i : i + 9]), -12345 * image, image)
        for i in range(5)
    ]
    figure = draw_page(cards, bands, 'Title', ['A long note. ' * 30])
    FigureCanvasAgg(figure).draw()
    boxes = [text.get_window_extent() for text in texts(figure)]
    boxes += [panel.get_window_extent() for panel in figure.axes if panel.images]
    for box in boxes:
        assert figure.bbox.contains(box.x0, box.y0)
        assert figure.bbox.contains(box.x1, box.y1)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
