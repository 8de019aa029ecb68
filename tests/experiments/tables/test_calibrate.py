"""Costs of runs, as ``--dry-run`` shows them."""

import json
import runpy
import sys

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from torchgeo_channelmae.experiments.tables import calibrate as module
from torchgeo_channelmae.experiments.tables.calibrate import Cost, Meter, calibrate
from torchgeo_channelmae.experiments.tables.plan import Run


@pytest.mark.parametrize('batches', [64, 8])  # more and fewer than the steps measured
def test_a_meter_ends_a_training_and_extrapolates_its_steps(tmp_path, batches):
    trainer = Trainer(
        accelerator='cpu',
        max_epochs=2,
        limit_train_batches=batches,
        limit_val_batches=3,
        logger=False,
        enable_checkpointing=False,
        callbacks=[Meter(str(tmp_path / 'cost.json'))],
    )
    with pytest.raises(SystemExit):
        trainer.fit(BoringModel())
    assert trainer.global_step == min(module.STEPS + 1, 2 * batches)
    cost = Cost(**json.loads((tmp_path / 'cost.json').read_text()))
    assert cost.samples == batches  # one per batch
    assert cost.steps == 2 * batches
    assert 0 < cost.seconds < 60
    assert cost.memory > 0


def test_runs_that_differ_in_seed_rate_and_weights_are_measured_once(monkeypatch):
    measured = []

    def torchgeo(command, log):
        measured.append(command)
        log.write_text('The data is gone.\n\n')
        return 1

    monkeypatch.setattr(module, 'torchgeo', torchgeo)
    key = 'model.init_args.weights'
    options = {key: 'null'}
    runs = [
        Run('finetune', 'a', 0, (), options, start='first'),
        Run('finetune', 'b', 1, (), {key: 'ViT'}, tuned={'base_lr': 0.1}),
        Run('finetune', 'c', 0, (), options | {'data.init_args.root': 'other'}),
        Run('unchanged', 'a-on-s1', 0, (), {}),
    ]
    found = calibrate(runs)
    assert len(measured) == 2
    assert '--model.init_args.weights=null' in measured[0]
    reason = 'not measured: The data is gone.'
    assert [*found.values()] == [reason, reason, reason, 'only a test']


def test_memory_is_unknown_without_the_module_resource(monkeypatch):
    monkeypatch.setitem(sys.modules, 'resource', None)  # as on Windows
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    assert runpy.run_path(module.__file__, run_name=module.__name__)['_peak']() == 0
