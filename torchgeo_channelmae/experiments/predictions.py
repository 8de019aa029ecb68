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
        acquisitions: S names of scenes, '' where unknown.
        countries: S names, '' where unknown.
        thresholds: (K,) tuned on validation; None if not tuned.
        floor: Scores of predicting the training set's class frequencies; empty if
            the test did not know them.
    """

    classes: tuple[str, ...]
    patch_ids: npt.NDArray[np.str_]
    probabilities: npt.NDArray[np.float64]
    labels: npt.NDArray[np.bool_]
    acquisitions: npt.NDArray[np.str_]
    countries: npt.NDArray[np.str_]
    thresholds: npt.NDArray[np.float64] | None
    floor: dict[str, float]


def read_predictions(folder: Path) -> Predictions:
    """Read what ``torchgeo test`` wrote.

    Args:
        folder: The ``test`` folder of a run.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If files do not belong together.
    """
    predictions = pd.read_csv(folder / 'predictions.csv', dtype={'patch_id': str})
    patches = pd.read_csv(folder / 'patches.csv', dtype=str, keep_default_na=False)
    classes = pd.read_csv(folder / 'per_class.csv', dtype={'class': str})
    metrics = pd.read_csv(folder / 'metrics.csv')
    names = tuple(predictions.columns[1:])
    if (
        names != tuple(patches.columns[3:])
        or names != tuple(classes['class'])
        or not predictions['patch_id'].equals(patches['patch_id'])
    ):
        raise ValueError(
            f'The files in {folder} differ in patches or classes. Run that test again.'
        )
    thresholds = classes['threshold'].to_numpy(dtype=np.float64)
    tuned = 'test_F1_micro_tuned' in metrics
    prefix = 'test_floor_'
    return Predictions(
        classes=names,
        patch_ids=predictions['patch_id'].to_numpy(dtype=str),
        # As the task had them: digits of the file give the same float32 again.
        probabilities=predictions[list(names)]
        .to_numpy(dtype=np.float32)
        .astype(np.float64),
        labels=patches[list(names)].to_numpy(dtype=int).astype(bool),
        acquisitions=patches['acquisition'].to_numpy(dtype=str),
        countries=patches['country'].to_numpy(dtype=str),
        thresholds=thresholds if tuned else None,
        floor={
            str(name).removeprefix(prefix): float(metrics[name].dropna().iloc[-1])
            for name in metrics
            if str(name).startswith(prefix) and metrics[name].notna().any()
        },
    )
