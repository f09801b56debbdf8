"""Data sets of transitions from batched environments: of random play, and after interventions."""

from __future__ import annotations

import dataclasses

import gymnasium
import numpy as np

from qio_envs.api import AFTER, BatchedEnv, ConfigError, UnsupportedError
from qio_rllib.causal.graph import CausalGraph

REWARD = "reward"


@dataclasses.dataclass(frozen=True, eq=False)
class TransitionData:
    """Steps of one agent, a row each.

    Attributes:
        inputs: Observation and action before the step, float64 ``[n, D + A]``; discrete actions as one-hot.
        targets: Observation after it and reward, float64 ``[n, D + 1]``.
        input_names: Of the columns.
        target_names: Of the columns; an observed number after the step ends in ``'``.
        replaced: Targets that were set from outside in these rows, which so tell nothing of their causes.
    """

    inputs: np.ndarray
    targets: np.ndarray
    input_names: tuple[str, ...]
    target_names: tuple[str, ...]
    replaced: frozenset[str] = frozenset()

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

    Those of the environment's graph where it has one and they fit, else ``o0, o1, ...`` and ``a0, a1, ...``.
    """
    size = int(np.prod(env.observation_space.shape))
    numbers = _action_size(env)
    observed = tuple(f"o{i}" for i in range(size))
    actions = tuple(f"a{i}" for i in range(numbers))
    try:
        graph = env.graph()
    except UnsupportedError:
        return observed, actions
    after = {name for name in graph.variables if name.endswith(AFTER)}
    shown = [name for name in graph.variables if name + AFTER in after and name not in graph.hidden]
    return (tuple(shown) if len(shown) == size else observed), actions


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
