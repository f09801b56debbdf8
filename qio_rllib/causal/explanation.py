"""Explanations of decisions: which variables can move one at all, and how far interventions on them do."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from qio_envs.api import AFTER, ConfigError, StepGraph
from qio_rllib.causal.graph import CausalGraph, Edge

ROUNDING = 1e-6
"""Decisions that differ by less count as equal: a network rounds by where in a batch a row stands."""

_DECISION = "decision"
_NAMED = 3  # variables that a sentence names at most
_LEAST_SHARE = 0.1  # that a further one needs


def decision_ancestors(
    graph: StepGraph, actions: Iterable[str], lags: int, has_memory: bool
) -> frozenset[tuple[str, int]]:
    """Return which variables can move a decision that a policy makes now.

    The graph of a time step is unrolled over ``lags`` steps. The policy is an edge from each observed component to the
    action of the same step; with memory also from those of earlier steps and from earlier actions. A name with `AFTER`
    is the variable as a step makes it, the plain name what stands there when the next decision is made: setting the
    latter between two steps leaves alone what was made of the variable in the same step.

    Args:
        graph: Of a time step, with one agent.
        actions: Names of its actions in the graph.
        lags: Steps to go back, at least 0.
        has_memory: Whether the policy remembers.

    Returns:
        Pairs (name, steps before the decision). ``("s0", 1)`` is s0 when the last decision was made, ``("x2'", 0)`` is
        x2 as the last step made it.

    Raises:
        ConfigError: Fewer than 0 lags.
    """
    if lags < 0:
        raise ConfigError(f"lags: expected at least 0, got {lags!r}")
    moves = tuple(actions)
    components = [name.removesuffix(AFTER) for name in graph.variables if name.endswith(AFTER)]
    seen = [name for name in components if name not in graph.hidden]
    edges: dict[Edge, None] = {}

    def link(cause: str, earlier: int, effect: str, later: int) -> None:
        edges[f"{cause}@{earlier}", f"{effect}@{later}"] = None

    for lag in range(lags + 1):
        for name in components:
            link(name + AFTER, lag, name, lag)
        for cause, effect in graph.edges:
            if not effect.endswith(AFTER):
                continue  # the reward, and what was made before one can intervene
            if cause.endswith(AFTER):
                link(cause, lag, effect, lag)
            elif lag < lags:
                link(cause, lag + 1, effect, lag)
        decided = moves if lag else (_DECISION,)
        for name in decided:
            for earlier in range(lag, (lags if has_memory else lag) + 1):
                for cause in seen:
                    link(cause, earlier, name, lag)
                for cause in moves if earlier > lag else ():
                    link(cause, earlier, name, lag)
    unrolled = CausalGraph(edges, [f"{_DECISION}@0"])
    found = (node.rpartition("@") for node in unrolled.ancestors(f"{_DECISION}@0"))
    return frozenset((name, int(lag)) for name, _, lag in found)


def decision_shifts(factual: np.ndarray, others: np.ndarray, discrete: bool) -> np.ndarray:
    """Return how far decisions are from the one that was made, float64 ``[n]``; numbers within `ROUNDING` are equal.

    Args:
        factual: Probabilities ``[A]``, or the mean action ``[D]``.
        others: Those of counterfactuals, ``[n, A]`` or ``[n, D]``.
        discrete: Which of them. Of probabilities it is the total variation, half the sum of absolute differences, in
            [0, 1]; of means the Euclidean distance, in units of the action.
    """
    differences = _differences(factual, others)
    if discrete:
        return 0.5 * np.abs(differences).sum(axis=-1)
    return np.sqrt(np.square(differences).sum(axis=-1))


def _differences(factual: np.ndarray, others: np.ndarray) -> np.ndarray:
    found = np.asarray(others, np.float64) - np.asarray(factual, np.float64)
    scale = max(1.0, float(np.abs(factual).max()))
    return np.where(np.abs(found) < ROUNDING * scale, 0.0, found)


@dataclasses.dataclass(frozen=True)
class Influence:
    """How far a decision moves when one variable is set to other values.

    Attributes:
        variable: Its name.
        kind: Of variable: of the state, an action, or something that is observed.
        lag: Steps before the decision.
        is_ancestor: Whether it can move the decision at all, by the graph; if not, the shift is exactly 0.
        value: What it really was; NaN for several numbers at once.
        shift: Mean of `decision_shifts` over the draws; NaN where no decision was left to compare.
        standard_error: Of that mean.
        largest: Of the draws.
        draws: Reference values for which there was a decision to compare.
        ended: Those for which the agent's episode was over before.
        changes: Discrete actions: mean change of the chosen action's probability, and the share of draws in which
            another action is the most probable. Continuous ones: mean absolute change of each number.
    """

    variable: str
    kind: str
    lag: int
    is_ancestor: bool
    value: float
    shift: float
    standard_error: float
    largest: float
    draws: int
    ended: int
    changes: tuple[float, ...]

    @classmethod
    def none(cls, variable: str, kind: str, lag: int, value: float, changes: int) -> Influence:
        """Return the influence of a variable that is no ancestor: none."""
        return cls(variable, kind, lag, False, value, 0.0, 0.0, 0.0, 0, 0, (0.0,) * changes)

    @classmethod
    def of(
        cls,
        variable: str,
        kind: str,
        lag: int,
        value: float,
        factual: np.ndarray,
        others: np.ndarray,
        present: np.ndarray,
        chosen: int | None,
    ) -> Influence:
        """Return the influence of a variable from counterfactual decisions.

        Args:
            variable: As the attribute.
            kind: Likewise.
            lag: Likewise.
            value: Likewise.
            factual: As for `decision_shifts`.
            others: Likewise, ``[n, ...]``.
            present: For which of them the agent still decides, bool ``[n]``.
            chosen: The discrete action that was taken; None where actions are continuous.
        """
        kept = np.asarray(others, np.float64)[present]
        ended = int(len(present) - len(kept))
        if not len(kept):
            width = len(factual) if chosen is None else 2
            nothing = (math.nan,) * width
            return cls(variable, kind, lag, True, value, math.nan, math.nan, math.nan, 0, ended, nothing)
        shifts = decision_shifts(factual, kept, chosen is not None)
        error = float(shifts.std(ddof=1) / math.sqrt(len(shifts))) if len(shifts) > 1 else math.nan
        differences = _differences(factual, kept)
        if chosen is None:
            changes = tuple(np.abs(differences).mean(axis=0).tolist())
        else:
            other = kept.argmax(-1) != int(np.argmax(factual))
            changes = (float(differences[:, chosen].mean()), float(other.mean()))
        largest = float(shifts.max())
        return cls(
            variable, kind, lag, True, value, float(shifts.mean()), error, largest, len(kept), ended, changes
        )


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Which variables moved one decision of one agent, and how far.

    Attributes:
        env: Name of the environment.
        agent: Who decided; "" where the agent has no name.
        seed: Of the episode.
        step: The decision is the action of this step, counted from 0.
        mode: "greedy" or "sampled".
        lags: Steps gone back.
        action: What was done, by name.
        decision: Probabilities of discrete actions, or the mean action.
        discrete: Which of them.
        influences: Of all candidates.
        notes: What one ought to know, in words.
    """

    env: str
    agent: str
    seed: int
    step: int
    mode: str
    lags: int
    action: dict[str, float]
    decision: tuple[float, ...]
    discrete: bool
    influences: tuple[Influence, ...]
    notes: tuple[str, ...]

    @property
    def ordered(self) -> list[Influence]:
        """The influences, largest shift first; then by lag and as given. Those without a number come last."""
        return sorted(self.influences, key=lambda one: (-_number(one.shift), not one.is_ancestor, one.lag))

    @property
    def strongest(self) -> list[Influence]:
        """Each variable's influence at the time at which it is largest, of those that move the decision, in order."""
        found: dict[str, Influence] = {}
        for one in self.ordered:
            if _number(one.shift) > 0:
                found.setdefault(one.variable, one)
        return list(found.values())

    @property
    def change_names(self) -> tuple[str, ...]:
        """Names of `Influence.changes`."""
        if self.discrete:
            return "probability_change", "other_action"
        return tuple(f"change_{name}" for name in self.action)

    def rows(self) -> list[dict[str, object]]:
        """Return the table, largest shift first, without numbers that there are not."""
        rows = []
        for one in self.ordered:
            row: dict[str, object] = {
                "variable": one.variable,
                "kind": one.kind,
                "lag": one.lag,
                "ancestor": int(one.is_ancestor),
                "value": one.value,
                "shift": one.shift,
                "standard_error": one.standard_error,
                "largest": one.largest,
                "draws": one.draws,
                "ended": one.ended,
                **dict(zip(self.change_names, one.changes, strict=True)),
            }
            rows.append({key: "" if _is_missing(value) else value for key, value in row.items()})
        return rows

    def sentence(self) -> str:
        """Return in words what moved the decision most."""
        who = f"{self.agent} " if self.agent else ""
        did = ", ".join(f"{name} = {value:.3g}" for name, value in self.action.items())
        if self.discrete:
            did += f" (probability {self.decision[int(next(iter(self.action.values())))]:.2f})"
        start = f"{who}{did} at step {self.step}"
        moving = self.strongest
        if not moving:
            return f"{start}: no variable that was tried moves this decision."
        total = sum(one.shift for one in moving)
        named = [one for one in moving[:_NAMED] if one.shift >= _LEAST_SHARE * total]
        parts = [
            f"{_described(one)} ({one.shift:.3g}, {one.shift / total:.0%})" for one in named or moving[:1]
        ]
        measure = "total variation" if self.discrete else "distance of the mean action"
        return (
            f"{start}: mainly because of {_listed(parts)}. In brackets: how far the decision moves on average when "
            f"that variable alone takes other values of the policy's own episodes ({measure}), and its share in the "
            "sum of the variables' largest shifts; effects do not add up, so that shares compare variables and do not "
            "divide the decision."
        )

    def as_dict(self) -> dict[str, object]:
        """Return plain values, fit for JSON; numbers that there are not are None."""
        rows = [{key: None if value == "" else value for key, value in row.items()} for row in self.rows()]
        return {
            "env": self.env,
            "agent": self.agent,
            "seed": self.seed,
            "step": self.step,
            "mode": self.mode,
            "lags": self.lags,
            "action": self.action,
            "decision": list(self.decision),
            "discrete": self.discrete,
            "sentence": self.sentence(),
            "notes": list(self.notes),
            "influences": rows,
        }


def _described(one: Influence) -> str:
    """Return a variable and its time in words."""
    was = "" if math.isnan(one.value) else f" = {one.value:.3g}"
    times = {0: "in the same step", 1: "one step before"}
    return f"{one.variable}{was} {times.get(one.lag, f'{one.lag} steps before')}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _number(shift: float) -> float:
    return -1.0 if math.isnan(shift) else shift


def _is_missing(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
