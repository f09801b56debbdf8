"""Value networks: from an agent's own observation, or for central critics from the whole environment."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from qio_rllib.models.circuits import CIRCUIT, CircuitSettings
from qio_rllib.models.imagination import IMAGINATION, ImaginationSettings, ImaginingEncoder, Shape
from qio_rllib.models.memory import Memory
from qio_rllib.models.networks import Encoder, Head, NetworkSettings, encoder_layers
from qio_rllib.models.normalization import NORMALIZE_OBSERVATIONS, RunningScale

STATE_SOURCE, STATE_SIZE, NUM_AGENTS = "state_source", "state_size", "num_agents"
"""Keys of ``model_config``: where global states come from, their size, and the number of agents."""
TEAM_VALUE = "team_value"
"""Key of ``model_config``: whether a central value is the team's, of the global state alone."""


@dataclasses.dataclass(frozen=True)
class CentralInputs:
    """What a central critic sees besides observations. Agents of one environment and step share a state.

    Attributes:
        states: Global states, float32 ``[U, S]``.
        rows: Which of them belongs to an observation, int64, the observations' leading axes.
        agents: The agent's index among all agents of the environment, int64, likewise.
    """

    states: torch.Tensor
    rows: torch.Tensor
    agents: torch.Tensor

    def select(self, index: torch.Tensor | slice, axis: int) -> CentralInputs:
        """Return the part of some rows, along an axis, with the states that they use."""
        if isinstance(index, slice):
            place = (slice(None),) * axis + (index,)
            rows, agents = self.rows[place], self.agents[place]
        else:
            rows, agents = self.rows.index_select(axis, index), self.agents.index_select(axis, index)
        return CentralInputs(self.states, rows, agents)

    def used(self) -> CentralInputs:
        """Return the same with the states that rows refer to, each once."""
        kept, rows = torch.unique(self.rows, return_inverse=True)
        return CentralInputs(self.states.index_select(0, kept), rows, self.agents)


