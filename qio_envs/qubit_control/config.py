"""Settings of qubit control."""

from __future__ import annotations

import dataclasses
from itertools import product

from qio_envs.api import ConfigError, EnvConfig, setting

_TOMOGRAPHY_QUBITS = 4
_ROTATIONS = tuple(f"{axis}({sign}pi/8,{{}})" for axis in ("RX", "RY", "RZ") for sign in "+-")
_ONE_QUBIT_GATES = {
    "clifford": ("H({})", "S({})", "X({})", "Z({})"),
    "clifford_t": ("H({})", "S({})", "T({})"),
    "rotations": _ROTATIONS,
    "published": ("H({})", "X({})", "RY(+pi/4,{})", "RZ(+pi/4,{})"),
}
_WITHOUT_PAIRS = ("published",)  # sets without CNOT gates


@dataclasses.dataclass(frozen=True, kw_only=True)
class QubitControlConfig(EnvConfig):
    """Settings of `QubitControl`; see there for what each does."""

    num_qubits: int = setting(2, "number of qubits", low=1, high=6)
    max_steps: int = setting(10, "time limit of an episode, gates", low=1, high=1_000_000)
    target: str = setting(
        "bell", "state to be reached", choices=("uniform", "bell", "ghz", "circuit", "haar")
    )
    target_depth: int = setting(
        4, "random gates that make the target, with target circuit only", low=1, high=1000
    )
    gates: str = setting("clifford", "set of gates to choose from", choices=tuple(_ONE_QUBIT_GATES))
    observation: str = setting("state", "how states are observed", choices=("state", "tomography"))
    reward: str = setting(
        "gain", "what a gate earns: the change of fidelity, or all of it", choices=("gain", "fidelity")
    )
    gate_cost: float = setting(0.01, "taken from the reward of every gate", low=0.0, high=1.0)
    success_fidelity: float = setting(
        0.95, "fidelity with the target at which an episode ends", low=0.01, high=1.0
    )
    gate_noise: float = setting(
        0.0, "probability that a random Pauli follows a gate, for each qubit it touches", low=0.0, high=1.0
    )

    def validate(self) -> None:
        """Refuse Bell pairs of another number than two qubits, and tomography of many."""
        if self.target == "bell" and self.num_qubits != 2:
            raise ConfigError(
                f"target: bell is a state of 2 qubits, but num_qubits is {self.num_qubits}; "
                "allowed with it: uniform, ghz, circuit, haar"
            )
        if self.observation == "tomography" and self.num_qubits > _TOMOGRAPHY_QUBITS:
            raise ConfigError(
                f"observation: tomography of {self.num_qubits} qubits would be {4**self.num_qubits - 1} "
                f"expectations; allowed with it: num_qubits from 1 to {_TOMOGRAPHY_QUBITS}"
            )

    @property
    def gate_names(self) -> tuple[str, ...]:
        """What each action does: ``H(0)`` is a Hadamard gate on qubit 0, ``CNOT(0,1)`` has control 0 and target 1."""
        qubits = range(self.num_qubits)
        alone = [name.format(qubit) for qubit in qubits for name in _ONE_QUBIT_GATES[self.gates]]
        if self.gates in _WITHOUT_PAIRS:
            return tuple(alone)
        pairs = [f"CNOT({control},{target})" for control in qubits for target in qubits if control != target]
        return (*alone, *pairs)

    @property
    def pauli_names(self) -> tuple[str, ...]:
        """Pauli strings of a tomography, ``4**num_qubits - 1``; the first letter acts on qubit 0."""
        return tuple("".join(letters) for letters in product("IXYZ", repeat=self.num_qubits))[1:]

    @property
    def draws_target(self) -> bool:
        """Whether each episode has a target of its own, which is then observed."""
        return self.target in ("circuit", "haar")

    @property
    def observation_layout(self) -> dict[str, slice]:
        """Where each part of an observation lies, by name."""
        parts: tuple[str, ...]
        if self.observation == "tomography":
            parts, size = ("paulis",), 4**self.num_qubits - 1
        else:
            parts, size = ("real", "imag"), 2**self.num_qubits
        sizes = {f"state_{part}": size for part in parts}
        sizes |= {f"target_{part}": size for part in parts} if self.draws_target else {}
        return _slices(sizes | {"time_left": 1})

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return self.observation_layout["time_left"].stop

    @property
    def state_layout(self) -> dict[str, slice]:
        """Where each part of the global state lies, by name."""
        parts = ("state_real", "state_imag", "target_real", "target_imag")
        return _slices(dict.fromkeys(parts, 2**self.num_qubits) | {"time_left": 1})


def _slices(sizes: dict[str, int]) -> dict[str, slice]:
    layout, start = {}, 0
    for name, size in sizes.items():
        layout[name] = slice(start, start + size)
        start += size
    return layout
