"""Algorithms by the name that ``run:`` gives them."""

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.algorithms.a2c import A2C, A2CConfig
from qio_rllib.algorithms.coma import COMA, COMAConfig
from qio_rllib.algorithms.config import ExploringConfig
from qio_rllib.algorithms.dqn import DQN, DQNConfig
from qio_rllib.algorithms.federated import Federated
from qio_rllib.algorithms.federated_config import FederatedConfig
from qio_rllib.algorithms.maac import MAAC, MAACConfig
from qio_rllib.algorithms.maddpg import MADDPG, MADDPGConfig
from qio_rllib.algorithms.masac import MASAC, MASACConfig
from qio_rllib.algorithms.ppo import PPO, PPOConfig
from qio_rllib.algorithms.qmix import QMIX, QMIXConfig
from qio_rllib.algorithms.vdn import VDN, VDNConfig
from qio_rllib.algorithms.world_model import WorldModel, WorldModelConfig

LOCAL_ALGORITHMS: dict[str, type[ExploringConfig]] = {
    "A2C": A2CConfig,
    "COMA": COMAConfig,
    "DQN": DQNConfig,
    "MAAC": MAACConfig,
    "MADDPG": MADDPGConfig,
    "MASAC": MASACConfig,
    "PPO": PPOConfig,
    "QMIX": QMIXConfig,
    "VDN": VDNConfig,
    "WorldModel": WorldModelConfig,
}
"""Configuration class of each algorithm that learns from environments; `Federated` lets clients run them."""

ALGORITHMS: dict[str, type[ExploringConfig]] = {**LOCAL_ALGORITHMS, "Federated": FederatedConfig}
"""Configuration class of each algorithm; Tune knows the algorithms by these names too (`qio_rllib.registration`)."""


def algorithm_config_class(name: str) -> type[ExploringConfig]:
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
    "COMA",
    "DQN",
    "LOCAL_ALGORITHMS",
    "MAAC",
    "MADDPG",
    "MASAC",
    "PPO",
    "QMIX",
    "VDN",
    "A2CConfig",
    "COMAConfig",
    "DQNConfig",
    "Federated",
    "FederatedConfig",
    "MAACConfig",
    "MADDPGConfig",
    "MASACConfig",
    "PPOConfig",
    "QMIXConfig",
    "VDNConfig",
    "WorldModel",
    "WorldModelConfig",
    "algorithm_config_class",
]
