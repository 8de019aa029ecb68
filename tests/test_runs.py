"""What is on disk after commands that succeed, fail, resume or are killed."""

import hashlib
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset
from torchgeo.main import main

from torchgeo_channelmae.callbacks.folders import move_aside, run_of
from torchgeo_channelmae.callbacks.run_folder import RunFolder

TASKS = """
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader
from torchgeo.datamodules import BaseDataModule
from torchgeo.tasks import BaseTask


class Data(BaseDataModule):
    def __init__(self):
        super().__init__(dataset_class=object)

    def setup(self, stage):
        pass

    def loader(self):
        return DataLoader(torch.arange(8.0).reshape(8, 1), batch_size=4)

    train_dataloader = val_dataloader = loader
    test_dataloader = predict_dataloader = loader

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch


class Pretraining(BaseTask):
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
        self.fails('training' if self.global_step else 'first batch')
        return self.model(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.fails('validation')
        self.log('val_loss', self.model(batch).square().mean())

    def test_step(self, batch, batch_idx):
        self.fails('test')
        self.log('test_loss', self.model(batch).square().mean())

    def predict_step(self, batch, batch_idx):
        return self.model(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams['lr'])


class Finetuning(Pretraining):
    pass
"""


class Command:
    """Runs ``torchgeo`` in a folder, with a task and data of its own."""

    def __init__(self, folder: Path, module: str):
        self.folder = folder
        self.module = module

    def __call__(
        self, command, *options, task='Finetuning', expects=None, checkpoint=None
    ):
        (self.folder / 'config.yaml').write_text(
            yaml.safe_dump(
                {
                    'model': {'class_path': f'{self.module}.{task}'},
                    'data': {'class_path': f'{self.module}.Data'},
                    'trainer': {
                        'default_root_dir': 'runs/tune',
                        'accelerator': 'cpu',
                        'max_epochs': 1,
                        'logger': False,
                        'log_every_n_steps': 1,
                        'enable_progress_bar': False,
                        'enable_model_summary': False,
                        'callbacks': [
                            {
                                'class_path': 'torchgeo_channelmae.callbacks.run_folder.RunFolder',
                                'init_args': {
                                    'task': expects or f'{self.module}.{task}',
                                },
                            },
                            {
                                'class_path': 'lightning.pytorch.callbacks.'
                                'LearningRateMonitor'
                            },
                            {
                                'class_path': 'lightning.pytorch.callbacks.'
                                'ModelCheckpoint',
                                'init_args': {
                                    'filename': 'best',
                                    'monitor': 'val_loss',
                                    'save_last': True,
                                    'save_on_train_epoch_end': True,
                                    'enable_version_counter': False,
                                },
                            },
                        ],
                    },
                }
            )
        )
        args = [command, '--config', 'config.yaml', *options]
        main([*args, *(['--ckpt_path', str(checkpoint)] if checkpoint else [])])


@pytest.fixture
def torchgeo(tmp_path, monkeypatch, request):
    module = f'tasks_of_{abs(hash(request.node.name))}'
    (tmp_path / f'{module}.py').write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.argv', ['torchgeo'])
    monkeypatch.syspath_prepend(tmp_path)
    return Command(tmp_path, module)


