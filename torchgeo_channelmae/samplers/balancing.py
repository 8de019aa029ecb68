"""How often to draw each sample so that the classes are drawn evenly.

The expected draws w of an epoch of M draws maximise

    t H(p) + (1 - t) H(w / M),    p = S^T w / M,

where row i of S holds the class shares of sample i, H is entropy, p are the class
shares of what is drawn and t is the temperature: 0 draws all samples alike, 1 makes
the classes as even as any weights can. Where each sample has one class, that is the
usual rule that a class is drawn in proportion to its share to the power 1 - t; the
objective carries the rule over to samples that are mixtures of classes. No sample is
expected more often than a cap, and enough distinct ones are expected:
sum_i min(w_i, 1) is at least some number.

That is a concave problem of as many variables as there are samples. Its dual has one
variable a class and one for the distinct samples, and is solved by Newton's method, for
one sample of each kind where samples have the same shares.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_SMALLEST = 1e-3  # (1 - t) / t that stands for 0; costs at most that x log(samples)
_TOLERANCE = 1e-8  # of class shares
_ROUGH = 1e-4  # the same, where only a start is wanted
_STEPS = 200


def entropy(shares: npt.ArrayLike) -> float:
    """Return the entropy of a distribution in nats."""
    p = np.asarray(shares, dtype=np.float64)
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def expected_draws(
    shares: npt.NDArray[np.floating],
    draws: int,
    temperature: float = 1.0,
    cap: int = 20,
    min_distinct: float = 0.0,
) -> Array:
    """Return how often to draw each sample of a dataset, see the module's head.

    Args:
        shares: (N, K) class shares. Rows sum to 1; a row of NaN is drawn as often as
            the average one, a row of zeros never. Each class occurs.
        draws: Draws of the epoch M, at most ``cap`` x the samples that are drawn.
        temperature: From 0, all samples alike, to 1, classes as even as can be.
        cap: Most draws of a sample.
        min_distinct: Least share of the draws that are distinct samples. Where there
            are too few samples for that, each is drawn at least once.

    Returns:
        (N,) expected draws, with sum M.
    """
    unknown = np.isnan(shares[:, 0])
    known = ~unknown & (shares.sum(axis=1) > 0)
    used = int(known.sum() + unknown.sum())
    average = draws / used
    table = pd.DataFrame(shares[known])
    kind = table.groupby(list(table), sort=False).ngroup().to_numpy()
    _, first, sizes = np.unique(kind, return_index=True, return_counts=True)
    kinds = table.to_numpy(dtype=np.float64)[first]
    # One more than asked for, as what is drawn is what is expected, rounded.
    distinct = min(math.ceil(min_distinct * draws) + 1, used) if min_distinct else 0
    expected = np.where(unknown, average, 0.0)
    expected[known] = solve(
        kinds / kinds.sum(axis=1, keepdims=True),
        sizes,
        draws - unknown.sum() * average,
        temperature,
        cap,
        distinct - unknown.sum() * min(average, 1.0),
    )[kind]
    return expected


def solve(
    shares: Array,
    sizes: Counts,
    draws: float,
    temperature: float,
    cap: float,
    distinct: float,
) -> Array:
    """Return how often to draw the samples of each kind, see the module's head.

    Args:
        shares: (G, K) class shares of a sample of each kind. Rows sum to 1, and each
            column has a positive entry.
        sizes: (G,) number of samples of each kind, positive.
        draws: Draws M, at most ``cap`` x samples.
        temperature: From 0 to 1.
        cap: Most draws of a sample, at least 1.
        distinct: Least sum of min(w, 1) over the samples; more than all samples, or all
            draws, counts as these.

    Returns:
        (G,) expected draws of one sample of each kind; those of all samples sum to M.
    """
    samples = float(sizes.sum())
    if temperature == 0 or draws >= cap * samples:
        return np.full(len(shares), draws / samples)
    low = 0.0
    if distinct >= min(samples, draws) * (
        1 - 1e-9
    ):  # no room for a multiplier: a bound on each
        low, cap = (1.0, cap) if draws >= samples else (0.0, 1.0)
        distinct = 0.0
    if draws <= low * samples:
        return np.full(len(shares), low)
    target = max((1 - temperature) / temperature, _SMALLEST)
    z = -np.log(sizes @ shares / samples)
    z -= z.mean()
    mu = 0.0
    weight = max(1.0, target)
    while True:  # from smooth to sharp, each solution the start of the next
        problem = _Dual(shares, sizes, draws, weight, low, cap, distinct)
        error = _TOLERANCE if weight == target else _ROUGH
        z, mu = _solve(problem, problem.centred(z, mu), mu, error)
        if weight == target:
            return problem.draws_of(z, mu)
        weight = max(weight / 3, target)


@dataclass(frozen=True)
class _Dual:
    """The dual function, per draw: convex in z (K,) and in mu >= 0.

    log sum exp(-z) + sum_i psi(s_i z) / M - mu distinct / M, where psi(u) is the
    maximum over w in [low, cap] of u w - weight w log w + mu min(w, 1).
    """

    shares: Array
    sizes: Counts
    draws: float
    weight: float  # (1 - t) / t
    low: float
    cap: float
    distinct: float

    def _log_draws(self, z: Array, mu: float) -> tuple[Array, Array]:
        """Return the logarithms of the best w, bounded and unbounded."""
        score = self.shares @ z / self.weight - 1
        free = score + np.clip(-score, 0, mu / self.weight)
        low = np.log(self.low) if self.low else -np.inf
        return np.clip(free, low, np.log(self.cap)), free

    def draws_of(self, z: Array, mu: float) -> Array:
        """Return the best w."""
        return np.exp(self._log_draws(z, mu)[0])

    def centred(self, z: Array, mu: float) -> Array:
        """Shift z so that the draws about add up, as they do for the best z."""
        score = self.shares @ z / self.weight
        low, high = -score.max() - mu / self.weight - 50, -score.min() + 50
        for _ in range(30):
            middle = (low + high) / 2
            if self.sizes @ self.draws_of(z + middle * self.weight, mu) < self.draws:
                low = middle
            else:
                high = middle
        return z + high * self.weight

    def value(self, z: Array, mu: float) -> float:
        """Return the function's value."""
        log, _ = self._log_draws(z, mu)
        w = np.exp(log)
        psi = w * (self.shares @ z) + mu * np.minimum(w, 1)
        psi -= self.weight * w * np.where(w > 0, log, 0)
        smallest = z.min()
        return float(
            np.log(np.exp(smallest - z).sum())
            - smallest
            + (self.sizes @ psi - mu * self.distinct) / self.draws
        )

    def slopes(self, z: Array, mu: float) -> tuple[Array, Array]:
        """Return gradient (K + 1,) and Hessian (K + 1, K + 1)."""
        log, free = self._log_draws(z, mu)
        w = np.exp(log)
        p = np.exp(z.min() - z)
        p /= p.sum()
        count = self.sizes / self.draws
        gradient = np.append(
            (count * w) @ self.shares - p,
            count @ np.minimum(w, 1) - self.distinct / self.draws,
        )
        change = np.where((log == free) & (free != 0), count * w / self.weight, 0)
        below = np.where(free < 0, change, 0)
        classes = len(z)
        hessian = np.empty((classes + 1, classes + 1))
        hessian[:-1, :-1] = np.diag(p) - np.outer(p, p)
        hessian[:-1, :-1] += (self.shares * change[:, None]).T @ self.shares
        hessian[:-1, -1] = hessian[-1, :-1] = below @ self.shares
        hessian[-1, -1] = below.sum()
        return gradient, hessian


