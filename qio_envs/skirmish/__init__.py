"""The skirmish: a battle of two teams of units, with SMAX's maps and rules."""

from qio_envs.api.policies import RandomPolicy
from qio_envs.skirmish.config import SkirmishConfig, UnitType
from qio_envs.skirmish.env import Skirmish
from qio_envs.skirmish.policies import FocusPolicy, NearestPolicy

__all__ = ["FocusPolicy", "NearestPolicy", "RandomPolicy", "Skirmish", "SkirmishConfig", "UnitType"]
