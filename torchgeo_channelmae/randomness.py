"""Stateless random draws: each is a pure function of its key.

A key hashes the user's seed and the purpose of a draw (the epoch, the sample), never
the number of draws before it. So reruns, resumed runs, other batch sizes and other
numbers of processes see the same draws.
"""

import hashlib
import os

import torch
from torch import Tensor


def derive_seed(*address: int | str) -> int:
    """Hash an address to a seed in [0, 2^63), the same on every machine.

    The address says what a draw is for, e.g. ``(seed, 'mask', epoch, index)``.
    """
    text = '\x1f'.join(f'{type(part).__name__}:{part}' for part in address)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1


def generator(*address: int | str) -> torch.Generator:
    """Return a CPU generator seeded from an address."""
    return torch.Generator().manual_seed(derive_seed(*address))


def global_seed() -> int:
    """Return the seed of ``seed_everything``, 0 if it was not called."""
    return int(os.environ.get('PL_GLOBAL_SEED', 0))


def shared_key(purpose: str, step: int) -> int:
    """Return the key that all samples and processes share in an optimizer step."""
    return derive_seed(global_seed(), purpose, step)


def random_keys(keys: Tensor, count: int) -> Tensor:
    """Draw `count` integers for every key (B,), by hashing (key, position).

    Counter-based (SplitMix64, https://doi.org/10.1145/2660193.2660195), so row b
    depends only on ``keys[b]``: not on the batch around it or the device. The result is
    (B, count) int64 in [0, 2^62).
    """
    golden = -7046029254386353131  # 0x9E3779B97F4A7C15, two's complement
    counter = torch.arange(1, count + 1, device=keys.device)
    state = _mix(keys)[:, None] + counter * golden
    return _mix(state) >> 1 & ((1 << 62) - 1)


def _mix(state: Tensor) -> Tensor:
    """SplitMix64's finaliser; int64 products wrap around as they should."""
    state = (state ^ _shift_right(state, 30)) * -4658895280553007687
    state = (state ^ _shift_right(state, 27)) * -7723592293110705685
    return state ^ _shift_right(state, 31)


def _shift_right(state: Tensor, bits: int) -> Tensor:
    """Shift without the sign bit (torch has no uint64 shift)."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)
