"""Moments and Fisher's z against regressions and SciPy."""

import numpy as np
import pytest
from scipy import stats

from qio_rllib.causal.independence import FisherZ
from qio_rllib.causal.moments import DataError, Moments


def sample(count=200, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 6)) @ rng.standard_normal((6, 6)) + rng.uniform(-3, 3, 6)


def test_p_values_are_those_of_residuals_of_regressions():
    rows = sample()
    test = FisherZ(Moments.of(rows))
    rng = np.random.default_rng(1)
    for size in range(5):
        for _ in range(10):
            i, j, *given = rng.permutation(6)[: size + 2]
            design = np.column_stack([np.ones(len(rows)), rows[:, given]])
            left = rows - design @ np.linalg.lstsq(design, rows, rcond=None)[0]
            r = stats.pearsonr(left[:, i], left[:, j]).statistic
            expected = 2 * stats.norm.sf(abs(np.arctanh(r)) * np.sqrt(len(rows) - size - 3))
            assert test.p_value(i, j, tuple(given)) == pytest.approx(expected, rel=1e-6, abs=1e-300)


def test_p_values_are_uniform_under_independence():
    rng = np.random.default_rng(2)
    found = []
    for _ in range(2000):
        rows = rng.standard_normal((60, 4))
        rows[:, :2] += rows[:, 2:3] - 0.5 * rows[:, 3:]
        found.append(FisherZ(Moments.of(rows)).p_value(0, 1, (2, 3)))
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_pooled_moments_are_those_of_the_concatenated_data():
    rows = sample()
    parts = [Moments.of(part) for part in np.split(rows, [30, 31, 150])]
    pooled, whole = Moments.pooled(parts), Moments.of(rows)
    assert pooled.count == whole.count == 200
    np.testing.assert_allclose(pooled.correlation, whole.correlation, rtol=1e-12)
    np.testing.assert_allclose(whole.correlation, np.corrcoef(rows.T), rtol=1e-10)
    np.testing.assert_allclose(whole.covariance, np.cov(rows.T, bias=True), rtol=1e-9)
    np.testing.assert_allclose(whole.mean, rows.mean(0), rtol=1e-12)


def test_columns_by_name():
    rows = sample()[:, :2]
    assert Moments.of({"a": rows[:, 0], "b": rows[:, 1]}).variables == ("a", "b")
    assert Moments.of(rows).variables == ("x0", "x1")
    assert Moments.of(rows, ["a", "b"]).index("b") == 1


def with_column(values):
    rows = sample()
    rows[:, 3] = values(rows)
    return rows


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FisherZ(Moments.of(with_column(lambda r: 7.0))), "x3: constant; leave it out"),
        (lambda: FisherZ(Moments.of(with_column(lambda r: r[:, 0] - 2 * r[:, 5]))), "x0, x3, x5: collinear"),
        (lambda: Moments.of(with_column(lambda r: np.nan)), "x3: holds numbers that are not finite"),
        (lambda: Moments.of(np.zeros(3)), "expected rows of [n, variables], got the shape (3,)"),
        (lambda: Moments.of(np.zeros((3, 2)), ["a"]), "1 names for 2 columns"),
        (lambda: Moments.of(sample(), list("abcdef")) + Moments.of(sample()), "the same variables"),
        (lambda: Moments.pooled([]), "at least one part"),
        (lambda: Moments.of(sample()).index("y"), "there is no 'y'"),
        (lambda: FisherZ(Moments.of(sample(6))).p_value(0, 1, (2, 3, 4)), "at least |S| + 4 = 7"),
    ],
)
def test_what_is_wrong_is_refused(make, message):
    with pytest.raises(DataError) as error:
        make()
    assert message in str(error.value)
