"""Networks that are quantum circuits, and parameter-matched MLPs."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self, cast

import gymnasium
import torch
from torch import nn

from qio_envs.api import ConfigError
from qio_rllib.models.model_settings import ModelSettings
from qio_rllib.quantum import Measurement, reuploading_circuit, variational_circuit
from qio_rllib.quantum.encodings import Entangler, padded_amplitudes
from qio_rllib.quantum.observables import probabilities

CIRCUIT = "circuit"
_LEAST_PROBABILITY = 1e-12


@dataclasses.dataclass(frozen=True)
class CircuitSettings(ModelSettings):
    """What a circuit network looks like; ``training(circuit={...})``.

    Attributes:
        kind: "circuit", or "classical": the parameter-matched MLP, with exactly as many trainable numbers.
        num_qubits: 1 to 12.
        num_layers: Layers of weights, 1 to 50.
        encoding: How an observation enters the circuit. "angles": as rotations in each layer (data re-uploading).
            "amplitude": as the amplitudes of the first state, padded with zeros to ``2**num_qubits`` and divided by its
            norm, so that an observation, its multiples and its negative are one and the same; zeros are |0...0>.
        policy: "observables" (softmax over weighted Pauli strings) or "born" (the probability of an action is that of
            its share of the basis states); value and Q-networks always measure observables.
        entangler: Gate of the rings, "CNOT" or "CZ".
        inputs: How observations become angles: "linear" (times a trainable scale) or "arctan" of that, for observations
            without bounds; not with "amplitude".
    """

    key: ClassVar[str] = CIRCUIT
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "kind": ("circuit", "classical"),
        "encoding": ("angles", "amplitude"),
        "policy": ("observables", "born"),
        "entangler": ("CNOT", "CZ"),
        "inputs": ("linear", "arctan"),
    }
    highest: ClassVar[Mapping[str, int]] = {"num_qubits": 12, "num_layers": 50}

    kind: str = "circuit"
    num_qubits: int = 4
    num_layers: int = 3
    encoding: str = "angles"
    policy: str = "observables"
    entangler: str = "CNOT"
    inputs: str = "linear"

    @classmethod
    def of(cls, given: Any) -> Self | None:
        """Return the settings of a mapping; None for None.

        Raises:
            ConfigError: An unknown key, a value that is not allowed, or ``inputs: arctan`` without angles.
        """
        settings = super().of(given)
        if settings is not None and settings.encoding == "amplitude" and settings.inputs == "arctan":
            raise ConfigError(
                "circuit.inputs: arctan bounds angles, and with encoding amplitude there are none; "
                "take inputs linear or encoding angles"
            )
        return settings

    def network(self, inputs: int, outputs: int, readout: str = "observables") -> nn.Module:
        """Return a network from ``[B, inputs]`` to ``[B, outputs]``: the circuit, or the MLP of as many parameters.

        Args:
            inputs: Numbers in an observation.
            outputs: Actions, or 1 for a value.
            readout: "observables" or "born".

        Raises:
            ConfigError: More actions than the Born rule over so many qubits can tell apart, an observation with more
                numbers than there are amplitudes, or too few parameters for an MLP.
        """
        circuit = CircuitNetwork(self, inputs, outputs, readout)
        if self.kind == "circuit":
            return circuit
        return ParameterMatchedMLP(inputs, outputs, count_parameters(circuit))


class CircuitNetwork(nn.Module):
    """A circuit that takes observations as angles or amplitudes, and a readout.

    With ``encoding: angles`` it is a data re-uploading circuit with trainable input scales,
    ``x -> scale_l * x -> circuit(weights) -> expectations e of Z and ZZ strings -> output_weight e + bias``, with a
    scale for each layer and input (S. Jerbi et al., "Parametrized quantum policies for reinforcement learning",
    NeurIPS 2021: SOFTMAX-PQC with weighted observables; A. Skolik et al., "Quantum agents in the Gym", Quantum 6,
    720, 2022: input and output scaling). With ``encoding: amplitude`` the first state is ``x / |x|``, padded with
    zeros (M. Schuld, A. Bocharov, K. Svore and N. Wiebe, "Circuit-centric quantum classifiers", Physical Review A 101,
    032308, 2020); weights follow, and there are no scales.

    With the Born readout (RAW-PQC of Jerbi et al.) the outputs are log-probabilities, and there is nothing to train
    behind the circuit: basis states are ordered by their `suffix_parities` and cut into ``A``
    nearly equal runs, so that the choice depends on all qubits whatever ``A`` (a global decoding, as N. Meyer et al.,
    "Quantum policy gradient algorithm with optimized action decoding", ICML 2023, found to learn best).

    Args:
        settings: Size and form.
        inputs: Numbers in an observation, ``D``.
        outputs: ``A``.
        readout: "observables" or "born".

    Raises:
        ConfigError: ``A`` is more than ``2**num_qubits`` with the Born readout, or ``D`` is with amplitudes.
    """

    groups: torch.Tensor

    def __init__(
        self, settings: CircuitSettings, inputs: int, outputs: int, readout: str = "observables"
    ) -> None:
        super().__init__()
        qubits, layers = settings.num_qubits, settings.num_layers
        self.is_bounded = settings.inputs == "arctan"
        self.padding: int | None = None
        entangler = cast(Entangler, settings.entangler)
        if settings.encoding == "amplitude":
            self.padding = 2**qubits - inputs
            if self.padding < 0:
                needed, most = (inputs - 1).bit_length(), settings.highest["num_qubits"]
                remedy = (
                    "take encoding angles" if needed > most else f"take {needed} or more, or encoding angles"
                )
                raise ConfigError(
                    f"circuit.num_qubits: {qubits} qubits have {2**qubits} amplitudes, an observation has {inputs} "
                    f"numbers; {remedy}"
                )
            self.circuit = variational_circuit(qubits, layers, entangler)
        else:
            self.circuit = reuploading_circuit(qubits, layers, inputs, entangler)
            self.scales = nn.Parameter(torch.ones(layers, inputs))
        self.weights = nn.Parameter(torch.empty(self.circuit.num_weights).uniform_(-math.pi, math.pi))
        self.measurement: Measurement | None = None
        if readout == "born":
            if outputs > 2**qubits:
                raise ConfigError(
                    f"circuit.num_qubits: the Born rule over {qubits} qubits tells {2**qubits} actions apart, "
                    f"there are {outputs}"
                )
            group = suffix_parities(qubits) * outputs // 2**qubits
            self.register_buffer("groups", nn.functional.one_hot(group, outputs).to(torch.float32))
        else:
            pairs = itertools.combinations(range(qubits), 2)
            strings = [f"Z{q}" for q in range(qubits)] + [f"Z{a} Z{b}" for a, b in pairs]
            self.measurement = Measurement(qubits, strings)
            self.readout = nn.Linear(len(strings), outputs)
            nn.init.zeros_(self.readout.bias)
        with torch.no_grad():  # makes the circuit's constants, which a trace would not keep
            self(torch.zeros(2, inputs))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Return logits, log-probabilities or values, float32 ``[B, A]``, of observations ``[B, ...]``."""
        rows = observations.flatten(1)
        if self.padding is not None:
            state = self.circuit.state(self.weights, initial=padded_amplitudes(rows, self.padding))
        else:
            angles = rows.unsqueeze(1) * self.scales
            if self.is_bounded:
                angles = torch.arctan(angles)
            state = self.circuit.state(self.weights, angles.flatten(1))
        if self.measurement is None:
            return (probabilities(state) @ self.groups).clamp_min(_LEAST_PROBABILITY).log()
        return self.readout(self.measurement.expectation(state))


