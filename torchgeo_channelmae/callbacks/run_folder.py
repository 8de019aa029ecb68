"""One folder per run, in which no command overwrites what another one wrote."""

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Any, override

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

_BOOKKEEPING = re.compile(r'(config|hparams)\.yaml|metrics\.csv|events\.out\..*')


class RunFolder(Callback):
    """Owns the folder of a run: ``root/last.ckpt`` is always the newest run's.

    ``fit`` moves an earlier run to ``root.1``, ``root.2`` and so on; resuming from a
    checkpoint inside ``root`` continues there. Each command has a folder in the run
    (``root/fit``, ``root/test``, ...) for ``config.yaml``, ``metrics.csv`` and
    TensorBoard events; an earlier one becomes ``root/test.1``. Other commands than
    ``fit`` write beside the checkpoint that they evaluate, such as in ``root.1/test``.

    Checkpoint callbacks without a ``dirpath`` save in the run. A command that fails
    before it has trained or written anything leaves the disk as it was.
    ``fast_dev_run`` turns all of it off.

    The CSV and TensorBoard loggers are made here, in addition to the trainer's own. Put
    this callback first.
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
        self._created: list[Path] = []
        self._moved: tuple[Path, Path] | None = None
        self._loggers: list[Logger] = []
        self._start_step: int | None = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check what is asked for and, on the command line, open the folder.

        Raises:
            ValueError: If the checkpoint is another task's, does not exist or is
                missing, or the folder cannot be written to.
        """
        self._folder = self._start_step = None
        self._check(trainer, pl_module)
        if _is_dev_run(trainer):  # with the logger that Lightning uses then
            trainer.loggers = trainer.loggers or [DummyLogger()]
            return
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(self._root(trainer))
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if _is_command_line(trainer):
            self._open(trainer)

    # In Python, the checkpoint is known only after setup, and none writes in it.

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the folder."""
        self._open(trainer)

    on_validation_start = on_test_start = on_predict_start = on_fit_start

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the step that training starts from."""
        self._start_step = trainer.global_step

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Restore the disk, unless something was trained or written."""
        if self._folder is not None and not self._has_trained(trainer):
            self._restore(trainer)
        self._folder = None

    @override
    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Print where the results are; restore the disk if there was nothing to do."""
        folder = self._folder
        if folder is None:
            return
        if folder.name == 'fit' and not self._has_trained(trainer):
            self._restore(trainer)
            rank_zero_info('Nothing was trained: the run had reached its end before.')
        else:
            rank_zero_info(f'Results are in {os.path.relpath(folder)}')
        self._folder = None

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
        if _is_dev_run(trainer) or not _is_command_line(trainer):
            return
        example = os.path.relpath(self._root(trainer) / 'last.ckpt')
        if checkpoint is not None:
            problem = f'Checkpoint {checkpoint!r} is not a file.'
            is_wrong = '://' not in checkpoint and not Path(checkpoint).is_file()
        else:
            problem = 'Without a checkpoint, the model is untrained.'
            is_trained = getattr(pl_module, 'brings_weights', False)
            is_wrong = trainer.state.fn != 'fit' and not is_trained
        if is_wrong:
            raise ValueError(f'{problem} Give --ckpt_path PATH, such as {example}.')

    def _root(self, trainer: Trainer) -> Path:
        root = Path(self.root or trainer.default_root_dir).expanduser().resolve()
        if root == Path.cwd():  # Lightning's default
            raise ValueError(
                'The run has no folder. Give --trainer.default_root_dir FOLDER, such '
                'as runs/finetune.'
            )
        return root

    def _open(self, trainer: Trainer) -> None:
        """Create the command's folder and its loggers."""
        if self._folder is not None or _is_dev_run(trainer):
            return
        assert trainer.state.fn is not None
        command, root = trainer.state.fn.value, self._root(trainer)
        checkpoint = requested_checkpoint(trainer) or trainer.ckpt_path
        home = _run_of(None if checkpoint is None else str(checkpoint), root)
        continues = home == root or _is_requeued(trainer)
        run = root if command == 'fit' or home is None else home
        folder, error = run / command, None
        if trainer.is_global_zero:
            try:
                is_new = command == 'fit' and not continues
                self._create(run if is_new else folder, trainer)
                folder.mkdir(exist_ok=True)
            except OSError as refused:
                error = (
                    f'Cannot write to the run folder {folder}: {refused.strerror} '
                    f'({refused.filename}). Choose another folder with '
                    f'--trainer.default_root_dir, or root of RunFolder.'
                )
        if error := trainer.strategy.broadcast(error):
            raise ValueError(error)
        self._folder = folder
        others = [logger for logger in trainer.loggers if logger not in self._loggers]
        where: dict[str, Any] = {'save_dir': run, 'name': '', 'version': command}
        csv = CSVLogger(**where, flush_logs_every_n_steps=1)
        _ = csv.experiment  # while the folder is empty, or it warns of other files
        # TorchGeo's tasks draw pictures with the first logger.
        self._loggers = [TensorBoardLogger(**where, default_hp_metric=False), csv]
        trainer.loggers = [*self._loggers, *others]

    def _create(self, folder: Path, trainer: Trainer) -> None:
        """Create a folder and move an earlier one aside, but for logs of this run.

        Lightning opens the trainer's own loggers before any callback is set up.
        """
        self._moved = None
        self._created = [folder, *(p for p in folder.parents if not p.exists())]
        logs = _logs_in(folder, trainer.loggers).values()
        files = [path for path in folder.rglob('*') if path.is_file()]
        if not all(any(path.is_relative_to(log) for log in logs) for path in files):
            moved = move_aside(folder)
            assert moved is not None
            self._moved = moved, folder
            for log in logs:
                log.parent.mkdir(parents=True)
                (moved / log.relative_to(folder)).rename(log)
        folder.mkdir(parents=True, exist_ok=True)

    def _has_trained(self, trainer: Trainer) -> bool:
        return self._start_step not in (None, trainer.global_step)

    def _restore(self, trainer: Trainer) -> None:
        """Remove what :meth:`_create` made and undo its move, unless it has results."""
        made = self._created[0] if self._created else None
        closed = [*self._loggers, *(_logs_in(made, trainer.loggers) if made else ())]
        for logger in closed:
            logger.finalize('failed')
        trainer.loggers = [log for log in trainer.loggers if log not in closed]
        if made is None:  # in another process
            return
        if all(_BOOKKEEPING.fullmatch(p.name) or p.is_dir() for p in made.rglob('*')):
            shutil.rmtree(made)
            with contextlib.suppress(OSError):  # other runs may be in them by now
                for parent in self._created[1:]:
                    parent.rmdir()
            if self._moved is not None:
                self._moved[0].rename(self._moved[1])


def _logs_in(folder: Path, loggers: list[Logger]) -> dict[Logger, Path]:
    """Return the folders of the loggers that write below a folder."""
    found = {log: getattr(log, 'log_dir', None) or log.save_dir for log in loggers}
    paths = {log: Path(path).resolve() for log, path in found.items() if path}
    return {log: path for log, path in paths.items() if folder in path.parents}


def _is_command_line(trainer: Trainer) -> bool:
    callbacks = getattr(trainer, 'callbacks', ())
    return any(isinstance(each, SaveConfigCallback) for each in callbacks)


def _is_dev_run(trainer: Trainer) -> bool:
    return bool(getattr(trainer, 'fast_dev_run', False))


def _run_of(checkpoint: str | None, root: Path) -> Path | None:
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
