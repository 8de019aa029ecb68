"""What a model predicted for a test set, read back from the folder of the test."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True)
class Predictions:
    """A trained model's predictions for S patches of K classes.

    Attributes:
        classes: K names.
        patch_ids: S names.
        probabilities: (S, K) float64 in [0, 1].
        labels: (S, K) bool.
        tiles: S names of MGRS tiles, '' where unknown.
        acquisitions: S names of scenes, '' where unknown.
        countries: S names, '' where unknown.
        thresholds: (K,) float64, tuned on validation.
        floor: Scores of predicting the training set's class frequencies; empty if
            the test did not know them.
    """

    classes: tuple[str, ...]
    patch_ids: npt.NDArray[np.str_]
    probabilities: npt.NDArray[np.float64]
    labels: npt.NDArray[np.bool_]
    tiles: npt.NDArray[np.str_]
    acquisitions: npt.NDArray[np.str_]
    countries: npt.NDArray[np.str_]
    thresholds: npt.NDArray[np.float64]
    floor: dict[str, float]


def read_predictions(folder: Path) -> Predictions:
    """Read what ``torchgeo test`` wrote in the ``test`` folder of a run."""
    predictions = pd.read_csv(folder / 'predictions.csv', dtype={'patch_id': str})
    patches = pd.read_csv(folder / 'patches.csv', dtype=str, keep_default_na=False)
    classes = pd.read_csv(folder / 'per_class.csv', dtype={'class': str})
    names = list(predictions.columns[1:])
    if (
        names != list(patches.columns[4:])
        or names != list(classes['class'])
        or not predictions['patch_id'].equals(patches['patch_id'])
    ):
        raise ValueError(
            f'The files in {folder} differ in patches or classes. Run that test again.'
        )
    metrics = pd.read_csv(folder / 'metrics.csv').ffill().iloc[-1].dropna()
    floor = metrics[metrics.index.str.startswith('test_floor_')]
    # The digits in the file give the task's float32 values exactly.
    probabilities = predictions[names].to_numpy(dtype=np.float32)
    return Predictions(
        classes=tuple(names),
        patch_ids=predictions['patch_id'].to_numpy(dtype=str),
        probabilities=probabilities.astype(np.float64),
        labels=patches[names].to_numpy(dtype=int).astype(bool),
        tiles=patches['tile'].to_numpy(dtype=str),
        acquisitions=patches['acquisition'].to_numpy(dtype=str),
        countries=patches['country'].to_numpy(dtype=str),
        thresholds=classes['threshold'].to_numpy(dtype=np.float64),
        floor={str(k).removeprefix('test_floor_'): float(v) for k, v in floor.items()},
    )
