"""`PolicyNetwork`: from observations to the parameters of a distribution over actions, in plain torch.

The same object acts in runners, evaluations and policy files, and stands in the loss: network, memory, Q operator and
exploration are applied here and nowhere else. It needs no Ray; `PolicySpec` describes it, and with its weights
rebuilds it.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import nn

from qio_envs.api import ConfigError
from qio_rllib.exploration import Amplification, operate
from qio_rllib.fused.q_values import dueling
from qio_rllib.fused.stack import Layers, forward
from qio_rllib.models.circuits import CIRCUIT, CircuitSettings
from qio_rllib.models.coordination import COORDINATION, CoordinationSettings
from qio_rllib.models.imagination import (
    IMAGINATION,
    Imagination,
    ImaginationSettings,
    ImaginingEncoder,
    Shape,
    check_imagination,
)
from qio_rllib.models.memory import Memory, memory_kind
from qio_rllib.models.messages import Speaker, Spoken
from qio_rllib.models.networks import Encoder, Head, NetworkSettings
from qio_rllib.models.normalization import NORMALIZE_OBSERVATIONS, RunningScale
from qio_rllib.models.opponent_model import OPPONENT_MODEL, OTHER_AGENTS, OpponentModel

CATEGORICAL = "categorical"
GAUSSIAN = "gaussian"
DETERMINISTIC = "deterministic"
SQUASHED_GAUSSIAN = "squashed_gaussian"
EPSILON_GREEDY = "epsilon_greedy"
PRODUCT = "product"
DISCRETE = (CATEGORICAL, EPSILON_GREEDY)
DISTRIBUTIONS = (CATEGORICAL, GAUSSIAN, DETERMINISTIC, SQUASHED_GAUSSIAN, EPSILON_GREEDY, PRODUCT)

LEAST_PROBABILITY = 1e-12
_LEAST_DEVIATION = 1e-8  # a Gaussian needs a deviation above 0
_LOG_STD_RANGE = (-20.0, 2.0)  # of squashed Gaussians, as Haarnoja et al. (2018) bound them


@dataclasses.dataclass(frozen=True)
class PolicySpec:
    """All that `PolicyNetwork` is built from; `as_dict` is fit for JSON.

    Attributes:
        observation_shape: Of one agent's observation, a one-hot agent index in it included.
        distribution: One of `DISTRIBUTIONS`. "deterministic" is a Gaussian about a deterministic action in [-1, 1],
            with the deviation `PolicyNetwork.exploration`; "epsilon_greedy" takes the outputs as Q-values; "product" is
            of independent factors: categorical ones, and Gaussian ones behind them.
        num_actions: Discrete actions, or components of a continuous one; of a product its Gaussian factors.
        bandwidth: Numbers (or bits) in a message's value, and in an inbox; 0 without communication.
        signature: Numbers (or bits) in its signature, and in a query; 0 where messages are not targeted.
        binary_messages: Whether messages are bits.
        gated: Whether agents decide whether to speak.
        dueling: Whether Q-values are a state value plus advantages (Wang et al., 2016).
        small_outputs: Whether the last layer begins near 0, where tanh and softmax have gradients.
        network: Keys of ``model_config`` that shape it: those of `NetworkSettings`, ``use_lstm``, ``lstm_cell_size``,
            ``use_gru``, ``gru_cell_size``, ``circuit``, ``coordination``, ``imagination``, ``amplification``,
            ``normalize_observations``, ``opponent_model`` and ``other_agents``.
        has_action_mask: Whether observations come with an action mask.
        factors: How many values each categorical factor of a product takes.
    """

    observation_shape: tuple[int, ...]
    distribution: str
    num_actions: int
    bandwidth: int = 0
    signature: int = 0
    binary_messages: bool = False
    gated: bool = False
    dueling: bool = False
    small_outputs: bool = False
    has_action_mask: bool = False
    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    factors: tuple[int, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the specification that `as_dict` described."""
        tuples = {key: tuple(values.get(key, ())) for key in ("observation_shape", "factors")}
        return cls(**{**values, **tuples})

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        return dataclasses.asdict(self)

    @property
    def input_size(self) -> int:
        """Numbers in a row that the network takes."""
        return math.prod(self.observation_shape) + self.bandwidth

    @property
    def is_discrete(self) -> bool:
        """Whether actions are discrete."""
        return self.distribution in DISCRETE

    @property
    def num_parameters(self) -> int:
        """Numbers ``K`` that the distribution is given by."""
        return sum(self.factors) + self.num_actions * (1 if self.is_discrete else 2)


