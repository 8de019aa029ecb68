"""What a row of table 1 costs is added up from its planned runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cases import Case, quick_cases
from benchmarks.headline import PATCHES, Work, count_work, markdown, measure
from benchmarks.steps import make_steps
from torchgeo_channelmae.experiments.tables.plan import Data, make_plan
from torchgeo_channelmae.experiments.tables.spec import read_preset, read_table

CONF = Path(__file__).parents[1] / 'conf'


@pytest.fixture(scope='module')
def runs():
    preset = read_preset('paper', CONF)
    return lambda row: make_plan(
        read_table('1'), preset, preset.seeds, Data(), only=[row]
    ).runs.values()


def test_a_row_is_one_pretraining_and_fine_tunings_on_both_sensors(runs):
    works = count_work(runs('s2-p16'), Case(), PATCHES | {'pretrain': 1000})
    pretraining, *tunings = works
    assert pretraining.case.part == 'pretraining'
    assert (pretraining.case.bands, pretraining.case.mask) == (12, 0.75)
    assert (pretraining.trainings, pretraining.trained) == (1, 200 * 1000)
    assert [work.case.bands for work in tunings] == [2, 12]
    for work in tunings:
        assert work.case.part == 'finetuning'
        assert work.trainings == 3 + 2  # learning rates at one seed, then the others
        assert work.trained == 5 * 50 * PATCHES['train']
        assert work.evaluated == 5 * (50 * PATCHES['val'] + PATCHES['test'])


def test_patch_and_bands_are_those_of_the_row(runs):
    finer = count_work(runs('s2-p8'), Case(), PATCHES | {'pretrain': 1})
    assert {work.case.patch for work in finer} == {8}
    coloured = count_work(runs('rgb-p16'), Case(), PATCHES | {'pretrain': 1})
    assert coloured[0].case.bands == 3


def test_a_row_of_another_encoder_is_refused(runs):
    with pytest.raises(ValueError, match='resnet50 is no ChannelMAE model'):
        count_work(runs('resnet50'), Case(), PATCHES | {'pretrain': 1})


def test_hours_are_patches_over_the_measured_rates():
    case = replace(quick_cases(Case())[0], part='finetuning')
    row = measure(Work(case, trainings=2, trained=3600, evaluated=7200), rounds=1)
    rate = row['patches_per_second']
    assert row['hours'] == pytest.approx(1 / rate['step'] + 2 / rate['forward'])
    steps = make_steps(case)
    assert row['flops'] == pytest.approx(steps.flops / case.batch * (3600 + 2400))
    made = {'about': 'A row', 'machine': {'gpu': None, 'processor': 'P'}, 'peak': 1e9}
    page = markdown(made | {'work': [row]})
    assert case.name in page
    assert f'In all {row["hours"]:,.4g} hours' in page
