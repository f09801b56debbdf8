"""Interventional consistency of policies: actions shall not follow numbers on which no reward depends."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import gymnasium
import numpy as np
import torch

from qio_envs.api import ConfigError, UnsupportedError
from qio_rllib.acting.distributions import Distributions
from qio_rllib.causal.datasets import variable_names
from qio_rllib.causal.graph import CausalGraph
from qio_rllib.causal.masks import SearchSettings, find_mask
from qio_rllib.causal.relevance import relevant_components, reward_ancestors
from qio_rllib.learners.training_batch import TrainingBatch
from qio_rllib.mapping_settings import is_number
from qio_rllib.models.actor_critic import ActorCritic
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.rollout import ModuleRollout
from qio_rllib.sampling.streams import torch_generator

Array = np.ndarray
CONSISTENCY = "interventional_consistency"
DISCOVERED, GRAPH = "discovered", "graph"


@dataclasses.dataclass(frozen=True)
class ConsistencySettings(SearchSettings):
    """``training(interventional_consistency={...})``: a policy that does not follow what no reward depends on.

    Attributes:
        coefficient: Weight of the term, in units of the loss for a nat, at least 0.
        components: Indices of the numbers in an observation that are no ancestors of the reward; "discovered", by which
            the numbers that are ancestors are sought in rollouts, or "graph", by the environment's causal graph.
        samples: Transitions in which they are sought, the first ones of a run, which explore most; at least 10. Before
            there are so many the term is 0.
        test: How causes are told: "regression" or "information", see `CausalMaskSettings`.
        alpha: Level of the test of a single cause, in (0, 1). One false edge makes a component an ancestor, so that it
            is small.
        degree: Of the products of inputs in regressions, 1 to 3.
    """

    key = CONSISTENCY

    alpha: float = 1e-5
    coefficient: float = 10.0
    components: str | list[int] = DISCOVERED

    def checks(self) -> list[tuple[str, str, bool]]:
        """Return what is checked; see `SearchSettings`."""
        weight, chosen = self.coefficient, self.components
        fits = chosen in (DISCOVERED, GRAPH)
        if isinstance(chosen, list | tuple) and chosen:
            fits = all(type(place) is int and place >= 0 for place in chosen)
            fits = fits and len(set(chosen)) == len(chosen)
        allowed = f"{DISCOVERED}, {GRAPH} or different indices of at least 0"
        return [
            *super().checks(),
            (
                "coefficient",
                "a finite number of at least 0",
                is_number(weight) and 0 <= weight < float("inf"),
            ),
            ("components", allowed, fits),
        ]


class PolicyConsistency:
    """The term ``E KL(pi(. | s) || pi(. | do(s_i = v)))`` over components i that are no ancestors of the reward.

    For each row a component is drawn, and set to the value that another row of the minibatch holds. The gradient
    passes through both distributions. Components are known from the start, or found once, in the first transitions.

    Args:
        settings: What is asked for.
        seed: Of the run.
        components: By module; {} where they are to be found.
    """

    def __init__(
        self, settings: ConsistencySettings, seed: int | None, components: Mapping[str, list[int]]
    ) -> None:
        self.settings = settings
        self.components = {key: list(found) for key, found in components.items()}
        self.seed_streams(seed)
        self._kept: dict[str, list[list[Array]]] = {}

    def seed_streams(self, seed: int | None) -> None:
        """Begin the random numbers of a seed."""
        self._noise = torch_generator(seed, "interventional consistency")

    @classmethod
    def of(cls, config: Any, modules: Mapping[str, Any]) -> Self | None:
        """Return what a configuration asks for; None for nothing.

        Args:
            config: Of the algorithm.
            modules: By id.

        Raises:
            ConfigError: Modules, observations or indices that do not fit, or an environment without a graph.
        """
        settings = ConsistencySettings.of(config.learner_config_dict.get(CONSISTENCY))
        if settings is None:
            return None
        for module_id, module in modules.items():
            if not isinstance(module, ActorCritic):
                raise ConfigError(
                    f"rl_module_spec: {CONSISTENCY} needs an ActorCritic of this package; '{module_id}' is a "
                    f"{type(module).__name__}"
                )
        chosen = settings.components
        if chosen == GRAPH:
            chosen = components_of_graph(config.env, config.env_config)
        return cls(settings, config.seed, {} if isinstance(chosen, str) else dict.fromkeys(modules, chosen))

    def prepare(self, module_id: str, module: ActorCritic, parts: list[ModuleRollout]) -> None:
        """Take in rollouts, and seek the components once there are enough."""
        if module_id in self.components:
            return
        kept = self._kept.setdefault(module_id, [])
        for part in parts:
            kept.append(_transitions(part, module.action_space))
        if sum(len(rows[0]) for rows in kept) < self.settings.samples:
            return
        obs, actions, following, rewards = (
            np.concatenate(columns)[: self.settings.samples] for columns in zip(*kept, strict=True)
        )
        discrete = isinstance(module.action_space, gymnasium.spaces.Discrete)
        mask = find_mask(obs, actions, following, rewards, self.settings, discrete)
        self.components[module_id] = np.flatnonzero(~relevant_components(mask)).tolist()
        del self._kept[module_id]

    def divergence(
        self, module_id: str, module: ActorCritic, batch: TrainingBatch, policy: Distributions
    ) -> torch.Tensor | None:
        """Return the term of a minibatch without its coefficient, in nats, a scalar; None without components.

        Args:
            module_id: Whose batch it is.
            module: Without memory.
            batch: Rows.
            policy: The present policy in them.
        """
        components = self.components.get(module_id)
        if not components:
            return None
        rows = batch.inputs.rows
        count = len(rows)
        chosen = torch.tensor(components)[torch.randint(len(components), (count, 1), generator=self._noise)]
        source = torch.randint(count, (count,), generator=self._noise)
        chosen, source = chosen.to(rows.device), source.to(rows.device)
        changed = rows.scatter(1, chosen, rows[source].gather(1, chosen))
        inputs, _ = module.policy(changed, batch.inputs.legal)
        return policy.divergence(policy.like(inputs)).mean()

    def get_state(self) -> dict[str, Any]:
        """Return what a checkpoint holds: components, what they will be sought in, and random numbers."""
        return {
            "components": self.components,
            "kept": self._kept,
            "noise": self._noise.get_state().numpy(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.components = {key: list(found) for key, found in state["components"].items()}
        self._kept = {key: [list(rows) for rows in parts] for key, parts in state["kept"].items()}
        self._noise.set_state(torch.as_tensor(state["noise"], dtype=torch.uint8))


def components_of_graph(env: Any, env_config: Mapping[str, Any]) -> list[int]:
    """Return the numbers in an observation that are no ancestors of the reward by the environment's graph.

    Raises:
        ConfigError: The environment describes none, hides variables of it, or observes other numbers.
    """
    key = f"{CONSISTENCY}.components: {GRAPH}"
    made = make_vector_env(env, dict(env_config), 1)
    batch = made.env if isinstance(made, BatchedVectorEnv) else None
    try:
        described = None if batch is None or batch.num_agents != 1 else batch.graph()
    except UnsupportedError:
        described = None
    if batch is None or described is None:
        raise ConfigError(f"{key} needs an environment that describes its causal graph, got {env}")
    if described.hidden:
        raise ConfigError(f"{key}, but {env} hides {', '.join(described.hidden)}, of which others may tell")
    names, _ = variable_names(batch)
    if not set(names) <= set(described.variables):
        raise ConfigError(f"{key}, but observations of {env} are not the variables of its graph")
    relevant = reward_ancestors(CausalGraph(described.edges, described.variables))
    return [place for place, name in enumerate(names) if name not in relevant]


def _transitions(part: ModuleRollout, space: gymnasium.Space) -> list[Array]:
    """Return observations, actions, next observations and rewards of the steps in which an agent acted."""
    acted, steps = part.acted, part.num_steps
    actions = part.actions[acted]
    if isinstance(space, gymnasium.spaces.Discrete):
        actions = np.eye(int(space.n), dtype=np.float32)[actions]
    else:
        actions = actions.reshape(len(actions), -1).clip(-1.0, 1.0)
    obs, following = part.observations[:steps][acted], part.next_observations()[acted]
    count = len(actions)
    return [obs.reshape(count, -1), actions, following.reshape(count, -1), part.rewards[acted]]
