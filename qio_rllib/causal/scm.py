"""`StructuralModel`: equations with additive noise along a graph: samples, interventions, counterfactuals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Self

import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.causal.graph import CausalGraph, GraphError
from qio_rllib.causal.moments import DataError, checked_data

Columns = Mapping[str, np.ndarray]
"""From a variable's name to its values ``[n]``."""

Equation = Callable[[np.ndarray], np.ndarray]
"""From the values of a variable's causes ``[n, C]``, in the order of the graph's variables, to its mean ``[n]``."""

Noise = Callable[[np.random.Generator, int], np.ndarray]
"""From a generator and a number of samples to noise ``[n]``."""

Intervention = Mapping[str, float | np.ndarray]
"""From a variable's name to what it is set to, one number or ``[n]``."""


class StructuralModel:
    """A structural causal model ``x_j = f_j(causes) + e_j`` with independent noises (Pearl 2009, chapter 7).

    Args:
        graph: Without hidden variables: what is not observed belongs into the noise.
        equations: By variable; what has no causes may be left out and is its noise alone.
        noise: By variable; normal with a standard deviation, or a function that draws.

    Raises:
        GraphError: Hidden variables.
        ConfigError: An equation or a noise is missing or belongs to no variable.
    """

    def __init__(
        self, graph: CausalGraph, equations: Mapping[str, Equation], noise: Mapping[str, float | Noise]
    ) -> None:
        if graph.hidden:
            raise GraphError(f"graph: {', '.join(sorted(graph.hidden))} hidden; expected no hidden variables")
        for name in (*equations, *noise):
            graph.parents(name)  # refuses unknown names
        for name in graph.variables:
            if name not in noise:
                raise ConfigError(f"noise: {name} has none")
            if graph.parents(name) and name not in equations:
                raise ConfigError(f"equations: {name} has causes and no equation")
        self.graph = graph
        self.equations, self.noise = dict(equations), dict(noise)
        self._causes = {
            name: [other for other in graph.variables if other in graph.parents(name)]
            for name in graph.variables
        }

    @classmethod
    def linear(
        cls,
        graph: CausalGraph,
        slopes: Mapping[str, Mapping[str, float]],
        noise: Mapping[str, float | Noise],
        intercepts: Mapping[str, float] | None = None,
    ) -> Self:
        """Return a linear model.

        Args:
            graph: Without hidden variables.
            slopes: By effect, then by cause; those that are missing are 0.
            noise: See the class.
            intercepts: By variable; 0 where missing.
        """
        intercepts = intercepts or {}
        equations = {}
        for name in graph.variables:
            causes = [other for other in graph.variables if other in graph.parents(name)]
            given = slopes.get(name, {})
            unknown = set(given) - set(causes)
            if unknown:
                raise GraphError(f"slopes: {sorted(unknown)[0]} is no cause of {name}")
            weights = np.array([given.get(cause, 0.0) for cause in causes])
            equations[name] = _linear_equation(weights, float(intercepts.get(name, 0.0)))
        return cls(graph, equations, noise)

    @classmethod
    def fitted(
        cls, graph: CausalGraph, data: np.ndarray | Columns, variables: Sequence[str] | None = None
    ) -> Self:
        """Return the linear model of least squares, with normal noise of the residuals' deviations.

        Raises:
            DataError: Too few samples, a missing column, collinear causes.
        """
        rows, names = checked_data(data, variables)
        column = dict(zip(names, rows.T, strict=True))
        slopes, noise, intercepts = {}, {}, {}
        for name in graph.variables:
            causes = [other for other in graph.variables if other in graph.parents(name)]
            for needed in (name, *causes):
                if needed not in column:
                    raise DataError(f"data: there is no column {needed!r}")
            if len(rows) < len(causes) + 2:
                raise DataError(
                    f"samples: {len(rows)}; {name} with {len(causes)} causes needs {len(causes) + 2}"
                )
            design = np.column_stack([np.ones(len(rows)), *(column[cause] for cause in causes)])
            found, _, rank, _ = np.linalg.lstsq(design, column[name], rcond=1e-10)
            if rank < design.shape[1]:
                raise DataError(f"{name}: its causes {', '.join(causes)} are collinear or constant")
            residual = column[name] - design @ found
            intercepts[name] = float(found[0])
            slopes[name] = dict(zip(causes, found[1:].tolist(), strict=True))
            noise[name] = float(np.sqrt(residual @ residual / (len(rows) - design.shape[1])))
        return cls.linear(graph, slopes, noise, intercepts)

    def sample(
        self, count: int, rng: np.random.Generator, do: Intervention | None = None
    ) -> dict[str, np.ndarray]:
        """Draw samples, after an intervention if there is one; ``[n]`` by variable."""
        return self.predict(self.draw_noise(count, rng), do)

    def draw_noise(self, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw the noises, ``[n]`` by variable."""
        return {
            name: scale(rng, count) if callable(scale) else scale * rng.standard_normal(count)
            for name, scale in ((name, self.noise[name]) for name in self.graph.variables)
        }

    def predict(self, noise: Columns, do: Intervention | None = None) -> dict[str, np.ndarray]:
        """Return what the equations make of noises, after an intervention if there is one; ``[n]`` by variable.

        Raises:
            GraphError: An intervention on an unknown variable.
        """
        do = do or {}
        self.graph.parents(do)  # refuses unknown names
        count = len(next(iter(noise.values())))
        found: dict[str, np.ndarray] = {}
        for name in self.graph.topological_order:
            if name in do:
                found[name] = np.broadcast_to(np.asarray(do[name], np.float64), (count,)).copy()
            else:
                found[name] = self._mean(name, found, count) + noise[name]
        return {name: found[name] for name in self.graph.variables}

    def abduct(
        self, data: np.ndarray | Columns, variables: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the noises with which the equations give what was observed, ``[n]`` by variable.

        Raises:
            DataError: A missing column or numbers that are not finite.
        """
        rows, names = checked_data(data, variables)
        column = dict(zip(names, rows.T, strict=True))
        missing = [name for name in self.graph.variables if name not in column]
        if missing:
            raise DataError(f"data: there is no column {missing[0]!r}")
        return {name: column[name] - self._mean(name, column, len(rows)) for name in self.graph.variables}

    def counterfactual(
        self, data: np.ndarray | Columns, do: Intervention, variables: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return what would have been observed after an intervention: abduction, action, prediction.

        Raises:
            DataError: See `abduct`.
            GraphError: An intervention on an unknown variable.
        """
        return self.predict(self.abduct(data, variables), do)

    def _mean(self, name: str, values: Columns, count: int) -> np.ndarray:
        equation = self.equations.get(name)
        if equation is None:
            return np.zeros(count)
        causes = [values[cause] for cause in self._causes[name]]
        return equation(np.stack(causes, axis=1) if causes else np.zeros((count, 0)))


def _linear_equation(weights: np.ndarray, intercept: float) -> Equation:
    return lambda causes: causes @ weights + intercept
