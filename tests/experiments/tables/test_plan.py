"""The runs of a table, and of zero-shot tests."""

import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from torchgeo_channelmae.experiments.tables.plan import Data, make_plan
from torchgeo_channelmae.experiments.tables.spec import NAMES, read_preset, read_table
from torchgeo_channelmae.experiments.tables.zero_shot import (
    with_zero_shot,
    zero_shot_tests,
)

CONF = Path(__file__).parents[3] / 'conf'
SAMPLE = read_preset('sample', CONF)
BUNDLED = Data()
LABELS = ('train_fraction', 'fraction_seed', 'val_label_fraction')


def planned(name='1', preset=SAMPLE, seeds=(0, 1), data=BUNDLED, **options):
    table = read_table(name, preset.fractions)
    return make_plan(table, preset, seeds, data, **options)


def listed_for(*sensors):
    table = read_table('matrix', sensors=sensors)
    return list(zero_shot_tests(table, sensors, SAMPLE.overlays))


def planned_tests(preset=SAMPLE, data=BUNDLED, **options):
    table = read_table('matrix', sensors=('rgb', 's1'))
    plan = make_plan(table, preset, (0, 1), data, **options)
    return with_zero_shot(plan, listed_for('rgb', 's1'), preset)


def given(command):
    return dict(option.removeprefix('--').split('=', 1) for option in command[1:])


@pytest.mark.parametrize('name', NAMES)
def test_every_cell_has_a_run_per_seed_and_those_that_it_needs_come_first(name):
    plan = planned(name)
    cells = read_table(name, SAMPLE.fractions).cells
    assert {*plan.by_cell, *plan.left_out} == {*cells}
    for cell, runs in plan.by_cell.items():
        tried = list(plan.tried[cell])[:1]
        assert [plan.runs[run].seed for run in (*tried, *runs)] == [0, 1]
    seen = set()
    for run in plan.runs.values():
        assert {*run.needs} <= seen
        seen.add(run.name)


def test_tables_share_the_runs_that_are_the_same():
    plans = [planned(name).runs for name in ('1', '2', '3', 'matrix')]
    shared = set.intersection(*map(set, plans))
    assert {'pretrain-s2-p16-seed0', 'finetune-from-s2-p16-s1-seed0'} <= shared
    for name in shared:
        assert all(plan[name] == plans[0][name] for plan in plans)


def test_a_cell_starts_from_the_pretraining_of_its_seed_or_of_the_first():
    each = planned().runs['finetune-from-s2-p16-s1-seed1']
    first = planned(preset=replace(SAMPLE, pretrainings=1)).runs[each.name]
    assert each.start == 'pretrain-s2-p16-seed1'
    assert first.start == 'pretrain-s2-p16-seed0'
    fit, test = first.commands(Path('runs'))
    weights = 'runs/pretrain-s2-p16-seed0/last.ckpt'
    assert given(fit)['model.init_args.weights'] == weights
    assert test[0] == 'test'
    assert given(test)['ckpt_path'] == f'runs/{first.name}/last.ckpt'
    with pytest.raises(ValueError, match='pretrainings is 2 for 3 seeds'):
        planned(seeds=(0, 1, 2))


@pytest.mark.parametrize('name', ['1', '3'])
def test_rates_are_tried_for_all_cells_alike_and_decay_where_nothing_is_pretrained(
    name,
):
    rates = {'base_lrs': (0.1, 0.2), 'partial_base_lrs': (5, 6)}
    preset = replace(SAMPLE, pretrainings=1, layer_decays=(0.75, 1), **rates)
    plan = planned(name, preset, seeds=(0, 1, 2))
    cells = read_table(name).cells
    assert set(plan.tried) == set(plan.by_cell)
    for key, tried in plan.tried.items():
        learn_all = cells[key].trainable == 'all'
        decays = (0.75, 1) if learn_all and not cells[key].pretrain else (None,)
        rates = (0.1, 0.2) if learn_all else (5, 6)
        found = [(c['base_lr'], c.get('layer_decay')) for c in tried.values()]
        assert found == list(itertools.product(rates, decays))
        assert {plan.runs[run].seed for run in tried} == {0}
        others = [plan.runs[run] for run in plan.by_cell[key]]
        assert [run.seed for run in others] == [1, 2]
        for run in others:
            assert run.candidates == tried
            assert not re.search('base_lr|layer_decay', str(run.commands(Path())))


