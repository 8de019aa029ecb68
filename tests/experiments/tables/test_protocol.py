"""What is fixed before the first run of a table."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from tests.experiments.tables.fabricated import CONF
from torchgeo_channelmae.experiments.tables.plan import Data, make_plan
from torchgeo_channelmae.experiments.tables.protocol import describe, fix, smallest_gain
from torchgeo_channelmae.experiments.tables.spec import read_preset, read_table

SAMPLE = read_preset('sample', CONF)
BUNDLED = Data()


def asked(preset=SAMPLE, seeds=(0, 1), data=BUNDLED, **options):
    table = read_table('1')
    plan = make_plan(table, preset, seeds, data, **options)
    return describe(table, preset, plan, seeds, data)


def test_a_protocol_is_written_once_and_what_is_asked_later_is_what_it_has(tmp_path):
    path = tmp_path / 'protocol.yaml'
    first = fix(path, asked(), 0)
    assert 'protocol.yaml (sha256 ' in first
    assert first.endswith('written before the first run')
    before = path.read_bytes()
    assert fix(path, asked(), 7) == first
    assert path.read_bytes() == before
    fixed = yaml.safe_load(before)
    assert fixed['primary comparison'] == 's2-p16:S1 - scratch-p16:S1, mAP micro'
    assert fixed['split']['split_by'] is None  # that of the datamodule
    assert len(fixed['runs']) > len(fixed['cells']) == 15
    late = fix(tmp_path / 'late.yaml', asked(), 7)
    assert late.endswith('when 7 runs were done already')


@pytest.mark.parametrize(
    ('changed', 'entry'),
    [
        ({'seeds': (0,)}, r'seeds: \[0, 1\], but \[0\]'),
        ({'preset': replace(SAMPLE, base_lrs=(0.1,))}, 'grids.base_lrs'),
        ({'only': ['s2-p16']}, 'cells'),
        ({'data': Data(Path('gone'))}, 'data table'),
        ({'train_fraction': 0.5}, 'runs.finetune-'),
    ],
)
def test_what_differs_from_a_protocol_is_named(changed, entry, tmp_path):
    path = tmp_path / 'protocol.yaml'
    fix(path, asked(), 0)
    with pytest.raises(ValueError, match=f'protocol.yaml has {entry}'):
        fix(path, asked(**changed), 0)


def test_a_file_that_is_no_protocol_is_refused(tmp_path):
    path = tmp_path / 'note.yaml'
    path.write_text('a note')
    with pytest.raises(ValueError, match=r'note.yaml is no protocol'):
        fix(path, asked(), 0)


def test_the_smallest_gain_is_half_of_the_interval_of_simulated_differences():
    rng = np.random.default_rng(0)
    tiles, seeds, draws = 24, 3, 4000
    clusters = rng.normal(0, 4, (draws, tiles))
    runs = rng.normal(0, 2, (draws, seeds))
    gain = smallest_gain(seeds, tiles, 4, 2)
    deviation = np.std(clusters.mean(1) + runs.mean(1))
    assert deviation < gain / stats.norm.ppf(0.975) < 2 * deviation  # Student's t
    assert smallest_gain(1, tiles, 4, 2) < smallest_gain(2, tiles, 4, 2)
    t = stats.t.ppf(0.975, tiles - 1)
    assert smallest_gain(1, tiles, 4, 2) == pytest.approx(t * 4 / tiles**0.5)
