"""Data sets of transitions from batched environments: of random play, and after interventions."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection

import gymnasium
import numpy as np

from qio_envs.api import AFTER, BatchedEnv, ConfigError, UnsupportedError
from qio_rllib.causal.graph import CausalGraph

REWARD = "reward"
RANDOM, INTERVENED, POLICY, REMEMBERING = "random", "intervened", "policy", "remembering"
"""How the actions of recorded transitions came about; see `play_graph`."""

_PAST = "past"


@dataclasses.dataclass(frozen=True, eq=False)
class TransitionData:
    """Steps of one agent, a row each.

    Attributes:
        inputs: Observation and action before the step, float64 ``[n, D + A]``; discrete actions as one-hot.
        targets: Observation after it and reward, float64 ``[n, D + 1]``.
        input_names: Of the columns.
        target_names: Of the columns; an observed number after the step ends in ``'``.
        replaced: Targets that were set from outside in these rows, which so tell nothing of their causes.
        num_one_hot: How many of the last inputs are one discrete action.
    """

    inputs: np.ndarray
    targets: np.ndarray
    input_names: tuple[str, ...]
    target_names: tuple[str, ...]
    replaced: frozenset[str] = frozenset()
    num_one_hot: int = 0

    def only(self, names: Collection[str]) -> TransitionData:
        """Return the columns of some names; of a discrete action that is kept in part, each is a number of its own."""
        inputs = [place for place, name in enumerate(self.input_names) if name in names]
        targets = [place for place, name in enumerate(self.target_names) if name in names]
        last = len(self.input_names) - self.num_one_hot
        whole = sum(place >= last for place in inputs) == self.num_one_hot
        return dataclasses.replace(
            self,
            inputs=self.inputs[:, inputs],
            targets=self.targets[:, targets],
            input_names=tuple(self.input_names[place] for place in inputs),
            target_names=tuple(self.target_names[place] for place in targets),
            num_one_hot=self.num_one_hot if whole else 0,
        )

    def varying(self) -> TransitionData:
        """Return the columns that are not constant; of a discrete action those that were chosen at all."""
        inputs, targets = np.ptp(self.inputs, axis=0) > 0, np.ptp(self.targets, axis=0) > 0
        last = len(self.input_names) - self.num_one_hot
        return dataclasses.replace(
            self,
            inputs=self.inputs[:, inputs],
            targets=self.targets[:, targets],
            input_names=tuple(itertools.compress(self.input_names, inputs)),
            target_names=tuple(itertools.compress(self.target_names, targets)),
            num_one_hot=int(inputs[last:].sum()),
        )

    def columns(self) -> dict[str, np.ndarray]:
        """Return all columns by name."""
        rows = np.concatenate([self.inputs, self.targets], axis=1)
        return dict(zip((*self.input_names, *self.target_names), rows.T, strict=True))


def observed_transitions(env: BatchedEnv, count: int, seed: int) -> TransitionData:
    """Return transitions of random play.

    Args:
        env: With one agent and flat observations; it is reset.
        count: Transitions.
        seed: Of the episodes and of the actions.

    Raises:
        ConfigError: Several agents, or fewer than one transition.
    """
    return _gathered(env, count, seed, intervenes=False)


def intervened_transitions(env: BatchedEnv, count: int, seed: int) -> TransitionData:
    """Return transitions of random actions, before each of which the state is set at random.

    Every variable before the step that `BatchedEnv.intervene` can set is drawn uniformly from its space and
    independently of the others, so that inputs which go together in play do so no more. Mechanisms of the step (names
    that end in ``'``) stay as they are: they are what is to be found.

    Args:
        env: With one agent, flat observations and variables that can be set; it is reset.
        count: Transitions.
        seed: Of the episodes, the actions and the interventions.

    Raises:
        ConfigError: Several agents, nothing to set, or fewer than one transition.
    """
    if not any(_is_before(name) for name in env.intervention_spaces):
        raise ConfigError(f"{env.id}: there is no variable before the step that an intervention can set")
    return _gathered(env, count, seed, intervenes=True)


def variable_names(env: BatchedEnv) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the numbers of an observation and of an action.

    Those of the environment's graph where it has one and they fit, else ``obs[0], obs[1], ...`` and ``action[0], ...``.
    The numbers of a discrete action are its one-hot.
    """
    size = int(np.prod(env.observation_space.shape))
    try:
        graph = env.graph()
    except UnsupportedError:
        return numbered("obs", size), numbered("action", _action_size(env))
    after = {name for name in graph.variables if name.endswith(AFTER)}
    shown = [name for name in graph.variables if name + AFTER in after and name not in graph.hidden]
    observed = tuple(shown) if len(shown) == size else numbered("obs", size)
    if isinstance(env.action_space, gymnasium.spaces.Discrete):
        return observed, numbered(action_names(env, 1)[0], _action_size(env))
    return observed, action_names(env, _action_size(env))


def action_names(env: BatchedEnv | None, count: int) -> tuple[str, ...]:
    """Return the names of so many numbers of an action, 1 for a discrete one.

    Those of the environment's graph where it has one and they fit; else ``action``, or ``action[0], ...`` for several.
    """
    try:
        graph = None if env is None else env.graph()
    except UnsupportedError:
        graph = None
    if graph is not None:
        known = set(graph.variables)
        found = [
            name
            for name in graph.variables
            if name != REWARD and not name.endswith(AFTER) and name + AFTER not in known
        ]
        if len(found) == count:
            return tuple(found)
    return numbered("action", count) if count > 1 else ("action",)


def numbered(name: str, count: int) -> tuple[str, ...]:
    """Return ``name[0], name[1], ...``."""
    return tuple(f"{name}[{i}]" for i in range(count))


def true_mask(env: BatchedEnv) -> np.ndarray:
    """Return which inputs each target truly depends on, bool ``[T, I]``, by the environment's graph.

    What is hidden is no input: a target depends on the inputs among its causes, direct or not, within the step.

    Raises:
        ConfigError: Discrete actions, or observations that are not the graph's variables.
        UnsupportedError: The environment describes no graph.
    """
    described = env.graph()
    observed, actions = variable_names(env)
    graph = CausalGraph(described.edges, described.variables)
    if not {*observed, *actions} <= set(described.variables):
        raise ConfigError(f"{env.id}: observations and actions are not the variables of its graph")
    inputs = (*observed, *actions)
    return np.array(
        [
            [name in graph.ancestors(target) for name in inputs]
            for target in (*(name + AFTER for name in observed), REWARD)
        ]
    )


def play_graph(env: BatchedEnv, play: str) -> CausalGraph | None:
    """Return the causal graph of recorded transitions of an environment with one agent; None where it describes none.

    The environment's graph of a step, with edges from what is observed to the actions where a policy acts, and a hidden
    variable "past": components at the same time go together because of what was before, and a policy that remembers
    acts by it too.

    Args:
        env: The environment.
        play: How actions came about: `RANDOM`, `INTERVENED` (at random, the state set beforehand), `POLICY`, or
            `REMEMBERING`, a policy with memory.
    """
    try:
        described = env.graph()
    except UnsupportedError:
        return None
    known = set(described.variables)
    before = [name for name in described.variables if name + AFTER in known]
    actions = [
        name
        for name in described.variables
        if name not in before and not name.endswith(AFTER) and name != REWARD
    ]
    edges = list(described.edges)
    fixed = [name for name in env.intervention_variables if play == INTERVENED and _is_before(name)]
    edges += [(_PAST, name) for name in before if name not in fixed]
    if play in (POLICY, REMEMBERING):
        edges += [(name, action) for name in before if name not in described.hidden for action in actions]
    if play == REMEMBERING:
        edges += [(_PAST, action) for action in actions]
    edges = [edge for edge in edges if edge[1] not in fixed]
    return CausalGraph(edges, (*described.variables, _PAST), (*described.hidden, _PAST))


def _action_size(env: BatchedEnv) -> int:
    space = env.action_space
    return int(space.n) if isinstance(space, gymnasium.spaces.Discrete) else int(np.prod(space.shape))


def _gathered(env: BatchedEnv, count: int, seed: int, intervenes: bool) -> TransitionData:
    if env.num_agents != 1:
        raise ConfigError(f"{env.id}: has {env.num_agents} agents; transitions are those of one")
    if count < 1:
        raise ConfigError(f"count: expected at least 1 transition, got {count!r}")
    rng = np.random.default_rng(seed)
    observed, actions = variable_names(env)
    env.reset(seed)
    inputs, targets = [], []
    for _ in range(-(-count // env.num_envs)):
        if intervenes:
            _intervene(env, rng)
        before = env.observe()[:, 0].reshape(env.num_envs, -1)
        action, numbers = _random_actions(env, rng)
        transition = env.step(action)
        after = env.observe()[:, 0].reshape(env.num_envs, -1)
        inputs.append(np.concatenate([before, numbers], axis=1))
        targets.append(np.concatenate([after, transition.rewards], axis=1))
        if not env.running.all():
            env.reset(mask=~env.running)
    return TransitionData(
        np.concatenate(inputs)[:count].astype(np.float64),
        np.concatenate(targets)[:count].astype(np.float64),
        (*observed, *actions),
        (*(name + AFTER for name in observed), REWARD),
        num_one_hot=len(actions) if isinstance(env.action_space, gymnasium.spaces.Discrete) else 0,
    )


def _is_before(name: str) -> bool:
    return not name.endswith(AFTER)


def _intervene(env: BatchedEnv, rng: np.random.Generator) -> None:
    drawn = []
    for space in env.intervention_spaces.values():
        if isinstance(space, gymnasium.spaces.Discrete):
            drawn.append(rng.integers(int(space.n), size=env.num_envs).astype(np.float32))
        else:
            drawn.append(rng.uniform(space.low.item(), space.high.item(), env.num_envs).astype(np.float32))
    values = np.stack(drawn, axis=1)
    mask = np.array([_is_before(name) for name in env.intervention_spaces])
    env.intervene(np.broadcast_to(mask, values.shape), values)


def _random_actions(env: BatchedEnv, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return actions as `step` takes them ``[E, 1, ...]``, and as numbers ``[E, A]``."""
    space = env.action_space
    if isinstance(space, gymnasium.spaces.Discrete):
        action = rng.integers(int(space.n), size=(env.num_envs, 1))
        return action, np.eye(int(space.n))[action[:, 0]]
    drawn = rng.uniform(space.low, space.high, (env.num_envs, 1, *space.shape)).astype(np.float32)
    return drawn, drawn.reshape(env.num_envs, -1)
