"""One folder for each run, in which no command overwrites what another one wrote."""

import importlib
import inspect
import os
import re
import warnings
from pathlib import Path
from typing import Any, override

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_info

from .checkpoint_io import AtomicCheckpointIO
from .folders import OpenedFolder, run_of


class RunFolder(Callback):
    """Owns the folder of a run: ``root/last.ckpt`` is always of the newest run.

    ``fit`` moves an earlier run aside, to ``root.1``, ``root.2`` and so on in the order
    of age; resuming from a checkpoint inside ``root`` goes on there. Each command has a
    folder of its own in the run (``root/fit``, ``root/test`` and so on) for
    ``config.yaml``, ``metrics.csv`` and TensorBoard events; an earlier one becomes
    ``root/test.1``. Given a checkpoint of an older run, commands other than ``fit``
    write beside it, in ``root.1/test``.

    Checkpoint callbacks without a ``dirpath`` save in the run, each file whole or not
    at all. A command that fails before it has trained or written anything leaves the
    disk as it was. ``fast_dev_run`` turns all of it off.

    Give the trainer ``logger: false``, as the loggers are made here; other loggers that
    it has are kept.
    """

    def __init__(self, root: str | None = None, task: str | None = None) -> None:
        """Describe the run; nothing is read or written yet.

        Args:
            root: Folder of the newest run, made where it is missing. Defaults to the
                trainer's ``default_root_dir``.
            task: Dotted path of the task class that this configuration is for.
                LightningCLI replaces the configured task by that of ``--ckpt_path``;
                with this, a checkpoint of another task is refused.
        """
        super().__init__()
        self.root = root
        self.task = task
        self._opened: OpenedFolder | None = None
        self._loggers: list[Logger] = []
        self._checkpoints: list[ModelCheckpoint] = []
        self._start_step: int | None = None
        self._checkpoint: str | None = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the command's folder, before anything else writes to it.

        Raises:
            ValueError: If the checkpoint is of another task, cannot be found, is not
                given for a command other than fit, or the folder cannot be written to.
        """
        self._opened = self._start_step = None
        if getattr(trainer, 'fast_dev_run', False):
            # Lightning's stand-in, for callbacks that insist on a logger.
            trainer.loggers = trainer.loggers or [DummyLogger()]
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, ModelCheckpoint):
                    callback.save_last = False  # Lightning would write it even so
            return
        requested, checkpoint = checkpoint_of(trainer)
        self._checkpoint = checkpoint
        self._check_task(pl_module, checkpoint)
        root = self._root(trainer)
        if requested == 'last' and checkpoint is None:
            _check_no_last(root)

        command = getattr(stage, 'value', stage)  # Lightning gives an enum
        by_command_line = any(
            isinstance(callback, SaveConfigCallback)
            for callback in getattr(trainer, 'callbacks', ())
        )
        is_trained = checkpoint or getattr(pl_module, 'brings_weights', False)
        if by_command_line and command != 'fit' and not is_trained:
            raise ValueError(
                f'Without a checkpoint, {command} would run an untrained model: give '
                f'--ckpt_path, {os.path.relpath(root)}/last.ckpt for example.'
            )
        home = run_of(checkpoint, root) if checkpoint else None
        is_requeued = Path(checkpoint or '').name.startswith('hpc_ckpt_')
        resumes = home == root or is_requeued
        run = root if command == 'fit' or home is None else home

        opened = self._opened = OpenedFolder(run / command)
        problem = None
        if trainer.is_global_zero:
            try:
                opened.open(new_run=command == 'fit' and not resumes)
            except OSError as error:
                problem = (
                    f'Cannot write to the run folder {opened.path}: {error.strerror} '
                    f'({error.filename}). Choose another folder with '
                    f'--trainer.default_root_dir, or root of RunFolder.'
                )
        problem = trainer.strategy.broadcast(problem)
        if problem:
            raise ValueError(problem)
        self._attach(trainer, run, opened.path)

    def _root(self, trainer: Trainer) -> Path:
        """The folder of the newest run."""
        if self.root is not None:
            return Path(self.root).expanduser().absolute()
        root = Path(trainer.default_root_dir).expanduser().absolute()
        if root == Path.cwd():  # which Lightning takes where none is given
            raise ValueError(
                'The run has no folder: give --trainer.default_root_dir FOLDER, such '
                'as runs/finetune.'
            )
        return root

    def _check_task(self, pl_module: LightningModule, checkpoint: str | None) -> None:
        expected = _import(self.task) if self.task else object
        if isinstance(pl_module, expected):
            return
        holds = type(pl_module).__name__
        if checkpoint is None:
            raise ValueError(
                f'This configuration is for the task {expected.__name__}, but its '
                f'model is {holds}: change model.class_path, or task of RunFolder.'
            )
        raise ValueError(
            f'Checkpoint {checkpoint} holds the task {holds}, but this configuration '
            f'is for {expected.__name__}: start from pretrained weights with '
            '--model.init_args.weights PATH, as --ckpt_path only resumes or evaluates '
            'the same task.'
        )

    def _attach(self, trainer: Trainer, run: Path, folder: Path) -> None:
        """Point loggers and checkpoints to the run's folders."""
        others = [logger for logger in trainer.loggers if logger not in self._loggers]
        where: dict[str, Any] = {
            'save_dir': folder.parent,
            'name': '',
            'version': folder.name,
        }
        csv = CSVLogger(**where, flush_logs_every_n_steps=1)
        board = TensorBoardLogger(**where, default_hp_metric=False)
        # Opened now, while the folder is empty: CSVLogger warns about others' files.
        _ = csv.experiment, board.experiment
        # TorchGeo's tasks draw pictures with the first logger.
        self._loggers = [board, csv]
        trainer.loggers = [*self._loggers, *others]

        # True of each run, and no danger, as no earlier run is in the folder.
        full = rf'Checkpoint directory {re.escape(str(run))} exists'
        warnings.filterwarnings('ignore', message=full)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                if callback.dirpath is None:
                    self._checkpoints.append(callback)
                if callback in self._checkpoints:
                    callback.dirpath = str(run)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Correct the paths in a checkpoint whose folder was moved since it was saved.

        Without, a checkpoint in ``root.1`` would claim the files of ``root`` as its
        own.
        """
        if self._opened is None or not trainer.ckpt_path:
            return
        if self._checkpoint is None:
            raise RuntimeError(
                f'RunFolder did not see that {trainer.ckpt_path} is loaded: this '
                f'version of Lightning hands it over in another way than it knows.'
            )
        home = str(Path(trainer.ckpt_path).expanduser().absolute().parent)
        states = checkpoint.get('callbacks', {})
        for key, state in states.items():
            if isinstance(state, dict) and 'best_k_models' in state:
                states[key] = _rebased(state, str(state.get('dirpath')), home)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the step that training starts from."""
        self._start_step = trainer.global_step

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Put the disk back as it was, unless something was trained or written."""
        opened, self._opened = self._opened, None
        if opened is None:
            return
        if not self._has_trained(trainer):
            self._put_back(trainer, opened)

    def _has_trained(self, trainer: Trainer) -> bool:
        return self._start_step not in (None, trainer.global_step)

    def _put_back(self, trainer: Trainer, opened: OpenedFolder) -> None:
        if not trainer.is_global_zero:
            return
        # Closed first: Lightning closes the trainer's loggers later.
        for logger in self._loggers:
            logger.finalize('failed')
        trainer.loggers = [log for log in trainer.loggers if log not in self._loggers]
        opened.put_back()

    @override
    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Say where the results are; put the disk back if there was nothing to do."""
        opened, self._opened = self._opened, None
        if opened is None:
            return
        where = os.path.relpath(opened.path)
        if opened.path.name == 'fit' and not self._has_trained(trainer):
            rank_zero_info(
                f'Nothing was trained: the run had reached its last epoch or step. '
                f'What {where} has is of before.'
            )
            self._put_back(trainer, opened)
            return
        rank_zero_info(f'Results are in {where}')


