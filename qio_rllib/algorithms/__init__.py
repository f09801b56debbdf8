"""Algorithms by the name that ``run:`` gives them."""

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.algorithms.a2c import A2C, A2CConfig
from qio_rllib.algorithms.dqn import DQNConfig
from qio_rllib.algorithms.maddpg import MADDPG, MADDPGConfig
from qio_rllib.algorithms.ppo import PPOConfig

ALGORITHMS: dict[str, type[AlgorithmConfig]] = {
    "A2C": A2CConfig,
    "DQN": DQNConfig,
    "MADDPG": MADDPGConfig,
    "PPO": PPOConfig,
}
"""Configuration class of each algorithm."""


def algorithm_config_class(name: str) -> type[AlgorithmConfig]:
    """Return the configuration class of an algorithm.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in ALGORITHMS:
        raise ConfigError(
            f"run: unknown algorithm '{name}'{did_you_mean(name, ALGORITHMS)}; allowed: {', '.join(ALGORITHMS)}"
        )
    return ALGORITHMS[name]


__all__ = [
    "A2C",
    "ALGORITHMS",
    "MADDPG",
    "A2CConfig",
    "DQNConfig",
    "MADDPGConfig",
    "PPOConfig",
    "algorithm_config_class",
]