def test_optical_and_radar_pretraining_read_the_same_images_and_one_row_the_targets():
    data = Data(Path('target'), Path('optical'), Path('cover.parquet'))
    runs = planned(preset=read_preset('paper', CONF), seeds=(0,), data=data).runs
    for name in ('s2-p16', 'rgb-p16', 's2-p8', 's1-p16', 's1-p16-own'):
        settings = runs[f'pretrain-{name}-seed0'].settings()
        root = 'target' if name.endswith('own') else 'optical'
        assert settings['data.init_args.root'] == root
        shares = settings.get('data.init_args.sampler.init_args.shares')
        assert (shares == 'cover.parquet') == (root == 'optical')
    for name, cell in read_table('1').cells.items():
        if cell.ceiling:
            assert not read_table('1').cells[cell.ceiling].own, name


def test_a_share_of_the_labels_is_of_its_seed_in_as_many_steps_and_of_validation():
    plan = planned('labels')
    for name, cell in read_table('labels', SAMPLE.fractions).cells.items():
        for run in map(plan.runs.get, (*plan.tried[name], *plan.by_cell[name])):
            settings = run.settings()
            found = {key: settings[f'data.init_args.{key}'] for key in LABELS}
            share = cell.fraction
            assert tuple(found.values()) == (share, run.seed, share)
            assert settings['data.init_args.samples_per_epoch'] == 48
            assert 'data.init_args.full_epochs' not in settings
    paper = replace(read_preset('paper', CONF), cut_validation=False)
    for run in planned('labels', paper).runs.values():
        if run.kind == 'finetune':
            settings = run.settings()
            assert settings['data.init_args.full_epochs'] is True
            assert 'data.init_args.val_label_fraction' not in settings


def test_devices_share_the_batch_of_the_configuration():
    for devices in (1, 2, 4):
        for run in planned(devices=devices).runs.values():
            settings = run.settings()
            assert settings['trainer.devices'] == devices
            assert settings['data.init_args.batch_size'] * devices == 16
    with pytest.raises(ValueError, match=r'devices is 3, but .* batches of 16'):
        planned(devices=3)


def test_the_frozen_encoder_of_a_head_gets_a_logistic_regression_once():
    plan = planned('3')
    checked = {n for n, r in plan.runs.items() if 'logistic' in str(r.configs)}
    assert checked == {
        'finetune-from-s2-p16-s1-head-lr0.16-seed0',
        'finetune-channelmae_tiny-p16-s1-head-lr0.16-seed0',
    }


def test_options_of_a_cell_reach_its_commands():
    preset = replace(SAMPLE, partial_base_lrs=(0.16,))
    plan = planned('3', preset, data=Data(Path('data')), train_fraction=0.1)
    name = 'finetune-from-s2-p16-s1-patch_embed+head-reinit-patch_embed-labels10-seed1'
    options = given(plan.runs[name].commands(Path('out'))[0])
    assert options['model.init_args.trainable'] == 'patch_embed+head'
    assert options['model.init_args.reinit'] == '[patch_embed]'
    assert options['model.init_args.base_lr'] == '0.16'
    assert options['data.init_args.train_fraction'] == '0.1'
    assert options['data.init_args.root'] == 'data'
    assert options['seed_everything'] == '1'
    assert options['trainer.default_root_dir'] == f'out/{name}'


def test_published_weights_are_left_out_with_the_reason_or_run():
    reasons = planned().left_out
    assert {name.partition(':')[0] for name in reasons} == {
        *('optical-mae', 'radar-mae', 'vit-base', 's1-p16-own')
    }
    assert sum('needs a download (ViT' in reason for reason in reasons.values()) == 4
    preset = replace(SAMPLE, downloads=True, ceiling=SAMPLE.pretrain)
    plan = planned(preset=preset)
    run = plan.runs['finetune-from-ViTBase16-SENTINEL1_GRD_MAE-s1-seed0']
    weights = run.settings()['model.init_args.weights']
    assert weights == 'ViTBase16_Weights.SENTINEL1_GRD_MAE'
    assert not plan.left_out


