"""Values of command-line options that are checked before anything is measured."""

import argparse

import torch


def positive(text: str) -> int:
    """Read a whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text!r}: give a whole number of 1 or more.')
    return number


def device(text: str) -> str:
    """Read a device that is there, ``cpu`` or ``cuda``.

    Raises:
        argparse.ArgumentTypeError: If it is none, or has no GPU.
    """
    if text not in ('cpu', 'cuda'):
        raise argparse.ArgumentTypeError(f'{text!r}: give cpu or cuda.')
    if text == 'cuda' and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError('torch finds no GPU here, leave it out.')
    return text
