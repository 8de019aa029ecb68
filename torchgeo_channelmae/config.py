"""Classes named in a configuration: find them, build them, report wrong arguments."""

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, override

from jsonargparse import Namespace
from jsonargparse.typing import register_type
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import OnExceptionCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.core.mixins.hparams_mixin import HyperparametersMixin

_FOLDERS = ('torchgeo_channelmae.datasets', 'torchgeo.datasets')
_EXAMPLE = '{class_path: EuroSAT, init_args: {root: FOLDER}}'


class ClassSpec(Mapping[str, Any]):
    """``{class_path: NAME, init_args: {...}}``: a class to build later.

    As the type of an argument it keeps LightningCLI from importing or building the
    class itself, so that names may be short. In Python a plain dictionary does as well.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        """Initialize the specification; its content is checked in :func:`build`."""
        self.content = dict(content)

    @override
    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    @override
    def __len__(self) -> int:
        return len(self.content)

    @override
    def __repr__(self) -> str:
        return repr(self.content)


def _from_yaml(value: Any) -> ClassSpec:
    if isinstance(value, Namespace):
        value = value.as_dict()
    if not isinstance(value, Mapping):
        raise ValueError('expected {class_path: NAME, init_args: {...}}')
    return ClassSpec(value)


register_type(ClassSpec, lambda spec: spec.content, _from_yaml)


def find_class(
    spec: Any, role: str, folders: Sequence[str | ModuleType] = _FOLDERS
) -> type:
    """Return the class that a specification names.

    Args:
        spec: ``{class_path: NAME, init_args: {...}}``. The name is dotted, or that of a
            class in one of ``folders``.
        role: The argument that the specification is the value of, for errors.
        folders: Modules whose classes may be named without their module.

    Raises:
        ValueError: If there is no such class.
    """
    if not isinstance(spec, Mapping) or not isinstance(spec.get('class_path'), str):
        raise ValueError(f'{role} is {spec!r}. Use a class, such as {_EXAMPLE}.')
    if unknown := set(spec) - {'class_path', 'init_args'}:
        raise ValueError(f'Unknown key {min(unknown)!r} in {role}. Use {_EXAMPLE}.')
    name = spec['class_path']
    module, _, short = name.rpartition('.')
    try:
        places = (
            [importlib.import_module(module)]
            if module
            else [
                importlib.import_module(each) if isinstance(each, str) else each
                for each in folders
            ]
        )
    except ImportError as error:
        raise ValueError(f'Cannot import {name!r} ({role}): {error}') from error
    found = next((vars(place)[short] for place in places if short in vars(place)), None)
    if not isinstance(found, type):
        where = ' or '.join(place.__name__ for place in places)
        raise ValueError(
            f'There is no class {short!r} in {where} ({role}). Check the spelling, or '
            f'give its module too: package.module.{short}.'
        )
    return found


def build(spec: Any, role: str, kind: type | None = None, **defaults: Any) -> Any:
    """Build what a specification describes.

    Args:
        spec: ``{class_path: NAME, init_args: {...}}``, see :func:`find_class`.
        role: The argument that the specification is the value of, for errors.
        kind: The class to build. None is the one that the specification names.
        **defaults: Arguments that the specification may override.

    Raises:
        ValueError: If the class does not take these arguments. Its own errors pass.
    """
    kind = kind or find_class(spec, role)
    given = {**defaults, **(spec.get('init_args') or {})}
    check_arguments(kind, given, role)
    return kind(**given)


def check_arguments(
    kind: Callable[..., Any], given: Mapping[str, Any], role: str
) -> None:
    """Raise ValueError unless a class takes arguments of these names."""
    signature = inspect.signature(kind)
    try:
        signature.bind(**given)
    except TypeError as error:
        name, parameters = getattr(kind, '__name__', kind), signature.parameters
        raise ValueError(
            f'Wrong init_args of {role}: {error}. {name} takes {", ".join(parameters)}.'
        ) from None


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
    """Return the checkpoint that the command line resumes or evaluates.

    It is ``--ckpt_path``, or what an ``OnExceptionCheckpoint`` of an earlier run left.
    Lightning sets ``trainer.ckpt_path`` only after all ``setup`` hooks, where it is
    still that of the trainer's last command, so this reads the parsed command line.

    Returns:
        The path as it was given. None if there is none, and in plain Python.
    """
    callbacks = getattr(trainer, 'callbacks', ())
    parsed = [each for each in callbacks if isinstance(each, SaveConfigCallback)]
    if not parsed:
        return None
    requested = parsed[0].config.get('ckpt_path')
    if requested is None and trainer.state.fn == 'fit':
        left = [each for each in callbacks if isinstance(each, OnExceptionCheckpoint)]
        requested = next(
            (e.ckpt_path for e in left if Path(e.ckpt_path).is_file()), None
        )
    return None if requested is None else str(requested)
