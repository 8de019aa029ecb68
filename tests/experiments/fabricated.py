"""Folders as ``torchgeo test`` writes them, with fabricated predictions."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from torchgeo_channelmae.evaluation.metrics import evaluate, per_class
from torchgeo_channelmae.experiments.predictions import Predictions, read_predictions

CLASSES = ('Forest', 'Water, inland', 'Fields')


def predictions(
    skill=1.0,
    patches=60,
    scenes=8,
    seed=0,
    data_seed=0,
    classes=CLASSES,
    digits=3,
    tiles=None,
):
    """Return predictions that are the better the greater their skill."""
    data = np.random.default_rng(data_seed)
    scene = data.integers(scenes, size=patches)
    tendency = data.normal(size=(scenes, len(classes)))
    labels = data.normal(size=(patches, len(classes))) + tendency[scene] > 0.5
    labels[0] = True
    noise = np.random.default_rng([seed, 1]).normal(size=labels.shape)
    logits = skill * (2 * labels - 1) + noise
    rounded = (1 / (1 + np.exp(-logits))).round(digits)
    return Predictions(
        classes=tuple(classes),
        patch_ids=np.array([f'patch_{i}' for i in range(patches)]),
        probabilities=rounded.astype(np.float32).astype(np.float64),
        labels=labels,
        tiles=np.array([f'tile_{i % tiles}' if tiles else '' for i in scene]),
        acquisitions=np.array([f'scene_{i}' for i in scene]),
        countries=np.array([('Austria', 'Serbia')[i % 2] for i in scene]),
        thresholds=np.full(len(classes), 0.4),
        floor={},
    )


def write(folder: Path, run: Predictions, val: float = 0.5) -> Predictions:
    """Write predictions to ``folder/test``, as a test does, and read them back."""
    test, fit = folder / 'test', folder / 'fit'
    test.mkdir(parents=True)
    fit.mkdir()
    names, ids = list(run.classes), {'patch_id': run.patch_ids}
    columns = dict(zip(names, run.probabilities.T, strict=True))
    predicted = pd.DataFrame(ids | columns)
    predicted.to_csv(test / 'predictions.csv', index=False, float_format='%.9g')
    places = {'tile': run.tiles, 'acquisition': run.acquisitions}
    places['country'] = run.countries
    columns = dict(zip(names, run.labels.T.astype(int), strict=True))
    pd.DataFrame(ids | places | columns).to_csv(test / 'patches.csv', index=False)
    probabilities = torch.from_numpy(run.probabilities).float()
    labels = torch.from_numpy(run.labels).long()
    thresholds = torch.tensor(run.thresholds).float()
    per_class(probabilities, labels, thresholds, names).to_csv(test / 'per_class.csv')
    frequencies = labels.float().mean(0)
    scores = evaluate(probabilities, labels, class_frequencies=frequencies)
    metrics = pd.DataFrame([scores]).add_prefix('test_')
    metrics.to_csv(test / 'metrics.csv', index=False)
    (fit / 'metrics.csv').write_text(f'epoch,val_mAP_micro\n0,{val}\n')
    return read_predictions(test)