def test_only_rows_and_cells_that_are_asked_for_are_run():
    plan = planned(only=['s2-p16:S1', 'scratch-p16'])
    assert set(plan.by_cell) == {'s2-p16:S1', 'scratch-p16:S1', 'scratch-p16:S2'}
    assert sum(run.kind == 'pretrain' for run in plan.runs.values()) == 2
    with pytest.raises(ValueError, match=r"'s3-p16'.* scratch-p16, "):
        planned(only=['s3-p16'])


# Zero-shot tests


def test_every_pretrained_cell_is_tested_on_sensors_with_bands_that_its_own_lacks():
    found = {test.name: test for test in listed_for('s2', 'rgb', 's1')}
    apart = {('S2', 's1'), ('RGB', 's1'), ('S1', 's2'), ('S1', 'rgb')}
    single = {(t.cell.target, t.other) for t in found.values() if not t.joined}
    joined = {(t.cell.target, t.other) for t in found.values() if t.joined}
    assert single == apart
    assert joined == apart | {('RGB', 's2')}  # RGB is a part of Sentinel-2
    assert len(found) == 3 * (4 + 5)  # three sources
    assert found['s2-p16:S1 on s1+rgb'].bands == ('VV', 'VH', 'B04', 'B03', 'B02')
    counts = {name: (test.known, test.added) for name, test in found.items()}
    assert counts['s2-p16:S1 on s2'] == counts['s2-p16:S1 on s1+s2'] == (12, 12)
    assert counts['rgb-p16:S1 on s2'] == (3, 12)
    assert counts['rgb-p16:RGB on rgb+s2'] == (0, 9)


def test_a_test_reads_fine_tuned_weights_and_the_embeddings_of_its_pretraining():
    plan = planned_tests(data=Data(Path('data')), train_fraction=0.5)
    run = plan.runs[plan.by_cell['rgb-p16:S1 on s1+rgb'][1]]
    assert run.name == 'unchanged-from-rgb-p16-s1-labels50-on-s1+rgb-seed1'
    tuned = 'finetune-from-rgb-p16-s1-labels50-seed1'
    assert run.needs == (tuned, 'pretrain-rgb-p16-seed1')
    (test,) = run.commands(Path('out'))
    assert test[0] == 'test'
    options = given(test)
    assert options['config'] == str(CONF / 'unchanged.yaml')  # the last
    assert options['data.init_args.train_fraction'] == '0.5'
    assert options['data.init_args.root'] == 'data'
    assert options['model.init_args.in_channels'] == '5'
    for part in ('model', 'data'):
        assert options[f'{part}.init_args.bands'] == '[VV, VH, B04, B03, B02]'
    pretrained = 'out/pretrain-rgb-p16-seed1/last.ckpt'
    assert options['model.init_args.weights'] == f'out/{tuned}/last.ckpt'
    assert options['model.init_args.embeddings'] == pretrained


def test_of_several_learning_rates_the_best_ones_weights_are_tested():
    preset = replace(SAMPLE, base_lrs=(0.1, 0.2))
    plan = planned_tests(preset, only=['rgb-p16:S1'])
    first, second = (plan.runs[name] for name in plan.by_cell['rgb-p16:S1 on rgb'])
    assert first.name == 'unchanged-from-rgb-p16-s1-on-rgb-seed0'
    assert first.start is None
    assert first.candidates == plan.tried['rgb-p16:S1']
    assert second.start == 'finetune-from-rgb-p16-s1-seed1'


def test_a_sensor_of_which_no_band_is_known_is_left_out_with_the_reason():
    plan = planned_tests()
    assert set(plan.left_out) == {'rgb-p16:RGB on s1', 's1-p16:S1 on rgb'}
    assert 'fine-tuning on s1 read a band of rgb' in plan.left_out['s1-p16:S1 on rgb']
    assert 's1-p16:S1 on s1+rgb' in plan.by_cell  # its own bands are known
