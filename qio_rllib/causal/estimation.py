"""Effects from observations: the g-formula, the front-door formula, two-stage least squares; bootstrap intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.causal.identification import BackDoor, FrontDoor, Identification, Instrument
from qio_rllib.causal.moments import DataError, checked_data

WEAK_INSTRUMENT_F = 10.0  # Staiger and Stock (1997)


class WeakInstrument(DataError):
    """An instrument that hardly moves the treatment, so that what follows from it is not to be relied on."""


@dataclasses.dataclass(frozen=True)
class Effect:
    """An estimated effect.

    Attributes:
        value: Change of the outcome's mean for one unit of the treatment that is set.
        low: Lower end of the interval.
        high: Upper end.
        level: Its nominal coverage.
        samples: Rows that it comes from.
        how: The identification.
        first_stage_f: With an instrument, F statistic of its influence on the treatment.
    """

    value: float
    low: float
    high: float
    level: float
    samples: int
    how: Identification
    first_stage_f: float | None = None

    def __str__(self) -> str:
        strength = "" if self.first_stage_f is None else f", first-stage F {self.first_stage_f:.1f}"
        return (
            f"effect of {self.how.treatment} on {self.how.outcome}: {self.value:.4g}, {self.level:.0%} interval "
            f"[{self.low:.4g}, {self.high:.4g}] ({self.how}; {self.samples} samples{strength})"
        )


def linear_effect(
    data: np.ndarray | Mapping[str, np.ndarray],
    how: Identification,
    variables: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Effect:
    """Estimate a linear effect.

    By the back door the slope of a least-squares regression on treatment and adjustment; by the front door the sum over
    the mediators of the products of two slopes; with an instrument two-stage least squares. The interval is that of the
    percentile bootstrap over rows.

    Args:
        data: Rows ``[n, V]``, or columns by name.
        how: Of `identify`.
        variables: Names of the columns of rows.
        level: Of the interval, in (0, 1).
        resamples: Of the bootstrap, at least 100.
        seed: Of the bootstrap.

    Raises:
        DataError: Missing, constant or collinear columns, numbers that are not finite, too few samples.
        WeakInstrument: A first-stage F below 10.
        ConfigError: A level or a number of resamples out of range.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level: expected a number in (0, 1), got {level!r}")
    if resamples < 100:
        raise ConfigError(f"resamples: expected at least 100, got {resamples!r}")
    columns, formula = _linear_formula(how)
    rows, names = checked_data(data, variables)
    rows = _chosen(rows, names, columns)
    if len(rows) < len(columns) + 2:
        raise DataError(f"samples: {len(rows)}; {how} needs at least {len(columns) + 2}")
    rows = rows - rows.mean(0)  # keeps the digits of sums of products
    _check_rank(rows, columns)
    design = np.column_stack([np.ones(len(rows)), rows])
    products = design.T @ design
    strength = None
    if isinstance(how, Instrument):
        strength = _first_stage_f(products, len(columns))
        if strength < WEAK_INSTRUMENT_F:
            raise WeakInstrument(
                f"{how.instrument}: a weak instrument for {how.treatment}, first-stage F {strength:.1f}; expected at "
                f"least {WEAK_INSTRUMENT_F:g}"
            )
    value = float(formula(products[None])[0])
    found = formula(_resampled_products(design, resamples, np.random.default_rng(seed)))
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Effect(value, float(low), float(high), level, len(rows), how, strength)


def discrete_effect(
    data: np.ndarray | Mapping[str, np.ndarray],
    how: BackDoor | FrontDoor,
    variables: Sequence[str] | None = None,
) -> dict[float, float]:
    """Estimate ``E[y | do(x)]`` for every value of a discrete treatment, without a model of how it comes about.

    Adjustment and mediators are discrete as well; strata count by their frequencies.

    Args:
        data: Rows ``[n, V]``, or columns by name.
        how: Of `identify`; instruments need a linear effect.
        variables: Names of the columns of rows.

    Returns:
        From the treatment's value to the outcome's mean.

    Raises:
        DataError: A stratum in which a value of the treatment was never seen (no overlap), or what `linear_effect`
            refuses.
    """
    inside = how.adjustment if isinstance(how, BackDoor) else how.mediators
    rows, names = checked_data(data, variables)
    rows = _chosen(rows, names, (how.treatment, how.outcome, *inside))
    treatment, outcome = rows[:, 0], rows[:, 1]
    values, doses = np.unique(treatment, return_inverse=True)
    strata, places = np.unique(rows[:, 2:], axis=0, return_inverse=True)
    places = places.reshape(-1)
    counts = np.zeros((len(values), len(strata)))
    sums = np.zeros_like(counts)
    np.add.at(counts, (doses, places), 1.0)
    np.add.at(sums, (doses, places), outcome)
    by_dose = counts.sum(1) / len(rows)
    if (counts == 0).any():
        value, stratum = np.argwhere(counts == 0)[0]
        seen = ", ".join(f"{name} = {part:g}" for name, part in zip(inside, strata[stratum], strict=True))
        raise DataError(f"{how.treatment}: the value {values[value]:g} never occurs where {seen}; no overlap")
    means = sums / counts
    if isinstance(how, BackDoor):
        found = means @ (counts.sum(0) / len(rows))
    else:
        found = (counts / counts.sum(1, keepdims=True)) @ (by_dose @ means)
    return {float(value): float(mean) for value, mean in zip(values, found, strict=True)}


