"""RLlib's DQN with environments by name, evaluation on fixed seeds, and a circuit as Q-network if wanted."""

from __future__ import annotations

from typing import Any

import gymnasium
from ray.rllib.algorithms.dqn import DQN
from ray.rllib.algorithms.dqn import DQNConfig as RLlibDQNConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from qio_envs.api import ConfigError
from qio_rllib.algorithms.config import ExploringConfig
from qio_rllib.models.coordination import COORDINATION
from qio_rllib.models.q_network import QNetwork
from qio_rllib.sampling.environments import EnvDescription, describe_env


class DQNConfig(ExploringConfig, RLlibDQNConfig):
    """RLlib's ``DQNConfig`` (Mnih et al., 2015, with the options of Rainbow) with what `ExploringConfig` adds to it.

    Algorithm, runner, replay and Learner are RLlib's own; the module is `QNetwork`. With ``training(circuit=...)`` the
    Q-network is a quantum circuit; dueling and distributional heads are then off.
    """

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or DQN)
        self.rl_module(rl_module_spec=RLModuleSpec(module_class=QNetwork))

    def training(self, **kwargs: Any) -> DQNConfig:
        """Set the training parameters; arguments as in `ExploringConfig.training` and RLlib's ``DQNConfig``."""
        super().training(**kwargs)
        if kwargs.get("circuit") is not None and "dueling" not in kwargs:
            self.dueling = False
        return self

    def validate(self) -> None:
        """Check the settings against each other.

        Raises:
            ConfigError: Something that belongs to policies (the Q operator, annealing, a central value), continuous
                actions, or several agents without a replay buffer for them.
        """
        for key, value in (
            ("amplification", self.amplification),
            ("entropy_annealing", self.entropy_annealing),
            ("central_value", self.central_value),
            ("normalize_values", self.normalize_values or None),
            (COORDINATION, self.model_config.get(COORDINATION)),
        ):
            if value is not None:
                raise ConfigError(f"{key}: DQN learns values and has no policy of its own; set it to null")
        if isinstance(self.env, str):
            self._check_environment(describe_env(self.env, self.env_config))
        super().validate()

    def _check_environment(self, description: EnvDescription) -> None:
        for agent, space in description.action_spaces.items():
            if not isinstance(space, gymnasium.spaces.Discrete):
                owner = self.env if agent is None else f"{agent} of {self.env}"
                raise ConfigError(f"env: DQN needs Discrete actions, those of {owner} are {space}")
        kind = str(self.replay_buffer_config.get("type"))
        if description.multi_agent and "MultiAgent" not in kind:
            raise ConfigError(
                f"replay_buffer_config.type: {self.env} has agents with names, which {kind} cannot keep; "
                "set it to MultiAgentEpisodeReplayBuffer"
            )
