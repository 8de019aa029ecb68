"""Fixtures that several tests share: the command line and broken copies of the data."""

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# As many processes test as there are cores; more threads would stand in their way.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import lmdb
import pandas as pd
import pytest

from torchgeo_channelmae.datasets.bigearthnet import SAMPLE_ROOT
from torchgeo_channelmae.datasets.records import environment

PROJECT = Path(__file__).parents[1]


@dataclass
class Command:
    """A `torchgeo` command in a process of its own."""

    zygote: subprocess.Popen
    pid: int
    log: Path
    code: int | None = None

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def last_line(self) -> str:
        lines = [line for line in self.output.splitlines() if line.strip()]
        return lines[-1] if lines else ''

    def wait(self) -> 'Command':
        self.code = ask(self.zygote, {'wait': self.pid})
        return self


def ask(zygote: subprocess.Popen, request: dict) -> int:
    zygote.stdin.write(json.dumps(request) + '\n')
    zygote.stdin.flush()
    return json.loads(zygote.stdout.readline())


@pytest.fixture(autouse=True)
def logs_reach_caplog(monkeypatch):
    """Let Lightning's logs reach pytest, whatever handlers it found when imported."""
    for name in ('lightning', 'lightning.pytorch', 'lightning.fabric'):
        monkeypatch.setattr(logging.getLogger(name), 'propagate', True)


@pytest.fixture(scope='session')
def zygote() -> Iterator[subprocess.Popen]:
    with subprocess.Popen(
        [
            sys.executable,
            '-W',
            'ignore::DeprecationWarning',
            str(Path(__file__).with_name('zygote.py')),
        ],
        env={
            **os.environ,
            'OPENBLAS_NUM_THREADS': '1',  # no threads before a fork
            'PYTHONPATH': str(PROJECT),  # for classes of tests that YAML names
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture(scope='session')
def start(zygote) -> Callable[..., Command]:
    """Start ``torchgeo ARGS``, or another program, in a folder."""
    count = 0

    def start_command(
        *args: str,
        folder: Path,
        program: str = 'torchgeo',
        env: dict[str, str] | None = None,
    ) -> Command:
        nonlocal count
        count += 1
        log = folder / f'.output-{count}.txt'
        request = {
            'program': program,
            'args': [str(arg) for arg in args],
            'folder': str(folder),
            'output': str(log),
            'env': env or {},
        }
        return Command(zygote, ask(zygote, request), log)

    return start_command


@pytest.fixture(scope='session')
def torchgeo(start) -> Callable[..., Command]:
    """Run ``torchgeo ARGS`` in a folder to its end."""

    def run(*args: str, folder: Path) -> Command:
        return start(*args, folder=folder).wait()

    return run


@pytest.fixture(scope='session')
def conf() -> Path:
    """The folder of the shipped configurations."""
    return PROJECT / 'conf'


@pytest.fixture(scope='session')
def shallow() -> tuple[str | Path, ...]:
    """Options that lay a small encoder over a configuration."""
    return ('--config', PROJECT / 'tests/conf/shallow.yaml')


def environments(kind: str) -> list[dict[str, str]]:
    """Return the variables that Lightning, torchrun or Slurm sets per process."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    meet = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port, 'OMP_NUM_THREADS': '1'}
    job, ranks = {
        'lightning': ({}, ('LOCAL_RANK',)),
        'torchrun': (
            {'TORCHELASTIC_RUN_ID': 'test', 'WORLD_SIZE': '2'}
            | {'GROUP_RANK': '0', 'LOCAL_WORLD_SIZE': '2'},
            ('RANK', 'LOCAL_RANK'),
        ),
        'slurm': (
            {'SLURM_JOB_ID': '1', 'SLURM_JOB_NAME': 'pretrain.sh', 'SLURM_NODEID': '0'}
            | {'SLURM_NTASKS': '2', 'SLURM_NTASKS_PER_NODE': '2'}
            | {'SLURM_NODELIST': '127.0.0.1'},
            ('SLURM_PROCID', 'SLURM_LOCALID'),
        ),
    }[kind]
    return [meet | job | dict.fromkeys(ranks, str(number)) for number in range(2)]


@pytest.fixture(scope='session')
def together(start, conf):
    """Run ``torchgeo ARGS`` with conf/scale/ddp.yaml in two processes."""

    def run(*args, folder, kind='lightning'):
        scale = ('--config', conf / 'scale/ddp.yaml', '--trainer.devices=2')
        commands = [
            start(*args, *scale, folder=folder, env=env) for env in environments(kind)
        ]
        for command in commands:
            assert command.wait().code == 0, command.output[-3000:]

    return run


@pytest.fixture
def broken_sample(tmp_path) -> Callable[..., Path]:
    """Copy the bundled sample, changing its records or its table on the way."""

    def copy(
        change_record: Callable[[str, bytes], bytes | None] | None = None,
        change_table: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
    ) -> Path:
        root = tmp_path / 'bigearthnet'
        root.mkdir()
        table = pd.read_parquet(SAMPLE_ROOT / 'metadata.parquet')
        if change_table is not None:
            table = change_table(table)
        table.to_parquet(root / 'metadata.parquet')
        source = environment(SAMPLE_ROOT / 'BigEarthNet-Sample-LMDB')
        with (
            lmdb.open(str(root / 'lmdb'), map_size=64 << 20) as new,
            source.begin() as read,
            new.begin(write=True) as write,
        ):
            for key, value in read.cursor():
                changed = value
                if change_record is not None:
                    changed = change_record(key.decode(), value)
                if changed is not None:
                    write.put(key, changed)
        return root

    return copy
