"""The critic of COMA: what each of an agent's actions is worth, given what the other agents do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from qio_rllib.layers import ACTIVATIONS, hidden_layers
from qio_rllib.models.joint_critics import GroupShape, JointView


class CounterfactualCritic(nn.Module):
    """Q(s, u_-a, .): the values of all actions of an agent in one pass (Foerster et al., 2018, section 4, figure 1c).

    Its input is the global state, the agent's own observation, which agent of its module it is (one-hot), and the
    others' actions. Those of absent agents, and the agent's own, are zeros.

    Args:
        groups: All modules' agents.
        own: Index of the module that it values.
        state_size: Numbers in a global state, at least 1.
        hiddens: Sizes of the hidden layers, at least one.
        activation: A key of `qio_rllib.layers.ACTIVATIONS`.

    Attributes:
        head: The linear layer that the values come from.
    """

    others: torch.Tensor

    def __init__(
        self,
        groups: Sequence[GroupShape],
        own: int,
        state_size: int,
        hiddens: Sequence[int],
        activation: str,
    ) -> None:
        super().__init__()
        self.own = own
        group = groups[own]
        sizes = [each.agents * each.actions for each in groups]
        # The first layer in parts: the state is the same for all agents of an environment.
        self.from_state = nn.Linear(state_size, hiddens[0])
        self.from_obs = nn.Linear(group.obs + 1, hiddens[0], bias=False)
        self.from_agent = nn.Linear(group.agents, hiddens[0], bias=False)
        self.from_actions = nn.Linear(sum(sizes), hiddens[0], bias=False)
        self.body = nn.Sequential(ACTIVATIONS[activation](), *hidden_layers(hiddens, activation))
        self.head = nn.Linear(hiddens[-1], group.actions)
        others = torch.ones(group.agents, sum(sizes))
        for agent in range(group.agents):
            start = sum(sizes[:own]) + agent * group.actions
            others[agent, start : start + group.actions] = 0.0
        self.register_buffer("others", others, persistent=False)

    def forward(self, joint: JointView, actions: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the value of each action of the module's agents while all others do what they did, ``[B, M, A]``.

        Args:
            joint: What was observed, with a global state.
            actions: Of all modules' agents, one-hot, each ``[B, M, A]``.
        """
        assert joint.global_state is not None
        done = torch.cat([acts.flatten(1) for acts in joint.executed(actions)], dim=-1)
        hidden = (
            self.from_state(joint.global_state).unsqueeze(1)
            + self.from_obs(joint.features[self.own])
            + self.from_agent.weight.t()
            + self.from_actions(done.unsqueeze(1) * self.others)
        )
        return self.head(self.body(hidden))
