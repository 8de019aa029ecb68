"""What runs leave behind, as far as the next runs need it."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd


def validation_score(run: Path, score: str = 'val_mAP_micro') -> float:
    """Read the last validation score of a run.

    Args:
        run: Its folder.
        score: Name of the score.

    Returns:
        The score; NaN where the training diverged.

    Raises:
        FileNotFoundError: If the run has no ``fit/metrics.csv``.
        ValueError: If that has no such score.
    """
    path = run / 'fit' / 'metrics.csv'
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing: run that training again.')
    table = pd.read_csv(path)
    if score not in table:
        raise ValueError(f'{path} has no {score}: the training was not validated.')
    rows = table.loc[table['epoch'] == table['epoch'].max(), score]
    return float(rows.dropna().iloc[-1]) if rows.notna().any() else math.nan


def best_rate(candidates: Mapping[str, float], folder: Path) -> float:
    """Choose the learning rate of the run with the best last validation score.

    Args:
        candidates: Learning rates by the names of the runs.
        folder: Folder of all runs.

    Returns:
        The rate; the first of those that are equally good.
    """
    return candidates[best_run(candidates, folder)]


def best_run(candidates: Mapping[str, float], folder: Path) -> str:
    """Choose the run with the best last validation score, the first of equals."""

    def key(name: str) -> float:
        score = validation_score(folder / name)
        return -math.inf if math.isnan(score) else score

    return max(candidates, key=key)