def tree(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def learning_rate(checkpoint: str) -> float:
    hparams = torch.load(checkpoint, weights_only=True)['hyper_parameters']
    return hparams['lr']


def steps(checkpoint: str) -> int:
    return torch.load(checkpoint, weights_only=True)['global_step']


def test_each_command_has_its_config_metrics_and_events(torchgeo, recwarn, caplog):
    torchgeo('fit')
    torchgeo('test', checkpoint='runs/tune/last.ckpt')
    run = Path('runs/tune')
    assert sorted(path.name for path in run.iterdir()) == [
        'best.ckpt',
        'fit',
        'last.ckpt',
        'test',
    ]
    for command, metric in (('fit', 'val_loss'), ('test', 'test_loss')):
        assert yaml.safe_load((run / command / 'config.yaml').read_text())['model']
        assert metric in (run / command / 'metrics.csv').read_text()
        assert list((run / command).glob('events.out.tfevents.*'))
    assert 'lr-SGD' in (run / 'fit/metrics.csv').read_text()
    assert not Path('lightning_logs').exists()
    assert f'Results are in {run}/test' in caplog.messages
    assert not [w for w in recwarn if 'exists and is not empty' in str(w.message)]


def test_a_second_fit_moves_the_first_run_aside_whole(torchgeo):
    torchgeo('fit', '--model.init_args.lr=0.1')
    first = tree(Path('runs/tune'))
    torchgeo('fit', '--model.init_args.lr=0.2')
    second = tree(Path('runs/tune'))
    torchgeo('fit', '--model.init_args.lr=0.3')
    assert tree(Path('runs/tune.1')) == first
    assert tree(Path('runs/tune.2')) == second
    assert learning_rate('runs/tune.1/last.ckpt') == 0.1
    assert learning_rate('runs/tune.2/last.ckpt') == 0.2
    assert learning_rate('runs/tune/last.ckpt') == 0.3
    assert not list(Path('runs').rglob('*-v1.ckpt'))


def test_commands_of_a_run_leave_the_files_of_each_other_whole(torchgeo):
    last = 'runs/tune/last.ckpt'
    run = Path('runs/tune')
    moved = {'fit': 'fit', 'test': 'test', 'predict': 'predict'}
    seen: dict[str, str] = {}
    for command, options in [
        ('fit', []),
        ('test', []),
        ('predict', []),
        ('validate', []),
        ('test', []),
        ('fit', ['--trainer.max_epochs=2']),
    ]:
        checkpoint = last if run.exists() else None
        again = (run / command).exists()
        torchgeo(command, *options, checkpoint=checkpoint)
        if again:
            moved[command] = f'{command}.1'
            seen = {
                name.replace(f'{command}/', f'{command}.1/', 1)
                if name.startswith(f'{command}/')
                else name: value
                for name, value in seen.items()
            }
        if command == 'fit':  # a resumed fit moves its own checkpoints on
            seen = {k: v for k, v in seen.items() if not k.endswith('.ckpt')}
        now = tree(run)
        assert {name: now.get(name) for name in seen} == seen
        seen = now
    assert moved == {'fit': 'fit.1', 'test': 'test.1', 'predict': 'predict'}
    assert steps(last) == 4
    assert [path.name for path in Path('runs').iterdir()] == ['tune']


def test_an_older_run_is_evaluated_beside_its_checkpoint(torchgeo, recwarn):
    torchgeo('fit')
    torchgeo('fit')
    newest = tree(Path('runs/tune'))
    torchgeo('test', checkpoint='runs/tune.1/last.ckpt')
    assert Path('runs/tune.1/test/metrics.csv').is_file()
    assert tree(Path('runs/tune')) == newest
    assert not [w for w in recwarn if 'dirpath has changed' in str(w.message)]


def test_resuming_from_an_older_run_starts_a_new_one_that_saves_its_best(torchgeo):
    torchgeo('fit', '--model.init_args.lr=0.1')
    torchgeo('fit')
    old = tree(Path('runs'))
    torchgeo('fit', '--trainer.max_epochs=2', checkpoint='runs/tune.1/last.ckpt')
    now = tree(Path('runs'))
    for name, value in old.items():
        assert now[name.replace('tune/', 'tune.2/')] == value
    assert steps('runs/tune/last.ckpt') == 4
    assert steps('runs/tune/best.ckpt') == 4


def test_a_checkpoint_of_another_task_is_refused(torchgeo):
    torchgeo('fit', task='Pretraining')
    before = tree(Path('runs'))
    with pytest.raises(ValueError, match='holds the task Pretraining') as error:
        torchgeo('fit', task='Finetuning', checkpoint='runs/tune/last.ckpt')
    message = str(error.value)
    assert 'runs/tune/last.ckpt' in message
    assert 'is for Finetuning' in message
    assert '--model.init_args.weights PATH' in message
    assert '\n' not in message
    assert tree(Path('runs')) == before


def test_a_model_that_is_not_the_task_is_refused_without_a_checkpoint(torchgeo):
    expects = f'{torchgeo.module}.Finetuning'
    with pytest.raises(ValueError, match=r'is for the task Finetuning, but its model'):
        torchgeo('fit', task='Pretraining', expects=expects)
    assert not Path('runs').exists()


@pytest.mark.parametrize('dotted', ['nowhere.Task', 'torch.NoTask', 'Task', 'math.pi'])
def test_a_task_that_cannot_be_imported_is_named(torchgeo, dotted):
    with pytest.raises(ValueError, match=rf"'{dotted}', the task of RunFolder"):
        torchgeo('fit', expects=dotted)


@pytest.mark.parametrize('where', ['setup', 'validation', 'first batch'])
def test_a_fit_that_fails_before_training_costs_nothing(torchgeo, where):
    fail = f'--model.init_args.fail={where}'
    with pytest.raises(RuntimeError, match=where):
        torchgeo('fit', fail)
    assert not Path('runs').exists()
    torchgeo('fit')
    torchgeo('test', checkpoint='runs/tune/last.ckpt')
    before = tree(Path('runs'))
    with pytest.raises(RuntimeError, match=where):
        torchgeo('fit', fail)
    assert tree(Path('runs')) == before


def test_a_test_that_fails_puts_the_earlier_test_back(torchgeo):
    torchgeo('fit')
    torchgeo('test', checkpoint='runs/tune/last.ckpt')
    # The checkpoint's hyperparameters beat those of the command line.
    failing = torch.load('runs/tune/last.ckpt', weights_only=True)
    failing['hyper_parameters']['fail'] = 'test'
    torch.save(failing, 'runs/tune/failing.ckpt')
    before = tree(Path('runs'))
    with pytest.raises(RuntimeError, match='failed in test'):
        torchgeo('test', checkpoint='runs/tune/failing.ckpt')
    assert tree(Path('runs')) == before


def test_a_fit_that_fails_after_a_step_is_kept(torchgeo):
    torchgeo('fit')
    first = tree(Path('runs/tune'))
    with pytest.raises(RuntimeError, match='failed in training'):
        torchgeo('fit', '--model.init_args.fail=training')
    assert tree(Path('runs/tune.1')) == first
    assert Path('runs/tune/fit/config.yaml').is_file()


def test_a_folder_that_cannot_be_written_is_an_error_before_training(torchgeo):
    Path('runs').write_text('a file in the way')
    with pytest.raises(ValueError, match='Cannot write to the run folder') as error:
        torchgeo('fit')
    assert str(Path('runs/tune/fit').absolute()) in str(error.value)
    assert 'Choose another folder' in str(error.value)
    assert '\n' not in str(error.value)
    assert Path('runs').read_text() == 'a file in the way'


def test_a_file_named_like_the_run_stays(torchgeo):
    Path('runs').mkdir()
    Path('runs/tune').write_text('a file in the way')
    with pytest.raises(ValueError, match='it is a file'):
        torchgeo('fit')
    assert Path('runs/tune').read_text() == 'a file in the way'


def test_last_is_refused_where_lightning_would_silently_start_afresh(torchgeo):
    torchgeo('fit')
    with pytest.raises(ValueError, match=r"ckpt_path 'last' .* give .*/last\.ckpt"):
        torchgeo('fit', checkpoint='last')


def test_fast_dev_run_leaves_no_folder(torchgeo):
    torchgeo('fit', '--trainer.fast_dev_run=true')
    assert not Path('runs').exists()


class Line(LightningModule):
    """The smallest module that trains."""

    def __init__(self):
        super().__init__()
        self.model = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        loss = self.model(batch[0]).square().mean()
        self.log('loss', loss)
        return loss

    def test_step(self, batch, batch_idx):
        self.log('test_loss', self.model(batch[0]).square().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def loader() -> DataLoader:
    return DataLoader(TensorDataset(torch.rand(4, 1)), batch_size=2)


def trainer(root: Path, **options) -> Trainer:
    return Trainer(
        accelerator='cpu',
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            RunFolder(str(root)),
            LearningRateMonitor(),
            ModelCheckpoint(save_last=True),
        ],
        **options,
    )


def test_a_trainer_without_the_command_line_does_the_same(tmp_path):
    root = tmp_path / 'run'
    for _ in range(2):
        engine = trainer(root, log_every_n_steps=1)
        engine.fit(Line(), loader())
        assert engine.log_dir == str(root / 'fit')
        engine.test(ckpt_path='best', dataloaders=loader(), verbose=False)
        assert engine.log_dir == str(root / 'test')
        assert len(engine.loggers) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ['run', 'run.1']
    for run in (root, tmp_path / 'run.1'):
        assert 'test_loss' in (run / 'test/metrics.csv').read_text()
        assert 'loss' in (run / 'fit/metrics.csv').read_text()
    resumed = trainer(root)
    resumed.fit_loop.max_epochs = 2
    resumed.fit(Line(), loader(), ckpt_path=root / 'last.ckpt')
    assert resumed.global_step == 4
    assert (root / 'fit.1').is_dir()
    assert not (tmp_path / 'run.2').exists()


def test_numbers_follow_the_order_of_age_even_after_one_is_deleted(tmp_path):
    for number in (2, 10):
        (tmp_path / f'run.{number}').mkdir()
    (tmp_path / 'run.old').mkdir()
    (tmp_path / 'run').mkdir()
    assert move_aside(tmp_path / 'run') is None  # empty
    (tmp_path / 'run/file').touch()
    assert move_aside(tmp_path / 'run') == tmp_path / 'run.11'
    assert (tmp_path / 'run.11/file').is_file()


@pytest.mark.parametrize(
    ('file', 'run'),
    [
        ('run/last.ckpt', 'run'),
        ('run.3/deep/last.ckpt', 'run.3'),
        ('run.old/last.ckpt', None),
        ('other/last.ckpt', None),
        ('run.1', None),
    ],
)
def test_a_file_belongs_to_the_run_that_it_lies_in(tmp_path, file, run):
    expected = run and tmp_path / run
    assert run_of(tmp_path / file, tmp_path / 'run') == expected


class WhereAmI(Callback):
    """Writes down, on every process, where it would save."""

    def __init__(self, folder: Path):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        text = f'{trainer.checkpoint_callback.dirpath} {trainer.loggers[0].log_dir}'
        (self.folder / f'rank{trainer.global_rank}').write_text(text)


def test_a_run_needs_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine = Trainer(accelerator='cpu', logger=False, callbacks=[RunFolder()])
    with pytest.raises(ValueError, match='The run has no folder'):
        engine.fit(Line(), loader())
    assert list(tmp_path.iterdir()) == []


def train_in_two(root: str, folder: str) -> None:
    engine = trainer(Path(root), devices=2, strategy='ddp_fork')
    engine.callbacks.insert(0, WhereAmI(Path(folder)))
    engine.fit(Line(), loader())


def test_two_processes_share_one_folder(tmp_path, start):
    root = tmp_path / 'runs/two'
    (root / 'fit').mkdir(parents=True)
    (root / 'fit/old.txt').touch()
    call = ('tests.test_runs:train_in_two', root, tmp_path)
    command = start(*call, folder=tmp_path, program='call').wait()
    assert command.code == 0, command.output
    for rank in range(2):
        assert (tmp_path / f'rank{rank}').read_text() == f'{root} {root}/fit'
    assert (tmp_path / 'runs/two.1/fit/old.txt').is_file()
    assert steps(str(root / 'last.ckpt')) == 1
    assert len(list((tmp_path / 'runs').iterdir())) == 2


def test_two_processes_fail_together_where_one_cannot_write(tmp_path, start):
    (tmp_path / 'runs').touch()
    call = ('tests.test_runs:train_in_two', tmp_path / 'runs/two', tmp_path)
    command = start(*call, folder=tmp_path, program='call').wait()
    assert command.code == 1
    assert 'ProcessRaisedException' in command.output
    assert 'Cannot write to the run folder' in command.output