def network_keys(model_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of ``model_config`` a `PolicySpec` keeps."""
    kept = {*NetworkSettings().as_dict(), "use_lstm", "lstm_cell_size", "use_gru", "gru_cell_size"}
    kept |= {CIRCUIT, COORDINATION, IMAGINATION, "amplification", NORMALIZE_OBSERVATIONS}
    kept |= {OPPONENT_MODEL, OTHER_AGENTS}
    return {key: value for key, value in model_config.items() if key in kept}


class PolicyNetwork(nn.Module):
    """Imagination, encoder, memory, head, Q operator and exploration of one policy.

    Args:
        spec: What to build.

    Attributes:
        imagination: What imagines rollouts, or None.
        opponents: What predicts the other agents' actions, or None.
        feature_size: Numbers in the features, which the head takes.
        memory: Recurrent cell, or None.
        amplification: The Q operator's settings; its eta, h_min and tau are the buffers of these names.
        exploration: Buffer: deviation of the noise ("deterministic"), share of uniformly random actions ("categorical"
            with ``explore``), or epsilon ("epsilon_greedy"). 0 at first.
        scale: What observations are normalised by, or None.
        samples_only: Whether only samples of the policy mean anything, not its most probable actions: agents that
            share a state could not find them by themselves.

    Raises:
        ConfigError: Settings that contradict each other or do not fit the spaces.
    """

    eta: torch.Tensor
    h_min: torch.Tensor
    tau: torch.Tensor
    exploration: torch.Tensor

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        self.spec = spec
        circuit = CircuitSettings.of(spec.network.get(CIRCUIT))
        coordination = CoordinationSettings.of(spec.network.get(COORDINATION))
        imagination = ImaginationSettings.of(spec.network.get(IMAGINATION))
        self.samples_only = coordination is not None
        self.amplification, self.is_amplified = self._operator()
        self.scale: RunningScale | None = None
        if spec.network.get(NORMALIZE_OBSERVATIONS):
            self.scale = RunningScale(math.prod(spec.observation_shape))
        self.encoder: nn.Module
        self.head: nn.Module
        self.memory: Memory | None = None
        self.imagination: Imagination | None = None
        self.opponents: OpponentModel | None = None
        if imagination is not None:
            others = {CIRCUIT: circuit is not None, COORDINATION: coordination is not None}
            others |= {"communication": spec.bandwidth > 0, "dueling": spec.dueling}
            check_imagination(imagination, spec.observation_shape, others)
        if circuit is not None or coordination is not None:
            self._check_special(circuit is not None, coordination is not None)
            self.encoder = nn.Identity()  # these networks take observations as they are
            self.feature_size = inputs = math.prod(spec.observation_shape)
            if circuit is not None:
                readout = circuit.policy if spec.distribution == CATEGORICAL else "observables"
                self.head = circuit.network(inputs, spec.num_actions, readout)
            else:
                assert coordination is not None
                self.head = coordination.network(inputs, spec.num_actions)
        else:
            settings = NetworkSettings.of(spec.network)
            encoder: Encoder | ImaginingEncoder
            if imagination is None:
                encoder = Encoder(spec.observation_shape, spec.bandwidth, settings)
            else:
                inputs = math.prod(spec.observation_shape)
                shape = Shape.of(imagination, inputs, spec.num_actions, spec.is_discrete)
                encoder = ImaginingEncoder(spec.observation_shape, shape, imagination, settings)
                self.imagination = Imagination(shape, inputs, spec.num_actions, spec.is_discrete, imagination)
            self.encoder = encoder
            self.memory = Memory.of(spec.network, encoder.size)
            self.feature_size = features = encoder.size if self.memory is None else self.memory.size
            two = spec.distribution in (GAUSSIAN, SQUASHED_GAUSSIAN, PRODUCT)
            logits = sum(spec.factors)
            outputs = logits + spec.num_actions * (2 if two else 1)
            gaussian = spec.distribution in (GAUSSIAN, PRODUCT) and spec.num_actions > 0
            self.opponents = OpponentModel.of(spec.network, features, settings.fcnet_activation)
            if self.opponents is not None:
                features += self.opponents.fed_size
            self.head = Head(features, outputs + spec.dueling, settings, gaussian, logits)
            if spec.small_outputs:
                last = self.head.layers[-1]
                assert isinstance(last, nn.Linear)
                with torch.no_grad():
                    last.weight.mul_(0.1)
                    last.bias.zero_()
        self.speaker: Speaker | None = None
        if spec.bandwidth:
            settings = NetworkSettings.of(spec.network)
            self.speaker = Speaker(
                math.prod(spec.observation_shape) + (0 if self.memory is None else self.memory.size),
                settings.fcnet_hiddens,
                settings.fcnet_activation,
                spec.bandwidth,
                spec.signature,
                spec.binary_messages,
                spec.gated,
            )
        for name in ("eta", "h_min", "tau"):
            self.register_buffer(name, torch.tensor(getattr(self.amplification, name)))
        self.register_buffer("exploration", torch.tensor(0.0))

    @property
    def state_size(self) -> int:
        """Numbers in the memory's state of one agent; 0 without memory."""
        return 0 if self.memory is None else self.memory.state_size

    def target(self) -> PolicyNetwork:
        """Return a copy that a learner lets follow this network."""
        return copy.deepcopy(self).requires_grad_(False)

    def forward(
        self,
        rows: torch.Tensor,
        legal: torch.Tensor | None = None,
        state: torch.Tensor | None = None,
        explore: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Advance one step.

        Args:
            rows: Observations, with inboxes behind them: float32 ``[B, input_size]``.
            legal: Legal actions, bool ``[B, A]``; None for all.
            state: Of the memory, ``[B, S]``; None without memory.
            explore: Whether the distribution is that of exploration.

        Returns:
            Parameters of the distribution ``[B, K]``, and the next state.
        """
        if self.memory is None:
            return self.distribution(self.outputs_of(self.perceived(rows)), legal, explore), None
        features, state = self.features(self.perceived(rows), state)
        return self.distribution(self.outputs(features), legal, explore), state

    def perceived(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what the encoder takes: rows ``[..., input_size]`` in the units of `scale`.

        Behind them are imagined rollouts, if there are.
        """
        if self.scale is not None:
            return self.scale(rows)
        return rows if self.imagination is None else torch.cat([rows, self.imagination(rows)], dim=-1)

    def features(
        self, rows: torch.Tensor, state: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return what the head takes, ``[B, F]``, and the next state; rows as `perceived` gives them."""
        features = self.encoder(rows)
        if self.memory is None:
            return features, None
        assert state is not None
        return self.memory(features, state)

    def unrolled(self, rows: torch.Tensor, state: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
        """Return what the head takes for whole sequences, ``[T, B, F]``; rows as `perceived` gives them.

        The other arguments are those of `Memory.unroll`.
        """
        assert self.memory is not None
        return self.memory.unroll(self.encoder(rows), state, fresh)[0]

    def outputs(self, features: torch.Tensor, others: torch.Tensor | None = None) -> torch.Tensor:
        """Return the head's outputs before mask, operator and exploration, ``[..., K]``; dueling heads are joined.

        Args:
            features: ``[..., F]``.
            others: What `opponents` gives for them, where it is known already.
        """
        return self._joined(
            self.head(features if self.opponents is None else self.opponents.beside(features, others))
        )

    def outputs_of(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what `outputs` does, of rows as `perceived` gives them; of a network without memory."""
        if self.opponents is not None or not isinstance(self.head, Head):
            return self.outputs(self.features(rows, None)[0])
        return self._joined(self.head.behind(self.encoder, rows))

    def layers(self) -> Layers | None:
        """Return all layers of a network without memory as `outputs_by` takes them; None where it does not."""
        encoder, head = self.encoder, self.head
        if self.opponents is not None or self.memory is not None or not isinstance(head, Head):
            return None
        if not isinstance(encoder, Encoder) or encoder.convolutions is not None:
            return None
        first, second = encoder.layers.layers(), head.layers.layers()
        return None if first is None or second is None else Layers([*first, *second])

    def outputs_by(self, layers: Layers, rows: torch.Tensor) -> torch.Tensor:
        """Return what `outputs_of` does of rows ``[B, input_size]``, by kernels, without gradients."""
        seen = self.perceived(rows).contiguous()
        if seen.shape[1] != layers[0].linear.in_features or not len(seen):
            return self.outputs_of(seen)
        found, _ = forward(seen, layers.activations, layers.parameters(), keep=False)
        assert isinstance(self.head, Head)
        return self._joined(self.head.shaped(found))

    def _joined(self, found: torch.Tensor) -> torch.Tensor:
        if not self.spec.dueling:
            return found
        joined = dueling(found)
        if joined is not None:
            return joined
        value, advantage = found[..., :1], found[..., 1:]
        return value + advantage - advantage.mean(dim=-1, keepdim=True)

    def speak(
        self,
        observations: torch.Tensor,
        state: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
    ) -> Spoken:
        """Return what agents say.

        Args:
            observations: Flat, ``[..., D]``.
            state: Of the memory before this step, whose output speakers see too, ``[..., S]``; None without memory.
            noise: As for `Speaker.forward`.
        """
        assert self.speaker is not None
        if self.memory is None:
            return self.speaker(observations, noise)
        assert state is not None
        # an LSTM's state begins with its output
        return self.speaker(torch.cat([observations, state[..., : self.memory.size]], dim=-1), noise)

    def operated(self, logits: torch.Tensor, legal: torch.Tensor | None) -> torch.Tensor:
        """Return logits with mask and operator behind them; as they are where there is neither."""
        if not self.is_amplified and legal is None:
            return logits
        return operate(self.amplification, logits, self.eta, self.h_min, self.tau, legal)

    def distribution(
        self, outputs: torch.Tensor, legal: torch.Tensor | None, explore: bool = False
    ) -> torch.Tensor:
        """Return the parameters of the distribution for the head's outputs ``[..., K]``.

        Categorical: logits (log-probabilities with an operator or a mask) ``[..., A]``. Gaussian and squashed Gaussian:
        means and log deviations ``[..., 2 D]``; of the latter before tanh. Product: the former of each categorical
        factor, then the latter of all Gaussian ones. The operator acts on the amplitudes of each categorical factor by
        itself, with the same strength, floor and temperature: on the product state of all factors it is the tensor
        product of these operators, and leaves it a product state.
        """
        kind = self.spec.distribution
        if kind == PRODUCT:
            if not self.is_amplified:
                return outputs
            factors = self.spec.factors
            *logits, rest = outputs.split([*factors, outputs.shape[-1] - sum(factors)], dim=-1)
            return torch.cat([*(self.operated(factor, None) for factor in logits), rest], dim=-1)
        if kind == GAUSSIAN:
            return outputs
        if kind == SQUASHED_GAUSSIAN:
            mean, log_std = outputs.chunk(2, dim=-1)
            return torch.cat([mean, log_std.clamp(*_LOG_STD_RANGE)], dim=-1)
        if kind == DETERMINISTIC:
            deviation = self.exploration.clamp_min(_LEAST_DEVIATION).log().expand_as(outputs)
            return torch.cat([torch.tanh(outputs), deviation], dim=-1)
        if kind == EPSILON_GREEDY:
            return self._epsilon_greedy(outputs, legal, explore)
        logits = self.operated(outputs, legal)
        if not explore or not self.exploration > 0:
            return logits
        return self._mixed(torch.log_softmax(logits, dim=-1).exp(), legal)

    def _epsilon_greedy(
        self, q_values: torch.Tensor, legal: torch.Tensor | None, explore: bool
    ) -> torch.Tensor:
        allowed = q_values if legal is None else q_values.masked_fill(~legal, -torch.inf)
        if not explore:
            return allowed.clamp_min(torch.finfo(q_values.dtype).min)
        best = nn.functional.one_hot(allowed.argmax(dim=-1), q_values.shape[-1]).to(q_values.dtype)
        return self._mixed(best, legal)

    def _mixed(self, probabilities: torch.Tensor, legal: torch.Tensor | None) -> torch.Tensor:
        """Return log-probabilities of a mixture with uniform play over the legal actions."""
        count = probabilities.shape[-1] if legal is None else legal.sum(-1, keepdim=True)
        share = self.exploration.clamp(max=1.0)
        mixed = (probabilities * (1 - share) + share / count).clamp_min(LEAST_PROBABILITY).log()
        return mixed if legal is None else torch.where(legal, mixed, torch.finfo(mixed.dtype).min)

    def _operator(self) -> tuple[Amplification, bool]:
        settings = self.spec.network.get("amplification")
        if settings is None:
            return Amplification(0.0, 0.0, 1.0), False
        if self.spec.distribution != CATEGORICAL and not self.spec.factors:
            raise ConfigError("amplification: needs a policy over discrete actions")
        return Amplification(**settings), True

    def _check_special(self, circuit: bool, coordination: bool) -> None:
        """Refuse what goes with neither circuits nor coordination."""
        if circuit and coordination:
            raise ConfigError("coordination: takes the place of a circuit; set one of the two")
        kind = memory_kind(self.spec.network)
        if kind is not None:
            what = "a circuit" if circuit else "a coordinated policy"
            raise ConfigError(f"use_{kind}: {what} has no memory")
        if not self.spec.is_discrete:
            key = CIRCUIT if circuit else COORDINATION
            raise ConfigError(f"{key}: needs a Discrete action space")
        if self.spec.network.get(OPPONENT_MODEL) is not None:
            key = CIRCUIT if circuit else COORDINATION
            raise ConfigError(f"{OPPONENT_MODEL}: does not go with {key}; set one of the two to null")
        if self.spec.bandwidth:
            what = "a circuit" if circuit else "a coordinated policy"
            raise ConfigError(f"communication: {what} takes no messages; set it to null")
        if self.spec.dueling:
            raise ConfigError("dueling: a circuit has one head; set dueling to false")
        if circuit and self.spec.distribution == EPSILON_GREEDY:
            readout = self.spec.network[CIRCUIT].get("policy", "observables")
            if readout != "observables":
                raise ConfigError(
                    f"circuit.policy: Q-values are expectations; allowed: observables, got {readout!r}"
                )
        if coordination and self.spec.has_action_mask:
            raise ConfigError(
                "coordination: an action mask of the team tells each agent what the others may do; "
                "take an environment without masks"
            )
        if coordination and self.is_amplified:
            raise ConfigError(
                "amplification: acts on the joint distribution, which separate agents cannot do; "
                "set it to null with coordination"
            )
