"""Which noise follows the gates of a circuit, and with which error bits are read.

A `NoiseModel` puts channels behind each gate, on the qubits that the gate touches; idle qubits stay as they are.

```python
noise = NoiseModel(Depolarizing(0.01), readout=ReadoutError(0.02, 0.05))
rho = density_matrix(circuit, weights, features, noise)                      # complex [..., 2**n, 2**n]
values = expectation_of_density(rho, ["Z0"], noise.readout)                  # float [..., 1]
states = trajectories(circuit, noise, weights, features, 1000, generator)    # complex [1000, ..., 2**n]
about = expectation(states, ["Z0"]).mean(0)                                  # tr(Z0 rho) to about 1 / sqrt(1000)
```
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qio_rllib.quantum.channels import Channel
from qio_rllib.quantum.circuit import Circuit
from qio_rllib.quantum.gates import GATES, suggestion
from qio_rllib.quantum.operations import UNITARY, Operation
from qio_rllib.quantum.readout import ReadoutError
from qio_rllib.quantum.stepping import gate_matrix


@dataclass(frozen=True)
class NoiseModel:
    """Noise that follows the gates, and the error of the readout.

    Attributes:
        after_gate: Channel, or several in order, that act on every qubit a gate touches, after the gate.
        readout: Error of each measured bit; None for none. It is applied where something is measured, by
            `probabilities_of_density` and the methods of `ReadoutError`, not to states.
        gates: Names of the gates that are noisy, such as ``("CNOT", "CZ")``, "UNITARY" for matrices of the user's own;
            None for all.

    Raises:
        ValueError: ``after_gate`` holds something else, or Kraus operators that do not sum to the identity (to 1e-6);
            an unknown gate.
    """

    after_gate: Channel | Sequence[Channel] = ()
    readout: ReadoutError | None = None
    gates: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for channel in self.channels:
            _check_kraus(channel)
        if self.readout is not None and not isinstance(self.readout, ReadoutError):
            raise ValueError(f"readout: expected a ReadoutError or None, got {self.readout!r}")
        if isinstance(self.gates, str):
            raise ValueError(f"gates: expected several names such as ({self.gates!r},), got one text")
        allowed = (*GATES, UNITARY)
        for name in self.gates or ():
            if name not in allowed:
                raise ValueError(f"gates: unknown {name!r}{suggestion(name, allowed)}")

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels of ``after_gate`` in order."""
        if isinstance(self.after_gate, Sequence):
            return tuple(self.after_gate)
        return (self.after_gate,)

    def channels_after(self, gate: str) -> tuple[Channel, ...]:
        """Return the channels that follow a gate of that name."""
        return self.channels if self.gates is None or gate in self.gates else ()


def noisy_steps(
    circuit: Circuit, angles: dict[str, Tensor | None], noise: NoiseModel | None, like: Tensor
) -> Iterator[tuple[Operation, Tensor, list[Tensor]]]:
    """Yield the operations, their matrices ``[..., 2**k, 2**k]`` and the Kraus operators of each channel after them."""
    known: dict[str, list[Tensor]] = {}
    for operation in circuit.operations:
        if operation.name not in known:
            channels = noise.channels_after(operation.name) if noise is not None else ()
            known[operation.name] = [torch.from_numpy(channel.kraus).to(like) for channel in channels]
        yield operation, gate_matrix(operation, angles, like), known[operation.name]


def _check_kraus(channel: Channel) -> None:
    if isinstance(channel, type) or not isinstance(channel, Channel):
        raise ValueError(
            f"after_gate: expected a channel such as Depolarizing(0.01), or several, got {channel!r}"
        )
    kraus = np.asarray(channel.kraus)
    if kraus.ndim != 3 or kraus.shape[1:] != (2, 2):
        raise ValueError(
            f"after_gate: expected Kraus operators [K, 2, 2] of {channel}, got shape {kraus.shape}"
        )
    error = np.abs(np.einsum("kba,kbc->ac", kraus.conj(), kraus) - np.eye(2)).max()
    if not error <= 1e-6:  # NaN included
        raise ValueError(
            f"after_gate: sum of K^dagger K of {channel} differs from the identity by {error:.2g}"
        )
