"""``channelmae tables matrix`` from the command line, with real trainings."""

import itertools
import re

import pandas as pd
from matplotlib.image import imread

ROWS = ('scratch-p16', 'rgb-p16', 's1-p16')
TARGETS = ('RGB', 'S1')


def section(page, title):
    _, _, rest = page.partition(title)
    return rest.partition('\n## ')[0]


def test_a_matrix_with_unchanged_heads_runs_from_the_data_to_its_page_and_picture(
    short_conf, tmp_path, start
):
    command = start(
        *('tables', 'matrix', '--preset', 'sample', '--sensors', 'rgb', 's1'),
        *('--unchanged', '--seeds', '0', '--resamples', '100', '--jobs', '2'),
        *('--conf', short_conf(pretrain=1, finetune=1)),
        *('--out', tmp_path / 'out'),
        folder=tmp_path,
        program='channelmae',
    ).wait()
    assert command.code == 0, command.output
    folder = tmp_path / 'out' / 'matrix'
    assert command.last_line == f'Table matrix is in {folder / "table.md"}'

    scores = pd.read_csv(folder / 'results.csv')
    assert scores['missing'].isna().all()
    leading = scores[scores['score'] == 'mAP_micro'].set_index(['row', 'target'])
    assert set(leading.index) == set(itertools.product(ROWS, TARGETS))
    assert leading['whole'].between(0, 100, inclusive='neither').all()
    gains = leading.loc[leading.index.get_level_values('row') != 'scratch-p16']
    for (_, target), gain in gains.iterrows():
        scratch = leading.loc[('scratch-p16', target), 'whole']
        assert abs(gain['difference'] - (gain['whole'] - scratch)) < 2e-4

    heads = pd.read_csv(folder / 'unchanged.csv')
    leading = heads[heads['score'] == 'mAP_micro']
    names = leading['row'] + ' ' + leading['trained_on'] + ' on ' + leading['tested_on']
    assert set(names) == {
        'rgb-p16 rgb on rgb+s1',
        'rgb-p16 s1 on rgb',
        'rgb-p16 s1 on s1+rgb',
        's1-p16 rgb on s1',
        's1-p16 rgb on rgb+s1',
        's1-p16 s1 on s1+rgb',
    }
    assert leading['whole'].between(0, 100, inclusive='neither').all()
    reasons = heads.loc[heads['missing'].notna(), 'missing']
    assert len(reasons) == 2
    assert reasons.str.startswith('tests nothing, as neither the pretraining').all()

    page = (folder / 'table.md').read_text()
    gains = section(page, '## Gain over scratch in mAP micro, points')
    assert len(re.findall(r'[+-]\d+\.\d\d \[', gains)) == 4
    assert section(page, '## The same head on other bands').count(' -> ') == 4 + 1
    missing = section(page, '## Not in this table')
    assert re.findall(r'^- (.+): tests nothing', missing, re.MULTILINE) == [
        'rgb-p16:RGB on s1',
        's1-p16:S1 on rgb',
    ]
    assert missing.count('\n- ') == 2
    assert imread(folder / 'table.png').std() > 0
