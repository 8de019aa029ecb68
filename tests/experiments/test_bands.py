"""How strongly bands depend on each other, on the bundled sample's 59 real pairs."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import rankdata

from torchgeo_channelmae.cli import main
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule
from torchgeo_channelmae.experiments.bands import dependence, one_grid

OPTIONS = ('--first', 'B02,B05,B09', '--second', 'VV,VH', '--pixels', '3000')


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp('bands') / 'out'
    assert main(['bands', '--out', str(out), *OPTIONS]) == 0
    return out


@pytest.mark.parametrize('rho', [-0.9, 0.0, 0.5])
def test_a_bivariate_normal_has_its_known_dependence(rho):
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 5000))
    y = rho * x + np.sqrt(1 - rho**2) * noise
    found = dependence(pd.Series(x), pd.Series(y))
    spearman = np.corrcoef(rankdata(x), rankdata(y))[0, 1]
    assert found['pearson'] == pytest.approx(rho, abs=0.04)
    assert found['spearman'] == pytest.approx(spearman)
    known = -0.5 * np.log(1 - rho**2)
    assert found['mutual_information'] == pytest.approx(known, abs=0.05)


def test_every_pair_is_measured_beside_its_baseline(made):
    table = pd.read_csv(made / 'bands.csv')
    pairs = [(a, b) for a in ('B02', 'B05', 'B09') for b in ('VV', 'VH')]
    assert list(zip(table['first'], table['second'], strict=True)) == pairs
    assert set(table['patches']) == {59}
    assert set(table['pixels']) == {59 * 51}  # equally many of each patch
    for name in ('pearson', 'spearman', 'mutual_information'):
        assert table[f'{name}_shuffled'].abs().max() < 0.07
    assert (table['mutual_information'] > 0.05).all()
    last = table.iloc[-1]
    text = (made / 'bands.md').read_text()
    assert f'{last["pearson"]:.3f} ({last["pearson_shuffled"]:.3f})' in text


def test_the_same_files_are_made_again(made, tmp_path):
    out = tmp_path / 'again'
    assert main(['bands', '--out', str(out), *OPTIONS]) == 0
    names = sorted(path.name for path in made.iterdir())
    assert names == ['bands.csv', 'bands.md', 'bands.png']
    for name in names:
        assert (made / name).read_bytes() == (out / name).read_bytes(), name


def test_bands_are_averaged_to_the_resolution_and_coarser_ones_repeated():
    data = BigEarthNetS1S2DataModule(bands=['B04', 'B05', 'B09'], batch_size=1)
    data.setup('fit')
    sample = data.make_dataset('train', native=True)[0]
    stored = {
        band: torch.as_tensor(np.asarray(layer, dtype=np.float32))
        for names, stack in sample['native'].items()
        for band, layer in zip(names, stack, strict=True)
    }
    found = one_grid(sample, ['B09', 'B05', 'B04'], 20)
    repeated = stored['B09'].repeat_interleave(3, 0).repeat_interleave(3, 1)
    torch.testing.assert_close(found[0], repeated)
    torch.testing.assert_close(found[1], stored['B05'])
    torch.testing.assert_close(found[2], F.avg_pool2d(stored['B04'][None], 2)[0])
    coarse = {('B05',): stored['B05'][None], ('B09',): stored['B09'][None]}
    found = one_grid({'native': coarse}, ['B05', 'B09'], 20)  # no band of 10 m
    torch.testing.assert_close(found[0], stored['B05'])
    mean = one_grid(sample, ['B05'], None)
    torch.testing.assert_close(mean.flatten(), stored['B05'].mean()[None])


def test_a_configuration_names_the_data(tmp_path, conf):
    out = tmp_path / 'out'
    options = ('--first', 'B04', '--second', 'B04', '--pixels', '1500')
    asked = ['bands', '--out', str(out), *options]
    assert main([*asked, '--training', str(conf / 'finetune.yaml')]) == 0
    row = pd.read_csv(out / 'bands.csv').iloc[0]
    assert row['patches'] == 59
    assert row['pearson'] == row['spearman'] == 1


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        (['--first', 'B99'], 'B99'),
        (['--pixels', '50', '--samples', '5'], '50 pixels'),
        (['--resolution', 'patch'], '59 pixels'),
        (['--training', 'gone.yaml'], 'gone.yaml'),
    ],
)
def test_a_mistake_is_named_and_writes_nothing(options, named, tmp_path, capsys):
    out = tmp_path / 'out'
    asked = ['bands', '--out', str(out), '--first', 'B04', '--second', 'VH', *options]
    assert main(asked) == 1
    assert named in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()
