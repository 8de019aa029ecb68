"""A training step never waits for the device: nothing is read back to the host."""

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils._python_dispatch import TorchDispatchMode

from tests.small_tasks import Data, fine_tuning, pretraining, trainer

#: Operators that return a number, or a size that depends on values.
WAITING = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten._unique2.default,
}


class Watch(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.called, self.waited = 0, []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.called += 1
        if operator in WAITING:
            self.waited.append(str(operator))
        return operator(*args, **(kwargs or {}))


class WatchSteps(Callback):
    """Watch from a step's first hook to its last, optimizer and schedule included."""

    def __init__(self):
        self.watch = Watch()

    def on_train_batch_start(self, *given):
        self.watch.__enter__()

    def on_train_batch_end(self, *given):
        self.watch.__exit__(None, None, None)


TASKS = {
    'pretraining': pretraining,
    'sampled cells': lambda: pretraining(decode_share=0.5),
    'shared bands': lambda: pretraining(
        masking='cross_band', masking_options={'shared': True}
    ),
    'fine-tuning': fine_tuning,
}


@pytest.mark.parametrize('make', TASKS.values(), ids=TASKS)
def test_no_step_reads_a_value_back_to_the_host(make, tmp_path):
    watched = WatchSteps()
    run = trainer(tmp_path, max_steps=3, limit_val_batches=1, callbacks=[watched])
    run.fit(make(), datamodule=Data())
    assert watched.watch.called > 1000
    assert watched.watch.waited == []


def test_the_watch_sees_a_value_that_is_read():
    with Watch() as watch:
        float(torch.ones(3).sum())
    assert watch.waited == ['aten._local_scalar_dense.default']
