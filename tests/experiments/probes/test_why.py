"""``channelmae why`` on the bundled sample's real pairs."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib.text import Text

from torchgeo_channelmae.cli import main
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.experiments.probes.features import extract
from torchgeo_channelmae.experiments.probes.similarity import debiased_cka
from torchgeo_channelmae.experiments.probes.why_page import figure
from torchgeo_channelmae.models import ChannelViT

OPTICAL = ('B04', 'B08')
FIRST = ('--first', 'B04,B08', '--neighbors', '5', '--depth', '0,4,12,out')


def write_config(conf, folder, name, **changes):
    content = yaml.safe_load((conf / name).read_text())
    content['model']['init_args'] |= {'size': 32} | changes.pop('model', {})
    content['data']['init_args'] |= {'size': 32, 'size_by': 'resize'} | changes
    path = folder / name
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope='module')
def config(tmp_path_factory, conf):
    return write_config(conf, tmp_path_factory.mktemp('conf'), 'pretrain.yaml')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Weights that know two optical bands, and later ones that know radar alone."""
    folder = tmp_path_factory.mktemp('weights')
    kinds = {'pretrained.pt': OPTICAL, 'finetuned.pt': ('VV', 'VH')}
    paths = []
    for seed, (name, bands) in enumerate(kinds.items()):
        torch.manual_seed(seed)
        model = ChannelViT(img_size=32, embed_dim=192, num_heads=3, bands=bands)
        torch.save(model.state_dict(), folder / name)
        paths.append(str(folder / name))
    return paths


@pytest.fixture(scope='module')
def made(config, weights, tmp_path_factory):
    out = tmp_path_factory.mktemp('why') / 'out'
    asked = ['why', '--config', str(config), '--weights', *weights, *FIRST]
    assert main([*asked, '--out', str(out)]) == 0
    return out


def test_every_depth_of_every_encoder_stands_beside_chance(made):
    table = pd.read_csv(made / 'why.csv')
    assert len(table) == 3 * 4
    assert table['encoder'].unique()[0] == 'untrained'
    assert table['depth'].tolist()[:4] == ['0', '4', '12', 'out']
    assert set(table['places']) == {21}
    assert table['overlap_chance'].iloc[0] == pytest.approx(5 / 20, abs=1e-6)
    assert table['recall10_chance'].iloc[0] == pytest.approx(10 / 21, abs=1e-6)
    assert table['cka_shuffled'].abs().median() < 0.15 < table['cka'].median()
    for sensor in ('first', 'second'):
        assert table[f'{sensor}_linear_mAP_micro'].between(0.1, 1).all()
    text = (made / 'why.md').read_text()
    assert 'say nothing about the model' in text
    assert '| chance |  | 0 | 25.0 | 47.6 | 47.6 |' in text
    assert (made / 'why.png').stat().st_size > 50_000


def test_cka_is_between_the_encoders_views_of_the_same_places(made, config, weights):
    """Each sensor's features, computed alone with a model made by hand."""
    parts = {}
    state = torch.load(weights[1], weights_only=True)  # knows radar
    before = torch.load(weights[0], weights_only=True)  # knows optical bands
    for bands in (OPTICAL, ('VV', 'VH')):
        model = ChannelViT(img_size=32, embed_dim=192, num_heads=3, bands=bands)
        known = before if bands == OPTICAL else state
        names = [f'spectral_embed.{band}' for band in bands]
        tensors = {k: v for k, v in state.items() if 'spectral' not in k}
        model.load_state_dict(tensors | {name: known[name] for name in names})
        data = BigEarthNetS1S2DataModule(bands=list(bands), size=32, batch_size=8)
        data.setup('test')
        parts[bands] = extract({'': (model, None)}, data, 'test', ['4'])[''].depths['4']
    table = pd.read_csv(made / 'why.csv').iloc[8:]
    found = table[table['depth'] == '4']['cka'].item()
    assert found == pytest.approx(debiased_cka(*parts.values()), abs=1e-3)


def test_it_is_said_which_bands_came_from_where(config, weights, tmp_path, capsys):
    out = ('--out', str(tmp_path / 'out'), '--probes', 'false')
    asked = ['why', '--config', str(config), '--weights', *weights, *FIRST, *out]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert 'VV, VH: not in the weights: VV (sample: around the mean of 2 bands)' in said
    assert f'B04, B08: not in the weights: B04 (of {weights[0]})' in said
    table = pd.read_csv(tmp_path / 'out' / 'why.csv')
    assert 'first_linear_mAP_micro' not in table
    assert 'probe' not in (tmp_path / 'out' / 'why.md').read_text().splitlines()[10]


