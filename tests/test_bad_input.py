"""Mistakes on the command line: the last line is one sentence that names the thing."""

import pytest


def files_in(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def project(torchgeo, conf, shallow, tmp_path_factory):
    """Run a command that fails, beside a pretraining, and return its last line."""
    folder = tmp_path_factory.mktemp('project')
    quick = (
        '--trainer.max_epochs=1',
        '--data.init_args.samples_per_epoch=16',
        *shallow,
    )
    made = torchgeo('fit', '--config', conf / 'pretrain.yaml', *quick, folder=folder)
    assert made.code == 0, made.output[-3000:]
    before = files_in(folder / 'runs')

    def refused(command, config, *args):
        run = torchgeo(command, '--config', conf / config, *args, folder=folder)
        assert run.code == 1, run.output[-3000:]
        assert files_in(folder / 'runs') == before
        return run.last_line

    return refused


@pytest.mark.parametrize(
    ('args', 'named'),
    [
        (('fit', 'pretrain.yaml', '--model.init_args.mask_ratio=2'), 'mask_ratio'),
        (('fit', 'pretrain.yaml', '--data.init_args.bands=[B02, B99]'), 'B99'),
        (('fit', 'finetune.yaml', '--model.init_args.weights=no.ckpt'), 'no.ckpt'),
        (('test', 'finetune.yaml'), '--ckpt_path'),
        (
            ('test', 'finetune.yaml', '--ckpt_path=runs/pretrain/last.ckpt'),
            'runs/pretrain/last.ckpt',
        ),
    ],
    ids=['model', 'data', 'weights', 'untrained', 'another task'],
)
def test_a_command_ends_with_the_error_and_leaves_the_runs_as_they_were(
    args, named, project
):
    last = project(*args)
    assert named in last
    assert last.endswith('.')
