"""Tiny imagination-augmented modules, and steps that they learn from."""

import gymnasium
import numpy as np
import torch

from qio_rllib.models.actor_critic import ActorCritic
from qio_rllib.models.imagination import Experience

TINY = {
    "horizon": 3, "members": 2, "model_hiddens": [7], "policy_hiddens": [5], "encoder_hiddens": [6, 4],
    "model_batch_size": 16,
}  # fmt: skip
BOX, DISCRETE = gymnasium.spaces.Box(-1, 1, (3,), np.float32), gymnasium.spaces.Discrete(4)
CONTINUOUS = gymnasium.spaces.Box(-1, 1, (2,), np.float32)


def module_of(actions=DISCRETE, observations=BOX, settings=None, **model_config):
    torch.manual_seed(0)
    settings = TINY if settings is None else settings
    return ActorCritic(
        observation_space=observations,
        action_space=actions,
        model_config={"fcnet_hiddens": [8], "imagination": settings, **model_config},
    )


def experience(imagination, rows=200, seed=0):
    """Return steps of simple dynamics: ``o' = o + 0.5 B a``, ``r = -|o'|^2``; it ends where ``o'_0 > 1``."""
    draws = torch.Generator().manual_seed(seed)
    obs = 2 * torch.rand(rows, 3, generator=draws) - 1
    size = imagination.num_actions
    if imagination.is_discrete:
        actions = torch.nn.functional.one_hot(torch.randint(size, (rows,), generator=draws), size).float()
        targets = torch.softmax(torch.stack([obs[:, 0], -obs[:, 0], obs[:, 1], obs[:, 2]], 1), -1)
    else:
        actions = 2 * torch.rand(rows, size, generator=draws) - 1
        targets = -obs[:, :size]
    push = torch.linspace(-1, 1, 3 * size).reshape(size, 3)
    following = obs + 0.5 * actions @ push
    ended = (following[:, 0] > 1).float()
    return Experience(obs, actions, -(following**2).sum(-1), following, ended, targets)


def experienced(imagination):
    """Take in scales that are far from 0 and 1."""
    imagination.take_in(experience(imagination)._replace(rewards=3 + 2 * torch.randn(200)))
    return imagination
