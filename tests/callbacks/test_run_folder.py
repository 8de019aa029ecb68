"""What is on disk after commands that succeed, fail or resume."""

import hashlib
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from torch.utils.data import DataLoader
from torchgeo.datamodules import BaseDataModule
from torchgeo.main import main
from torchgeo.tasks import BaseTask

from torchgeo_channelmae.callbacks.checkpoint import RunCheckpoint
from torchgeo_channelmae.callbacks.run_folder import RunFolder

HERE = 'tests.callbacks.test_run_folder'
LAST = 'runs/tune/last.ckpt'

pytestmark = pytest.mark.filterwarnings('ignore')


class Data(BaseDataModule):
    """Two batches of four numbers."""

    def __init__(self):
        super().__init__(dataset_class=object)

    def setup(self, stage):
        pass

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch

    def loader(self):
        return DataLoader(torch.arange(8.0).reshape(8, 1), batch_size=4)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = loader


class Pretraining(BaseTask):
    """A task that fails where it is asked to."""

    def __init__(self, fail: str = '', lr: float = 0.01):
        super().__init__()

    def configure_models(self):
        self.model = torch.nn.Linear(1, 1)

    def fails(self, where):
        if self.hparams['fail'] == where:
            raise RuntimeError(f'failed in {where}')

    def setup(self, stage):
        self.fails('setup')

    def training_step(self, batch, batch_idx):
        self.fails('training')
        return self.model(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.fails('validation')
        self.log('val_loss', self.model(batch).square().mean())

    def test_step(self, batch, batch_idx):
        self.log('test_loss', self.model(batch).square().mean())

    def predict_step(self, batch, batch_idx):
        return self.model(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams['lr'])


class Finetuning(Pretraining):
    pass


def spec(name, **arguments):
    return {'class_path': name, 'init_args': arguments}


def torchgeo(command, *options, task='Finetuning', expects='Finetuning', ckpt=None):
    """Run ``torchgeo COMMAND`` in this folder, with a task and data of this file."""
    package = 'torchgeo_channelmae.callbacks'
    config = {
        'model': {'class_path': f'{HERE}.{task}'},
        'data': {'class_path': f'{HERE}.Data'},
        'trainer': {
            'default_root_dir': 'runs/tune',
            'accelerator': 'cpu',
            'max_epochs': 1,
            'logger': False,
            'log_every_n_steps': 1,
            'enable_progress_bar': False,
            'enable_model_summary': False,
            'callbacks': [
                spec(f'{package}.run_folder.RunFolder', task=f'{HERE}.{expects}'),
                spec('LearningRateMonitor'),
                spec(
                    f'{package}.checkpoint.RunCheckpoint',
                    filename='best',
                    monitor='val_loss',
                ),
                spec(f'{package}.checkpoint.RunCheckpoint'),
            ],
        },
    }
    Path('config.yaml').write_text(yaml.safe_dump(config))
    resume = ['--ckpt_path', str(ckpt)] if ckpt else []
    main([command, '--config', 'config.yaml', *options, *resume])


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])


