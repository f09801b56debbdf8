"""`Moments`: what linear tests, scores and regressions need of data, as sums that several owners of data can add."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from qio_envs.api import ConfigError

LEAST_VARIANCE_SHARE = 1e-10  # of a column's mean square, below which it counts as constant


class DataError(ConfigError):
    """Data that an analysis cannot use; the message names the column."""


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Number of samples, sums, and sums of products.

    The sum of two is the moments of the concatenated data: ``a + b``. Sums alone leave an owner of data, never rows.
    Sums of products lose digits where a mean is large beside the deviation; subtract a common offset from every
    owner's data first.

    Attributes:
        variables: ``V`` names.
        count: Samples ``n``.
        sums: float64 ``[V]``.
        products: Sum of ``x x'``, float64 ``[V, V]``.
    """

    variables: tuple[str, ...]
    count: int
    sums: np.ndarray
    products: np.ndarray

    @classmethod
    def of(
        cls, data: np.ndarray | Mapping[str, np.ndarray], variables: Sequence[str] | None = None
    ) -> Moments:
        """Return the moments of rows.

        Args:
            data: Rows ``[n, V]``, or columns by name.
            variables: Names; "x0", "x1", ... when absent.

        Raises:
            DataError: Another shape, or a number that is not finite.
        """
        rows, names = checked_data(data, variables)
        return cls(names, len(rows), rows.sum(0), rows.T @ rows)

    def __add__(self, other: Moments) -> Moments:
        if self.variables != other.variables:
            raise DataError("moments: expected the same variables in the same order")
        return Moments(
            self.variables, self.count + other.count, self.sums + other.sums, self.products + other.products
        )

    @classmethod
    def pooled(cls, parts: Iterable[Moments]) -> Moments:
        """Return the sum of several.

        Raises:
            DataError: None, or different variables.
        """
        total: Moments | None = None
        for part in parts:
            total = part if total is None else total + part
        if total is None:
            raise DataError("moments: expected at least one part")
        return total

    @property
    def mean(self) -> np.ndarray:
        """float64 ``[V]``."""
        return self.sums / self.count

    @property
    def covariance(self) -> np.ndarray:
        """Divided by n, float64 ``[V, V]``."""
        mean = self.mean
        return self.products / self.count - np.outer(mean, mean)

    @property
    def correlation(self) -> np.ndarray:
        """float64 ``[V, V]``.

        Raises:
            DataError: A constant column.
        """
        covariance = self.covariance
        variance = covariance.diagonal()
        constant = variance <= LEAST_VARIANCE_SHARE * self.products.diagonal() / self.count
        if constant.any():
            raise DataError(f"{self.variables[int(np.argmax(constant))]}: constant; leave it out")
        deviation = np.sqrt(variance)
        found = covariance / np.outer(deviation, deviation)
        np.fill_diagonal(found, 1.0)
        return found

    def index(self, name: str) -> int:
        """Return the place of a variable.

        Raises:
            DataError: There is none of that name.
        """
        try:
            return self.variables.index(name)
        except ValueError:
            raise DataError(
                f"variables: there is no {name!r}; there are {', '.join(self.variables)}"
            ) from None


def checked_data(
    data: np.ndarray | Mapping[str, np.ndarray], variables: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return rows as float64 ``[n, V]`` and the names of the columns.

    Raises:
        DataError: Another shape, no rows, or a number that is not finite.
    """
    if isinstance(data, Mapping):
        names = tuple(data) if variables is None else tuple(variables)
        rows = np.stack([np.asarray(data[name], np.float64) for name in names], axis=1)
    else:
        rows = np.asarray(data, np.float64)
        if rows.ndim != 2 or not len(rows):
            raise DataError(f"data: expected rows of [n, variables], got the shape {rows.shape}")
        names = tuple(f"x{i}" for i in range(rows.shape[1])) if variables is None else tuple(variables)
    if rows.shape[1:] != (len(names),):
        raise DataError(f"variables: {len(names)} names for {rows.shape[1]} columns")
    finite = np.isfinite(rows).all(0)
    if not finite.all():
        raise DataError(f"{names[int(np.argmin(finite))]}: holds numbers that are not finite")
    return rows, names


def standardised(rows: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return rows ``[n, V]`` with mean 0 and deviation 1 in every column.

    Raises:
        DataError: A constant column.
    """
    centred = rows - rows.mean(0)
    deviation = centred.std(0)
    constant = deviation <= 1e-10 * np.maximum(np.abs(rows).max(0), 1e-300)
    if constant.any():
        raise DataError(f"{names[int(np.argmax(constant))]}: constant; leave it out")
    return centred / deviation
