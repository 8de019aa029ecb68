"""Rates that AdamW cannot start with are refused, warm-ups that are too steep warn."""

import warnings

import pytest
from lightning.pytorch import Callback

from tests.small_tasks import SHALLOW, Data, pretraining, trainer

BATCH, STEPS = 4, 6  # samples of a step, steps of an epoch


class Stop(Callback):
    def on_train_start(self, trainer, task):
        trainer.should_stop = True


def start(folder, rate, warmup, **hparams):
    """Start a pretraining; return its warnings of the warm-up."""
    task = pretraining(
        model=SHALLOW, base_lr=rate * 256 / BATCH, warmup_epochs=warmup / STEPS
    )
    task.hparams.update(hparams)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        trainer(folder, max_epochs=5000, callbacks=[Stop()]).fit(
            task, datamodule=Data()
        )
    return [str(w.message) for w in caught if 'warmup_epochs' in str(w.message)]


def test_the_warm_up_that_made_the_stream_grow_to_545_warns(tmp_path):
    [message] = start(tmp_path, 2e-3, 30)
    assert '(100 steps)' in message
    assert not start(tmp_path, 2e-3, 100)


@pytest.mark.parametrize(
    ('rate', 'warmup'),
    [
        (2e-3, 300),  # to 45 at step 100
        (5e-4, 30),  # to 66
        (2.4e-3, 40 * 313),  # MAE's own: batches of 4,096 of ImageNet
    ],
)
def test_other_warm_ups_are_silent(rate, warmup, tmp_path):
    assert not start(tmp_path, rate, warmup)


def test_a_rate_far_above_published_ones_is_refused_with_one_that_is_not(tmp_path):
    with pytest.raises(ValueError, match=r'1\.28 .* of 4 .* 0\.02') as error:
        start(tmp_path, 2e-2, 300)
    assert 'to 0.2 or less' in str(error.value)


def test_rates_of_other_optimizers_are_not_judged(tmp_path):
    assert not start(tmp_path, 2e-2, 0, optimizer='muon')
