from dataclasses import replace
from pathlib import Path

import pytest

from torchgeo_channelmae.experiments.tables import definitions
from torchgeo_channelmae.experiments.tables.plan import Data, flat, make_plan
from torchgeo_channelmae.experiments.tables.presets import NAMES, read_preset

CONF = Path(__file__).parents[3] / 'conf'
SAMPLE = read_preset('sample', CONF)
BUNDLED = Data()


def planned(name='1', preset=SAMPLE, seeds=(0, 1), data=BUNDLED, **options):
    return make_plan(definitions.table(name), preset, seeds, data, **options)


def of(run, option):
    return dict(run.options).get(option)


@pytest.mark.parametrize('name', definitions.NAMES)
def test_every_cell_has_a_run_a_seed_and_those_that_it_needs_come_first(name):
    plan = planned(name)
    cells = definitions.table(name).cells
    assert set(plan.by_cell) | set(plan.left_out) == set(cells)
    for runs in plan.by_cell.values():
        assert [of(plan.runs[run], 'seed_everything') for run in runs] == ['0', '1']
    seen = set()
    for run in plan.runs.values():
        assert {*run.needs} <= seen
        seen.add(run.name)


def test_a_cell_starts_from_the_pretraining_of_its_seed_or_of_the_first():
    each = planned().runs['finetune-from-s2-p16-s1-seed1']
    first = planned(preset=replace(SAMPLE, pretrainings='first')).runs[each.name]
    assert each.start == 'pretrain-s2-p16-seed1'
    assert first.start == 'pretrain-s2-p16-seed0'
    folder = Path('runs')
    fit, test = first.commands(folder)
    assert 'runs/pretrain-s2-p16-seed0/last.ckpt' in fit
    assert test[0] == 'test'
    assert test[-1] == f'runs/{first.name}/last.ckpt'


def test_tables_share_the_runs_that_are_the_same():
    one, two, three = (planned(name).runs for name in '123')
    assert 'pretrain-s2-p16-seed0' in one.keys() & two.keys() & three.keys()
    for name in one.keys() & two.keys() & three.keys():
        assert one[name] == two[name] == three[name]
        assert one[name].settings() == two[name].settings()


@pytest.mark.parametrize('name', definitions.NAMES)
def test_runs_of_one_name_are_one_training(name):
    settings = {}
    for run in planned(name).runs.values():
        text = str(sorted(run.settings().items(), key=str))
        assert text not in settings, (run.name, settings[text])
        settings[text] = run.name


def test_every_learning_rate_is_tried_at_the_first_seed_for_all_cells_alike():
    plan = planned(preset=replace(SAMPLE, base_lrs=(0.1, 0.2)), seeds=(0, 1, 2))
    for cell, tried in plan.tried.items():
        assert sorted(tried.values()) == [0.1, 0.2]
        assert {of(plan.runs[run], 'seed_everything') for run in tried} == {'0'}
        for run, rate in tried.items():
            assert of(plan.runs[run], 'model.init_args.base_lr') == f'{rate:g}'
        others = [plan.runs[run] for run in plan.by_cell[cell]]
        assert [of(run, 'seed_everything') for run in others] == ['1', '2']
        for run in others:
            assert run.candidates == tried
            assert of(run, 'model.init_args.base_lr') is None
    assert set(plan.tried) == set(plan.by_cell)


def test_land_cover_balances_the_optical_pretrainings_alone():
    data = Data(Path('target'), Path('optical'), Path('cover.parquet'))
    runs = planned(preset=read_preset('paper', CONF), seeds=(0,), data=data).runs
    option = 'data.init_args.sampler.init_args.shares'
    optical = {run.name for run in runs.values() if of(run, option)}
    assert optical == {
        f'pretrain-{name}-seed0' for name in ('s2-p16', 'rgb-p16', 's2-p8')
    }
    assert {of(runs[name], option) for name in optical} == {'cover.parquet'}
    assert {of(runs[name], 'data.init_args.root') for name in optical} == {'optical'}


