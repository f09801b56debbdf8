"""World models: planning over predicted returns, in plain torch."""

from qio_rllib.world_models.planning import Plan, Planner, Returns
from qio_rllib.world_models.planning_settings import METHODS, PlanningSettings

__all__ = ["METHODS", "Plan", "Planner", "PlanningSettings", "Returns"]