class ValueNetwork(nn.Module):
    """Encoder, memory and head of a value estimate.

    Args:
        shape: Of an observation.
        model_config: Layers, memory, circuit.
        central: Numbers in a global state and agents of the environment, for a central critic over the global state,
            the agent's own observation and which agent it is: the agent-specific global state of Yu et al. (2022),
            "The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games", section 5.2. None: the value is
            estimated from the observation.
        imagined: Of what the policy imagines, which stands behind observations; None where it imagines nothing. A
            central critic does not look at it.
        team: Whether a central critic values the global state alone, once for all agents; it needs no memory.

    Attributes:
        state_scale: What a central critic's states are normalised by, or None.
    """

    def __init__(
        self,
        shape: Sequence[int],
        model_config: Mapping[str, Any],
        central: tuple[int, int] | None = None,
        imagined: Shape | None = None,
        team: bool = False,
    ) -> None:
        super().__init__()
        settings = NetworkSettings.of(model_config)
        circuit = CircuitSettings.of(model_config.get(CIRCUIT))
        self.encoder: nn.Module
        self.head: nn.Module
        self.memory: Memory | None = None
        self.is_central = central is not None
        self.is_team = team
        self.size = size = math.prod(shape)
        self.state_scale: RunningScale | None = None
        if central is not None and model_config.get(NORMALIZE_OBSERVATIONS):
            self.state_scale = RunningScale(central[0])
        if circuit is not None and central is None:
            self.encoder, self.head = nn.Identity(), circuit.network(size, 1)
            return
        if central is None and imagined is not None:
            imagination = ImaginationSettings.of(model_config[IMAGINATION])
            assert imagination is not None
            imagining = ImaginingEncoder(shape, imagined, imagination, settings)
            self.encoder, features = imagining, imagining.size
        elif central is None or team:
            encoder = Encoder(shape if central is None else (central[0],), 0, settings)
            self.encoder, features = encoder, encoder.size
        else:
            joint = JointEncoder(central[0], size, central[1], settings)
            self.encoder, features = joint, joint.size
        self.memory = None if team else Memory.of(model_config, features)
        self.head = Head(features if self.memory is None else self.memory.size, 1, settings)

    @property
    def state_size(self) -> int:
        """Numbers in the memory's state; 0 without memory."""
        return 0 if self.memory is None else self.memory.state_size

    @property
    def last_layer(self) -> nn.Linear:
        """The linear layer that the estimate comes from."""
        *_, last = (layer for layer in self.head.modules() if isinstance(layer, nn.Linear))
        return last

    def features(self, rows: torch.Tensor, central: CentralInputs | None) -> torch.Tensor:
        """Return what memory or head take, ``[..., F]``, of observations as `PolicyNetwork.perceived` gives them."""
        if not self.is_central:
            return self.encoder(rows)
        if self.state_scale is not None:
            assert central is not None
            central = dataclasses.replace(central, states=self.state_scale(central.states))
        return self.encoder(rows[..., : self.size], central)

    def forward(
        self, rows: torch.Tensor, central: CentralInputs | None = None, state: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return estimates of one step ``[B]``, and the next state of the memory (None without one)."""
        if self.is_team:
            assert central is not None
            found = self.of_states(central.states)
            return found.index_select(0, central.rows.reshape(-1)).reshape(central.rows.shape), None
        if not self.is_central and self.memory is None and isinstance(self.head, Head):
            return self.head.behind(self.encoder, rows).squeeze(-1), None
        features = self.features(rows, central)
        if self.memory is not None:
            assert state is not None
            features, state = self.memory(features, state)
        return self.head(features).squeeze(-1), state

    def of_states(self, states: torch.Tensor) -> torch.Tensor:
        """Return a team's values ``[U]`` of global states ``[U, S]``."""
        scaled = states if self.state_scale is None else self.state_scale(states)
        assert isinstance(self.head, Head)
        return self.head.behind(self.encoder, scaled).squeeze(-1)

    def unroll(
        self,
        rows: torch.Tensor,
        central: CentralInputs | None,
        state: torch.Tensor,
        fresh: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """Return estimates of sequences, ``[T, B]``, and states by step, as `Memory.unroll` gives them."""
        assert self.memory is not None
        features, states = self.memory.unroll(self.features(rows, central), state, fresh)
        return self.head(features).squeeze(-1), states


class JointEncoder(nn.Module):
    """Hidden layers over the global state, the agent's own observation and a one-hot agent index.

    The first layer works on each state once, whatever the number of agents; states are never repeated row by row.

    Args:
        state_size: Numbers ``S`` in a state, at least 1.
        observation_size: Numbers ``O`` in an observation, at least 1.
        num_agents: Agents ``N`` of the environment, over all modules.
        settings: Layers; without hidden ones there is one of the observation's size.
    """

    def __init__(
        self, state_size: int, observation_size: int, num_agents: int, settings: NetworkSettings
    ) -> None:
        super().__init__()
        hiddens = settings.fcnet_hiddens or (observation_size,)
        self.widths = [state_size, observation_size, num_agents]
        first, *rest = encoder_layers([sum(self.widths), *hiddens], settings)
        assert isinstance(first, nn.Linear)
        self.first, self.rest = first, nn.Sequential(*rest)
        self.size = hiddens[-1]

    def forward(self, rows: torch.Tensor, central: CentralInputs) -> torch.Tensor:
        """Return features ``[..., size]`` of flat observations ``[..., O]``."""
        of_state, of_observation, of_agent = self.first.weight.split(self.widths, dim=1)
        shared = nn.functional.linear(central.states, of_state, self.first.bias)
        own = nn.functional.linear(rows, of_observation)
        return self.rest(own + _rows(shared, central.rows) + _rows(of_agent.t(), central.agents))


def _rows(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return rows of a table by an index of any shape; faster than ``table[index]``."""
    return table.index_select(0, index.reshape(-1)).reshape(*index.shape, -1)
