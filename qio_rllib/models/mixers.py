"""Mixers: the value of what a team does, from the values of what its agents do."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import torch
from torch import nn

from qio_rllib.fused.mixing import mixed
from qio_rllib.fused.stack import layers_of
from qio_rllib.layers import mlp
from qio_rllib.mapping_settings import MappingSettings

MIXER = "mixer"
"""Key of the settings, also in ``model_config``."""
SUM, MONOTONIC = "sum", "monotonic"
MIXER_TYPES = (SUM, MONOTONIC)
STATE_SOURCES = (None, "state", "observations")


@dataclasses.dataclass(frozen=True)
class MixerSettings(MappingSettings):
    """``training(mixer={...})``.

    Attributes:
        type: "monotonic", a network whose weights come from the global state and are not negative (Rashid et al.,
            2018), or "sum" (Sunehag et al., 2018), which needs no state and no other key here.
        state: What the weights come from: "state", the environment's ``state()``; "observations", those of all agents;
            None for the first where there is one and the second elsewhere.
        embedding: Numbers in the hidden layer, at least 1.
        hypernet_hiddens: Sizes of the hidden layers between state and weights; ``[]`` makes the weights linear in it.
        layer_norm: Whether each state is moved to mean 0 and deviation 1 over its numbers first (Ba et al., 2016). For
            states with large numbers, such as positions of up to 32: a team's value would begin at tens otherwise, and
            be unlearned for a long time.
    """

    key: ClassVar[str] = MIXER

    type: str = MONOTONIC
    state: str | None = None
    embedding: int = 32
    hypernet_hiddens: tuple[int, ...] = (64,)
    layer_norm: bool = False

    def checks(self) -> list[tuple[str, str, bool]]:
        """Return what is checked; see `MappingSettings`."""
        sizes = self.hypernet_hiddens
        return [
            ("type", f"one of {', '.join(MIXER_TYPES)}", self.type in MIXER_TYPES),
            ("state", "state, observations or null", self.state in STATE_SOURCES),
            ("embedding", "an integer of at least 1", _is_size(self.embedding)),
            (
                "hypernet_hiddens",
                "a list of sizes of at least 1",
                isinstance(sizes, list | tuple) and all(_is_size(size) for size in sizes),
            ),
            ("layer_norm", "true or false", isinstance(self.layer_norm, bool)),
        ]

    @property
    def needs_state(self) -> bool:
        """Whether it looks at the global state."""
        return self.type == MONOTONIC


class Mixer(nn.Module, abc.ABC):
    """Gives a team's value, which rises, or stays, when the value of one agent rises."""

    @abc.abstractmethod
    def forward(self, values: torch.Tensor, states: torch.Tensor | None) -> torch.Tensor:
        """Return the team's values ``[B]``.

        Args:
            values: Of the agents' actions, ``[B, N]``; 0 for agents that are not there.
            states: Global states ``[B, S]``.
        """

    @classmethod
    def of(cls, settings: MixerSettings, num_agents: int, state_size: int) -> Mixer:
        """Return the mixer that settings describe, for ``N`` agents and states of ``S`` numbers."""
        if settings.type == SUM:
            return SumMixer()
        return MonotonicMixer(num_agents, state_size, settings)


class SumMixer(Mixer):
    """Values add up (P. Sunehag et al., "Value-Decomposition Networks", 2018, equation 1)."""

    def forward(self, values: torch.Tensor, states: torch.Tensor | None) -> torch.Tensor:
        """Return ``[B]``; see `Mixer.forward`."""
        return values.sum(dim=1)


class MonotonicMixer(Mixer):
    """A hidden layer whose weights are absolute values of what hypernetworks make of the state.

    T. Rashid et al., "QMIX: Monotonic Value Function Factorisation for Deep Multi-Agent Reinforcement Learning", 2018,
    section 4: ``w2(s)^T ELU(W1(s)^T q + b1(s)) + v(s)``, biases without a sign.

    Args:
        num_agents: ``N``.
        state_size: Numbers ``S`` in a state, at least 1.
        settings: Sizes.
    """

    def __init__(self, num_agents: int, state_size: int, settings: MixerSettings) -> None:
        super().__init__()
        size, hiddens = settings.embedding, list(settings.hypernet_hiddens)
        self.first_weights = mlp([state_size, *hiddens, num_agents * size], "relu")
        self.first_biases = nn.Linear(state_size, size)
        self.last_weights = mlp([state_size, *hiddens, size], "relu")
        self.last_bias = mlp([state_size, size, 1], "relu")
        self.size, self.layer_norm = size, settings.layer_norm

    def forward(self, values: torch.Tensor, states: torch.Tensor | None) -> torch.Tensor:
        """Return ``[B]``; see `Mixer.forward`."""
        assert states is not None
        if self.layer_norm:
            states = nn.functional.layer_norm(states, states.shape[-1:])
        layers = [part.layers() for part in (self.first_weights, self.last_weights, self.last_bias)]
        found = mixed(values, states, [layers[0], layers_of([self.first_biases]), *layers[1:]])
        if found is not None:
            return found
        first = self.first_weights(states).abs().unflatten(-1, (-1, self.size))  # [B, N, H]
        # A batch of products of one row: multiplied and added up, several times faster than bmm.
        hidden = nn.functional.elu((values.unsqueeze(-1) * first).sum(dim=1) + self.first_biases(states))
        last = self.last_weights(states).abs()
        return (hidden * last).sum(dim=-1) + self.last_bias(states).squeeze(-1)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
