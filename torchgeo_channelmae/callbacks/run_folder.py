"""One folder per run, in which no command overwrites what another one wrote."""

import os
import re
from pathlib import Path
from typing import override

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_info

from ..config import requested_checkpoint
from ..files import move_aside
from .checkpoint import AtomicCheckpointIO


class RunFolder(Callback):
    """Owns the folder of a run: ``root/last.ckpt`` is always the newest run's.

    ``fit`` moves an earlier run to ``root.1``, ``root.2`` and so on; resuming from a
    checkpoint inside ``root`` continues there. Each command has a folder in the run
    (``root/fit``, ``root/test``, ...) for ``config.yaml``, ``metrics.csv`` and
    TensorBoard events; an earlier one becomes ``root/test.1``. Other commands than
    ``fit`` write beside the checkpoint that they evaluate, such as in ``root.1/test``.

    Checkpoint callbacks without a ``dirpath`` save in the run. The folder is opened
    when the first batch is about to run, so a command that fails earlier (a wrong
    argument, missing data) leaves the disk as it was. ``fast_dev_run`` writes nothing.

    The CSV and TensorBoard loggers are made here, in addition to the trainer's own. Put
    this callback first. Other files of a run are written by ``checkpoint.py`` and
    ``loss_guard.py`` beside this file, by ``evaluation/scoring.py`` (scores and
    predictions) and by ``datamodules/collate.py`` (``skipped.csv``).
    """

    def __init__(
        self, root: str | None = None, task: type[LightningModule] | None = None
    ) -> None:
        """Initialize a new RunFolder instance.

        Args:
            root: Folder of the newest run, created if missing. Defaults to the
                trainer's ``default_root_dir``.
            task: Class of the task that this configuration is for. LightningCLI
                replaces the configured task by that of ``--ckpt_path``; with this, a
                checkpoint of another task is refused.
        """
        super().__init__()
        self.root = root
        self.task = task
        self._folder: Path | None = None
        self._loggers: list[Logger] = []

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check what is asked for and say where checkpoints go; write nothing."""
        self._folder = None
        self._check(trainer, pl_module)
        self._use(trainer, [DummyLogger()])
        if _is_dev_run(trainer):
            return
        root = str(self._root(trainer))
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = root
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        for saver in _config_savers(trainer):
            saver.already_saved = True  # until there is a folder

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Create the command's folder, its loggers and its ``config.yaml``."""
        if self._folder or trainer.sanity_checking or _is_dev_run(trainer):
            return
        assert trainer.state.fn is not None
        command, root = trainer.state.fn.value, self._root(trainer)
        home = _run_of(trainer.ckpt_path, root)
        run = root if command == 'fit' or home is None else home
        is_new = command == 'fit' and home != root and not _is_requeued(trainer)
        folder, error = run / command, None
        if trainer.is_global_zero:
            try:
                if is_new:
                    _move_run(run, trainer.loggers)
                move_aside(folder)
                folder.mkdir(parents=True)
            except OSError as refused:
                error = (
                    f'Cannot write to the run folder {folder}: {refused.strerror} '
                    f'({refused.filename}). Choose another folder with '
                    f'--trainer.default_root_dir, or root of RunFolder.'
                )
        if error := trainer.strategy.broadcast(error):
            raise ValueError(error)
        self._folder = folder
        csv = CSVLogger(run, '', command, flush_logs_every_n_steps=1)
        _ = csv.experiment  # while the folder is empty, or it warns of other files
        # TorchGeo's tasks draw pictures with the first logger.
        events = TensorBoardLogger(run, '', command, default_hp_metric=False)
        self._use(trainer, [events, csv])
        for logger in self._loggers:
            logger.log_hyperparams(pl_module.hparams_initial)
        for saver in _config_savers(trainer):
            saver.already_saved = False
            saver.setup(trainer, pl_module, command)

    on_validation_start = on_test_start = on_predict_start = on_train_start

    @override
    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Print where the results are."""
        if self._folder is not None:
            rank_zero_info(f'Results are in {os.path.relpath(self._folder)}')
        elif not _is_dev_run(trainer):
            rank_zero_info('Nothing was trained: the run had reached its end before.')

    def _use(self, trainer: Trainer, loggers: list[Logger]) -> None:
        """Replace the loggers of this callback by others, before the trainer's own."""
        others = [each for each in trainer.loggers if each not in self._loggers]
        self._loggers = loggers
        trainer.loggers = [*loggers, *others]

    def _check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        checkpoint = requested_checkpoint(trainer)
        if self.task is not None and not isinstance(pl_module, self.task):
            what = f'Checkpoint {checkpoint}' if checkpoint else 'The model'
            raise ValueError(
                f'{what} is of the task {type(pl_module).__name__}, but this '
                f'configuration is for {self.task.__name__}. Change model.class_path '
                f'or, for pretrained weights, use --model.init_args.weights PATH: '
                f'--ckpt_path only resumes or evaluates the same task.'
            )
        trains = trainer.state.fn == 'fit' or _is_dev_run(trainer)
        is_trained = trains or getattr(pl_module, 'brings_weights', False)
        if checkpoint is None and _config_savers(trainer) and not is_trained:
            example = os.path.relpath(self._root(trainer) / 'last.ckpt')
            raise ValueError(
                f'Without a checkpoint, the model is untrained. Give --ckpt_path PATH, '
                f'such as {example}.'
            )

    def _root(self, trainer: Trainer) -> Path:
        root = Path(self.root or trainer.default_root_dir).expanduser().resolve()
        if root == Path.cwd():  # Lightning's default
            raise ValueError(
                'The run has no folder. Give --trainer.default_root_dir FOLDER, such '
                'as runs/finetune.'
            )
        return root


def _move_run(run: Path, loggers: list[Logger]) -> None:
    """Move an earlier run aside, but for the logs that this one has already opened."""
    found = (getattr(log, 'log_dir', None) or log.save_dir for log in loggers)
    paths = [Path(each).resolve() for each in found if each]
    logs = [path for path in paths if run in path.parents and path.exists()]
    files = [path for path in run.rglob('*') if path.is_file()]
    if all(any(path.is_relative_to(log) for log in logs) for path in files):
        return
    moved = move_aside(run)
    assert moved is not None
    for log in logs:
        log.parent.mkdir(parents=True, exist_ok=True)
        (moved / log.relative_to(run)).rename(log)


def _config_savers(trainer: Trainer) -> list[SaveConfigCallback]:
    """Return what saves the configuration; there is none in plain Python."""
    callbacks = getattr(trainer, 'callbacks', ())
    return [each for each in callbacks if isinstance(each, SaveConfigCallback)]


def _is_dev_run(trainer: Trainer) -> bool:
    return bool(getattr(trainer, 'fast_dev_run', False))


def _run_of(checkpoint: str | Path | None, root: Path) -> Path | None:
    """Return the run that a checkpoint is in: the root, a ``root.N``, or None."""
    pattern = re.compile(re.escape(root.name) + r'(\.\d+)?')
    for parent in Path(checkpoint).resolve().parents if checkpoint else ():
        if parent.parent == root.parent and pattern.fullmatch(parent.name):
            return parent
    return None


def _is_requeued(trainer: Trainer) -> bool:
    """Whether Lightning resumes a job that Slurm stopped and started again."""
    saved = Path(trainer.default_root_dir).glob('hpc_ckpt_*.ckpt')
    return SLURMEnvironment.detect() and any(saved)