def suffix_parities(num_qubits: int) -> torch.Tensor:
    """Return for each basis state the number whose bit ``i`` is the parity of its bits from ``i`` on, int64 ``[2**n]``.

    A permutation. Its first bit depends on every qubit, so that a choice between two actions does too.
    """
    states, result = torch.arange(2**num_qubits), torch.zeros(2**num_qubits, dtype=torch.int64)
    for shift in range(num_qubits):  # an exclusive or with all that lies below a bit
        result ^= (states << shift) & (2**num_qubits - 1)
    return result


class ParameterMatchedMLP(nn.Module):
    """An MLP with one hidden layer of tanh and exactly so many trainable numbers.

    The hidden layer has the least width that could hold them; connections of the first layer that would be too many are
    left out, evenly spaced.

    Args:
        inputs: ``D``.
        outputs: ``A``.
        parameters: Number of trainable numbers.

    Raises:
        ConfigError: No such network has so many: fewer than ``2 A + 1``, or with few inputs what lies between two
            widths.
    """

    places: torch.Tensor

    def __init__(self, inputs: int, outputs: int, parameters: int) -> None:
        super().__init__()
        hidden = math.ceil((parameters - outputs) / (inputs + 1 + outputs))
        connections = parameters - outputs - hidden * (1 + outputs)
        if hidden < 1 or connections < 0:
            raise ConfigError(
                f"circuit: no network of {inputs} inputs and {outputs} outputs has just {parameters} parameters; "
                "take other numbers of qubits or layers"
            )
        self.shape = (hidden, inputs)
        self.first = nn.Parameter(torch.randn(connections) / math.sqrt(max(inputs, 1)))
        total = hidden * inputs
        kept = torch.ones(total, dtype=torch.bool)
        kept[torch.linspace(0, total - 1, total - connections).round().long()] = False
        self.register_buffer("places", kept.nonzero().squeeze(-1))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.last = nn.Linear(hidden, outputs)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Return logits or values, float32 ``[B, A]``, of observations ``[B, ...]``."""
        hidden, inputs = self.shape
        matrix = self.first.new_zeros(hidden * inputs).index_copy(0, self.places, self.first)
        first = nn.functional.linear(observations.flatten(1), matrix.reshape(hidden, inputs), self.bias)
        return self.last(torch.tanh(first))


def count_parameters(network: nn.Module) -> int:
    """Return how many trainable numbers a network has."""
    return sum(parameter.numel() for parameter in network.parameters())


def check_circuit_spaces(
    observation_space: gymnasium.Space, action_space: gymnasium.Space
) -> tuple[int, int]:
    """Return the number of actions and of an observation's numbers.

    Raises:
        ConfigError: The actions are not discrete, or observations are no box.
    """
    if not isinstance(action_space, gymnasium.spaces.Discrete):
        raise ConfigError(f"circuit: needs a Discrete action space, got {action_space}")
    if not isinstance(observation_space, gymnasium.spaces.Box):
        raise ConfigError(f"circuit: needs observations in a Box, got {observation_space}")
    return int(action_space.n), math.prod(observation_space.shape)
