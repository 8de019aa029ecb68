import numpy as np
import pytest
from scipy.stats import rankdata

from torchgeo_channelmae.experiments.dependence import dependence


@pytest.mark.parametrize('rho', [-0.9, 0.0, 0.5])
def test_a_bivariate_normal_has_its_known_dependence(rho):
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 5000))
    found = dependence(x, rho * x + np.sqrt(1 - rho**2) * noise)
    assert found.pearson == pytest.approx(rho, abs=0.04)
    assert found.spearman == pytest.approx(6 / np.pi * np.arcsin(rho / 2), abs=0.04)
    known = -0.5 * np.log(1 - rho**2)
    assert found.mutual_information == pytest.approx(known, abs=0.05)


def test_ranks_and_information_do_not_change_with_the_scale():
    rng = np.random.default_rng(1)
    x, y = rng.gamma(2, size=(2, 800))
    y += x
    plain, bent = dependence(x, y), dependence(x, np.exp(y / 4))
    assert bent.spearman == pytest.approx(plain.spearman)
    assert bent.pearson != pytest.approx(plain.pearson, abs=0.01)
    assert bent.mutual_information == pytest.approx(plain.mutual_information, abs=0.1)
    assert plain.spearman == pytest.approx(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def test_a_constant_band_has_no_correlation():
    found = dependence(np.ones(200), np.arange(200.0))
    assert np.isnan(found.pearson)
    assert np.isnan(found.spearman)
