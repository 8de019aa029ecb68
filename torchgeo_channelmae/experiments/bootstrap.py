"""How sure a score or a difference of models is: a clustered, paired bootstrap.

Patches of one acquisition are alike, so whole acquisitions are drawn again, the same
for all models; crossed with that, training runs are. Drawing one fewer than there are
makes the variance of a mean unbiased (Rao and Wu, 1988,
https://doi.org/10.1080/01621459.1988.10478591), and where few training runs carry much
of the variance the interval is widened to Student's t, with degrees of freedom by
Satterthwaite (https://doi.org/10.2307/3002019).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from ..randomness import derive_seed
from .predictions import Predictions
from .replicates import Floats, replicate_scores

_LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval.

    Attributes:
        estimate: On the whole test set, the mean over training runs.
        low: Lower end; NaN where there is none.
        high: Upper end.
    """

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
        drawn: For each number of training runs T, the (R, T - 1) runs that are drawn.
        clusters: Number of clusters of patches.
        by_acquisition: Whether clusters are acquisitions; else they are patches of
            unknown acquisition.
    """

    whole: Mapping[str, Mapping[str, Floats]]
    replicates: Mapping[str, Mapping[str, Floats]]
    drawn: Mapping[int, npt.NDArray[np.integer]]
    clusters: int
    by_acquisition: bool

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
        gain = self.difference(model, base, score)
        room = self.difference(ceiling, base, score)
        estimate = gain.estimate / room.estimate if room.estimate else np.nan
        if not room.low > 0:
            return Interval(estimate, np.nan, np.nan)
        above, _ = self._draws({model: 1.0, base: -1.0}, score)
        below, _ = self._draws({ceiling: 1.0, base: -1.0}, score)
        widths = [self._widening({m: 1.0, base: -1.0}, score) for m in (model, ceiling)]
        return _widened(estimate, above / below, max(widths))

    def describe(self, model: str) -> str:
        """Return which variance an interval holds."""
        runs = len(next(iter(self.whole[model].values())))
        what = 'acquisitions' if self.by_acquisition else 'patches'
        training = (
            f'and the {runs} training runs'
            if runs > 1
            else 'only: one training run has no variance of training'
        )
        return (
            f'variance of the test set, drawn by its {self.clusters} {what}, {training}'
        )

    def _combined(
        self, models: Mapping[str, float], score: str, least: float
    ) -> Interval:
        estimate = sum(
            sign * float(self.whole[model][score].mean())
            for model, sign in models.items()
        )
        draws, _ = self._draws(models, score)
        if np.isfinite(draws).sum() < 2:
            return Interval(estimate, np.nan, np.nan)
        found = _widened(estimate, draws, self._widening(models, score))
        low, high = (min(max(end, least), 1.0) for end in (found.low, found.high))
        return Interval(estimate, low, high)

    def _draws(self, models: Mapping[str, float], score: str) -> tuple[Floats, Floats]:
        """A sum of scores in each replicate: with runs drawn too, and over all runs."""
        crossed = all_runs = np.zeros(())
        for model, sign in models.items():
            values = self.replicates[model][score]  # (T, R)
            drawn = self.drawn[len(values)]
            picked = np.take_along_axis(values.T, drawn, axis=1)  # (R, T - 1)
            crossed = crossed + sign * picked.mean(axis=1)
            all_runs = all_runs + sign * values.mean(axis=0)
        return crossed, all_runs

    def _widening(self, models: Mapping[str, float], score: str) -> float:
        """Student's quantile over the normal one, 1 where training runs say little."""
        runs = {model: self.whole[model][score] for model in models}
        lengths = {len(values) for values in runs.values()}
        _, all_runs = self._draws(models, score)
        of_test = float(np.nanvar(all_runs, ddof=1))
        if lengths == {1}:
            parts = []
        elif len(lengths) == 1:  # run k of each model has seed k: they are paired
            together = sum(sign * runs[model] for model, sign in models.items())
            parts = [np.asarray(together)]
        else:
            parts = [values for values in runs.values() if len(values) > 1]
        variances = [float(part.var(ddof=1)) / len(part) for part in parts]
        total = of_test + sum(variances)
        if total == 0:
            return 1.0
        squares = of_test**2 / max(self.clusters - 1, 1) + sum(
            variance**2 / (len(part) - 1)
            for variance, part in zip(variances, parts, strict=True)
        )
        quantile = (1 + _LEVEL) / 2
        freedom = total**2 / squares if squares else np.inf
        return float(stats.t.ppf(quantile, freedom) / stats.norm.ppf(quantile))


def bootstrap(
    models: Mapping[str, Sequence[Predictions]], resamples: int = 1000, seed: int = 0
) -> Bootstrap:
    """Resample the test set and training runs, the same for all models.

    Args:
        models: For each model its training runs, in the order of their seeds.
        resamples: R, number of replicates.
        seed: Seed of all draws.

    Raises:
        ValueError: If there is no model or run, the test sets differ, or there is only
            one acquisition.
    """
    runs = [run for model in models.values() for run in model]
    if not runs or not all(models.values()):
        raise ValueError('There are no predictions to compare. Train and test models.')
    for name, model in models.items():
        for run in model:
            _check_same(run, runs[0], name)
    first = runs[0]
    by_acquisition = bool((first.acquisitions != '').all())
    names = first.acquisitions if by_acquisition else first.patch_ids
    _, clusters = np.unique(names, return_inverse=True)
    count = int(clusters.max()) + 1
    if count < 2:
        raise ValueError(
            'All test patches are of one acquisition, so there is nothing to resample. '
            'Test on more acquisitions.'
        )
    rng = np.random.default_rng(derive_seed(seed, 'bootstrap', resamples))
    drawn = rng.integers(count, size=(resamples, count - 1))
    counts = np.stack([np.bincount(row, minlength=count) for row in drawn], axis=1)
    lengths = {len(model) for model in models.values()}
    picked = {
        length: np.random.default_rng(derive_seed(seed, 'runs', length)).integers(
            length, size=(resamples, max(length - 1, 1))
        )
        for length in lengths
    }
    whole, replicates = {}, {}
    for name, model in models.items():
        once = [replicate_scores(run, clusters, np.ones((count, 1))) for run in model]
        many = [replicate_scores(run, clusters, counts.astype(float)) for run in model]
        shared = [key for key in once[0] if all(key in scores for scores in once)]
        whole[name] = {
            k: np.concatenate([scores[k] for scores in once]) for k in shared
        }
        replicates[name] = {k: np.stack([scores[k] for scores in many]) for k in shared}
    return Bootstrap(whole, replicates, picked, count, by_acquisition)


def _check_same(run: Predictions, other: Predictions, name: str) -> None:
    for what in ('classes', 'patch_ids', 'labels'):
        one, two = getattr(run, what), getattr(other, what)
        if not np.array_equal(one, two):
            raise ValueError(
                f'Model {name} was tested with other {what} than the first model '
                f'({len(one)} and {len(two)}). Compare models on the same test set.'
            )


def _widened(estimate: float, draws: Floats, width: float) -> Interval:
    """Return the interval of replicates, made wider around the estimate."""
    ends = np.nanquantile(draws, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    low, high = (estimate + width * (float(end) - estimate) for end in ends)
    return Interval(estimate, low, high)
