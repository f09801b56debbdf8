"""Small configurations with a central value, and its textbook form."""

import gymnasium
import numpy as np
import torch
from toy_endings import Endings

from qio_rllib.algorithms import PPOConfig
from qio_rllib.models.values import ValueNetwork

FOREST, SPREAD = "forest_uav_v0", "mpe2.simple_spread_v3"
SMALL = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 12, "mask_blocked_moves": True}
STATE_OF_SMALL = 4 * 36 + 1
ENDS = {"a": (3, "terminated"), "b": (7, "truncated"), "c": (7, "truncated")}


def small_config(env: str = FOREST, config_class=PPOConfig, policies=None, **training):
    sizes = {"train_batch_size_per_learner": 40}
    if config_class is PPOConfig:
        sizes |= {"minibatch_size": 30, "num_epochs": 2, "vf_clip_param": 1e4}
    config = (
        config_class()
        .environment(env, env_config=SMALL if env == FOREST else {})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=20)
        .training(**{"central_value": "state", **sizes, **training})
        .rl_module(model_config={"fcnet_hiddens": [16, 8], "head_fcnet_hiddens": [8]})
        .debugging(seed=0)
    )
    return config.multi_agent(policies=policies) if policies else config


class EndingsWithState(Endings):
    """Says how large its state is."""

    state_space = gymnasium.spaces.Box(0, 100, (1,), np.float32)


def concatenated(value: ValueNetwork, states, observations, agents) -> torch.Tensor:
    """Return the values by the textbook: one long input vector for each row."""
    encoder = value.encoder
    one_hot = torch.nn.functional.one_hot(agents, encoder.widths[2]).float()
    joint = torch.cat([states, observations.flatten(1), one_hot], dim=1)
    return value.head(encoder.rest(encoder.first(joint))).squeeze(-1)
