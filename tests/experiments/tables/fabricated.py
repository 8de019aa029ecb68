"""Results of tables with predictions made up."""

from pathlib import Path

import yaml

from tests.experiments.fabricated import predictions, write
from torchgeo_channelmae.experiments.tables.plan import Data, make_plan
from torchgeo_channelmae.experiments.tables.results import read_results
from torchgeo_channelmae.experiments.tables.spec import (
    SENSORS,
    read_preset,
    read_table,
)
from torchgeo_channelmae.experiments.tables.zero_shot import (
    with_zero_shot,
    zero_shot_tests,
)

CONF = Path(__file__).parents[3] / 'conf'
PRESET = read_preset('sample', CONF)
SKILL = {
    'scratch': 0.6,
    's1-p16': 2.0,
    's2-p16': 1.3,
    'rgb': 0.6,
    'masking-s2': 0.6,
    'masking-s3': 0.1,
}


def fabricate(
    folder,
    name='1',
    preset=PRESET,
    failed=(),
    sensors=SENSORS,
    zero_shot=False,
    settings=None,
    seeds=(0, 1),
    **options,
):
    """Results of a table with cells of the skill of their row."""
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
                val = 0.5 - abs((planned.base_lr or 0.016) - 0.016)
                made = predictions(skill, patches=120, scenes=20, seed=planned.seed)
                write(folder / run, made, val)
                noted = {'model.init_args.base_lr': planned.base_lr or 0.016}
                noted |= (settings or {}).get(cell, {})
                (folder / f'{run}.yaml').write_text(yaml.safe_dump(noted))
    return read_results(table, preset, plan, outcome, folder, seeds, 200, tests)
