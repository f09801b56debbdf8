"""Causal graphs by score: the Gaussian BIC, of observations and of interventions, and a search over orders."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.causal.graph import CausalGraph
from qio_rllib.causal.knowledge import Constraints, Knowledge
from qio_rllib.causal.moments import DataError, Moments

_LEAST_GAIN = 1e-9  # of a change of the graph, against cycling between equal scores


@dataclasses.dataclass(frozen=True, eq=False)
class Regime:
    """Data that was gathered under one intervention, or under none.

    Attributes:
        moments: Of the data.
        targets: Variables that were set from outside, whose causes this data says nothing of.
    """

    moments: Moments
    targets: frozenset[str] = frozenset()


class GaussianBIC:
    """The Bayesian information criterion of linear Gaussian graphs (Schwarz 1978; Chickering 2002).

    The score of a variable with its causes is ``-n/2 log(residual variance) - penalty/2 (causes + 1) log n`` over the
    data in which it was not set; a graph's score is the sum, higher is better (Hauser and Buehlmann 2012 for data under
    interventions).

    Args:
        regimes: Data, observational and interventional, with the same variables.
        penalty: Factor of the penalty, above 0; 1 is the BIC.

    Raises:
        DataError: No data, different variables, or a variable that was set in all of it or is constant.
    """

    def __init__(self, regimes: Iterable[Regime | Moments], penalty: float = 1.0) -> None:
        if not penalty > 0:
            raise ConfigError(f"penalty: expected a number above 0, got {penalty!r}")
        parts = [part if isinstance(part, Regime) else Regime(part) for part in regimes]
        if not parts:
            raise DataError("regimes: expected at least one")
        self.variables = parts[0].moments.variables
        self.penalty = penalty
        self._moments = []
        for name in self.variables:
            free = [part.moments for part in parts if name not in part.targets]
            if not free:
                raise DataError(f"{name}: was set in all data, which so says nothing of its causes")
            self._moments.append(Moments.pooled(free))
        for moments, name in zip(self._moments, self.variables, strict=True):
            variance = moments.covariance.diagonal()[moments.index(name)]
            if variance <= 1e-10 * moments.products.diagonal()[moments.index(name)] / moments.count:
                raise DataError(f"{name}: constant; leave it out")
        self._covariances = [moments.covariance for moments in self._moments]
        self._known: dict[tuple[int, frozenset[int]], float] = {}

    def local(self, variable: int, causes: frozenset[int]) -> float:
        """Return the score of a variable with its causes, by their places."""
        key = (variable, causes)
        if key not in self._known:
            covariance, count = self._covariances[variable], self._moments[variable].count
            places = sorted(causes)
            left = covariance[variable, variable]
            if places:
                across = covariance[places, variable]
                left -= across @ np.linalg.lstsq(covariance[np.ix_(places, places)], across, rcond=1e-12)[0]
            left = max(left, 1e-12 * covariance[variable, variable])
            penalty = 0.5 * self.penalty * (len(places) + 1) * math.log(count)
            self._known[key] = -0.5 * count * math.log(left) - penalty
        return self._known[key]

    def score(self, graph: CausalGraph) -> float:
        """Return the score of a graph over the same variables."""
        return sum(
            self.local(place, frozenset(self.variables.index(cause) for cause in graph.parents(name)))
            for place, name in enumerate(self.variables)
        )


def order_search(
    score: GaussianBIC,
    knowledge: Knowledge | None = None,
    max_causes: int | None = None,
    starts: int = 10,
    seed: int = 0,
) -> CausalGraph:
    """Find a graph with a high score by a search over orders of the variables (Andrews et al. 2023, BOSS).

    In an order every variable takes its causes from those before it: they grow one by one while the score rises, then
    shrink. Each variable in turn moves to the place with the best total, until none gains; the best of several
    starts counts. Graphs of one equivalence
    class score alike without interventions: which of them comes out is then accidental, see `PartialGraph.of`. A local
    optimum, in practice mostly the best graph.

    Args:
        score: Of the data.
        knowledge: What is known; required edges stay.
        max_causes: Most causes of a variable.
        starts: Orders that it starts from, at least 1: one after what is required, the others at random.
        seed: Of the random ones.

    Raises:
        GraphError: Knowledge that contradicts itself or names unknown variables.
        ConfigError: No start.
    """
    if starts < 1:
        raise ConfigError(f"starts: expected at least 1, got {starts!r}")
    known = (knowledge or Knowledge()).read(score.variables)
    size, names = len(score.variables), score.variables
    search = _OrderSearch(score, known, size if max_causes is None else max_causes)
    required = [(names[i], names[j]) for i, j in np.argwhere(known.required)]
    rng = np.random.default_rng(seed)
    best, order = -math.inf, list(range(size))
    for start in range(starts):
        shuffled = names if start == 0 else [names[i] for i in rng.permutation(size)]
        first = CausalGraph(required, shuffled).topological_order
        total, found = search.climbed([names.index(name) for name in first])
        if total > best + _LEAST_GAIN:
            best, order = total, found
    edges = []
    for place, effect in enumerate(order):
        causes = search.causes(effect, frozenset(order[:place]))
        edges += [(names[cause], names[effect]) for cause in sorted(causes)]
    return CausalGraph(edges, names)


class _OrderSearch:
    """Best causes of every variable among those before it, kept."""

    def __init__(self, score: GaussianBIC, known: Constraints, limit: int) -> None:
        self._score, self._limit = score, limit
        places = range(len(score.variables))
        self._allowed = [frozenset(i for i in places if known.allowed[i, j]) for j in places]
        self._required = [frozenset(i for i in places if known.required[i, j]) for j in places]
        self._found: dict[tuple[int, frozenset[int]], frozenset[int]] = {}

    def climbed(self, order: list[int]) -> tuple[float, list[int]]:
        """Return the score and the order in which no single variable gains by another place."""
        best, moved = self.total(order), True
        while moved:
            moved = False
            for variable in list(order):
                rest = [other for other in order if other != variable]
                for place in range(len(order)):
                    trial = [*rest[:place], variable, *rest[place:]]
                    total = self.total(trial)
                    if total > best + _LEAST_GAIN:
                        best, order, moved = total, trial, True
        return best, order

    def total(self, order: list[int]) -> float:
        """Return the score of an order; minus infinity where a required cause comes after its effect."""
        found = 0.0
        for place, variable in enumerate(order):
            before = frozenset(order[:place])
            if not self._required[variable] <= before:
                return -math.inf
            found += self._score.local(variable, self.causes(variable, before))
        return found

    def causes(self, variable: int, before: frozenset[int]) -> frozenset[int]:
        """Return causes among the variables before, by growing and shrinking."""
        key = (variable, before & self._allowed[variable])
        if key not in self._found:
            self._found[key] = self._grown_and_shrunk(variable, key[1])
        return self._found[key]

    def _grown_and_shrunk(self, variable: int, candidates: frozenset[int]) -> frozenset[int]:
        local, required = self._score.local, self._required[variable]
        chosen = required
        best = local(variable, chosen)
        while len(chosen) < self._limit:
            score, new = max(
                ((local(variable, chosen | {new}), new) for new in candidates - chosen),
                default=(-math.inf, -1),
            )
            if score <= best + _LEAST_GAIN:
                break
            best, chosen = score, chosen | {new}
        while True:
            score, old = max(
                ((local(variable, chosen - {old}), old) for old in chosen - required), default=(-math.inf, -1)
            )
            if score <= best + _LEAST_GAIN:
                return chosen
            best, chosen = score, chosen - {old}
