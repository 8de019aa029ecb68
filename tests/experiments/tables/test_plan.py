"""The runs of a table, and of zero-shot tests."""

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


def planned(name='1', preset=SAMPLE, seeds=(0, 1), data=BUNDLED, **options):
    return make_plan(read_table(name), preset, seeds, data, **options)


def listed_for(*sensors):
    table = read_table('matrix', sensors=sensors)
    return list(zero_shot_tests(table, sensors, SAMPLE.overlays))


def planned_tests(preset=SAMPLE, data=BUNDLED, **options):
    table = read_table('matrix', sensors=('rgb', 's1'))
    plan = make_plan(table, preset, (0, 1), data, **options)
    return with_zero_shot(plan, listed_for('rgb', 's1'), preset)


def given(command):
    pairs = [option.removeprefix('--').split('=', 1) for option in command[1:]]
    return dict(pairs)


@pytest.mark.parametrize('name', NAMES)
def test_every_cell_has_a_run_per_seed_and_those_that_it_needs_come_first(name):
    plan = planned(name)
    assert {*plan.by_cell, *plan.left_out} == {*read_table(name).cells}
    for runs in plan.by_cell.values():
        assert [plan.runs[run].seed for run in runs] == [0, 1]
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
    first = planned(preset=replace(SAMPLE, pretrainings='first')).runs[each.name]
    assert each.start == 'pretrain-s2-p16-seed1'
    assert first.start == 'pretrain-s2-p16-seed0'
    fit, test = first.commands(Path('runs'))
    weights = 'runs/pretrain-s2-p16-seed0/last.ckpt'
    assert given(fit)['model.init_args.weights'] == weights
    assert (test[0], given(test)['ckpt_path']) == (
        'test',
        f'runs/{first.name}/last.ckpt',
    )


def test_every_learning_rate_is_tried_at_the_first_seed_for_all_cells_alike():
    plan = planned(preset=replace(SAMPLE, base_lrs=(0.1, 0.2)), seeds=(0, 1, 2))
    assert set(plan.tried) == set(plan.by_cell)
    for cell, tried in plan.tried.items():
        assert [(plan.runs[n].seed, plan.runs[n].base_lr) for n in tried] == [
            (0, 0.1),
            (0, 0.2),
        ]
        others = [plan.runs[name] for name in plan.by_cell[cell]]
        assert [run.seed for run in others] == [1, 2]
        assert all(run.candidates == tried for run in others)
        assert not any('base_lr' in str(run.commands(Path())) for run in others)


def test_optical_pretraining_reads_its_own_balanced_data_but_the_ceiling_the_targets():
    data = Data(Path('target'), Path('optical'), Path('cover.parquet'))
    runs = planned(preset=read_preset('paper', CONF), seeds=(0,), data=data).runs
    for name in ('s2-p16', 'rgb-p16', 's2-p8', 's1-p16'):
        settings = runs[f'pretrain-{name}-seed0'].settings()
        is_ceiling = name == 's1-p16'
        root = 'target' if is_ceiling else 'optical'
        assert settings['data.init_args.root'] == root
        shares = settings.get('data.init_args.sampler.init_args.shares')
        assert (shares == 'cover.parquet') != is_ceiling


def test_options_of_a_cell_reach_its_commands():
    plan = planned('3', data=Data(Path('data')), train_fraction=0.1)
    name = 'finetune-from-s2-p16-s1-patch_embed+head-reinit-patch_embed-labels10-seed1'
    options = given(plan.runs[name].commands(Path('out'))[0])
    assert options['model.init_args.trainable'] == 'patch_embed+head'
    assert options['model.init_args.reinit'] == '[patch_embed]'
    assert options['model.init_args.base_lr'] == '0.016'
    assert options['data.init_args.train_fraction'] == '0.1'
    assert options['data.init_args.root'] == 'data'
    assert options['seed_everything'] == '1'
    assert options['trainer.default_root_dir'] == f'out/{name}'


def test_published_weights_are_left_out_with_the_reason_or_run():
    reasons = planned().left_out
    assert set(reasons) == {
        f'{m}-mae:{s}' for m in ('optical', 'radar') for s in ('S1', 'S2')
    }
    assert all('needs a download (ViT' in reason for reason in reasons.values())
    plan = planned(preset=replace(SAMPLE, downloads=True))
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


def test_a_train_fraction_outside_of_0_to_1_is_refused():
    with pytest.raises(ValueError, match='train_fraction is 0'):
        planned(train_fraction=0.0)


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
    assert found['s2-p16:RGB on rgb+s2'].bands[:3] == ('B04', 'B03', 'B02')
    counts = {name: (test.known, test.added) for name, test in found.items()}
    assert counts['s2-p16:S1 on s2'] == counts['s2-p16:S1 on s1+s2'] == (12, 12)
    assert counts['rgb-p16:S1 on s2'] == (3, 12)
    assert counts['s1-p16:S1 on s2'] == (0, 12)
    assert counts['s2-p16:RGB on rgb+s2'] == (9, 9)
    assert counts['rgb-p16:RGB on rgb+s2'] == (0, 9)


def test_a_test_reads_fine_tuned_weights_and_the_embeddings_of_its_pretraining():
    plan = planned_tests(data=Data(Path('data')), train_fraction=0.5)
    run = plan.runs[plan.by_cell['rgb-p16:S1 on s1+rgb'][1]]
    assert run.name == 'unchanged-from-rgb-p16-s1-labels50-on-s1+rgb-seed1'
    tuned = 'finetune-from-rgb-p16-s1-labels50-seed1'
    assert run.needs == (tuned, 'pretrain-rgb-p16-seed1')
    (test,) = run.commands(Path('out'))
    assert test[0] == 'test'
    assert given(test) == {
        'config': str(CONF / 'unchanged.yaml'),  # the last
        'seed_everything': '1',
        'data.init_args.train_fraction': '0.5',
        'data.init_args.root': 'data',
        'model.init_args.in_channels': '5',
        'model.init_args.bands': '[VV, VH, B04, B03, B02]',
        'data.init_args.bands': '[VV, VH, B04, B03, B02]',
        'model.init_args.weights': f'out/{tuned}/last.ckpt',
        'model.init_args.embeddings': 'out/pretrain-rgb-p16-seed1/last.ckpt',
        'trainer.default_root_dir': f'out/{run.name}',
    }


def test_of_several_learning_rates_the_best_ones_weights_are_tested():
    plan = planned_tests(replace(SAMPLE, base_lrs=(0.1, 0.2)), only=['rgb-p16:S1'])
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