def _solve(problem: _Dual, z: Array, mu: float, error: float) -> tuple[Array, float]:
    """Minimise the dual; mu stays 0 where there are distinct samples enough."""
    z = _newton(problem, np.append(z, 0.0), False, error)[:-1]
    found = problem.sizes @ np.minimum(problem.draws_of(z, 0.0), 1)
    if found >= problem.distinct:
        return z, 0.0
    point = np.append(z, max(mu, problem.weight))
    point = _newton(problem, point, True, error)
    if np.abs(problem.slopes(point[:-1], point[-1])[0]).max() > error:
        return _search(problem, z, error)
    return point[:-1], float(point[-1])


def _search(problem: _Dual, z: Array, error: float) -> tuple[Array, float]:
    """Find mu by halving, with the best z for each: slow, but can't run into mu = 0."""
    low, high = 0.0, 0.0
    for _ in range(100):
        mu = (low + high) / 2 if high else max(4 * low, problem.weight / 16)
        z = _newton(problem, np.append(problem.centred(z, mu), mu), False, error)[:-1]
        slope = problem.slopes(z, mu)[0][-1]
        if abs(slope) < error:
            break
        low, high = (mu, high) if slope < 0 else (low, mu)
    return z, mu


def _newton(problem: _Dual, point: Array, bound: bool, error: float) -> Array:
    """Damped Newton steps, in mu too where the distinct samples bind."""
    size = len(point) if bound else len(point) - 1
    value = problem.value(point[:-1], point[-1])
    damping = 1e-9
    for _ in range(_STEPS):
        gradient, hessian = problem.slopes(point[:-1], point[-1])
        gradient, hessian = gradient[:size], hessian[:size, :size]
        if np.abs(gradient).max() < error:
            break
        step = np.zeros(len(point))
        step[:size] = -np.linalg.solve(hessian + damping * np.eye(size), gradient)
        slope = float(gradient @ step[:size])
        length = 1.0
        if step[-1] < 0 and point[-1] + step[-1] <= 0:  # mu stays positive
            length = 0.9 * point[-1] / -step[-1]
        while True:
            trial = point + length * step
            new = problem.value(trial[:-1], trial[-1])
            if new <= value + 1e-4 * length * slope:
                damping = max(damping / 4, 1e-12)
                point, value = trial, new
                break
            length /= 2
            if length < 1e-6:
                damping *= 100
                break
        if damping > 1e3:  # as close as floating point comes
            break
    return point
