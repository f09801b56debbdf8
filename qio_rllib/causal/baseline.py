"""Counterfactual baselines of the policy gradient: what other actions would have given under the same noise.

The gradient of one sample is ``g = grad log pi(a | s) [R(s, a, U) - E_{a' ~ pi} R(s, a', U)]``, where U is what is held
fixed: the noises, recovered from what happened (abduction). It is unbiased if and only if U holds no descendant of the
action: then the baseline does not depend on a, and the expectation of grad log pi(a | s) times it is 0. Against a value
baseline it takes out the noise's share of the variance, the more so the less the policy explores.

Sources: Pearl (2009), section 7.1 (abduction, action, prediction); Foerster et al. (2018), "Counterfactual multi-agent
policy gradients" (an agent's own action varies, those of the others stay); Mesnard et al. (2021), "Counterfactual
credit assignment in model-free reinforcement learning" (the condition).
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from qio_envs.api import AFTER, BatchedEnv, ConfigError, UnsupportedError
from qio_rllib.causal.graph import CausalGraph, Names
from qio_rllib.causal.scm import Columns, StructuralModel
from qio_rllib.mapping_settings import MappingSettings

COUNTERFACTUAL_BASELINE = "counterfactual_baseline"
REWARD = "reward"
ENVIRONMENT, MODEL = "environment", "model"


class BaselineError(ConfigError):
    """What a baseline holds fixed depends on the action; the message names the variable and a directed path to it."""


@dataclasses.dataclass(frozen=True)
class CounterfactualBaselineSettings(MappingSettings):
    """``training(counterfactual_baseline={...})``: advantages against what other actions would have given.

    Attributes:
        source: What other actions are tried in: "environment", by exact branches of it, or "model", a causal model that
            is learned from the rollouts, for environments that cannot be branched.
        samples: Actions that are drawn from the policy for each agent and step where actions are continuous, at least
            1; an even number is drawn in pairs that mirror each other about the mean. Discrete actions are all tried,
            weighted by the policy's probabilities.
        average_later: Whether the temporal differences of later steps are averaged over the agent's action in those
            steps too (see `compute_advantages`): less variance where the value estimate is good.
        model_steps: Gradient steps of the model on each batch, at least 1; only of "model".
        model_hiddens: Sizes of its hidden layers.
    """

    key = COUNTERFACTUAL_BASELINE

    source: str = ENVIRONMENT
    samples: int = 8
    average_later: bool = False
    model_steps: int = 200
    model_hiddens: Sequence[int] = (64, 64)

    @property
    def by_model(self) -> bool:
        """Whether a learned model takes the place of the environment."""
        return self.source == MODEL

    def checks(self) -> list[tuple[str, str, bool]]:
        """Return what is checked; see `MappingSettings`."""
        hiddens = self.model_hiddens
        sizes = isinstance(hiddens, list | tuple) and len(hiddens) > 0
        return [
            ("source", f"{ENVIRONMENT} or {MODEL}", self.source in (ENVIRONMENT, MODEL)),
            ("samples", "an integer of at least 1", type(self.samples) is int and self.samples >= 1),
            ("average_later", "true or false", type(self.average_later) is bool),
            (
                "model_steps",
                "an integer of at least 1",
                type(self.model_steps) is int and self.model_steps >= 1,
            ),
            (
                "model_hiddens",
                "sizes of at least 1",
                sizes and all(type(size) is int and size >= 1 for size in hiddens),
            ),
        ]


# -- the condition ------------------------------------------------------------------------------------------------


def check_held(graph: CausalGraph, actions: Names, held: Iterable[str]) -> None:
    """Check that what a baseline holds fixed does not depend on the action.

    Args:
        graph: Causes and effects.
        actions: The action, or its components.
        held: Variables whose values are held fixed. The noises of a structural model need no mention: they have no
            causes.

    Raises:
        BaselineError: One of them is a descendant of an action, or an action.
        GraphError: An unknown variable.
    """
    chosen = (actions,) if isinstance(actions, str) else tuple(actions)
    reached = graph.descendants(chosen) | set(chosen)
    for name in held:
        graph.parents(name)  # refuses unknown names
        if name in reached:
            path = " -> ".join(_directed_path(graph, chosen, name))
            raise BaselineError(
                f"{COUNTERFACTUAL_BASELINE}: {name} depends on the action ({path}), so that holding it fixed biases "
                "the gradient; hold its noise instead"
            )


def check_environment(env: BatchedEnv) -> None:
    """Check that an environment has exact counterfactuals, and the condition where it describes its causal graph.

    Held are the state before a step and the step's noises; what an environment calls by a plain name and does not come
    out of the step is of that state, or an action.

    Raises:
        ConfigError: Random numbers whose meaning depends on actions.
        BaselineError: The state before the step depends on the step's action.
    """
    if env.action_dependent_draws is not None:
        raise ConfigError(
            f"{COUNTERFACTUAL_BASELINE}: {env.id} has no exact counterfactuals with these settings: "
            f"{env.action_dependent_draws}"
        )
    try:
        described = env.graph()
    except UnsupportedError:
        return
    before = {name.removesuffix(AFTER) for name in described.variables if name.endswith(AFTER)}
    actions = [name for name in described.variables if not name.endswith(AFTER)]
    actions = [name for name in actions if name != REWARD and name not in before]
    check_held(CausalGraph(described.edges, described.variables), actions, before)


def _directed_path(graph: CausalGraph, start: Sequence[str], goal: str) -> list[str]:
    """Return a shortest directed path to a variable that is reached."""
    came: dict[str, str | None] = dict.fromkeys(start)
    queue = collections.deque(start)
    while goal not in came:
        name = queue.popleft()
        for effect in sorted(graph.children(name) - came.keys()):
            came[effect] = name
            queue.append(effect)
    path, at = [], came[goal]
    while at is not None:
        path.append(at)
        at = came[at]
    return [*path[::-1], goal]


# -- baselines ----------------------------------------------------------------------------------------------------


def gaussian_nodes(mean: float, deviation: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return actions and weights whose weighted mean is the expectation over a normal policy (Gauss-Hermite).

    Args:
        mean: Of the policy.
        deviation: Its standard deviation, above 0.
        count: Nodes ``K``, at least 1; exact for polynomials of the action up to the degree 2 K - 1.

    Returns:
        Actions and weights, float64 ``[K]``; weights sum to 1.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return mean + deviation * nodes, weights / weights.sum()


def model_baseline(
    model: StructuralModel,
    data: Columns,
    action: str,
    reward: str,
    alternatives: np.ndarray,
    weights: np.ndarray,
    held: Sequence[str] = (),
) -> np.ndarray:
    """Return the mean reward of other actions under the noises that a model abducts from what happened.

    Args:
        model: Of all variables, action and reward included.
        data: What happened, ``[n]`` by variable.
        action: The variable that is set.
        reward: The variable that counts.
        alternatives: Actions ``[K]``, or ``[K, n]``.
        weights: Of each, ``[K]``; they sum to 1.
        held: Variables that keep the values they had, whatever the action.

    Returns:
        float64 ``[n]``.

    Raises:
        BaselineError: One of ``held`` depends on the action.
    """
    check_held(model.graph, action, held)
    noise = model.abduct(data)
    fixed = {name: data[name] for name in held}
    return sum(
        weight * model.predict(noise, {action: other, **fixed})[reward]
        for other, weight in zip(alternatives, weights, strict=True)
    )


def environment_baseline(env: BatchedEnv, alternatives: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean reward of other actions in the coming step, under the noise that it will meet.

    Args:
        env: Environments; they stay where they are.
        alternatives: For each of ``K`` choices what `BatchedEnv.step` takes, ``[K, E, N, ...]``.
        weights: Of each, ``[K]``; they sum to 1.

    Returns:
        float64 ``[E, N]``.

    Raises:
        UnsupportedError: The environment has no exact counterfactuals.
    """
    return np.tensordot(weights, env.counterfactual(alternatives).rewards.astype(np.float64), 1)


def gaussian_gradients(
    actions: np.ndarray, rewards: np.ndarray, baseline: np.ndarray | float, mean: float, deviation: float
) -> np.ndarray:
    """Return each sample's estimate of the gradient of the expected reward with respect to a normal policy's mean.

    ``(a - mean) / deviation^2 (R - b)`` (Williams 1992, REINFORCE with a baseline).

    Args:
        actions: ``[n]``, drawn from the policy.
        rewards: ``[n]``.
        baseline: ``[n]``, or one number.
        mean: Of the policy.
        deviation: Its standard deviation, above 0.

    Returns:
        float64 ``[n]``.
    """
    return (actions - mean) / deviation**2 * (rewards - baseline)