Formula = Callable[[np.ndarray], np.ndarray]
"""From sums of products of ``[1, columns]``, ``[B, 1 + V, 1 + V]``, to effects ``[B]``."""


def _linear_formula(how: Identification) -> tuple[tuple[str, ...], Formula]:
    """Return the columns that are needed, and the formula over them."""
    if isinstance(how, BackDoor):
        columns = (how.outcome, how.treatment, *how.adjustment)
        regressors = [0, *range(2, len(columns) + 1)]
        return columns, lambda sums: _slopes(sums, regressors, 1)[:, 1]
    if isinstance(how, FrontDoor):
        columns = (how.outcome, how.treatment, *how.mediators)
        mediators = list(range(3, len(columns) + 1))

        def through(sums: np.ndarray) -> np.ndarray:
            onto = _slopes(sums, [0, 2, *mediators], 1)[:, 2:]
            return sum(
                (
                    _slopes(sums, [0, 2], mediator)[:, 1] * onto[:, place]
                    for place, mediator in enumerate(mediators)
                ),
                np.zeros(len(sums)),
            )

        return columns, through
    columns = (how.outcome, how.treatment, how.instrument, *how.given)
    given = list(range(4, len(columns) + 1))

    def two_stage(sums: np.ndarray) -> np.ndarray:
        instruments, regressors = [0, 3, *given], [0, 2, *given]
        across = sums[:, instruments][:, :, regressors]
        return np.linalg.solve(across, sums[:, instruments, 1][..., None])[:, 1, 0]

    return columns, two_stage


def _slopes(sums: np.ndarray, regressors: list[int], target: int) -> np.ndarray:
    """Return coefficients of least squares, ``[B, R]``."""
    inside = sums[:, regressors][:, :, regressors]
    return np.linalg.solve(inside, sums[:, regressors, target][..., None])[..., 0]


def _first_stage_f(products: np.ndarray, columns: int) -> float:
    """Return the F statistic of the instrument in a regression of the treatment on it and what is given."""
    given = list(range(4, columns + 1))
    full, reduced = [0, 3, *given], [0, *given]

    def residual(regressors: list[int]) -> float:
        slopes = _slopes(products[None], regressors, 2)[0]
        return float(products[2, 2] - slopes @ products[regressors, 2])

    left, freedom = residual(full), products[0, 0] - len(full)
    return float((residual(reduced) - left) / (left / freedom))


def _resampled_products(design: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return sums of products of rows that are drawn with replacement, ``[B, C, C]``."""
    rows, columns = design.shape
    outer = (design[:, :, None] * design[:, None, :]).reshape(rows, -1)
    found = np.empty((resamples, columns * columns))
    at_once = max(1, 4_000_000 // rows)
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = rng.integers(rows, size=(count, rows)) + rows * np.arange(count)[:, None]
        weights = np.bincount(drawn.reshape(-1), minlength=count * rows).reshape(count, rows)
        found[start : start + count] = weights.astype(np.float64) @ outer
    return found.reshape(resamples, columns, columns)


def _chosen(rows: np.ndarray, names: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    missing = [name for name in columns if name not in names]
    if missing:
        raise DataError(f"data: there is no column {missing[0]!r}; there are {', '.join(names)}")
    return rows[:, [list(names).index(name) for name in columns]]


def _check_rank(rows: np.ndarray, columns: Sequence[str]) -> None:
    """Refuse constant columns and, but for the outcome, which is the first, collinear ones."""
    deviation = rows.std(0)
    constant = deviation <= 1e-10 * np.maximum(np.abs(rows).max(0), 1e-300)
    if constant.any():
        raise DataError(f"{columns[int(np.argmax(constant))]}: constant; its effect cannot be estimated")
    scaled = rows[:, 1:] / deviation[1:]
    _, singular, vectors = np.linalg.svd(scaled, full_matrices=False)
    if singular[-1] < 1e-6 * singular[0]:
        involved = [name for name, part in zip(columns[1:], vectors[-1], strict=True) if abs(part) > 1e-4]
        raise DataError(f"{', '.join(involved)}: collinear; their effects cannot be told apart")
