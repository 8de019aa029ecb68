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
DECODER = {'decoder_dim': 32, 'decoder_depth': 1, 'decoder_num_heads': 2}
TINY = f'--data={CONF / "pretrain.yaml"} --size=32 --batch=2 --steps=3 --every=2'
TINY = [*TINY.split(), '--decoder', *DECODER.values(), '--recipes', 'mae']


@pytest.fixture(scope='module')
def samples():
    data, _ = read_datamodule([CONF / 'pretrain.yaml'], {'size': 32})
    data.setup('fit')
    batch = data.collate_fn([data.val_dataset[row] for row in range(4)])
    return data.finish(batch, training=False)


def make_task(**options):
    torch.manual_seed(0)
    return ChannelMAE('channelmae_tiny_patch16', size=32, **DECODER, **options).eval()


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


def test_the_error_is_of_the_same_tokens_whatever_the_task_hides(samples):
    tasks = [make_task(mask_ratio=ratio) for ratio in (0.5, 0.9)]
    first, second = (quality.error(task, samples, 0.75) for task in tasks)
    assert first == second != quality.error(tasks[0], samples, 0.9)
    assert tasks[0].masking.mask_ratio == 0.5


def test_the_error_of_the_trivial_guess_is_1(samples):
    task, image = make_task(), torch.zeros_like(samples['image'])
    image[:, :, ::2] = 2  # every token's mean is 1
    torch.nn.init.zeros_(task.decoder.pixels.weight)
    torch.nn.init.ones_(task.decoder.pixels.bias)
    found = quality.error(task, {'image': image, 'index': samples['index']}, 0.75)
    assert found == pytest.approx(1)


def test_without_labels_the_probe_predicts_the_bands_that_are_not_shown(samples):
    image = torch.randn(64, 12, 32, 32)
    image[:, 1::2] = 2 * image[:, ::2] + 1  # what the baseline can know entirely
    found = quality.probe(
        make_task(), {'train': {'image': image[:48]}, 'val': {'image': image[48:]}}
    )
    assert found['baseline'] == pytest.approx(1, abs=1e-3)
    assert found['probe'] < 1


def test_a_recipe_runs_once_per_seed_and_is_summarized_with_other_folders(
    command, tmp_path, capsys
):
    first, second = tmp_path / 'first', tmp_path / 'second'
    command(*TINY, '--seeds', 0, '--out', first)
    results = pd.read_csv(first / 'results.csv')
    assert [*results['step']] == [0, 2, 3]
    assert results['seconds'].is_monotonic_increasing
    assert results['seconds'][0] == 0
    assert results['probe'].notna().tolist() == [True, False, True]
    capsys.readouterr()
    command(*TINY, '--seeds', 0, 1, '--stop-at', 100, '--out', first)
    assert capsys.readouterr().err.startswith('mae channelmae_tiny_patch16 1')
    longer = pd.read_csv(first / 'results.csv')
    pd.testing.assert_frame_equal(longer[:3], results)
    assert longer['step'][3:].max() < 3
    command('--report', first, '--out', second)
    for name in ('summary.md', 'summary.png'):
        assert (second / name).read_bytes() == (first / name).read_bytes()
    with pytest.raises(SystemExit, match='another folder'):
        command(*TINY, '--steps', 4, '--out', first)
