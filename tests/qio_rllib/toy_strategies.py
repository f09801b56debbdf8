"""Policies of matrix games with known mixed strategies."""

import gymnasium
import numpy as np
import torch

from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.policy import GroupSpaces, Policy
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.models.policy_network import PolicyNetwork, PolicySpec
from qio_rllib.sampling.environments import make_vector_env

ENV, SETTINGS = "matrix_game_v0", {"scenario": "rock_paper_scissors", "rounds": 4, "memory": 0}
NAMES = ("rock", "paper", "scissors")
NETWORK = {"fcnet_hiddens": [5]}


def policy_of(strategy, together=True, settings=None, network=NETWORK):
    """Return a policy that always takes an action, or draws it with some probabilities.

    Args:
        strategy: The action, or a probability for each.
        together: Whether one module acts for both players, or one for each.
        settings: Of the game; rock, paper, scissors by default.
        network: ``model_config``.
    """
    settings = SETTINGS if settings is None else settings
    env = make_vector_env(ENV, settings, 1)
    first = env.agents[0]
    seen, actions = env.observation_spaces[first], env.action_spaces[first]
    masked = isinstance(seen, gymnasium.spaces.Dict)
    chances = np.eye(actions.n)[strategy] if np.ndim(strategy) == 0 else np.asarray(strategy)
    members = [list(range(len(env.agents)))] if together else [[index] for index in range(len(env.agents))]
    groups, spaces = [], {}
    for number, index in enumerate(members):
        spec = PolicySpec(
            observation_shape=(seen["observation"] if masked else seen).shape,
            distribution="categorical",
            num_actions=int(actions.n),
            has_action_mask=masked,
            network=network,
        )
        policy = PolicyNetwork(spec)
        for parameter in policy.parameters():
            parameter.data.zero_()
            if parameter.shape == (actions.n,):
                parameter.data[:] = torch.tensor(np.log(np.maximum(chances, 1e-22)), dtype=torch.float32)
        agents = tuple(env.agents[place] for place in index)
        module = "shared" if together else f"m{number}"
        actor = NetworkActor(policy, ActionSpec.of(actions, False))
        groups.append(AgentGroup(module, agents, np.array(index), actor))
        spaces[module] = GroupSpaces.of(seen, actions)
    env.close()
    return Policy(Team(groups), spaces, ENV, settings)
