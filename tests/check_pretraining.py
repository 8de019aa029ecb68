"""Check from a run's metrics that pretraining learned to reconstruct.

    python tests/check_pretraining.py runs/pretrain/fit/metrics.csv

At the last checkpoint, the error of the masked tokens on the validation split has to be
at least 3 % below that of filling each with the mean of what is visible of its band.
"""

import sys
from pathlib import Path

import pandas as pd

MARGIN = 0.03


def gain(metrics: Path) -> float:
    """Return by which share the last ``val_loss`` is below ``val_trivial_loss``."""
    table = pd.read_csv(metrics).dropna(subset=['val_loss', 'val_trivial_loss'])
    last = table.iloc[-1]
    return float(1 - last['val_loss'] / last['val_trivial_loss'])


if __name__ == '__main__':
    found = gain(Path(sys.argv[1]))
    print(f'val_loss is {found:.1%} below val_trivial_loss (needed: {MARGIN:.0%})')
    sys.exit(found < MARGIN)
