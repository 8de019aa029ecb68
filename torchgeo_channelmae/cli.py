"""``channelmae``: what is done around training, which is `torchgeo`'s."""

import importlib
import inspect
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jsonargparse

COMMANDS = {
    'encode': ('datasets.encode', 'BigEarthNet archives to an LMDB, read 20 x faster'),
    'export': ('models.export', 'weights of a run as one file, with a model card'),
    'stats': ('experiments.stats', 'mean, std and percentiles of each band, as YAML'),
    'landcover': ('experiments.landcover', 'land-cover shares of samples, as Parquet'),
    'tables': ('experiments.tables.command', "the paper's tables, cell by cell"),
    'bands': ('experiments.bands', "how much one sensor's bands tell of another's"),
    'show': ('experiments.show', 'a page of the samples that training sees'),
    'probe': ('experiments.probes.probe', 'what frozen features tell of labels'),
    'why': ('experiments.probes.why', "how alike two sensors' features are, by depth"),
}
"""Name of a command: its module, with a function of that name, and what it is for."""

LISTS = ('--sensors', '--only', '--seeds')
"""Options of several values, with commas or spaces between them."""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        args: The command and its options. None is what the terminal gave.

    Returns:
        The exit code: 0, 1 where the command failed, 2 where there is none.
    """
    name, *options = list(sys.argv[1:] if args is None else args) or ['--help']
    if name in ('-h', '--help'):
        print(_usage())
        return 0
    if name not in COMMANDS:
        print(f'channelmae: no command {name!r}.\n\n{_usage()}', file=sys.stderr)
        return 2
    module = importlib.import_module(f'.{COMMANDS[name][0]}', __package__)
    function = getattr(module, name)
    parser = jsonargparse.ArgumentParser(
        prog=f'channelmae {name}',
        description=_purpose(function),
        epilog=_spelling(function),
    )
    parser.add_function_arguments(function, as_group=False, skip={'config'})
    own = 'config' in inspect.signature(function).parameters
    if own:  # configurations of `torchgeo fit`, which are none of these options
        parser.add_argument(
            '--config',
            action='append',
            type=str,
            required=True,
            help='Configuration of `torchgeo fit`; again for each laid over it.',
        )
    else:
        parser.add_argument(
            '--config', action='config', help='YAML file of these options'
        )
    parsed = parser.parse_args(_spell_out(options, function))
    try:
        values = parser.instantiate(parsed)
        if not own:
            values.pop('config', None)
        function(**values)
    except (ValueError, OSError) as error:
        print(f'channelmae {name}: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'channelmae {name}: stopped.', file=sys.stderr)
        return 130
    return 0


def _spell_out(options: Sequence[str], function: Callable[..., Any]) -> list[str]:
    """Write options as the parser knows them.

    The first parameter may be given without its name, `--switch` stands for
    `--switch=true`, hyphens in a name for underscores, and `--list a b` for
    `--list+=a --list+=b`.
    """
    parameters = inspect.signature(function).parameters.values()
    switches = {f'--{each.name}' for each in parameters if each.annotation is bool}
    if options and not options[0].startswith('-'):
        options = [f'--{next(iter(parameters)).name}', *options]
    lists = {f'--{p.name}' for p in parameters if p.annotation == list[str] | None}
    options = _several([_underscored(option) for option in options], lists)
    return [
        f'{option}=true'
        if option in switches and (not following or following.startswith('--'))
        else option
        for option, following in zip(options, [*options[1:], ''], strict=False)
    ]


def _several(options: Sequence[str], lists: Collection[str]) -> list[str]:
    """Write the values of options that take several as their types have them.

    Those of `lists` become one option to append each; those of :data:`LISTS` get commas
    between them.
    """
    written: list[str] = []
    current = ''
    for option in options:
        if option.startswith('--'):
            current, is_given, value = option.partition('=')
            if current not in lists:
                written.append(option)
            elif is_given:
                written.append(f'{current}+={value}')
        elif current in lists:
            written.append(f'{current}+={option}')
        elif current in LISTS and not written[-1].startswith('--'):
            written[-1] += f',{option}'
        else:
            written.append(option)
    return written


def _purpose(function: Callable[..., Any]) -> str:
    """What a function's docstring says before it comes to the arguments."""
    text, _, _ = inspect.cleandoc(function.__doc__ or '').partition('\n\nArgs:')
    return text.replace('``', '`')


def _spelling(function: Callable[..., Any]) -> str:
    first = next(iter(inspect.signature(function).parameters))
    return (
        f'Hyphens may stand for underscores, and --SWITCH for --SWITCH=true. The value '
        f'of --{first} may come first, without its name.'
    )


def _underscored(option: str) -> str:
    if not option.startswith('--'):
        return option
    name, is_given, value = option.partition('=')
    return '--' + name[2:].replace('-', '_') + is_given + value


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {what}' for name, (_, what) in COMMANDS.items()]
    return '\n'.join(
        [
            'usage: channelmae COMMAND [options]; channelmae COMMAND --help explains',
            '',
            *lines,
        ]
    )


if __name__ == '__main__':
    sys.exit(main())
