"""Linear controllers from logs: effects that a causal graph identifies, made into a regulator."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Self

import gymnasium
import numpy as np
from scipy.linalg import LinAlgError, solve_discrete_are

from qio_envs.api import BatchedEnv, ConfigError
from qio_rllib.causal.datasets import variable_names
from qio_rllib.causal.estimation import Effect, linear_effect
from qio_rllib.causal.graph import CausalGraph, GraphError
from qio_rllib.causal.identification import identify
from qio_rllib.causal.moments import DataError, checked_data


@dataclasses.dataclass(frozen=True)
class ControlTask:
    """What is to be held near 0, with what, and at what cost.

    Attributes:
        states: ``K`` columns of a log, before the step.
        actions: ``A`` columns.
        next_states: The states after the step, in the same order.
        state_costs: Cost of each state's square; 1 each when absent.
        action_costs: Cost of each action's square, above 0; 1 each when absent.
    """

    states: tuple[str, ...]
    actions: tuple[str, ...]
    next_states: tuple[str, ...]
    state_costs: tuple[float, ...] = ()
    action_costs: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        states: Sequence[str],
        actions: Sequence[str],
        next_states: Sequence[str],
        state_costs: Sequence[float] = (),
        action_costs: Sequence[float] = (),
    ) -> Self:
        """Return a task that has been checked.

        Raises:
            ConfigError: No states or actions, a name twice, numbers of names or costs that differ, costs out of range.
        """
        if not states or not actions:
            raise ConfigError(f"{'actions' if states else 'states'}: expected at least one column")
        names = [*states, *actions, *next_states]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"states, actions and next states: {name} stands there twice")
        for what, given, of, expected in (
            ("next_states", next_states, "states", len(states)),
            ("state_costs", state_costs, "states", len(states)),
            ("action_costs", action_costs, "actions", len(actions)),
        ):
            if len(given) != expected and (given or what == "next_states"):
                raise ConfigError(f"{what}: expected {expected}, as many as {of}, got {len(given)}")
        for what, costs, least in (("state_costs", state_costs, 0), ("action_costs", action_costs, None)):
            for cost in costs:
                if not (math.isfinite(cost) and (cost > 0 if least is None else cost >= least)):
                    expected_range = "above 0" if least is None else f"of at least {least}"
                    raise ConfigError(f"{what}: expected numbers {expected_range}, got {cost!r}")
        return cls(
            tuple(states),
            tuple(actions),
            tuple(next_states),
            tuple(state_costs) or (1.0,) * len(states),
            tuple(action_costs) or (1.0,) * len(actions),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Controller:
    """The linear-quadratic regulator of what was estimated: actions are ``-gain @ states``.

    Attributes:
        task: What it is for.
        gain: float64 ``[A, K]``.
        dynamics: What the next states gain by a unit of each state, actions held fixed, float64 ``[K, K]``.
        action_effects: What they gain by a unit of each action, float64 ``[K, A]``.
        effects: The estimates behind ``action_effects``, with intervals and how the graph identified them; none for
            effects that the graph rules out.
        state_effects: Likewise behind ``dynamics``, where they were estimated; their intervals take the actions'
            effects as known.
    """

    task: ControlTask
    gain: np.ndarray
    dynamics: np.ndarray
    action_effects: np.ndarray
    effects: tuple[Effect, ...]
    state_effects: tuple[Effect, ...]

    def act(self, states: np.ndarray) -> np.ndarray:
        """Return the actions, unbounded, ``[..., A]``, for states ``[..., K]``."""
        return -states @ self.gain.T

    def describe(self) -> str:
        """Return the feedback in words, "a = -1.53 s"."""
        lines = []
        for action, row in zip(self.task.actions, self.gain, strict=True):
            terms = [
                f"{'-' if number >= 0 else '+'} {abs(number):.4g} {state}"
                for number, state in zip(row, self.task.states, strict=True)
            ]
            lines.append(f"{action} = {' '.join(terms)}".replace("= + ", "= ").replace("= - ", "= -"))
        return "; ".join(lines)

    def notes(self) -> list[str]:
        """Return what one ought to know before the controller is used, in words."""
        return [
            f"the interval of the effect of {effect.how.treatment} on {effect.how.outcome} holds 0: its sign is unknown"
            for effect in self.effects
            if effect.low <= 0 <= effect.high
        ]


class ControllerPolicy:
    """Plays a `Controller` in an environment; see `qio_envs.api.ScriptedPolicy`.

    Args:
        env: With one agent that observes the states, by the names of its graph; actions are clipped to its space.
        controller: What acts.

    Raises:
        ConfigError: See `observation_gain`.
    """

    def __init__(self, env: BatchedEnv, controller: Controller) -> None:
        self.env = env
        self.gain = observation_gain(env, controller)

    def act(self) -> np.ndarray:
        """Return float32 actions ``[E, 1, A]``."""
        space = self.env.action_space
        assert isinstance(space, gymnasium.spaces.Box)
        observed = self.env.observe().reshape(self.env.num_envs, -1).astype(np.float64)
        actions = (-observed @ self.gain.T).astype(np.float32)
        return np.clip(actions, space.low, space.high)[:, None, :]


def observation_gain(env: BatchedEnv, controller: Controller) -> np.ndarray:
    """Return a controller's gain on the observations of an environment, float64 ``[A, D]``.

    Raises:
        ConfigError: Several agents, a state that is not observed, or another number of actions.
    """
    task = controller.task
    if env.num_agents != 1:
        raise ConfigError(f"{env.id}: has {env.num_agents} agents; a controller acts for one")
    if env.action_space.shape != (len(task.actions),):
        raise ConfigError(
            f"actions: {env.id} takes {env.action_space}, the controller has {len(task.actions)}"
        )
    observed, _ = variable_names(env)
    gain = np.zeros((len(task.actions), len(observed)))
    for place, name in enumerate(task.states):
        if name not in observed:
            raise ConfigError(f"states: {env.id} does not show {name}; it shows {', '.join(observed)}")
        gain[:, observed.index(name)] = controller.gain[:, place]
    return gain


def offline_controller(
    data: np.ndarray | Mapping[str, np.ndarray],
    graph: CausalGraph,
    task: ControlTask,
    variables: Sequence[str] | None = None,
    *,
    dynamics: np.ndarray | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Controller:
    """Estimate linear dynamics ``x' = A x + B a + noise`` from a log and return the regulator for them.

    Each number in B is the effect of an action on a next state by `identify`, so that hidden common causes of the two
    do no harm where the graph has a way around them. A follows from what the actions do not explain: the effect of a
    state on ``x' - B a`` in the graph in which actions have no effects (a structural nested mean model; Robins 1994).
    The gain minimises the expected sum of the costs without end and without bounds on actions,
    ``K = (R + B'PB)^-1 B'PA`` with the P of the discrete algebraic Riccati equation; noise has mean 0 and does not
    depend on what is observed.

    Args:
        data: Rows ``[n, V]``, or columns by name.
        graph: Of the log's columns; variables that the log does not hold count as hidden.
        task: States, actions and costs.
        variables: Names of the columns of rows.
        dynamics: A, ``[K, K]``, where it is known; estimated when absent.
        level: Of the effects' intervals.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        NotIdentified: An effect that the graph does not identify.
        GraphError: Unknown or hidden variables, states or actions that cause each other.
        DataError: See `linear_effect`; or actions that cannot hold the states.
        WeakInstrument: A first-stage F below 10.
        ConfigError: Dynamics of another shape, a level or a number of resamples out of range.
    """
    states, actions, following = task.states, task.actions, task.next_states
    rows, names = checked_data(data, variables)
    columns = dict(zip(names, rows.T, strict=True))
    for name in (*states, *actions, *following):
        if name not in columns:
            raise DataError(f"data: there is no column {name!r}; there are {', '.join(names)}")
    unseen = [name for name in graph.observed if name not in columns]
    graph = CausalGraph(graph.edges, graph.variables, [*graph.hidden, *unseen])
    _check_times(graph, task)
    moved = np.zeros((len(following), len(actions)))
    effects = []
    for place, outcome in enumerate(following):
        for source, action in enumerate(actions):
            if outcome in graph.descendants(action):
                found = linear_effect(
                    columns,
                    identify(graph, action, outcome),
                    level=level,
                    resamples=resamples,
                    seed=seed,
                )
                moved[place, source] = found.value
                effects.append(found)
    own = np.zeros((len(following), len(states)))
    state_effects = []
    if dynamics is not None:
        own = np.asarray(dynamics, np.float64)
        if own.shape != (len(states), len(states)) or not np.isfinite(own).all():
            raise ConfigError(
                f"dynamics: expected numbers of the shape {(len(states),) * 2}, got {dynamics!r}"
            )
    else:
        rest = _without_actions(graph, task)
        taken = np.stack([columns[name] for name in actions])
        for place, outcome in enumerate(following):
            left = {**columns, outcome: columns[outcome] - moved[place] @ taken}
            for source, state in enumerate(states):
                if outcome in rest.descendants(state):
                    how = identify(rest, state, outcome)
                    found = linear_effect(left, how, level=level, resamples=resamples, seed=seed)
                    own[place, source] = found.value
                    state_effects.append(found)
    gain = regulator_gain(own, moved, task.state_costs, task.action_costs)
    return Controller(task, gain, own, moved, tuple(effects), tuple(state_effects))


def regulator_gain(
    dynamics: np.ndarray,
    action_effects: np.ndarray,
    state_costs: Sequence[float],
    action_costs: Sequence[float],
) -> np.ndarray:
    """Return the gain of the linear-quadratic regulator, float64 ``[A, K]``; see `offline_controller`.

    Args:
        dynamics: ``[K, K]``.
        action_effects: ``[K, A]``.
        state_costs: Of the squares, at least 0, ``K``.
        action_costs: Of the squares, above 0, ``A``.

    Raises:
        DataError: Actions that cannot hold the states.
    """
    state_weights, action_weights = np.diag(state_costs), np.diag(action_costs)
    try:
        value = solve_discrete_are(dynamics, action_effects, state_weights, action_weights)
    except (LinAlgError, ValueError) as error:
        raise DataError(
            f"actions: with effects {action_effects.round(3).tolist()} they cannot hold states with the dynamics "
            f"{dynamics.round(3).tolist()}: the Riccati equation has no stable solution"
        ) from error
    pull = action_effects.T @ value
    return np.linalg.solve(action_weights + pull @ action_effects, pull @ dynamics)


def _check_times(graph: CausalGraph, task: ControlTask) -> None:
    """Refuse names that the graph does not know, and causes that go against time or lie within it."""
    graph.parents((*task.states, *task.actions, *task.next_states))  # refuses unknown names
    for what, names, others in (
        ("states", task.states, task.states),
        ("actions", task.actions, (*task.actions, *task.states)),
        ("next_states", task.next_states, (*task.states, *task.actions)),
    ):
        for name in names:
            for other in others:
                if other != name and other in graph.descendants(name):
                    raise GraphError(f"{what}: {name} causes {other}, which does not come after it")


def _without_actions(graph: CausalGraph, task: ControlTask) -> CausalGraph:
    """Return the graph in which actions have no effects; but for the next states what they had effects on is hidden."""
    changed = graph.descendants(task.actions) - {*task.actions, *task.next_states}
    cut = graph.without_effects_of(task.actions)
    return CausalGraph(cut.edges, cut.variables, {*cut.hidden, *changed})
