"""Classes named in a configuration, found and built with errors that can be read."""

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, override

import torchgeo.datasets
from jsonargparse import Namespace
from jsonargparse.typing import register_type
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import OnExceptionCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.core.mixins.hparams_mixin import HyperparametersMixin
from torchgeo.datasets import DatasetNotFoundError, GeoDataset

from . import datasets

_FOLDERS = (datasets, torchgeo.datasets)
_KEYS = {'class_path', 'init_args'}


class ClassSpec(Mapping[str, Any]):
    """``{class_path: NAME, init_args: {...}}``: a class to be built later.

    As an argument's type it keeps LightningCLI from importing, checking or building the
    class itself, so that names may be short and errors come from ``setup``. A plain
    dictionary does as well where it is not LightningCLI that passes it.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        """Initialise the specification; what it holds is checked in ``setup``."""
        self.content = dict(content)

    @override
    def __getitem__(self, key: str) -> Any:
        """Return ``class_path`` or ``init_args``."""
        return self.content[key]

    @override
    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys."""
        return iter(self.content)

    @override
    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self.content)

    @override
    def __repr__(self) -> str:
        """Return what it holds."""
        return repr(self.content)


def _from_yaml(value: Any) -> ClassSpec:
    if isinstance(value, Namespace):
        value = value.as_dict()
    if not isinstance(value, Mapping):
        raise ValueError('expected {class_path: NAME, init_args: {...}}')
    return ClassSpec(value)


register_type(ClassSpec, lambda spec: spec.content, _from_yaml)


def find_class(spec: Any, role: str, folders: tuple[Any, ...] = _FOLDERS) -> type:
    """Return the class that a specification names.

    Args:
        spec: ``{class_path: NAME, init_args: {...}}``. The name is dotted, or that of a
            class in one of ``folders``.
        role: The argument that the specification is the value of.
        folders: Modules whose classes may be named without them.

    Raises:
        ValueError: If it names no class.
    """
    example = '{class_path: EuroSAT, init_args: {root: FOLDER}}'
    if not isinstance(spec, Mapping) or not isinstance(spec.get('class_path'), str):
        raise ValueError(f'{role} is {spec!r}: give a class, such as {example}.')
    unknown = set(spec) - _KEYS
    if unknown or not isinstance(spec.get('init_args') or {}, Mapping):
        named = f'the key {min(unknown)!r}' if unknown else 'init_args of another kind'
        raise ValueError(
            f'{role} has {named}: give class_path and a mapping init_args, such as '
            f'{example}.'
        )
    name = spec['class_path']
    module, _, short = name.rpartition('.')
    found = None
    if module:
        try:
            found = getattr(importlib.import_module(module), short)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f'Cannot import {name!r}, the class of {role}: {_line(error)}'
            ) from None
    else:
        found = next((getattr(f, short) for f in folders if hasattr(f, short)), None)
    if not isinstance(found, type):
        where = ' or '.join(folder.__name__ for folder in folders)
        raise ValueError(
            f'{name!r}, the class of {role}, is none of {where}: write its name as '
            f'there, or with its module, as package.module.{short}.'
        )
    return found


def build(spec: Any, role: str, kind: type | None = None, **defaults: Any) -> Any:
    """Build the dataset that a specification describes.

    Args:
        spec: ``{class_path: NAME, init_args: {...}}``, see :func:`find_class`.
        role: The argument that the specification is the value of.
        kind: The class to build. None is the one that the specification names.
        **defaults: Arguments for which the specification has no value.

    Returns:
        The dataset.

    Raises:
        FileNotFoundError: If its files are not there.
        ValueError: If the class does not take these arguments.
    """
    kind = kind or find_class(spec, role)
    given = {**defaults, **(spec.get('init_args') or {})}
    check_arguments(kind, given, role)
    return guarded(lambda: kind(**given), f'{role} {kind.__name__}', given)


def check_arguments(
    kind: Callable[..., Any], given: Mapping[str, Any], role: str
) -> None:
    """Check that a class takes arguments of these names.

    Raises:
        ValueError: If it does not.
    """
    signature = inspect.signature(kind)
    try:
        signature.bind(**given)
    except TypeError as error:
        raise ValueError(
            f'init_args of {role} do not fit {getattr(kind, "__name__", kind)}, which '
            f'takes {", ".join(signature.parameters)}: {_line(error)}.'
        ) from None


