"""Confidence intervals of scores and differences: a clustered, paired bootstrap.

Patches of one tile are correlated (many are one place at several dates), so whole tiles
are resampled, the same for all models; training runs are resampled too, independently.
Where tiles are unknown, acquisitions are resampled, or else patches.

Drawing one fewer than there are makes the variance of a mean unbiased (Rao and Wu,
1988, https://doi.org/10.1080/01621459.1988.10478591). Intervals are widened to
Student's t, with degrees of freedom of clusters and training runs by Satterthwaite
(https://doi.org/10.2307/3002019).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from ..randomness import derive_seed
from .predictions import Predictions
from .replicates import SCORES, Floats, replicate_scores

_LEVEL = 0.95

UNITS = {'tiles': 'tiles', 'acquisitions': 'acquisitions', 'patches': 'patch_ids'}
"""What can be resampled, the largest first, and what names it in the predictions."""


@dataclass(frozen=True)
class Interval:
    """An estimate, the mean over training runs, with its 95 % interval (may be NaN)."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero is outside."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Bootstrap:
    """Scores of models on the whole test set and on its replicates.

    Attributes:
        whole: For each model and score (T,), one value per training run.
        replicates: For each model and score (T, R).
        drawn: (R, T - 1), the training runs that are drawn.
        clusters: Number of clusters of patches.
        unit: What a cluster is, one of :data:`UNITS`.
    """

    whole: Mapping[str, Mapping[str, Floats]]
    replicates: Mapping[str, Mapping[str, Floats]]
    drawn: npt.NDArray[np.integer]
    clusters: int
    unit: str

    def interval(self, model: str, score: str) -> Interval:
        """Return the score of a model."""
        return self._combined({model: 1.0}, score, 0)

    def difference(self, one: str, other: str, score: str) -> Interval:
        """Return how much higher the score of one model is than that of another."""
        return self._combined({one: 1.0, other: -1.0}, score, -1)

    def recovered(self, model: str, base: str, ceiling: str, score: str) -> Interval:
        """Return the share of the way from a base to a ceiling that a model goes.

        Returns:
            (model - base) / (ceiling - base); NaN at both ends of the interval where
            that of the denominator is not above zero, as there is then no way to go.
        """
        gain, room = {model: 1.0, base: -1.0}, {ceiling: 1.0, base: -1.0}
        above, below = (self._combined(each, score, -1) for each in (gain, room))
        estimate = above.estimate / below.estimate if below.estimate else np.nan
        if not below.low > 0:
            return Interval(estimate, np.nan, np.nan)
        draws = self._draws(gain, score)[0] / self._draws(room, score)[0]
        width = max(self._widening(gain, score), self._widening(room, score))
        return _widened(estimate, draws, width)

    def describe(self) -> str:
        """Return which variance the intervals contain."""
        runs = len(next(iter(self.whole.values()))[SCORES[0]])
        training = f'and of the {runs} training runs'
        if runs == 1:
            training = 'only: one training run has no variance of training'
        few = ''
        if self.clusters < 10:
            few = f'; with fewer than 10 {self.unit} they may still be too narrow'
        tested = f'variance of the test set (its {self.clusters} {self.unit})'
        return f'{tested} {training}{few}'

    def _combined(
        self, models: Mapping[str, float], score: str, least: float
    ) -> Interval:
        means = {model: float(self.whole[model][score].mean()) for model in models}
        estimate = sum(sign * means[model] for model, sign in models.items())
        draws, _ = self._draws(models, score)
        if np.isfinite(draws).sum() < 2:
            return Interval(estimate, np.nan, np.nan)
        found = _widened(estimate, draws, self._widening(models, score))
        low, high = (min(max(end, least), 1.0) for end in (found.low, found.high))
        return Interval(estimate, low, high)

    def _draws(self, models: Mapping[str, float], score: str) -> tuple[Floats, Floats]:
        """Signed sum of scores per replicate, over resampled runs and over all runs."""
        crossed = all_runs = np.zeros(())
        for model, sign in models.items():
            values = self.replicates[model][score]  # (T, R)
            picked = np.take_along_axis(values.T, self.drawn, axis=1)  # (R, T - 1)
            crossed = crossed + sign * picked.mean(axis=1)
            all_runs = all_runs + sign * values.mean(axis=0)
        return crossed, all_runs

    def _widening(self, models: Mapping[str, float], score: str) -> float:
        """Ratio of Student's quantile to the normal one."""
        _, all_runs = self._draws(models, score)
        total = float(np.nanvar(all_runs, ddof=1))
        squares = total**2 / (self.clusters - 1)
        # Paired: run k of each model has seed k.
        runs = sum(sign * self.whole[model][score] for model, sign in models.items())
        if (count := np.size(runs)) > 1:
            variance = float(np.var(runs, ddof=1)) / count
            total += variance
            squares += variance**2 / (count - 1)
        if squares == 0:
            return 1.0
        quantile = (1 + _LEVEL) / 2
        t = stats.t.ppf(quantile, total**2 / squares)
        return float(t / stats.norm.ppf(quantile))