def test_options_of_a_cell_reach_its_commands():
    plan = planned('3', data=Data(Path('data')), train_fraction=0.1)
    run = plan.runs[
        'finetune-from-s2-p16-s1-patch_embed+head-reinit-patch_embed-labels10-seed1'
    ]
    fit = run.commands(Path('out'))[0]
    given = dict(zip(fit[1::2], fit[2::2], strict=True))
    assert given['--model.init_args.trainable'] == 'patch_embed+head'
    assert given['--model.init_args.reinit'] == '[patch_embed]'
    assert given['--data.init_args.train_fraction'] == '0.1'
    assert given['--data.init_args.root'] == 'data'
    assert given['--seed_everything'] == '1'
    assert given['--trainer.default_root_dir'] == f'out/{run.name}'


def test_pretraining_reads_its_own_data_but_the_ceiling_the_targets():
    runs = planned(data=Data(Path('bigearthnet'), Path('mmearth'))).runs
    roots = {
        name: of(runs[f'pretrain-{name}-p16-seed0'], 'data.init_args.root')
        for name in ('s2', 'rgb', 's1')
    }
    assert roots == {'s2': 'mmearth', 'rgb': 'mmearth', 's1': 'bigearthnet'}


def test_published_weights_are_left_out_with_the_reason_or_run():
    left_out = {'optical-mae:S1', 'optical-mae:S2', 'radar-mae:S1', 'radar-mae:S2'}
    assert set(planned().left_out) == left_out
    assert all('needs a download (ViT' in w for w in planned().left_out.values())
    plan = planned(preset=replace(SAMPLE, downloads=True))
    run = plan.runs['finetune-from-ViTBase16-SENTINEL1_GRD_MAE-s1-seed0']
    assert of(run, 'model.init_args.weights') == 'ViTBase16_Weights.SENTINEL1_GRD_MAE'
    assert not plan.left_out


def test_only_what_is_asked_for_is_run():
    plan = planned(only=['s2-p16:S1', 'scratch-p16'])
    assert set(plan.by_cell) == {'s2-p16:S1', 'scratch-p16:S1', 'scratch-p16:S2'}
    assert sum(run.kind == 'pretrain' for run in plan.runs.values()) == 2


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (
            {'only': ['s3-p16']},
            r"no cell or row 's3-p16': its rows are scratch-p16, .*",
        ),
        ({'seeds': (0, 1, 0)}, r'seeds are \[0, 1, 0\]: give one or more .* each once'),
        ({'seeds': ()}, r'seeds are \[\]'),
        ({'seeds': (-1,)}, r'seeds are \[-1\]: give one or more from 0 up'),
        ({'train_fraction': 0.0}, 'train_fraction is 0.0: give a share above 0'),
    ],
)
def test_bad_requests_are_told_in_a_sentence(options, words):
    with pytest.raises(ValueError, match=words) as told:
        planned(**options)
    assert '\n' not in str(told.value)


def test_nested_settings_become_flat():
    nested = {'a': {'b': 1, 'c': {'d': [1, 2]}}, 'e': None}
    assert flat(nested) == {'a.b': 1, 'a.c.d': [1, 2], 'e': None}


@pytest.mark.parametrize('name', NAMES)
def test_presets_name_files_that_exist_and_budgets_that_are_equal_for_all(name):
    preset = read_preset(name, CONF)
    for path in (*preset.pretrain, *preset.ceiling, *preset.finetune):
        assert path.is_file(), path
    assert '{patch}' in preset.model
    assert len(set(preset.seeds)) == len(preset.seeds) >= 1
    assert bool(preset.about) == (name in ('sample', 'synthetic'))


def test_an_unknown_preset_and_a_missing_folder_are_told(tmp_path):
    with pytest.raises(ValueError, match="no preset 'big': choose sample, synthetic"):
        read_preset('big', CONF)
    with pytest.raises(FileNotFoundError, match='give its conf folder with --conf'):
        read_preset('sample', tmp_path)
    (tmp_path / 'tables').mkdir()
    (tmp_path / 'tables' / 'sample.yaml').write_text('seeds: [0]\n')
    with pytest.raises(ValueError, match='has to have the keys about, base_lrs'):
        read_preset('sample', tmp_path)
