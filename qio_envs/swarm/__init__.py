"""The swarm: agents in the plane with three tasks, their configurations and scripted policies."""

from qio_envs.api.policies import RandomPolicy
from qio_envs.swarm.config import CompetitiveConfig, CooperativeConfig, MixedConfig, SwarmConfig
from qio_envs.swarm.env import CompetitiveSwarm, CooperativeSwarm, MixedSwarm, Swarm
from qio_envs.swarm.policies import ControllerPolicy

__all__ = [
    "CompetitiveConfig",
    "CompetitiveSwarm",
    "ControllerPolicy",
    "CooperativeConfig",
    "CooperativeSwarm",
    "MixedConfig",
    "MixedSwarm",
    "RandomPolicy",
    "Swarm",
    "SwarmConfig",
]
