"""Linear feedback as a policy that files, evaluation and videos know: a network of one layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from qio_envs.api import BatchedEnv
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.policy import GroupSpaces, Policy
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.models.networks import Head
from qio_rllib.models.policy_network import GAUSSIAN, PolicyNetwork, PolicySpec

_MODULE = "linear"
_LOG_DEVIATION = -20.0  # the least that the head allows: sampled actions are those of the feedback


def linear_policy(gain: np.ndarray, env: BatchedEnv, env_config: Mapping[str, Any]) -> Policy:
    """Return the policy whose actions are ``-gain @ observation``, clipped to the action space.

    Args:
        gain: ``[A, D]``.
        env: For its spaces; every agent acts by the same gain.
        env_config: The environment's settings, for whoever loads the policy.
    """
    count, size = gain.shape
    spec = PolicySpec((size,), GAUSSIAN, count, network={"fcnet_hiddens": []})
    network = PolicyNetwork(spec).eval()
    with torch.no_grad():
        assert isinstance(network.head, Head)
        layer = network.head.layers[0]
        assert isinstance(layer, torch.nn.Linear)
        layer.weight.zero_()
        layer.weight[:count] = -torch.from_numpy(gain).float()
        layer.bias.zero_()
        layer.bias[count:] = _LOG_DEVIATION
    actor = NetworkActor(network, ActionSpec.of(env.action_space, rescaled=False))
    group = AgentGroup(_MODULE, env.possible_agents, np.arange(env.num_agents), actor)
    return Policy(Team([group]), {_MODULE: GroupSpaces((size,))}, env.id, dict(env_config))