def known_units(run: Predictions) -> list[str]:
    """Return those of :data:`UNITS` that are known of every patch."""
    return [unit for unit in UNITS if (getattr(run, UNITS[unit]) != '').all()]


def bootstrap(
    models: Mapping[str, Sequence[Predictions]],
    resamples: int = 1000,
    seed: int = 0,
    unit: str | None = None,
) -> Bootstrap:
    """Resample the test set and training runs, the same for all models.

    Args:
        models: For each model its T training runs, in the order of their seeds.
        resamples: R, number of replicates.
        seed: Seed of all draws.
        unit: What is resampled, by default the first of :func:`known_units`.

    Raises:
        ValueError: If the test sets differ, or there is only one cluster.
    """
    first = next(iter(models.values()))[0]
    for name, model in models.items():
        for run in model:
            _check_same(run, first, name)
    unit = unit or known_units(first)[0]
    _, clusters = np.unique(getattr(first, UNITS[unit]), return_inverse=True)
    count = int(clusters.max()) + 1
    if count < 2:
        raise ValueError(
            f'All test patches are from one of the {unit}, so there is nothing to '
            f'resample. Test on more {unit}.'
        )
    rng = np.random.default_rng(derive_seed(seed, 'bootstrap', resamples))
    drawn = rng.integers(count, size=(resamples, count - 1))
    counts = np.ones((count, 1 + resamples))  # first, the whole test set
    counts[:, 1:] = np.stack([np.bincount(row, minlength=count) for row in drawn], 1)
    length = len(next(iter(models.values())))
    rng = np.random.default_rng(derive_seed(seed, 'runs', length))
    picked = rng.integers(length, size=(resamples, max(length - 1, 1)))
    whole, replicates = {}, {}
    for name, model in models.items():
        exact = [
            replicate_scores(run, clusters, counts[:, :1], run.labels.size)
            for run in model
        ]
        scored = [replicate_scores(run, clusters, counts) for run in model]
        found, binned = (
            {key: np.stack([each[key] for each in rows]) for key in SCORES}
            for rows in (exact, scored)
        )
        whole[name] = {key: values[:, 0] for key, values in found.items()}
        replicates[name] = {  # bins then change their spread alone
            key: values[:, 1:] + found[key] - values[:, :1]
            for key, values in binned.items()
        }
    return Bootstrap(whole, replicates, picked, count, unit)


def _check_same(run: Predictions, other: Predictions, name: str) -> None:
    for what in ('classes', 'patch_ids', 'labels'):
        one, two = getattr(run, what), getattr(other, what)
        if not np.array_equal(one, two):
            raise ValueError(
                f'{name} was tested on other {what} than the first model ({len(one)} '
                f'and {len(two)}). Test all models on the same data.'
            )


def _widened(estimate: float, draws: Floats, width: float) -> Interval:
    """Return the percentile interval of the draws, widened around the estimate."""
    ends = np.nanquantile(draws, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    low, high = (estimate + width * (float(end) - estimate) for end in ends)
    return Interval(estimate, low, high)