def tree(folder):
    """Return the hash of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob('*'))
        if path.is_file()
    }


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def rate(checkpoint):
    return torch.load(checkpoint, weights_only=True)['hyper_parameters']['lr']


def steps(checkpoint):
    return torch.load(checkpoint, weights_only=True)['global_step']


def test_each_command_has_its_config_metrics_and_events(recwarn, caplog):
    torchgeo('fit')
    torchgeo('test', ckpt=LAST)
    assert names('runs/tune') == ['best.ckpt', 'fit', 'last.ckpt', 'test']
    for command, metric in (('fit', 'val_loss'), ('test', 'test_loss')):
        folder = Path('runs/tune') / command
        assert yaml.safe_load((folder / 'config.yaml').read_text())['model']
        assert metric in (folder / 'metrics.csv').read_text()
        assert list(folder.glob('events.out.tfevents.*'))
    assert 'lr-SGD' in Path('runs/tune/fit/metrics.csv').read_text()
    assert names('.') == ['config.yaml', 'runs']
    assert 'Results are in runs/tune/test' in caplog.messages
    assert not [w for w in recwarn if 'exists and is not empty' in str(w.message)]


def test_a_second_fit_moves_the_first_run_aside_whole():
    torchgeo('fit', '--model.init_args.lr=0.1')
    first = tree('runs/tune')
    torchgeo('fit', '--model.init_args.lr=0.2')
    assert tree('runs/tune.1') == first
    assert rate(LAST) == rate('runs/tune/best.ckpt') == 0.2


def test_commands_of_a_run_leave_the_files_of_each_other_whole():
    torchgeo('fit')
    torchgeo('test', ckpt=LAST)
    before = tree('runs/tune')
    for command in ('predict', 'test'):
        torchgeo(command, ckpt=LAST)
    after = tree('runs/tune')
    for name, content in before.items():
        assert after[name.replace('test/', 'test.1/')] == content
    torchgeo('fit', '--trainer.max_epochs=2', ckpt=LAST)
    resumed = tree('runs/tune')
    for name, content in after.items():
        if not name.endswith('.ckpt'):
            assert resumed[name.replace('fit/', 'fit.1/')] == content
    assert steps(LAST) == 4
    assert names('runs') == ['tune']


def test_an_older_run_is_evaluated_in_place_and_resumed_as_a_new_one():
    torchgeo('fit', '--model.init_args.lr=0.1')
    torchgeo('fit')
    newest = tree('runs/tune')
    torchgeo('test', ckpt='runs/tune.1/last.ckpt')
    assert Path('runs/tune.1/test/metrics.csv').is_file()
    assert tree('runs/tune') == newest
    old = tree('runs')
    torchgeo('fit', '--trainer.max_epochs=2', ckpt='runs/tune.1/last.ckpt')
    now = tree('runs')
    for name, content in old.items():
        assert now[name.replace('tune/', 'tune.2/')] == content
    assert steps(LAST) == steps('runs/tune/best.ckpt') == 4


def test_a_resumed_run_keeps_its_best_checkpoint():
    torchgeo('fit', '--model.init_args.lr=0.001')
    best = tree('runs')['tune/best.ckpt']
    saved = torch.load(LAST, weights_only=True)
    saved['optimizer_states'][0]['param_groups'][0]['lr'] = 100.0  # it will be worse
    torch.save(saved, LAST)
    torchgeo('fit', '--trainer.max_epochs=2', ckpt=LAST)
    assert tree('runs')['tune/best.ckpt'] == best
    assert steps(LAST) == 4


def test_a_checkpoint_of_another_task_is_refused():
    torchgeo('fit', task='Pretraining', expects='Pretraining')
    before = tree('runs')
    with pytest.raises(ValueError, match=f'{LAST} .*Finetuning.*init_args.weights'):
        torchgeo('fit', ckpt=LAST)
    assert tree('runs') == before


def test_a_test_without_a_checkpoint_is_refused():
    with pytest.raises(ValueError, match='--ckpt_path'):
        torchgeo('test')
    assert not Path('runs').exists()


@pytest.mark.parametrize('where', ['setup', 'validation'])
def test_a_fit_that_fails_before_training_leaves_the_disk_as_it_was(where):
    fail = (f'--model.init_args.fail={where}',)
    torchgeo('fit')
    before = tree('runs')
    with pytest.raises(RuntimeError, match=where):
        torchgeo('fit', *fail)
    assert tree('runs') == before
    assert names('runs') == ['tune']


def test_resuming_a_finished_run_changes_nothing(caplog):
    torchgeo('fit')
    before = tree('runs')
    torchgeo('fit', ckpt=LAST)
    assert tree('runs') == before
    assert [m for m in caplog.messages if m.startswith('Nothing was trained')]


def test_a_file_in_the_way_is_an_error_before_training():
    Path('runs').write_text('in the way')
    with pytest.raises(ValueError, match='runs/tune'):
        torchgeo('fit')
    assert Path('runs').read_text() == 'in the way'


def test_a_logger_that_writes_into_the_run_moves_with_it():
    for logger in ('CSVLogger', 'TensorBoardLogger'):
        options = [f'--trainer.logger={logger}', '--trainer.logger.save_dir=runs/tune']
        torchgeo('fit', *options)
    (first,) = Path('runs/tune.1/lightning_logs').glob('version_*')
    assert 'val_loss' in (first / 'metrics.csv').read_text()
    (second,) = Path('runs/tune/lightning_logs').glob('version_*')
    assert list(second.glob('events.out.tfevents.*'))


def test_the_exception_checkpoint_of_a_run_is_resumed():
    added = '{class_path: OnExceptionCheckpoint, init_args: {dirpath: runs/tune}}'
    added = f'--trainer.callbacks+={added}'
    with pytest.raises(RuntimeError, match='failed in training'):
        torchgeo('fit', added, '--model.init_args.fail=training')
    torchgeo('fit', added)
    assert names('runs/tune') == ['best.ckpt', 'fit', 'fit.1', 'last.ckpt']


def test_a_job_that_slurm_requeues_goes_on_in_its_run(monkeypatch):
    torchgeo('fit')
    Path(LAST).rename('runs/tune/hpc_ckpt_1.ckpt')
    monkeypatch.setenv('SLURM_NTASKS', '1')
    monkeypatch.setenv('SLURM_JOB_NAME', 'train')
    torchgeo('fit', '--trainer.max_epochs=2')
    assert steps(LAST) == 4
    assert {'fit', 'fit.1', 'hpc_ckpt_1.ckpt'} <= set(names('runs/tune'))


def test_fast_dev_run_leaves_no_folder():
    torchgeo('fit', '--trainer.fast_dev_run=true')
    assert not Path('runs').exists()


def trainer(root, epochs=1):
    return Trainer(
        accelerator='cpu',
        max_epochs=epochs,
        logger=False,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            RunFolder(root and str(root)),
            LearningRateMonitor(),
            RunCheckpoint(),
        ],
    )


def test_a_trainer_in_python_does_the_same():
    for _ in range(2):
        engine = trainer('run')
        engine.fit(Finetuning(), Data())
        assert engine.log_dir == str(Path('run/fit').absolute())
        engine.test(ckpt_path='best', datamodule=Data(), verbose=False)
        assert engine.log_dir == str(Path('run/test').absolute())
        assert len(engine.loggers) == 2
    assert names('.') == ['run', 'run.1']
    for run in ('run', 'run.1'):
        assert 'test_loss' in Path(run, 'test/metrics.csv').read_text()
        assert 'val_loss' in Path(run, 'fit/metrics.csv').read_text()
    resumed = trainer('run', epochs=2)
    resumed.fit(Finetuning(), Data(), ckpt_path='run/last.ckpt')
    assert resumed.global_step == 4
    assert names('run') == ['fit', 'fit.1', 'last.ckpt', 'test']


def test_a_run_needs_a_folder():
    with pytest.raises(ValueError, match='default_root_dir'):
        trainer(None).fit(Finetuning(), Data())
    assert names('.') == []