def guarded[T](make: Callable[[], T], what: str, given: Mapping[str, Any]) -> T:
    """Call a constructor, with its errors as one sentence.

    Args:
        make: Builds something.
        what: What it builds, to name it.
        given: The arguments, to name where it looked.

    Raises:
        FileNotFoundError: If files are not there.
        ValueError: If it refuses an argument or reads something unexpected. What this
            package raises is a sentence already, and stays as it is.
    """
    where = given.get('root', given.get('paths'))
    found = f' in {where}' if where is not None else ''
    try:
        return make()
    except Exception as error:  # constructors raise what they like
        if isinstance(error, ValueError | OSError) and _is_ours(error):
            raise
        if isinstance(error, FileNotFoundError):
            torchgeos = isinstance(error, DatasetNotFoundError)
            reason = '' if torchgeos else f' ({_line(error)})'
            place = found or ' in its default folder, as no root is given'
            raise FileNotFoundError(
                f'The files of {what} are not{place}{reason}: give the right folder as '
                f'root, or get the data as its documentation says.'
            ) from None
        raise ValueError(
            f'{what} could not be made{found}: {type(error).__name__} {_line(error)}'
        ) from None


def _is_ours(error: BaseException) -> bool:
    """Whether code of this package raised an error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = '' if trace is None else str(trace.tb_frame.f_globals.get('__name__'))
    return name.split('.')[0] == __name__.split('.')[0]


def is_geo(kind: type) -> bool:
    """Tell whether a class is one of TorchGeo's ``GeoDataset``s."""
    return issubclass(kind, GeoDataset)


def _line(error: BaseException) -> str:
    return ' '.join(str(error).split()) or 'without a message'


def built_by_command_line() -> bool:
    """Tell whether LightningCLI is building the task or datamodule that calls this.

    LightningCLI hands hyperparameters to what it builds, together with the name of the
    function that built it, which Lightning stores in checkpoints.
    """
    probe = HyperparametersMixin()
    probe.save_hyperparameters()
    return '_instantiator' in probe.hparams


@contextmanager
def deferred_errors(owner: Any) -> Iterator[None]:
    """Raise a wrong argument at once in Python, and in ``setup`` on the command line.

    jsonargparse buries an error of a constructor under pages about its types. So while
    LightningCLI builds ``owner``, a ValueError of the block is kept in
    ``owner.argument_error``, and :func:`raise_deferred` raises it in ``setup``: the
    last line on the terminal is then the error's own sentence.

    Args:
        owner: The task or datamodule whose constructor this is.

    Raises:
        ValueError: That of the block, unless LightningCLI is building the owner.
    """
    owner.argument_error = None
    try:
        yield
    except ValueError as error:
        if not built_by_command_line():
            raise
        owner.argument_error = error


def raise_deferred(owner: Any) -> None:
    """Raise the error that :func:`deferred_errors` kept, if there is one."""
    if owner.argument_error is not None:
        raise owner.argument_error


def requested_checkpoint(trainer: Trainer) -> str | None:
    """Return the checkpoint that a command resumes or evaluates, also inside ``setup``.

    On the command line it is ``--ckpt_path``, or what an ``OnExceptionCheckpoint`` of
    an earlier run left. In Python it is ``trainer.ckpt_path``, which Lightning sets
    between the ``setup`` hooks and ``on_fit_start``.

    Args:
        trainer: The trainer.
    """
    callbacks = getattr(trainer, 'callbacks', ())
    for callback in callbacks:
        if isinstance(callback, SaveConfigCallback):
            requested = callback.config.get('ckpt_path')
            break
    else:
        requested = trainer.ckpt_path
    if requested is None and trainer.state.fn == 'fit':
        for callback in callbacks:
            if isinstance(callback, OnExceptionCheckpoint):
                left = Path(callback.ckpt_path)
                requested = left if left.is_file() else None
    return None if requested is None else str(requested)
