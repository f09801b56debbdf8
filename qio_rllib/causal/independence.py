"""Tests of conditional independence, by moments: Fisher's z."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import log_ndtr

from qio_rllib.causal.moments import DataError, Moments

LEAST_EIGENVALUE = 1e-10  # of a correlation matrix, below which columns count as collinear


class FisherZ:
    """Fisher's z test: whether a partial correlation is 0, for jointly Gaussian variables.

    ``z = sqrt(n - |S| - 3) artanh(r)`` is standard normal under independence (Fisher 1924; Kalisch and Buehlmann 2007).

    Args:
        moments: Of the data.

    Raises:
        DataError: A constant column, or columns that are linear combinations of each other.
    """

    def __init__(self, moments: Moments) -> None:
        self.variables, self.count = moments.variables, moments.count
        self.correlation = moments.correlation
        values, vectors = np.linalg.eigh(self.correlation)
        if values[0] < LEAST_EIGENVALUE and self.count > len(
            self.variables
        ):  # fewer samples are collinear always
            involved = np.abs(vectors[:, 0]) > 1e-4
            names = ", ".join(name for name, one in zip(self.variables, involved, strict=True) if one)
            raise DataError(f"{names}: collinear; leave one out")

    def p_value(self, first: int, second: int, given: tuple[int, ...] = ()) -> float:
        """Return the two-sided p-value of the independence of two variables, given others, all by their places."""
        found = self.p_values(np.array([[first, second, *given]]))
        return float(found[0])

    def p_values(self, tests: np.ndarray) -> np.ndarray:
        """Return the p-values of tests with equally many given variables.

        Args:
            tests: Places of first, second and given variables, int ``[K, 2 + |S|]``.

        Returns:
            float64 ``[K]``.

        Raises:
            DataError: Fewer than ``|S| + 4`` samples.
        """
        return np.exp(self.log_p_values(tests))

    def log_p_values(self, tests: np.ndarray) -> np.ndarray:
        """Return logarithms of `p_values`, which stay apart where p-values are 0."""
        given = tests.shape[1] - 2
        if self.count < given + 4:
            raise DataError(
                f"samples: {self.count}; a test given {given} variables needs at least |S| + 4 = {given + 4}"
            )
        z = np.abs(np.arctanh(self._partial(tests))) * math.sqrt(self.count - given - 3)
        return math.log(2.0) + log_ndtr(-z)

    def _partial(self, tests: np.ndarray) -> np.ndarray:
        """Return partial correlations, float64 ``[K]``, within (-1, 1)."""
        corr = self.correlation
        first, second = tests[:, 0], tests[:, 1]
        if tests.shape[1] == 2:
            found = corr[first, second]
        elif tests.shape[1] == 3:
            given = tests[:, 2]
            one, other = corr[first, given], corr[second, given]
            found = (corr[first, second] - one * other) / np.sqrt((1.0 - one**2) * (1.0 - other**2))
        else:
            blocks = corr[tests[:, :, None], tests[:, None, :]]
            inside, across = blocks[:, 2:, 2:], blocks[:, 2:, :2]
            left = blocks[:, :2, :2] - across.transpose(0, 2, 1) @ np.linalg.solve(inside, across)
            found = left[:, 0, 1] / np.sqrt(left[:, 0, 0] * left[:, 1, 1])
        limit = 1.0 - 1e-12
        return np.clip(found, -limit, limit)
