from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.experiments.fabricated import predictions, write
from torchgeo_channelmae.evaluation.metrics import multilabel_scores
from torchgeo_channelmae.experiments.bootstrap import Interval, bootstrap
from torchgeo_channelmae.experiments.predictions import read_predictions


def tensors(run):
    return torch.from_numpy(run.probabilities), torch.from_numpy(run.labels).long()


def runs(skill, count=3, offset=0, **kwargs):
    return [predictions(skill, seed=offset + i, **kwargs) for i in range(count)]


@pytest.fixture(scope='module')
def found():
    models = {'scratch': runs(0.5), 'better': runs(1.5), 'ceiling': runs(3.0)}
    return bootstrap(models, resamples=400)


def test_an_estimate_is_the_mean_over_runs_on_the_whole_test_set(found):
    interval = found.interval('better', 'mAP_micro')
    scores = [multilabel_scores(*tensors(run))['mAP_micro'] for run in runs(1.5)]
    assert interval.estimate == pytest.approx(np.mean(scores))
    assert interval.low < interval.estimate < interval.high


def test_a_score_is_exact_on_the_whole_set_however_many_there_are():
    run = predictions(0.5, patches=20_000, scenes=30, digits=9)
    made, exact = bootstrap({'one': [run]}, 50), multilabel_scores(*tensors(run))
    for score in ('mAP_micro', 'mAP_macro'):
        assert made.whole['one'][score] == pytest.approx([exact[score]], abs=1e-6)
        spread = made.replicates['one'][score]
        assert spread.min() < exact[score] < spread.max()


def test_a_clear_difference_is_found_and_its_sign_is_right(found):
    up = found.difference('better', 'scratch', 'mAP_micro')
    down = found.difference('scratch', 'better', 'mAP_micro')
    assert up.low > 0
    assert (down.low, down.high) == pytest.approx((-up.high, -up.low))


def test_a_model_does_not_differ_from_itself():
    same = bootstrap({'one': runs(1.0), 'two': runs(1.0)}, resamples=200)
    for score in ('mAP_micro', 'F1_macro', 'F1_micro_tuned'):
        assert same.difference('one', 'two', score) == Interval(0, 0, 0)
    assert not same.difference('one', 'two', 'mAP_micro').excludes_zero


def test_the_recovered_gain_is_the_share_of_the_way_to_the_ceiling(found):
    share = found.recovered('better', 'scratch', 'ceiling', 'mAP_micro')
    means = {name: found.whole[name]['mAP_micro'].mean() for name in found.whole}
    assert share.estimate == pytest.approx(
        (means['better'] - means['scratch']) / (means['ceiling'] - means['scratch'])
    )
    assert 0 < share.low < share.estimate < share.high <= 1.2
    whole = found.recovered('ceiling', 'scratch', 'ceiling', 'mAP_micro')
    assert (whole.estimate, whole.low, whole.high) == pytest.approx((1, 1, 1))


def test_no_gain_is_recovered_where_the_ceiling_is_not_above_the_base(found):
    models = {'base': runs(1.0), 'model': runs(1.0, offset=9), 'top': runs(1.0, 3, 20)}
    for share in (
        bootstrap(models, 200).recovered('model', 'base', 'top', 'mAP_micro'),
        found.recovered('better', 'ceiling', 'scratch', 'mAP_micro'),  # surely below
    ):
        assert np.isnan([share.low, share.high]).all()


def test_draws_are_decided_by_the_seed_whatever_else_is_compared():
    models = {'a': runs(0.5), 'b': runs(1.0), 'c': runs(1.5)}
    first = bootstrap(models, 100).interval('c', 'mAP_micro')
    single = bootstrap({'c': models['c']}, 100).interval('c', 'mAP_micro')
    assert first == single
    assert first != bootstrap(models, 100, seed=1).interval('c', 'mAP_micro')


def test_patches_of_one_acquisition_count_as_one_draw():
    """Each patch ten times, in its own scene: as much is known as from it once."""
    once = predictions(0.7, patches=40, scenes=40)
    once = replace(once, acquisitions=np.arange(40).astype(str))
    repeated = ('probabilities', 'labels', 'acquisitions', 'countries')
    many = replace(
        once,
        patch_ids=np.arange(400).astype(str),
        **{name: np.repeat(getattr(once, name), 10, axis=0) for name in repeated},
    )
    unknown = replace(many, acquisitions=np.full(400, ''))
    widths = []
    for run in (once, many, unknown):
        found = bootstrap({'model': [run]}, 400).interval('model', 'mAP_micro')
        widths.append(found.high - found.low)
    assert widths[1] == pytest.approx(widths[0], rel=1e-6)
    assert widths[2] < 0.5 * widths[0]