def checkpoint_of(trainer: Trainer) -> tuple[str | None, str | None]:
    """Find the checkpoint that a command resumes or evaluates, while it is set up.

    Lightning sets ``trainer.ckpt_path`` only after every ``setup`` hook, so it is read
    where it is then: in the arguments of the trainer's own calls on the stack.

    Args:
        trainer: The trainer, inside its ``setup`` hooks.

    Returns:
        The checkpoint as it was asked for (maybe ``last`` or ``best``), and the path
        that Lightning made of it; None for none.
    """
    requested = resolved = None
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_locals.get('self') is trainer and 'ckpt_path' in frame.f_locals:
            path = frame.f_locals['ckpt_path']
            if frame.f_code is Trainer._run.__code__:
                resolved = path
            elif frame.f_code.co_name in ('fit', 'validate', 'test', 'predict'):
                requested = path
        frame = frame.f_back
    return requested and str(requested), resolved and str(resolved)


def _check_no_last(root: Path) -> None:
    """Check that ``last`` was not found because there is none.

    Lightning looks for it before any callback can say where it is.
    """
    last = root / 'last.ckpt'
    if last.exists():
        raise ValueError(
            f"ckpt_path 'last' is not looked for in {root}: give {last}, or set "
            'dirpath of ModelCheckpoint to that folder.'
        )


def _import(dotted: str) -> type:
    """Return the class at a dotted path."""
    module, _, name = dotted.rpartition('.')
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f'Cannot import {dotted!r}, the task of RunFolder: {error}.'
        ) from None
    if not isinstance(found, type):
        raise ValueError(f'{dotted!r}, the task of RunFolder, is not a class.')
    return found


def _rebased(value: Any, old: str, new: str) -> Any:
    """Replace a folder by another in the paths of a nested state."""
    if isinstance(value, dict):
        return {_rebased(k, old, new): _rebased(v, old, new) for k, v in value.items()}
    if isinstance(value, str) and (value == old or value.startswith(old + os.sep)):
        return new + value[len(old) :]
    return value
