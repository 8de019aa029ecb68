"""What is measured: one case is one row of the report."""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

STEPS = ('pretraining', 'finetuning')
PARTS = (*STEPS, 'encoder', 'decoder', 'masking', 'losses', 'data')


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        part: One of :data:`PARTS`.
        model: ``tiny``, ``small``, ``base`` or ``large``.
        patch: P, patch side in pixels.
        bands: C.
        mask: Share of the tokens hidden from the encoder.
        batch: B, samples per step.
        precision: ``fp32``, or ``bf16`` for autocast as Lightning's bf16-mixed.
        compile: Whether the blocks of every variant are compiled.
        device: ``cpu`` or ``cuda``.
        size: Side of the image in pixels.
        decoder_dim: Width of the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_heads: Attention heads of the decoder.
        options: Further arguments of the task, by name.
    """

    part: str = 'pretraining'
    model: str = 'base'
    patch: int = 16
    bands: int = 12
    mask: float = 0.9
    batch: int = 8
    precision: str = 'fp32'
    compile: bool = False
    device: str = 'cpu'
    size: int = 128
    decoder_dim: int = 512
    decoder_depth: int = 4
    decoder_heads: int = 8
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def cells(self) -> int:
        """L, grid cells of an image."""
        return (self.size // self.patch) ** 2

    @property
    def tokens(self) -> int:
        """N, tokens of an image."""
        return self.bands * self.cells

    @property
    def name(self) -> str:
        """What distinguishes the row, in words."""
        words = [f'{self.part}, ViT-{self.model[0].upper()}']
        words += [f'{self.bands} x {self.size} px', f'patch {self.patch}']
        words += [f'batch {self.batch}']
        if self.part not in ('finetuning', 'data'):
            words.append(f'mask {self.mask:g}')
        if self.part in ('pretraining', 'decoder') and self.decoder_heads != 8:
            words.append(f'decoder heads {self.decoder_heads}')
        words += [self.precision, *(['compiled'] if self.compile else [])]
        return ', '.join([*words, *(f'{key} {value}' for key, value in self.options)])


def default_cases(shared: Case) -> list[Case]:
    """Return the rows of a full report: one thing at a time differs from the first two.

    Args:
        shared: What all rows have in common (device, decoder, options).
    """
    large = replace(shared, model='base', patch=16, mask=0.9, batch=8)
    small = replace(shared, model='small', patch=8, mask=0.9, batch=1)
    tuning = replace(large, part='finetuning', batch=2)
    steps = [large, replace(large, mask=0.75), replace(large, bands=3)]
    steps += [replace(large, bands=2), replace(large, model='small')]
    steps += [small, replace(small, mask=0.75), tuning]
    steps += [replace(large, part='finetuning', bands=2)]
    return [
        *(replace(one, precision=kind) for one in steps for kind in ('fp32', 'bf16')),
        *(replace(one, compile=True) for one in (large, small, tuning)),
        *(replace(one, part=part) for one in (large, small) for part in PARTS[2:6]),
        replace(large, part='data', batch=32),
    ]


def product_cases(shared: Case, values: Mapping[str, Sequence[Any]]) -> list[Case]:
    """Return a row for every combination of values, in their order."""
    return [
        replace(shared, **dict(zip(values, combination, strict=True)))
        for combination in itertools.product(*values.values())
    ]


def quick_cases(shared: Case) -> list[Case]:
    """Return one tiny row per part, of seconds in all."""
    sizes = {'bands': 3, 'batch': 2, 'mask': 0.75, 'size': 32}
    decoder = {'decoder_dim': 64, 'decoder_depth': 1, 'decoder_heads': 2}
    tiny = replace(shared, model='tiny', **sizes, **decoder)
    return [replace(tiny, part=part) for part in PARTS]


def positive(text: str) -> int:
    """Read a whole number of at least 1 from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r}: give a whole number of 1 or more.')
    return int(text)


def device(text: str) -> str:
    """Read a device that is there, ``cpu`` or ``cuda``, from the command line."""
    if text not in ('cpu', 'cuda'):
        raise argparse.ArgumentTypeError(f'{text!r}: give cpu or cuda.')
    if text == 'cuda' and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError('torch finds no GPU here, leave it out.')
    return text