def test_tiles_are_resampled_where_they_are_known_and_acquisitions_if_asked():
    """Ten acquisitions of each of ten tiles, all of one tile alike."""
    run = predictions(0.7, patches=100, scenes=10)
    tiles, dates = run.acquisitions, np.arange(100).astype(str)
    known = replace(run, tiles=tiles, acquisitions=dates)
    found = [bootstrap({'model': [known]}, 400, unit=unit) for unit in (None, UNIT)]
    assert [(each.clusters, each.unit) for each in found] == [
        (10, 'tiles'),
        (100, UNIT),
    ]
    same = bootstrap({'model': [run]}, 400)
    score = 'model', 'mAP_micro'
    assert found[0].interval(*score) == same.interval(*score)
    widths = [each.interval(*score) for each in found]
    assert widths[0].high - widths[0].low > widths[1].high - widths[1].low


UNIT = 'acquisitions'


def test_the_description_says_what_was_drawn():
    unknown = [replace(run, acquisitions=np.full(60, '')) for run in runs(1)]
    tiled = [replace(run, tiles=run.acquisitions) for run in runs(1.0, 1, scenes=12)]
    described = {
        '(its 12 tiles) only': tiled,
        'fewer than 10 acquisitions': runs(1.0),
        'no variance of training': runs(1.0, 1),
        '(its 8 acquisitions) and of the 3 training runs': runs(1.0),
        '(its 60 patches)': unknown,
    }
    for words, model in described.items():
        assert words in bootstrap({'model': model}, 100).describe()
    assert 'fewer' not in bootstrap({'model': tiled}, 100).describe()


@pytest.mark.parametrize('count', [2, 3, 5])
def test_the_interval_of_no_difference_holds_zero_about_as_often_as_it_says(count):
    """80 pairs of models that differ by training seeds and noise only."""
    held = 0
    for trial in range(80):
        rng = np.random.default_rng([count, trial])
        test_set = {'patches': 80, 'scenes': 20, 'data_seed': trial}
        made = [  # runs differ more than by the test set
            predictions(
                1 + 0.25 * rng.normal(), seed=int(rng.integers(10**9)), **test_set
            )
            for _ in range(2 * count)
        ]
        found = bootstrap({'a': made[:count], 'b': made[count:]}, 100, seed=trial)
        held += not found.difference('a', 'b', 'mAP_micro').excludes_zero
    assert 0.9 <= held / 80 <= 1.0


@pytest.mark.parametrize(
    ('what', 'other'),
    {
        'patch_ids': {'patches': 50},
        'labels': {'data_seed': 5},
        'classes': {'classes': 'xyz'},
    }.items(),
)
def test_models_of_other_test_sets_are_not_compared(what, other):
    with pytest.raises(ValueError, match=f'b .*{what}'):
        bootstrap({'a': runs(1.0, 1), 'b': runs(1.0, 1, **other)}, 100)


def test_a_test_set_of_one_acquisition_or_tile_is_refused():
    with pytest.raises(ValueError, match='one of the acquisitions'):
        bootstrap({'a': runs(1.0, 1, scenes=1)}, 100)
    one = replace(predictions(), tiles=np.full(60, '33UUP'))
    with pytest.raises(ValueError, match='more tiles'):
        bootstrap({'a': [one]}, 100)


# Files


def test_predictions_come_back_from_their_files(tmp_path):
    run = predictions()
    read = write(tmp_path, run)
    for name in ('probabilities', 'labels', 'patch_ids', 'tiles', UNIT, 'countries'):
        assert np.array_equal(getattr(read, name), getattr(run, name)), name
    assert read.thresholds == pytest.approx(run.thresholds)
    assert 0 < read.floor['mAP_micro'] < 1


def test_files_of_two_tests_are_not_mixed(tmp_path):
    write(tmp_path / 'one', predictions())
    write(tmp_path / 'two', predictions(patches=50))
    path = tmp_path / 'one' / 'test' / 'patches.csv'
    path.write_bytes((tmp_path / 'two' / 'test' / 'patches.csv').read_bytes())
    with pytest.raises(ValueError, match='one/test'):
        read_predictions(tmp_path / 'one' / 'test')
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r'patches\.csv'):
        read_predictions(tmp_path / 'one' / 'test')
