"""What StreamMonitor logs is what happened in the step, and it changes nothing."""

import math

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision

from tests.small_tasks import SHALLOW, Data, Patches, fine_tuning, pretraining, trainer
from torchgeo_channelmae.callbacks.compile_step import CompileStep
from torchgeo_channelmae.callbacks.stream import StreamMonitor

BLOCKS = ['stream/model.blocks.0', 'stream/model.blocks.1']
DECODER = ['stream/decoder.blocks.0']


class Slow(Callback):
    """Computes the norm of the gradients of each step, number by number."""

    def on_train_start(self, trainer, task):
        self.norms = []

    def on_before_optimizer_step(self, trainer, task, optimizer):
        gradients = [p.grad for p in task.parameters() if p.grad is not None]
        values = torch.cat([gradient.flatten() for gradient in gradients])
        self.norms.append(math.sqrt(sum(value * value for value in values.tolist())))


def fit(task, folder, *callbacks, every=2, **kwargs):
    """Train for 6 steps; return what was logged, by step."""
    logger = CSVLogger(folder, flush_logs_every_n_steps=1)
    monitor = StreamMonitor(every)
    fit = trainer(folder, callbacks=[monitor, *callbacks], logger=logger, **kwargs)
    fit.fit(task, datamodule=Data())
    rows = pd.read_csv(f'{logger.log_dir}/metrics.csv')
    return rows[rows.grad_norm.notna()].set_index('step').dropna(axis=1, how='all')


def pretrain(**kwargs):
    torch.manual_seed(0)
    return pretraining(model=SHALLOW, **kwargs)


def transfer(**kwargs):
    torch.manual_seed(0)
    return fine_tuning(**{'model': SHALLOW} | kwargs)


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """A pretraining of 6 steps, and what was logged."""
    task, slow = pretrain(), Slow()
    return task, fit(task, tmp_path_factory.mktemp('plain'), slow), slow.norms


def test_norms_of_tokens_are_those_of_a_forward_pass_block_by_block(tmp_path):
    task = transfer()
    images = Patches(4).images
    outputs = task.model.forward_intermediates(
        images, norm=False, return_prefix_tokens=True, intermediates_only=True,
        output_fmt='NLC',
    )  # fmt: skip
    expected = [torch.cat(each, 1).norm(dim=-1).mean().item() for each in outputs]
    logged = fit(task, tmp_path, max_steps=1)
    assert logged.loc[0, BLOCKS].tolist() == pytest.approx(expected, rel=1e-5)


def test_only_steps_that_are_due_are_logged_with_one_line_a_block(plain):
    _, logged, slow = plain
    assert logged.index.tolist() == [0, 2, 4]
    assert {name for name in logged if 'stream/' in name} == {*BLOCKS, *DECODER}
    assert logged.grad_norm.tolist() == pytest.approx(slow[::2], rel=1e-4)


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('checkpointing', [False, True])
def test_a_compiled_step_is_watched_and_stays_one_graph(plain, checkpointing, tmp_path):
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        task = pretrain(grad_checkpointing=checkpointing)
        logged = fit(task, tmp_path, CompileStep(backend='eager'))
    pd.testing.assert_frame_equal(logged, plain[1], rtol=1e-4)
    assert not any(module._forward_hooks for module in task.modules())


def test_training_is_the_same_without_it(plain, tmp_path):
    task = pretrain()
    trainer(tmp_path).fit(task, datamodule=Data())
    for name, tensor in plain[0].state_dict().items():
        assert torch.equal(task.state_dict()[name], tensor), name


def test_accumulated_gradients_are_measured_before_they_are_clipped(tmp_path):
    slow, options = Slow(), {'accumulate_grad_batches': 2, 'gradient_clip_val': 1e-4}
    logged = fit(pretrain(), tmp_path, slow, every=1, **options)
    assert logged.index.tolist() == [0, 1, 2]
    assert logged.grad_norm.tolist() == pytest.approx(slow.norms, rel=1e-4)
    assert min(slow.norms) > 1e-2


def test_the_scale_of_mixed_precision_is_not_in_the_gradient_norm(plain, tmp_path):
    scaler = torch.amp.GradScaler('cpu', init_scale=256.0)
    half = MixedPrecision('16-mixed', 'cpu', scaler)
    logged = fit(pretrain(), tmp_path, plugins=[half], max_steps=1)
    assert logged.grad_norm[0] == pytest.approx(plain[1].grad_norm[0], rel=0.02)


def test_updates_are_dead_where_nothing_moves(tmp_path):
    class NoGradient(Callback):
        def on_after_backward(self, trainer, task):
            for name, parameter in task.named_parameters():
                if name != 'decoder.mask_token':
                    parameter.grad = None

    task = pretrain()
    logged = fit(task, tmp_path, NoGradient())
    total = sum(parameter.numel() for parameter in task.parameters())
    alive = (1 - logged.dead_updates) * total
    assert alive.round().tolist() == [task.decoder.mask_token.numel()] * 3


def test_frozen_parts_and_models_without_blocks_are_left_out(tmp_path):
    logged = fit(transfer(model='resnet18', trainable='head'), tmp_path)
    assert set(logged) == {'grad_norm', 'dead_updates'}
    assert logged.dead_updates.max() < 0.01


def test_an_interval_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match='every_n_steps'):
        StreamMonitor(0)