def test_the_same_bands_twice_are_wholly_alike(config, tmp_path):
    options = ('--second', 'B04,B08', '--probes=false', '--split', 'val')
    out = tmp_path / 'out'
    asked = ['why', '--config', str(config), *FIRST, *options, '--out', str(out)]
    assert main(asked) == 0
    table = pd.read_csv(out / 'why.csv')
    assert set(table['places']) == {15}
    for column in ('cka', 'overlap', 'recall1_first_to_second'):
        assert table[column].to_numpy() == pytest.approx(1)


def test_the_page_has_units_on_every_axis_and_says_what_every_line_is(made):
    table = pd.read_csv(made / 'why.csv', dtype={'depth': str})
    titles = {'first': 'S2', 'second': 'S1'}
    drawing = figure(table, titles, 5, 'about', 'a note')
    assert len(drawing.axes) == 4
    for panel in drawing.axes:
        assert 'blocks' in panel.get_xlabel()
        assert '%' in panel.get_ylabel() or 'CKA' in panel.get_ylabel()
        colours = {line.get_color() for line in panel.lines} - {'black'}
        assert len(colours) == 3
    assert [len(panel.lines) for panel in drawing.axes] == [7, 4, 4, 7]
    (legend,) = drawing.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == list(table['encoder'].unique())
    drawn = [line.get_color() for line in legend.get_lines()]
    assert drawn == [line.get_color() for line in drawing.axes[1].lines[:3]]
    said = [
        [text.get_text() for text in panel.get_legend().get_texts()]
        for panel in (drawing.axes[0], *drawing.axes[2:])
    ]
    assert said == [
        ['S2', 'S1', 'chance'],
        ['chance'],
        ['S2 finds S1', 'S1 finds S2', 'chance'],
    ]
    words = [text.get_text() for text in drawing.findobj(Text)]
    assert 'a note' in words
    cka = drawing.axes[1].lines[0].get_ydata()
    np.testing.assert_allclose(cka, table['cka'].iloc[:4])


STOCK = {
    'class_path': 'torchgeo.datamodules.EuroSATDataModule',
    'dict_kwargs': {'root': 'nowhere'},
}


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--weights', 'gone.ckpt'], "weights 'gone.ckpt' is neither a file nor"),
        (['--neighbors', '21'], 'neighbors is 21 and there are 21 test places'),
        (['--samples', '3'], 'there are 3 test places: give more'),
        (['--second', 'B99'], "'B99' is no band: give s2, s1 or rgb"),
        (['--samples', '-5'], 'samples is -5: give at least 1'),
        (['--split', 'train'], "split is 'train': use test or val"),
        (['--pool', 'bands'], "pool is 'bands': use one of mean, token"),
        (['--depth', '13'], "depth is '13': this encoder has 0 to 12"),
    ],
)
def test_bad_requests_are_told_in_a_sentence(options, words, config, tmp_path, capsys):
    out = tmp_path / 'out'
    asked = ['why', '--config', str(config), *FIRST, '--out', str(out), *options]
    assert main(asked) == 1
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()


def test_data_of_one_sensor_are_told(config, tmp_path, capsys):
    path = tmp_path / 'stock.yaml'
    content = yaml.safe_load(config.read_text()) | {'data': STOCK}
    path.write_text(yaml.safe_dump(content))
    asked = ['why', '--config', str(path), '--out', str(tmp_path / 'out')]
    assert main(asked) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert 'EuroSATDataModule has no two sensors of the same places' in told


def test_an_encoder_of_all_bands_at_once_is_told(conf, tmp_path, capsys):
    plain = {'model': 'resnet18', 'weights': None}
    path = write_config(conf, tmp_path, 'finetune.yaml', model=plain)
    asked = ['why', '--config', str(path), *FIRST, '--out', str(tmp_path / 'out')]
    assert main(asked) == 1
    assert 'ResNet takes all bands at once' in capsys.readouterr().err


def test_nothing_is_overwritten(config, made, capsys):
    before = (made / 'why.csv').read_bytes()
    assert main(['why', '--config', str(config), '--out', str(made)]) == 1
    assert 'exists: give another out' in capsys.readouterr().err
    assert (made / 'why.csv').read_bytes() == before
