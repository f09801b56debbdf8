"""Small world models for tests."""

import pytest
from toy_off_policy import config_of

from qio_rllib.algorithms import WorldModelConfig

ENSEMBLE = {"world_model": {"members": 2, "hiddens": [8]}}
RSSM = {
    "world_model": {
        "type": "rssm", "deterministic": 8, "stochastic": 3, "embedding": 6, "hiddens": [8],
        "latent_hiddens": [8], "reward_hiddens": [8], "continuation_hiddens": [8],
    },
    "model_sequence_length": 6,
}  # fmt: skip
KALMAN = {
    "world_model": {
        "type": "kalman", "unobserved": 2, "dynamics_size": 8, "reward_hiddens": [8], "continuation_hiddens": [8],
    },
    "model_sequence_length": 6,
}  # fmt: skip
PLANS = {"planner": {"horizon": 3, "candidates": 6, "elites": 2, "iterations": 2}}
ACTOR = {"behaviour": "actor", "imagination_horizon": 3}


def models(**settings):
    """Parametrise a test by the models with attention, each with more settings."""
    both = [one | {"world_model": one["world_model"] | settings} for one in (ENSEMBLE, RSSM)]
    return pytest.mark.parametrize("model", both, ids=["ensemble", "rssm"])


BEHAVIOURS = pytest.mark.parametrize("behaviour", [PLANS, ACTOR], ids=["planner", "actor"])


def world_model(task, *settings, **more):
    """The settings of an agent with a world model, merged."""
    merged = {key: value for part in settings for key, value in part.items()} | more
    return config_of(task, algorithm=WorldModelConfig, **merged)
