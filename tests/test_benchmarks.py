"""The benchmarks time what they say, beside references with the same loss."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as command
from benchmarks import flops, memory, peers, reference, report, timing
from benchmarks.cases import PARTS, Case, default_cases, product_cases, quick_cases
from benchmarks.steps import EAGER, FUSED, OURS, make_steps

TINY = quick_cases(Case())[0]


def run(monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', ['benchmarks', *map(str, args)])
    return command.main()


@pytest.fixture(scope='module')
def steps():
    parts = ('pretraining', 'finetuning', 'encoder', 'decoder', 'losses')
    return {part: make_steps(replace(TINY, part=part)) for part in parts}


@pytest.mark.parametrize('part', ['pretraining', 'finetuning', 'encoder', 'decoder'])
def test_ours_and_both_references_compute_one_loss(steps, part):
    with torch.no_grad():
        found = {name: loss().item() for name, loss in steps[part].loss.items()}
    assert list(found) == [OURS, EAGER, FUSED]
    assert found[EAGER] == pytest.approx(found[OURS], rel=1e-5)
    assert found[FUSED] == pytest.approx(found[OURS], rel=1e-5)


def test_a_dense_loss_is_the_one_of_the_task(steps):
    found = [loss().item() for loss in steps['losses'].loss.values()]
    assert len(found) == 2
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def counted(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def test_flops_of_an_encoder_that_is_read_whole_are_those_that_torch_counts(steps):
    counts = counted(steps['encoder'].run[EAGER])
    unseen = TINY.tokens - 3  # the reference embeds them, too: 3 of 12 are visible
    embedded = TINY.batch * 2 * 2 * unseen * TINY.patch**2 * 192
    assert steps['encoder'].flops + embedded == counts


def test_flops_of_a_dense_decoder_are_those_that_torch_counts():
    from torchgeo_channelmae.models.decoder import ChannelMAEDecoder

    module = ChannelMAEDecoder(['a', 'b'], (2, 2), 4, 32, 16, depth=3, num_heads=2)
    encoded = torch.randn(5, 1 + 3, 32, requires_grad=True)
    visible = torch.arange(3).expand(5, -1)
    total = counted(lambda: reference.decode(module, encoded, visible).sum().backward())
    dense = flops.blocks(1 + 8, 1 + 8, 16, 3) + 2 * 4 * 32 * 16 + 2 * 9 * 16 * 16
    assert total == 5 * 3 * dense
    # The class token's output is read by no loss.
    assert 5 * flops.decoder(module, 4, 5, 8) < total
    assert 5 * flops.decoder(module, 4, 5, 9) == total


def test_a_block_that_is_read_at_few_tokens_needs_less_than_a_whole_one():
    assert flops.block(10, 10, 8) - flops.block(10, 2, 8) == 8 * (
        2 * 2 * 64 + 2 * 2 * 10 * 8 + 2 * 2 * 4 * 64
    )


def test_a_step_changes_the_weights_that_all_variants_share(steps):
    before = steps['pretraining'].loss[EAGER]().item()
    for name in (OURS, EAGER):
        steps['pretraining'].run[name]()
    assert steps['pretraining'].loss[EAGER]().item() != before


def test_losses_that_differ_are_refused(steps):
    wrong = replace(steps['pretraining'], loss={
        OURS: lambda: torch.tensor(1.0), EAGER: lambda: torch.tensor(1.1),
    })  # fmt: skip
    with pytest.raises(ValueError, match='losses differ'):
        command.check_losses(TINY, wrong)


def test_the_default_rows_have_the_cases_that_the_bars_name():
    names = [case.name for case in default_cases(Case())]
    assert len(names) == len(set(names))
    for precision in ('fp32', 'bf16'):
        for name in (
            'pretraining, ViT-B, 12 x 128 px, patch 16, batch 8, mask 0.9',
            'pretraining, ViT-S, 12 x 128 px, patch 8, batch 1, mask 0.9',
            'finetuning, ViT-B, 12 x 128 px, patch 16, batch 2',
        ):
            assert f'{name}, {precision}' in names


def test_values_that_are_given_are_combined():
    cases = product_cases(Case(), {'model': ['small', 'base'], 'bands': [12, 3, 2]})
    assert [(case.model, case.bands) for case in cases][:4] == [
        ('small', 12), ('small', 3), ('small', 2), ('base', 12),
    ]  # fmt: skip


@pytest.mark.parametrize(('wanted', 'slower'), [(1.05, False), (1.2, True)])
def test_a_row_that_got_a_tenth_slower_is_flagged(wanted, slower):
    about = {'processor': 'P', 'gpu': None, 'cores': 2, 'threads': 2, 'torch': '2'}
    old = {'machine': about, 'rows': [{'name': 'row', 'median': {OURS: 2.0}}]}
    new = {'machine': about, 'rows': [{'name': 'row', 'median': {OURS: 2.0 * wanted}}]}
    told, flagged = report.compare(old, new)
    assert flagged is slower
    assert ('SLOWER: row' in told) is slower


def test_a_file_that_is_no_report_is_refused(tmp_path):
    (tmp_path / 'other.json').write_text('[]')
    with pytest.raises(ValueError, match='is no report'):
        report.read(tmp_path / 'other.json')


def test_memory_in_a_line_has_no_deviation_and_a_square_has():
    tokens = [192, 768, 3072, 12288]
    line = memory.fit(tokens, [1000 + 50 * n for n in tokens])
    assert line['bytes_per_token'] == pytest.approx(50)
    assert line['fixed_bytes'] == pytest.approx(1000, rel=1e-3)
    assert line['largest_deviation'] < 1e-6
    assert memory.fit(tokens, [n * n for n in tokens])['largest_deviation'] > 0.5


def test_activations_are_what_a_line_of_code_keeps(monkeypatch):
    layer = torch.nn.Linear(8, 4, bias=False)
    x = torch.ones(3, 8)

    def loss(module, batch):
        return module(x).exp().sum()

    monkeypatch.setattr(memory, 'make_task', lambda case: (layer, None))
    monkeypatch.setattr(memory, 'task_loss', loss)
    inputs, outputs = 3 * 8 * 4, 3 * 4 * 4  # of the product, and of exp
    assert memory.saved_for_backward(TINY) == inputs + outputs


def test_activations_grow_in_a_line_with_tokens():
    cases = [replace(TINY, size=side, batch=1) for side in (32, 64, 128, 256)]
    held = [memory.saved_for_backward(case) for case in cases]
    line = memory.fit([case.tokens for case in cases], held)
    assert line['largest_deviation'] < 0.03


def test_activations_of_an_estimated_loss_are_counted_too():
    whole, share = (
        memory.saved_for_backward(replace(TINY, size=128, options=options))
        for options in ((), (('decode_share', 0.25),))
    )
    assert share < whole


def test_memory_is_that_of_a_process_of_its_own():
    fill = torch.ones(2**28)  # 1 GiB that is not the other's
    held = memory.of_process(TINY, OURS)
    weights = 12 * 12 * 192**2 * 4
    assert 4 * weights < held < fill.nbytes  # and gradients, and AdamW's two moments


def test_a_folder_that_is_no_peer_is_refused(tmp_path):
    with pytest.raises(ValueError, match='SpectralGPT or ChannelViT'):
        peers.recognise(tmp_path)


@pytest.mark.parametrize('name', list(peers.MARKS))
def test_a_peer_is_known_by_a_file_and_has_one_part(tmp_path, name):
    mark = tmp_path / peers.MARKS[name]
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    assert peers.recognise(tmp_path) == (name, tmp_path)
    parts = [p for p in PARTS if peers.name_of(tmp_path, replace(TINY, part=p))]
    assert parts == [peers.PARTS[name]]


def test_a_peer_of_another_size_is_refused():
    assert peers.agree(tokens=(12, 12), width=(64, 64)) == 'equal tokens 12, width 64'
    with pytest.raises(ValueError, match='tokens 8, the row 12'):
        peers.agree(tokens=(8, 12))


def test_a_quick_run_reports_every_part(monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, '--quick', '--no-memory', '--out', tmp_path) == 0
    made = json.loads((tmp_path / 'report.json').read_text())
    assert [row['case']['part'] for row in made['rows']] == list(PARTS)
    assert {'processor', 'cores', 'torch', 'commit'} <= made['machine'].keys()
    step = made['rows'][0]
    assert list(step['median']) == [OURS, EAGER, FUSED]
    ours = step['columns'][OURS]
    assert ours['samples_per_second'] == pytest.approx(
        step['batch'] / step['median'][OURS]
    )
    assert ours['share_of_peak'] > 0
    page = (tmp_path / 'report.md').read_text()
    assert page in capsys.readouterr().out
    assert 'SpectralGPT | not measured' in page
    again = tmp_path / 'report.json'
    assert run(monkeypatch, '--report', again, '--compare', again) == 0
    assert 'alike: pretraining' in capsys.readouterr().out


def test_a_measurement_that_ends_early_leaves_the_rows_that_it_has(
    monkeypatch, tmp_path
):
    real = command.measure

    def fail_at_the_second(case, *args):
        if case.part == 'finetuning':
            raise KeyboardInterrupt
        return real(case, *args)

    monkeypatch.setattr(command, 'measure', fail_at_the_second)
    args = '--quick', '--no-memory', '--only', 'pretraining', 'finetuning'
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, *args, '--out', tmp_path)
    made = report.read(tmp_path / 'report.json')
    assert [row['case']['part'] for row in made['rows']] == ['pretraining']


def test_an_older_report_is_kept(monkeypatch, tmp_path):
    args = '--quick', '--no-memory', '--only', 'masking', '--out', tmp_path / 'out'
    assert run(monkeypatch, *args) == 0
    first = (tmp_path / 'out/report.json').read_text()
    assert run(monkeypatch, *args) == 0
    assert (tmp_path / 'out.1/report.json').read_text() == first


@pytest.mark.parametrize(
    ('option', 'value', 'reason'),
    [
        ('--rounds', '0', 'give a whole number of 1 or more'),
        ('--batch', 'many', 'give a whole number of 1 or more'),
        ('--device', 'tpu', 'give cpu or cuda'),
        ('--device', 'cuda', 'torch finds no GPU here'),
    ],
)
def test_an_impossible_value_is_refused_first(
    monkeypatch, capsys, option, value, reason
):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit):
        run(monkeypatch, option, value)
    assert f'argument {option}: ' in (error := capsys.readouterr().err)
    assert reason in error


def test_an_option_that_the_task_lacks_is_refused(monkeypatch, tmp_path, capsys):
    args = '--quick', '--no-memory', '--only', 'finetuning', '--out', tmp_path
    assert run(monkeypatch, *args, '--option', 'decode_share=0.5') == 2
    error = capsys.readouterr().err
    assert 'decode_share: CrossModalClassification has no such argument' in error


def test_a_report_is_not_written_over_a_file(monkeypatch, tmp_path, capsys):
    (tmp_path / 'out').touch()
    args = '--quick', '--no-memory', '--only', 'masking', '--out', tmp_path / 'out'
    assert run(monkeypatch, *args) == 2
    assert 'it is a file' in capsys.readouterr().err


def test_variants_take_turns_and_each_is_first_in_its_turn():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in 'abc'}
    taken = timing.alternate(runs, rounds=3, device='cpu', warm_up=0)
    assert ''.join(order) == 'abcbcacab'
    assert {name: len(times) for name, times in taken.items()} == dict.fromkeys(
        'abc', 3
    )
