"""``channelmae``: commands around training. Training itself is ``torchgeo``."""

import importlib
import inspect
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

COMMANDS = {
    'encode': ('datasets.encode', 'convert BigEarthNet archives to an LMDB'),
    'export': ('models.export', 'write the weights of a run as one file, with a card'),
    'stats': ('experiments.stats', 'compute mean, std and percentiles of each band'),
    'landcover': ('experiments.landcover', 'compute land-cover shares of samples'),
    'tables': ('experiments.tables.command', "run and write the paper's tables"),
    'bands': ('experiments.bands', 'measure how bands of two sensors are related'),
    'show': ('experiments.show', 'draw a page of training samples'),
    'probe': ('experiments.probes.probe', 'evaluate frozen features'),
    'why': ('experiments.probes.why', 'compare the features of two sensors, by depth'),
}
"""Module of each command, with a function of the same name, and its purpose."""

LISTS = ('--sensors', '--only', '--seeds')
"""Options with several values, separated by commas or spaces."""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; `args` defaults to ``sys.argv``.

    The code is 0, 1 if the command failed, 2 if there is no such command.
    """
    name, *options = list(sys.argv[1:] if args is None else args) or ['--help']
    if name in ('-h', '--help'):
        print(_usage())
        return 0
    if name not in COMMANDS:
        print(f'channelmae: unknown command {name!r}.\n\n{_usage()}', file=sys.stderr)
        return 2
    import jsonargparse  # slow, and of no use to --help

    module = importlib.import_module(f'.{COMMANDS[name][0]}', __package__)
    function = getattr(module, name)
    parser = jsonargparse.ArgumentParser(
        prog=f'channelmae {name}',
        description=_purpose(function),
        epilog=_spelling(function),
    )
    parser.add_function_arguments(function, as_group=False, skip={'config'})
    own = 'config' in inspect.signature(function).parameters
    if own:  # configurations of `torchgeo fit`, not of this command
        parser.add_argument(
            '--config',
            action='append',
            type=str,
            required=True,
            help='Configuration of `torchgeo fit`; repeat it to lay others over it.',
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
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # An error of a loader's worker ends with the line that matters.
        print(f'channelmae {name}: {lines[-1]}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'channelmae {name}: stopped.', file=sys.stderr)
        return 130
    return 0


def _spell_out(options: Sequence[str], function: Callable[..., Any]) -> list[str]:
    """Return options in the parser's spelling.

    The first parameter may come without its name; `--switch` means `--switch=true`,
    hyphens in a name mean underscores, and `--list a b` means `--list+=a --list+=b`.
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
    """Return options with several values in the parser's spelling.

    Values of `lists` become one appending option each; values of :data:`LISTS` are
    joined by commas.
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
    """Return a function's docstring without its sections."""
    text, _, _ = inspect.cleandoc(function.__doc__ or '').partition('\n\nArgs:')
    return text.replace('``', '`')


def _spelling(function: Callable[..., Any]) -> str:
    first = next(iter(inspect.signature(function).parameters))
    return (
        f'Hyphens may replace underscores, and --SWITCH means --SWITCH=true. The value '
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
