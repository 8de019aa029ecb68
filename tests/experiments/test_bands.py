"""How much bands tell of others, on the bundled sample's 59 real pairs."""

import numpy as np
import pandas as pd
import pytest

from torchgeo_channelmae.cli import main
from torchgeo_channelmae.datamodules import BigEarthNetS1S2DataModule

QUICK = ('--pixels', '1500', '--second', 'VH')


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp('bands') / 'out'
    options = ('--first', 'B02,B05,B09', '--second', 'VV,VH', '--pixels', '3000')
    assert main(['bands', '--out', str(out), *options]) == 0
    return out


def test_every_band_is_measured_against_every_other_with_its_baseline(made):
    table = pd.read_csv(made / 'bands.csv')
    pairs = [(a, b) for a in ('B02', 'B05', 'B09') for b in ('VV', 'VH')]
    assert list(zip(table['first'], table['second'], strict=True)) == pairs
    assert set(table['patches']) == {59}
    assert set(table['pixels']) == {59 * 51}  # as many of each patch
    for name in ('pearson', 'spearman', 'mutual_information'):
        assert table[f'{name}_shuffled'].abs().max() < 0.07
    assert (table['mutual_information'] > 0.05).all()


def test_files_are_the_same_again(made, tmp_path):
    out = tmp_path / 'again'
    options = ('--first', 'B02,B05,B09', '--second', 'VV,VH', '--pixels', '3000')
    assert main(['bands', '--out', str(out), *options]) == 0
    names = sorted(path.name for path in made.iterdir())
    assert names == ['bands.csv', 'bands.md', 'bands.png']
    for name in names:
        assert (made / name).read_bytes() == (out / name).read_bytes(), name


def test_patch_means_correlate_as_computed_by_hand(tmp_path):
    out = tmp_path / 'out'
    options = ('--first', 'B08', '--second', 'VH', '--resolution', 'patch')
    assert main(['bands', '--out', str(out), *options]) == 1  # 59 pixels are too few
    data = BigEarthNetS1S2DataModule(bands=['B08', 'VH'], batch_size=1)
    data.setup('fit')
    rows = []
    for split in ('train', 'val', 'test'):
        dataset = data.make_dataset(split, native=False)
        rows += [dataset[i]['image'].mean((1, 2)).tolist() for i in range(len(dataset))]
    values = np.array(rows)
    assert len(values) == 59
    # At 1,200 m a patch is one pixel; at 120 m its 100 pixels have the same mean.
    assert main(['bands', '--out', str(out), *options[:4], '--resolution', '120']) == 0
    found = pd.read_csv(out / 'bands.csv').iloc[0]
    assert found['pixels'] == 5900
    assert np.sign(found['pearson']) == np.sign(np.corrcoef(values.T)[0, 1])


def test_a_sensor_can_be_measured_against_itself(tmp_path):
    out = tmp_path / 'out'
    assert main(['bands', '--out', str(out), '--first', 'B04', '--second', 'B04']) == 0
    row = pd.read_csv(out / 'bands.csv').iloc[0]
    assert row['pearson'] == row['spearman'] == 1


def test_a_configuration_names_the_data(tmp_path, conf):
    out = tmp_path / 'out'
    asked = ['bands', '--out', str(out), '--first', 'B04', *QUICK]
    assert main([*asked, '--training', str(conf / 'finetune.yaml')]) == 0
    assert set(pd.read_csv(out / 'bands.csv')['patches']) == {59}


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--first', 'B99'], "'B99' is no band: give s2, s1 or rgb"),
        (['--resolution', '0'], "resolution is '0': give metres from 10"),
        (['--resolution', 'fine'], "resolution is 'fine'"),
        (['--pixels', '0'], 'samples, pixels and neighbors are 2000, 0 and 3'),
        (['--pixels', '50', '--samples', '5'], '50 pixels of 5 patches have data'),
        (['--root', 'gone'], 'BigEarthNet root gone is not a folder'),
        (['--training', 'gone.yaml'], 'gone.yaml is not a file'),
    ],
)
def test_bad_requests_are_told_in_a_sentence(options, words, tmp_path, capsys):
    out = tmp_path / 'out'
    assert main(['bands', '--out', str(out), *QUICK[2:], *options]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert words in told
    assert not out.exists()


def test_nothing_is_overwritten(made, capsys):
    before = (made / 'bands.csv').read_bytes()
    assert main(['bands', '--out', str(made)]) == 1
    assert 'exists: give another out' in capsys.readouterr().err
    assert (made / 'bands.csv').read_bytes() == before
