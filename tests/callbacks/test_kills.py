"""A run killed again and again, inside epochs, ends as one that never was.

``KILLS=10 uv run pytest tests/callbacks/test_kills.py`` kills ten times instead of two.
"""

import os
import random
import time
from pathlib import Path

import pytest
import torch

from tests.same import assert_same

KILLS, SEED = int(os.environ.get('KILLS', '2')), int(os.environ.get('SEED', '0'))
OPTIONS = {
    'pretrain': ('--model.init_args.plot_every_n_epochs=0',),
    'finetune': (
        '--model.init_args.weights=null',
        '--model.init_args.drop_path=0.3',
        '--trainer.accumulate_grad_batches=2',
        '--data.init_args.num_workers=1',
    ),
}


def step_of(checkpoint):
    return torch.load(checkpoint, weights_only=True, mmap=True)['global_step']


def kill_after(command, checkpoint, step):
    """Kill a run as soon as a step is saved; return the step that is then saved."""
    while not checkpoint.is_file() or step_of(checkpoint) < step:
        assert command.is_running, command.output[-3000:]
        time.sleep(0.002)
    command.kill()
    return step_of(checkpoint)


@pytest.mark.timeout(300 + 100 * KILLS)
@pytest.mark.parametrize('task', OPTIONS)
def test_a_run_killed_at_random_steps_ends_as_one_left_alone(
    start, torchgeo, conf, stepwise, tmp_path, task
):
    args = ('fit', '--config', conf / f'{task}.yaml', '--config', conf / 'augment.yaml')
    args += (*stepwise, *OPTIONS[task])
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    for folder in (whole, killed):
        folder.mkdir()
    last = Path('runs') / task / 'last.ckpt'
    done = torchgeo(*args, folder=whole)
    assert done.code == 0, done.output[-3000:]
    alone = torch.load(whole / last, weights_only=True)

    steps, draw, stops = alone['global_step'], random.Random(SEED), [0]
    per_epoch, gap = steps // 4, steps // (KILLS + 1)
    for number in range(KILLS):
        step = max(stops[-1] + 1, number * gap + draw.randint(1, gap))
        step += step % per_epoch == 0  # inside an epoch
        resume = ('--ckpt_path', last) if number else ()
        command = start(*args, *resume, folder=killed)
        stops.append(kill_after(command, killed / last, step))
        print('killed after step', stops[-1], 'of', steps)
    assert stops[-1] < steps, 'the run ended before it was killed'
    done = torchgeo(*args, '--ckpt_path', last, folder=killed)
    assert done.code == 0, done.output[-3000:]

    ended = torch.load(killed / last, weights_only=True)
    for part in ('state_dict', 'optimizer_states', 'lr_schedulers', 'global_step'):
        assert_same(ended[part], alone[part])
