"""Results of tables with fabricated predictions."""

from dataclasses import replace
from pathlib import Path

import yaml

from tests.experiments.fabricated import predictions, write
from torchgeo_channelmae.experiments.tables.plan import Data, make_plan
from torchgeo_channelmae.experiments.tables.results import read_results
from torchgeo_channelmae.experiments.tables.spec import SENSORS, read_preset, read_table
from torchgeo_channelmae.experiments.tables.zero_shot import (
    with_zero_shot,
    zero_shot_tests,
)

CONF = Path(__file__).parents[3] / 'conf'
PRESET = replace(read_preset('sample', CONF), layer_decays=[0.75])
SKILL = {'scratch': 0.6, 's1-p16': 2.0, 's2-p16': 1.3, 'rgb': 0.6}


def fabricate(
    folder,
    name='1',
    preset=PRESET,
    failed=(),
    sensors=SENSORS,
    zero_shot=False,
    seeds=(0, 1),
    logged='',
    protocol='',
    **options,
):
    """Return results of a table, from runs with the skill of their row."""
    table = read_table(name, preset.fractions, sensors)
    plan = make_plan(table, preset, seeds, Data(), **options)
    tests = list(zero_shot_tests(table, sensors, preset.overlays)) if zero_shot else []
    plan = with_zero_shot(plan, tests, preset)
    outcome = dict.fromkeys(plan.runs)
    for cell, runs in plan.by_cell.items():
        skill = next((s for row, s in SKILL.items() if cell.startswith(row)), 1.0)
        for run in (*plan.tried.get(cell, ()), *runs):
            if cell in failed:
                outcome[run] = 'ValueError: The data is gone.'
            elif not (folder / run).exists():
                planned = plan.runs[run]
                tuned = {'base_lr': 0.016, 'layer_decay': 1.0} | planned.tuned
                val = 0.5 - abs(tuned['base_lr'] - 0.016) - (1 - tuned['layer_decay'])
                of = {'patches': 120, 'scenes': 20, 'tiles': 10, 'seed': planned.seed}
                write(folder / run, predictions(skill, **of), val)
                used = {f'model.init_args.{key}': value for key, value in tuned.items()}
                (folder / f'{run}.yaml').write_text(yaml.safe_dump(used))
                if logged:
                    path = folder / run / 'fit' / 'metrics.csv'
                    names, values = logged.split('=')
                    path.write_text(f'epoch,val_mAP_micro,{names}\n0,{val},{values}\n')
    given = table, preset, plan, outcome, folder, seeds, 200, tests, protocol
    return read_results(*given)
