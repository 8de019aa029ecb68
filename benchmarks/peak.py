"""What the machine can do: its best product of square matrices."""

import torch

from .timing import DTYPES, alternate

SIDES = (1024, 2048, 4096, 8192)

#: Dense operations a second by the vendors' data sheets, by a part of the GPU's name.
VENDOR = {
    'H100 PCIe': {'fp32': 51e12, 'bf16': 756e12},
    'H100': {'fp32': 67e12, 'bf16': 989e12},
    'H200': {'fp32': 67e12, 'bf16': 989e12},
    'A100': {'fp32': 19.5e12, 'bf16': 312e12},
}


def measure(
    precision: str, device: str, rounds: int = 3, sides: tuple[int, ...] = SIDES
) -> float:
    """Measure operations a second of the best square product, a + b counting two."""
    best = 0.0
    for side in sides:
        one, other = (
            torch.randn(side, side, device=device, dtype=DTYPES[precision])
            for _ in range(2)
        )
        runs = {'product': lambda one=one, other=other: one @ other}
        least = min(alternate(runs, rounds, device)['product'])
        best = max(best, 2 * side**3 / least)
    return best


def vendor(precision: str, device: str) -> float | None:
    """Look the vendor's figure up; None where it is not known (every CPU)."""
    if device != 'cuda':
        return None
    name = torch.cuda.get_device_name()
    for part, figures in VENDOR.items():
        if part in name:
            return figures[precision]
    return None
