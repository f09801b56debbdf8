"""What the configurations of algorithms that learn from joint experience share: modules that know all agents."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

from qio_envs.api import ConfigError
from qio_rllib.algorithms.config import ExploringConfig
from qio_rllib.models.communication import COMMUNICATION, Communication
from qio_rllib.models.joint_module import JOINT
from qio_rllib.models.spaces import bare_space
from qio_rllib.models.values import STATE_SIZE
from qio_rllib.sampling.environments import describe_env
from qio_rllib.sampling.groups import AGENT_ID


class JointConfig(ExploringConfig, AlgorithmConfig):
    """Base of the configurations of algorithms whose Learner is a `JointLearner`."""

    def get_multi_rl_module_spec(self, **kwargs: Any) -> MultiRLModuleSpec:
        """Return the modules' specifications; each is told of all agents.

        Raises:
            ConfigError: An action space that is neither Discrete nor a bounded Box.
        """
        spec = super().get_multi_rl_module_spec(**kwargs)
        joint = self.describe_agents()
        for module_id, module_spec in spec.rl_module_specs.items():
            if module_id in joint["modules"]:
                module_spec.model_config = {
                    **module_spec.model_config,
                    **self.module_settings(),
                    JOINT: {**joint, "own": joint["modules"].index(module_id)},
                }
        return spec

    def module_settings(self) -> dict[str, Any]:
        """Return what a module is told beside ``model_config``."""
        return {}

    def describe_agents(self) -> dict[str, Any]:
        """Describe all agents as learners and joint critics have to know them.

        Returns:
            ``agents`` (ids, in their order), ``modules`` (ids, in the order of their first agents), ``indices`` (of
            each module's agents among all), ``groups`` (arguments of `GroupShape`, by module) and ``state_size``.
        """
        description = describe_env(self.env, self.env_config)
        indices: dict[str, list[int]] = {}
        for index, agent in enumerate(description.agents):
            module_id = self.policy_mapping_fn(agent, None) if self.is_multi_agent else "default_policy"
            indices.setdefault(module_id, []).append(index)
        radio = Communication.of(self.model_config.get(COMMUNICATION))
        groups = []
        for members in indices.values():
            agent = description.agents[members[0]]
            obs = math.prod(bare_space(description.observation_spaces[agent]).shape or ())
            if self.model_config.get(AGENT_ID):
                obs += len(members)
            groups.append(
                {
                    "agents": len(members),
                    "obs": obs,
                    "actions": _action_size(agent, description.action_spaces[agent]),
                    "inbox": 0 if radio is None else radio.size,
                }
            )
        return {
            "agents": list(description.agents),
            "modules": list(indices),
            "indices": list(indices.values()),
            "groups": groups,
            "state_size": self.model_config.get(STATE_SIZE, 0),
        }

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return super()._model_config_auto_includes | {"fcnet_hiddens": [64, 64], "fcnet_activation": "relu"}


def _action_size(agent: Any, space: gymnasium.Space) -> int:
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gymnasium.spaces.Box) and space.is_bounded():
        return math.prod(space.shape)
    who = "the agent" if agent is None else agent
    raise ConfigError(f"env: Discrete or bounded Box actions are needed, {who} has {space}")
