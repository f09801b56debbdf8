"""Algorithms by the name that ``run:`` gives them; importing this registers them, and environments, with Tune."""

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune.registry import register_trainable

import qio_envs
from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.algorithms.a2c import A2C, A2CConfig
from qio_rllib.algorithms.dqn import DQN, DQNConfig
from qio_rllib.algorithms.maddpg import MADDPG, MADDPGConfig
from qio_rllib.algorithms.masac import MASAC, MASACConfig
from qio_rllib.algorithms.ppo import PPO, PPOConfig
from qio_rllib.sampling.environments import register_with_tune

ALGORITHMS: dict[str, type[AlgorithmConfig]] = {
    "A2C": A2CConfig,
    "DQN": DQNConfig,
    "MADDPG": MADDPGConfig,
    "MASAC": MASACConfig,
    "PPO": PPOConfig,
}
"""Configuration class of each algorithm."""

for _algorithm in (A2C, DQN, MADDPG, MASAC):  # for tune.run(name); its own DQN would take RLlib's
    register_trainable(_algorithm.__name__, _algorithm)


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


for _name, _config_class in ALGORITHMS.items():
    register_trainable(_name, _config_class().algo_class)
for _env_id in qio_envs.environments():
    register_with_tune(_env_id)

__all__ = [
    "A2C",
    "ALGORITHMS",
    "DQN",
    "MADDPG",
    "MASAC",
    "PPO",
    "A2CConfig",
    "DQNConfig",
    "MADDPGConfig",
    "MASACConfig",
    "PPOConfig",
    "algorithm_config_class",
]
