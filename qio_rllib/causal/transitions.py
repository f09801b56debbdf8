"""Causal graphs of one time step, from recorded transitions: which inputs each target depends on."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy.special import fdtrc

from qio_envs.api import ConfigError
from qio_rllib.causal.graph import CausalGraph
from qio_rllib.causal.moments import DataError, checked_data, standardised

TESTS = ("regression", "information")
"""How causes of a step are told: `transition_graph`, or `information_graph` in `qio_rllib.causal.information`."""


@dataclasses.dataclass(frozen=True, eq=False)
class TransitionGraph:
    """What each target of a transition depends on.

    Attributes:
        inputs: Names of what is seen before the step: observations and actions, ``I``.
        targets: Names of what is seen after it, ``T``.
        p_values: Of the independence of target and input given all other inputs, float64 ``[T, I]``.
        alpha: Level of a single test.
        information: Conditional mutual information of target and input given all other inputs, nats, float64
            ``[T, I]``, where the test estimates it (`information_graph`).
    """

    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    p_values: np.ndarray
    alpha: float
    information: np.ndarray | None = None

    @property
    def mask(self) -> np.ndarray:
        """Whether an input is a cause of a target, bool ``[T, I]``; the input mask of an `Ensemble`."""
        return self.p_values < self.alpha

    def to_graph(self) -> CausalGraph:
        """Return the graph with an edge from each cause to its target."""
        edges = [(self.inputs[i], self.targets[t]) for t, i in np.argwhere(self.mask)]
        return CausalGraph(edges, (*self.inputs, *self.targets))


def checked_steps(
    inputs: np.ndarray,
    targets: np.ndarray,
    input_names: Sequence[str] | None,
    target_names: Sequence[str] | None,
    alpha: float,
) -> tuple[np.ndarray, tuple[str, ...], np.ndarray, tuple[str, ...]]:
    """Return inputs, their names, targets and their names; arguments as for `transition_graph`.

    Raises:
        ConfigError: A level out of range.
        DataError: Different numbers of rows, or numbers that are not finite.
    """
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha: expected a number in (0, 1), got {alpha!r}")
    if target_names is None:
        target_names = [f"y{i}" for i in range(np.shape(targets)[-1])]
    rows, names = checked_data(inputs, input_names)
    wanted, goals = checked_data(targets, target_names)
    if len(rows) != len(wanted):
        raise DataError(f"samples: {len(rows)} rows of inputs, {len(wanted)} of targets")
    return rows, tuple(names), wanted, tuple(goals)


def transition_graph(
    inputs: np.ndarray,
    targets: np.ndarray,
    input_names: Sequence[str] | None = None,
    target_names: Sequence[str] | None = None,
    *,
    alpha: float = 0.001,
    degree: int = 2,
    num_one_hot: int = 0,
) -> TransitionGraph:
    """Find the causes of every target by nested regressions.

    Time gives the directions, and components of one time are taken not to cause each other. Then an input is a cause
    if the target depends on it given all the other inputs. The test is the F test of a regression on all products of
    inputs up to a degree against one without those that hold the input; it is exact where the rest is Gaussian with
    equal variance and a polynomial of the degree, and sees interactions such as ``x_i x_k`` where linear tests see
    nothing. Inputs that were set independently of each other (random actions, states after an intervention) separate
    best; those of one's own play go together, which needs many more.

    Args:
        inputs: ``[n, I]``.
        targets: ``[n, T]``.
        input_names: "x0", "x1", ... when absent.
        target_names: "y0", "y1", ... when absent.
        alpha: Level of a single test, in (0, 1).
        degree: Of the products, 1 (linear) to 3.
        num_one_hot: How many of the last inputs are one discrete action, one-hot; it is tested as a whole.

    Raises:
        ConfigError: A level or a degree out of range.
        DataError: Constant or collinear inputs, a constant target, too few samples, numbers that are not finite.
    """
    if degree not in (1, 2, 3):
        raise ConfigError(f"degree: expected 1, 2 or 3, got {degree!r}")
    rows, names, wanted, goals = checked_steps(inputs, targets, input_names, target_names, alpha)
    last = len(names) - num_one_hot
    groups = [min(place, last) for place in range(len(names))]
    if num_one_hot:  # the last of its columns follows from the others
        rows, groups = rows[:, :-1], groups[:-1]
    rows, wanted = standardised(rows, names), standardised(wanted, goals)
    plain, chosen = (last, len(groups) - last) if num_one_hot else (len(groups), 0)
    size = math.comb(plain + degree, degree) + chosen * math.comb(plain + degree - 1, degree - 1)
    count = len(rows)
    if count < size + 2:
        raise DataError(
            f"samples: {count}; degree {degree} of {len(names)} inputs makes {size} features, which need at least "
            f"{size + 2}; lower degree"
        )
    features, members = _products(rows, degree, groups, last if num_one_hot else -1)
    full, rank = _residuals(features, wanted)
    if rank < size:
        raise DataError(
            f"inputs: their products up to degree {degree} are collinear; leave inputs out or lower degree"
        )
    p_values = np.empty((len(goals), len(names)))
    freedom = count - size
    for group in range(groups[-1] + 1):
        kept = ~members[:, group]
        reduced, _ = _residuals(features[:, kept], wanted)
        dropped = size - int(kept.sum())
        statistic = (reduced - full) / dropped / np.maximum(full / freedom, np.finfo(np.float64).tiny)
        places = slice(group, None) if num_one_hot and group == last else group
        p_values[:, places] = fdtrc(dropped, freedom, statistic).reshape(
            (-1, 1) if isinstance(places, slice) else -1
        )
    return TransitionGraph(names, goals, p_values, alpha)


def _products(
    rows: np.ndarray, degree: int, groups: Sequence[int], one_hot: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return all products of up to ``degree`` columns ``[n, F]``, and which inputs each holds, bool ``[F, G]``.

    Columns of one group are one input; of the group ``one_hot`` a product holds at most one.
    """
    columns = [np.ones(len(rows))]
    members = [np.zeros(groups[-1] + 1, bool)]
    for size in range(1, degree + 1):
        for chosen in itertools.combinations_with_replacement(range(rows.shape[1]), size):
            held = [groups[place] for place in chosen]
            if held.count(one_hot) > 1:
                continue
            columns.append(np.prod(rows[:, chosen], axis=1))
            inside = np.zeros(groups[-1] + 1, bool)
            inside[held] = True
            members.append(inside)
    return np.stack(columns, axis=1), np.stack(members)


def _residuals(features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, int]:
    """Return sums of squared residuals of least squares, ``[T]``, and the rank of the features."""
    found, _, rank, _ = np.linalg.lstsq(features, targets, rcond=1e-10)
    left = targets - features @ found
    return (left * left).sum(0), int(rank)
