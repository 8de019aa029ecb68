"""Recipes of pretraining are measured alike, run once and compared at their ends."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import quality
from torchgeo_channelmae.experiments.configuration import read_datamodule
from torchgeo_channelmae.tasks import ChannelMAE

CONF = Path(__file__).parents[1] / 'conf'
TINY = f'--data={CONF / "pretrain.yaml"} --size=32 --batch=4 --steps=5 --every=2'
TINY = [*TINY.split(), '--decoder', '32', '1', '2', '--recipes', 'adamw', 'mae']


@pytest.fixture
def command(monkeypatch):
    monkeypatch.setenv('PL_GLOBAL_SEED', '0')  # which a run changes
    with torch.random.fork_rng():
        yield lambda *args: (
            monkeypatch.setattr(sys, 'argv', ['quality', *map(str, args)]),
            quality.main(),
        )


def curve(recipe, *errors, seed=0, budget=300):
    """Make the results of a run that is evaluated every 100 steps of 2 seconds."""
    about = {'recipe': recipe, 'model': 'tiny', 'seed': seed, 'arguments': recipe}
    about |= {'settings': json.dumps({'steps': budget}), 'machine': 'fast'}
    rows = [
        {'step': 100 * n, 'seconds': 200 * n, 'cpu_seconds': 300 * n, 'error_75': each}
        for n, each in enumerate(errors)
    ]
    scores = {'error_90': 1.0, 'probe': 0.5, 'baseline': 0.1}
    return pd.DataFrame(rows).assign(**about, **scores)


def test_a_recipe_is_as_good_as_a_peer_at_its_first_evaluation_at_or_below_its_end():
    results = pd.concat(
        [curve('ours', 1, 0.6, 0.3, 0.4), curve('mae', 1, 0.8, 0.7, 0.6)]
    )
    ours, mae = quality.races(results, 'error_75').to_dict('records')
    assert (ours['recipe'], ours['until the end of']) == ('ours', 'mae')
    assert (ours['step'], ours['seconds'], ours['at error']) == (100, 200, 0.6)
    assert ours['of step'] == ours['of seconds'] == pytest.approx(1 / 3)
    assert mae['step'] == mae['of cpu_seconds'] == float('inf')
    assert '| -- ' in quality.markdown(results)


def test_a_run_that_was_stopped_is_no_goal():
    results = pd.concat([curve('ours', 1, 0.5), curve('mae', 1, 0.8, 0.7, 0.6)])
    (row,) = quality.races(results, 'error_75').to_dict('records')
    assert (row['recipe'], row['step']) == ('ours', 100)


def test_the_error_is_relative_to_the_trivial_guess_whatever_the_task_hides():
    data, _ = read_datamodule([CONF / 'pretrain.yaml'], {'size': 32})
    data.setup('fit')
    batch = data.collate_fn([data.val_dataset[row] for row in range(3)])
    samples = data.finish(batch, training=False)
    tasks = []
    for ratio in (0.5, 0.9):
        torch.manual_seed(0)
        sizes = {'decoder_dim': 32, 'decoder_depth': 1, 'decoder_num_heads': 2}
        task = ChannelMAE('channelmae_tiny_patch16', size=32, mask_ratio=ratio, **sizes)
        tasks.append(task.eval())
    found = [quality.error(task, samples, 0.75) for task in tasks]
    assert found[0] == found[1] > 0
    assert tasks[0].masking.mask_ratio == 0.5
    one, rest = (
        {k: v[rows] for k, v in samples.items() if k in ('image', 'index')}
        for rows in (slice(1), slice(1, None))
    )
    parts = [quality.error(tasks[0], part, 0.75) for part in (one, rest)]
    assert min(parts) < found[0] < max(parts)


def test_recipes_run_once_and_are_summarized_with_those_of_other_folders(
    command, tmp_path, capsys
):
    first, second = tmp_path / 'first', tmp_path / 'second'
    command(*TINY, '--seeds', 0, '--out', first)
    results = pd.read_csv(first / 'results.csv')
    assert [*results['step']] == 2 * [0, 2, 4, 5]
    for _, run in results.groupby('recipe'):
        assert run['seconds'].is_monotonic_increasing
        assert run['seconds'].iloc[0] == 0
        assert run['probe'].notna().tolist() == [True, True, False, True]
    assert results['baseline'].nunique() == 1
    command(*TINY, '--seeds', 0, 1, '--stop-at', 100, '--out', first)
    assert 'mae channelmae_tiny_patch16 1' in (log := capsys.readouterr().err)
    assert log.count('channelmae_tiny_patch16') == 4
    longer = pd.read_csv(first / 'results.csv')
    pd.testing.assert_frame_equal(longer[: len(results)], results)
    assert longer[len(results) :]['step'].max() < 5
    command('--report', first, '--out', second)
    for name in ('summary.md', 'summary.png'):
        assert (second / name).read_bytes() == (first / name).read_bytes()
    with pytest.raises(SystemExit, match='another folder'):
        command(*TINY, '--steps', 6, '--out', first)
