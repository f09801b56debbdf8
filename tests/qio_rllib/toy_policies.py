"""Policies that tests write down by hand, or with random weights."""

import numpy as np
import torch

from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.policy import GroupSpaces, Policy
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.models.policy_network import CATEGORICAL, GAUSSIAN, PolicyNetwork, PolicySpec
from qio_rllib.models.spaces import bare_space, is_masked_space
from qio_rllib.sampling.environments import make_vector_env


def toy_policy(env_id, settings=None, network=None, modules=1, scale=3.0):
    """Random weights, ``scale`` times those of the start, so that something depends on what is seen."""
    settings = settings or {}
    env = make_vector_env(env_id, dict(settings), 1)
    groups, spaces = [], {}
    for place, index in enumerate(np.array_split(np.arange(len(env.agents)), modules)):
        agents = tuple(env.agents[agent] for agent in index)
        seen, action = env.observation_spaces[agents[0]], ActionSpec.of(env.action_spaces[agents[0]], False)
        shape, kind = bare_space(seen).shape, GAUSSIAN if action.count is None else CATEGORICAL
        torch.manual_seed(place)
        count = action.count or len(action.low)
        net = PolicyNetwork(PolicySpec(shape, kind, count, network=network or {"fcnet_hiddens": [8]})).eval()
        with torch.no_grad():
            for part in net.parameters():
                part.mul_(scale)
        name = "shared" if modules == 1 else f"m{place}"
        groups.append(AgentGroup(name, agents, index, NetworkActor(net, action)))
        spaces[name] = GroupSpaces(shape, action.count if is_masked_space(seen) else None)
    env.close()
    return Policy(Team(groups), spaces, env_id, settings)


def linear_policy(env_id, gain, bias=0.0, settings=None, log_deviation=-2.0):
    """Means, or logits, are ``gain @ obs + bias``."""
    gain = np.asarray(gain, np.float32)
    policy = toy_policy(env_id, settings, {"fcnet_hiddens": []})
    (group,) = policy.team.groups
    layer = group.actor.network.head.layers[0]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(log_deviation)
        layer.weight[: len(gain)] = torch.from_numpy(gain)
        layer.bias[: len(gain)] = torch.as_tensor(bias)
    return policy
