"""The UAV forest: environment, configuration and scripted policies."""

from qio_envs.api.policies import RandomPolicy
from qio_envs.forest_uav.config import ForestConfig
from qio_envs.forest_uav.env import ForestUAV
from qio_envs.forest_uav.policies import GreedyPolicy, LawnmowerPolicy

__all__ = ["ForestConfig", "ForestUAV", "GreedyPolicy", "LawnmowerPolicy", "RandomPolicy"]
