"""A compiled training step is one graph, made once, with the same losses."""

import pytest
import torch
import torch._dynamo
from lightning.pytorch import Trainer
from torchgeo.tasks import Classification

from tests.small_tasks import Data, fine_tuning, pretraining
from torchgeo_channelmae.callbacks.compile_step import CompileStep
from torchgeo_channelmae.tasks import ChannelMAE, CrossModalClassification

TASKS = {
    'pretraining': pretraining,
    'shared bands': lambda: pretraining(
        masking='cross_band', masking_options={'shared': True}, norm_target=True
    ),
    'sampled cells': lambda: pretraining(decode_share=0.5, grad_checkpointing=True),
    'fine-tuning': fine_tuning,
}


def fit(make, folder, *callbacks):
    torch.manual_seed(0)
    module = make()
    if isinstance(module, (ChannelMAE, CrossModalClassification)):
        module.model.blocks = module.model.blocks[:1]  # quicker to compile
    trainer = Trainer(
        accelerator='cpu',
        max_epochs=2,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module, datamodule=Data())
    return module, float(trainer.callback_metrics['train_loss'])


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('make', TASKS.values(), ids=TASKS)
def test_a_whole_run_is_one_graph_that_is_made_once(make, tmp_path):
    torch._dynamo.reset()
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = CompileStep(backend=count)  # a whole graph, or an error
    with torch._dynamo.config.patch(error_on_recompile=True):
        module, loss = fit(make, tmp_path, compiled)
    assert len(graphs) == 1
    assert 'compute' not in vars(module)  # as before
    eager, expected = fit(make, tmp_path)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert module.state_dict().keys() == eager.state_dict().keys()


def test_a_task_of_others_is_refused(tmp_path):
    def others():
        return Classification(model='resnet18', num_classes=2)

    with pytest.raises(ValueError, match='Classification'):
        fit(others, tmp_path, CompileStep())
