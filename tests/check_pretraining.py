"""Check from a run's metrics that pretraining learned to reconstruct.

    python tests/check_pretraining.py runs/pretrain/fit/metrics.csv

At the last checkpoint, the error of the hidden tokens on the validation split has to be
at most 0.35 of the trivial guess's, and below that of the linear guess from the other
bands at a cell.
"""

import sys
from pathlib import Path

import pandas as pd

MOST = 0.35


def last_errors(metrics: Path) -> tuple[float, float]:
    """Return the last ``val_loss`` over ``val_trivial_loss`` and ``val_band_loss``."""
    names = ['val_loss', 'val_trivial_loss', 'val_band_loss']
    loss, trivial, band = pd.read_csv(metrics)[names].dropna().iloc[-1]
    return float(loss / trivial), float(loss / band)


if __name__ == '__main__':
    trivial, band = last_errors(Path(sys.argv[1]))
    print(f'val_loss is {trivial:.3f} of val_trivial_loss (needed: {MOST} or less)')
    print(f'val_loss is {band:.3f} of val_band_loss (needed: below 1)')
    sys.exit(not (trivial <= MOST and band < 1))
