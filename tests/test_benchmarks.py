"""The benchmarks time what they say, beside references with the same loss."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as command
from benchmarks import data, encoder, headline, memory, peers, report, scale, timing
from benchmarks.cases import Case, default_cases, quick_cases
from benchmarks.steps import EAGER, FUSED, OURS, make_steps, make_task

TINY = quick_cases(Case())[0]
CONF = Path(__file__).parents[1] / 'conf'


def run(monkeypatch, module, *args):
    monkeypatch.setattr(sys, 'argv', ['benchmarks', *map(str, args)])
    return module.main()


@pytest.mark.parametrize('part', ['pretraining', 'finetuning', 'encoder', 'decoder'])
def test_ours_and_both_references_compute_one_loss(part):
    steps = make_steps(replace(TINY, part=part))
    with torch.no_grad():
        found = {name: loss().item() for name, loss in steps.loss.items()}
    assert list(found) == [OURS, EAGER, FUSED]
    assert found[EAGER] == pytest.approx(found[OURS], rel=1e-5)
    assert found[FUSED] == pytest.approx(found[OURS], rel=1e-5)


def test_losses_that_differ_are_refused():
    steps = make_steps(replace(TINY, part='losses'))
    command.check_losses(TINY, steps)
    steps.loss[EAGER] = lambda: 1.1 * steps.loss[OURS]()
    with pytest.raises(ValueError, match='losses differ'):
        command.check_losses(TINY, steps)


def test_flops_of_an_encoder_that_is_read_whole_are_those_that_torch_counts():
    steps = make_steps(replace(TINY, part='encoder'))
    with FlopCounterMode(display=False) as counter:
        steps.run[EAGER]()
    unseen = TINY.tokens - 3  # the reference embeds them, too: 3 of 12 are visible
    embedded = TINY.batch * 2 * 2 * unseen * TINY.patch**2 * 192
    assert steps.flops + embedded == counter.get_total_flops()


def test_the_default_rows_have_the_cases_of_the_comparison_with_the_peers():
    names = {case.name for case in default_cases(Case())}
    for precision in ('fp32', 'bf16'):
        for step in (
            'pretraining, ViT-B, 12 x 128 px, patch 16, batch 8, mask 0.9',
            'pretraining, ViT-S, 12 x 128 px, patch 8, batch 1, mask 0.9',
            'finetuning, ViT-B, 12 x 128 px, patch 16, batch 2',
        ):
            assert f'{step}, {precision}' in names


def test_activations_grow_in_a_line_with_tokens():
    cases = [replace(TINY, size=side, batch=1) for side in (32, 64, 128, 256)]
    held = [memory.saved_for_backward(case) for case in cases]
    tokens = [case.tokens for case in cases]
    assert memory.fit(tokens, held)['largest_deviation'] < 0.03
    assert memory.fit(tokens, [n * n for n in tokens])['largest_deviation'] > 0.5


def test_a_process_of_its_own_measures_memory_in_bytes():
    task, _ = make_task(TINY)
    weights = sum(p.numel() * p.element_size() for p in task.parameters())
    # with gradients and AdamW's two moments, to the pages that the kernel counts
    assert memory.of_process(TINY, OURS) > 3 * weights


def test_variants_take_turns_and_each_is_first_in_its_turn():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in 'abc'}
    timing.alternate(runs, rounds=3, device='cpu', warm_up=0)
    assert ''.join(order) == 'abcbcacab'


@pytest.mark.parametrize('name', peers.PEERS)
def test_a_checkout_of_a_peer_is_known_by_a_file_and_others_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match='SpectralGPT or ChannelViT'):
        peers.recognise(tmp_path)
    mark = tmp_path / peers.PEERS[name].mark
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    assert peers.recognise(tmp_path) == (name, tmp_path)
    with pytest.raises(ValueError, match='tokens 8'):
        peers.agree(tokens=(8, 12))


def test_a_quick_run_reports_every_part_and_keeps_an_older_report(
    monkeypatch, tmp_path, capsys
):
    args = '--quick', '--no-memory', '--out', tmp_path / 'out'
    assert run(monkeypatch, command, *args) == 0
    page = (tmp_path / 'out' / 'report.md').read_text()
    assert page in capsys.readouterr().out
    assert 'SpectralGPT | not measured' in page
    made = report.read(tmp_path / 'out' / 'report.json')
    assert [row['case']['part'] for row in made['rows']] == list(command.PARTS)
    ours = made['rows'][0]['columns'][OURS]
    seconds = made['rows'][0]['median'][OURS]
    assert ours['samples_per_second'] == pytest.approx(2 / seconds)
    made['rows'][-1]['median'][OURS] /= 1000  # so that the next one is slower
    (tmp_path / 'old.json').write_text(json.dumps(made))
    args += '--only', 'data', '--compare', tmp_path / 'old.json'
    assert run(monkeypatch, command, *args) == 1
    assert 'SLOWER: data' in capsys.readouterr().out
    assert (tmp_path / 'out.1' / 'report.md').read_text() == page


@pytest.mark.parametrize(
    ('option', 'value'), [('--rounds', '0'), ('--batch', 'many'), ('--device', 'tpu')]
)
def test_an_impossible_value_is_refused_first(monkeypatch, capsys, option, value):
    with pytest.raises(SystemExit):
        run(monkeypatch, command, option, value)
    assert f'argument {option}: ' in capsys.readouterr().err


def test_an_option_that_the_task_lacks_is_refused(monkeypatch, tmp_path, capsys):
    args = '--quick', '--only', 'finetuning', '--option', 'decode_share=0.5'
    assert run(monkeypatch, command, *args, '--out', tmp_path) == 2
    assert 'decode_share' in capsys.readouterr().err


# The other commands


def test_encoder_data_and_scale_run(monkeypatch, capsys):
    run(
        monkeypatch, encoder, '--runs=1', '--batch=1', '--model=channelmae_tiny_patch16'
    )
    assert '| 192 of 768 |' in capsys.readouterr().out
    run(monkeypatch, data, '--runs=1', '--seconds=0.01', '--batch-size=2')
    assert 'LMDB: normalized 128 px float batch' in capsys.readouterr().out
    threads = torch.get_num_threads()
    tiny = '--cases=1', '--rounds=1', '--steps=8', '--batch=2', '--size=32'
    run(monkeypatch, scale, *tiny)
    torch.set_num_threads(threads)
    assert '| one process |' in capsys.readouterr().out


@pytest.fixture(scope='module')
def works():
    options = {'row': 's2-p16', 'conf': CONF}
    shared = {'batch': 8, 'precision': 'fp32', 'device': 'cpu', 'compile': False}
    return lambda **given: headline.plan(
        command.argparse.Namespace(**options | shared | given)
    )


def test_a_row_is_one_pretraining_and_fine_tunings_on_both_sensors(works):
    pretraining, *tunings = works()
    assert (pretraining.case.bands, pretraining.case.mask) == (12, 0.75)
    assert (pretraining.trainings, pretraining.trained) == (1, 200 * 237_871)
    assert [work.case.bands for work in tunings] == [2, 12]
    for work in tunings:
        assert work.trainings == 3 + 2  # learning rates at one seed, then the others
        assert work.trained == 5 * 50 * 237_871
        assert work.evaluated == 5 * (50 * 122_342 + 119_825)
    with pytest.raises(ValueError, match='resnet50'):
        works(row='resnet50')


def test_hours_are_patches_over_the_measured_rates(monkeypatch):
    monkeypatch.setattr(memory, 'of_process', lambda case, name: 2**20)
    case = replace(TINY, part='finetuning')
    work = headline.Work(case, trainings=2, trained=3600, evaluated=7200)
    row = headline.measure(work, rounds=1)
    hours = 1 / row['rate']['step'] + 2 / row['rate']['forward']
    assert row['hours'] == pytest.approx(hours)
    assert f'In all {hours:,.4g} hours' in headline.markdown([row], peak=1e9)
