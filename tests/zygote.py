"""Runs commands in processes of their own without importing TorchGeo each time.

Started once, it imports TorchGeo and this package, then forks a child for every request
on its standard input. A child is what a terminal would start: its own working folder,
arguments, output and exit code.
"""

import json
import os
import pkgutil
import sys

import torchgeo.main

import torchgeo_channelmae.callbacks.run_folder
import torchgeo_channelmae.cli
import torchgeo_channelmae.datamodules
import torchgeo_channelmae.experiments.tables.command
import torchgeo_channelmae.tasks


def run(
    program: str, args: list[str], folder: str, output: str, env: dict[str, str]
) -> None:
    """Become the command; never returns."""
    os.chdir(folder)
    os.environ |= env
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    code = 1
    try:
        sys.argv = [program, *args]
        if program == 'channelmae':
            code = torchgeo_channelmae.cli.main()
        elif program == 'call':  # a function, MODULE:NAME
            pkgutil.resolve_name(args[0])(*args[1:])
            code = 0
        else:
            torchgeo.main.main()
            code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


for line in sys.stdin:
    request = json.loads(line)
    if 'wait' in request:
        _, status = os.waitpid(request['wait'], 0)
        answer = os.waitstatus_to_exitcode(status)
    else:
        answer = os.fork()
        if answer == 0:
            run(**request)
    print(json.dumps(answer), flush=True)
