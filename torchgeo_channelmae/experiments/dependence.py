"""How much one band tells of another: correlations and mutual information."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import pearsonr, spearmanr
from sklearn.feature_selection import mutual_info_regression

Floats = npt.NDArray[np.float64]
MEASURES = ('pearson', 'spearman', 'mutual_information')


@dataclass(frozen=True)
class Dependence:
    """Three measures of how two bands depend on each other.

    Attributes:
        pearson: Correlation of the values, from -1 to 1.
        spearman: Correlation of their ranks.
        mutual_information: In nats, 0 where they are independent.
    """

    pearson: float
    spearman: float
    mutual_information: float


def dependence(x: Floats, y: Floats, neighbors: int = 3, seed: int = 0) -> Dependence:
    """Measure how two bands depend on each other.

    Mutual information is estimated from nearest neighbours (Kraskov et al., 2004,
    https://doi.org/10.1103/PhysRevE.69.066138), as scikit-learn does it.

    Args:
        x: (n,) values of the one.
        y: (n,) values of the other.
        neighbors: Neighbours of the estimate; more vary less and are more biased.
        seed: Seed of the noise that parts equal values.

    Returns:
        The measures; correlations with a constant band are NaN.
    """
    constant = np.ptp(x) == 0 or np.ptp(y) == 0
    information = mutual_info_regression(
        x[:, None], y, n_neighbors=neighbors, random_state=seed
    )
    return Dependence(
        pearson=np.nan if constant else float(pearsonr(x, y).statistic),
        spearman=np.nan if constant else float(spearmanr(x, y).statistic),
        mutual_information=float(information[0]),
    )
