"""``channelmae why`` on the bundled sample's real pairs."""

import numpy as np
import pandas as pd
import pytest
import torch

from torchgeo_channelmae.cli import main
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.experiments.probes.features import extract
from torchgeo_channelmae.experiments.probes.pages import why_figure
from torchgeo_channelmae.experiments.probes.similarity import debiased_cka
from torchgeo_channelmae.models import ChannelViT

OPTICAL, RADAR = ('B04', 'B08'), ('VV', 'VH')
FIRST = ('--first', 'B04,B08', '--neighbors', '5', '--device', 'cpu')


@pytest.fixture(scope='module')
def config(small):
    return small('pretrain.yaml')


@pytest.fixture(scope='module')
def made(config, weights, tmp_path_factory):
    out = tmp_path_factory.mktemp('why') / 'out'
    asked = ['why', '--config', str(config), '--weights', *weights, *FIRST]
    assert main([*asked, '--depth', '1,out', '--out', str(out)]) == 0
    return out


def test_each_depth_of_every_encoder_stands_beside_chance(made, weights):
    table = pd.read_csv(made / 'why.csv')
    assert table['encoder'].unique().tolist() == ['untrained', *weights]
    assert table['depth'].tolist() == ['1', 'out'] * 3
    assert set(table['places']) == {21}
    assert table['overlap_chance'].iloc[0] == pytest.approx(5 / 20, abs=1e-6)
    assert table['cka_shuffled'].abs().median() < 0.15 < table['cka'].median()
    for sensor in ('first', 'second'):
        assert table[f'{sensor}_linear_mAP_micro'].between(0.1, 1).all()


def test_the_page_has_the_best_and_last_depth_of_each_encoder(made, weights):
    text = (made / 'why.md').read_text()
    assert 'say nothing about the model' in text
    table = pd.read_csv(made / 'why.csv')
    table = table[table['encoder'] == weights[1]]
    lines = [line for line in text.splitlines() if line.startswith(f'| {weights[1]} ')]
    best = table.loc[table['cka'].idxmax(), 'depth']
    shown = [line.split('|')[2].strip() for line in lines]
    assert shown == list(dict.fromkeys([best, 'out']))
    assert f'{table["cka"].iloc[-1]:.3f} (' in lines[-1]
    assert (made / 'why.png').stat().st_size > 50_000


def test_cka_is_between_the_encoders_views_of_the_same_places(made, weights):
    """Each sensor's features, computed separately with a model made by hand."""
    parts = []
    state = torch.load(weights[1], weights_only=True)  # knows radar
    before = torch.load(weights[0], weights_only=True)  # knows optical bands
    for bands, known in ((OPTICAL, before), (RADAR, state)):
        small = {'img_size': 32, 'embed_dim': 192, 'depth': 2, 'num_heads': 3}
        model = ChannelViT(bands=bands, **small).eval()
        tensors = {k: v for k, v in state.items() if 'spectral' not in k}
        own = {
            f'spectral_embed.{band}': known[f'spectral_embed.{band}'] for band in bands
        }
        model.load_state_dict(tensors | own)
        data = BigEarthNetS1S2DataModule(bands=list(bands), size=32, batch_size=8)
        data.setup('test')
        found = extract({'': model}, data, 'test', ['1'])['']
        parts.append(found.depths['1'])
    table = pd.read_csv(made / 'why.csv').set_index(['encoder', 'depth'])
    found = table.loc[(weights[1], '1'), 'cka']
    assert found == pytest.approx(debiased_cka(*parts), abs=1e-3)


def test_the_origin_of_each_band_is_printed(config, weights, tmp_path, capsys):
    out = ('--out', str(tmp_path / 'out'), '--probes', 'false')
    asked = ['why', '--config', str(config), '--weights', *weights, *FIRST, *out]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert 'VV (sample: around the mean of 2 bands, draw ' in said
    assert f'B04 (of {weights[0]})' in said
    assert 'first_linear_mAP_micro' not in pd.read_csv(tmp_path / 'out' / 'why.csv')


def test_the_figure_names_every_line(made, weights):
    table = pd.read_csv(made / 'why.csv')
    figure = why_figure(table, ('S2', 'S1'), 'about', 'a note')
    encoders = ['untrained', *weights]
    lines = [
        ['probe S2, mAP micro', 'probe S1, mAP micro'],
        [''],
        [''],
        ['S2 finds S1 in 10', 'S1 finds S2 in 10'],
    ]
    for panel, titles in zip(figure.axes, lines, strict=True):
        named = [text.get_text() for text in panel.get_legend().get_texts()]
        expected = [f'{name}: {t}' if t else name for t in titles for name in encoders]
        assert named == [*expected, 'chance']
    cka, overlap = (figure.axes[i].lines[0].get_ydata() for i in (1, 2))
    np.testing.assert_allclose(cka, table['cka'].iloc[:2])
    np.testing.assert_allclose(overlap, 100 * table['overlap'].iloc[:2])


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        (['--neighbors', '21'], 'neighbors'),
        (['--samples', '3', '--neighbors', '1'], '3 test places'),
        (['--second', 'B99'], 'B99'),
    ],
)
def test_a_mistake_is_named_and_writes_nothing(
    options, named, config, tmp_path, capsys
):
    out = tmp_path / 'out'
    asked = ['why', '--config', str(config), *FIRST, '--out', str(out), *options]
    assert main(asked) == 1
    assert named in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()


def test_an_encoder_of_all_bands_at_once_is_an_error(small, tmp_path, capsys):
    path = small('finetune.yaml', model={'model': 'resnet18'})
    asked = ['why', '--config', str(path), *FIRST, '--out', str(tmp_path / 'out')]
    assert main(asked) == 1
    assert 'ResNet' in capsys.readouterr().err
