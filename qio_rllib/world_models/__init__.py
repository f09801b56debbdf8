"""World models in plain torch: learned dynamics, planning over predicted returns, imagination."""

from qio_rllib.world_models.ensemble import Ensemble, EnsembleSettings
from qio_rllib.world_models.imagination import Imagined, imagine, lambda_returns
from qio_rllib.world_models.kalman import KalmanModel, KalmanSettings
from qio_rllib.world_models.latents import CategoricalLatent, GaussianLatent, balanced_divergence
from qio_rllib.world_models.model import Learned, Predicted, Sequences, WorldModel
from qio_rllib.world_models.planning import Plan, Planner, Returns
from qio_rllib.world_models.planning_settings import METHODS, PlanningSettings
from qio_rllib.world_models.rssm import RSSM, RSSMSettings

__all__ = [
    "METHODS",
    "RSSM",
    "CategoricalLatent",
    "Ensemble",
    "EnsembleSettings",
    "GaussianLatent",
    "Imagined",
    "KalmanModel",
    "KalmanSettings",
    "Learned",
    "Plan",
    "Planner",
    "PlanningSettings",
    "Predicted",
    "RSSMSettings",
    "Returns",
    "Sequences",
    "WorldModel",
    "balanced_divergence",
    "imagine",
    "lambda_returns",
]
