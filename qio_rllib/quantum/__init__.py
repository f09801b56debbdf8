"""Quantum circuits for learning: batched, differentiable state vectors in plain torch.

```python
from qio_rllib.quantum import Circuit, expectation, feature, weight

circuit = Circuit(2).add("RY", 0, angle=feature(0)).add("CNOT", 0, 1).add("RX", 1, angle=weight(0))
state = circuit.state(weights, features)                    # complex [..., 4]
values = expectation(state, ["Z0", "X0 X1"])                # float [..., 2]
```
"""

from qio_rllib.quantum.channels import AmplitudeDamping, Channel, Dephasing, Depolarizing
from qio_rllib.quantum.circuit import Circuit
from qio_rllib.quantum.density import density_matrix, expectation_of_density, probabilities_of_density
from qio_rllib.quantum.drawing import draw, draw_text
from qio_rllib.quantum.encodings import (
    amplitude_encoding,
    angle_encoding,
    entangling_layer,
    layered_circuit,
    reuploading_circuit,
    variational_circuit,
    variational_layer,
)
from qio_rllib.quantum.gates import GATES
from qio_rllib.quantum.gradients import parameter_shift
from qio_rllib.quantum.grover import grover_amplify, grover_circuit, optimal_iterations
from qio_rllib.quantum.mitigation import fold, zero_noise_extrapolation
from qio_rllib.quantum.noise import NoiseModel
from qio_rllib.quantum.observables import (
    Measurement,
    Observable,
    PauliSum,
    Projector,
    estimate,
    expectation,
    fidelity,
    probabilities,
    sample,
)
from qio_rllib.quantum.operations import Angle, Operation, feature, weight
from qio_rllib.quantum.pennylane_backend import pennylane_expectation, pennylane_state
from qio_rllib.quantum.readout import ReadoutError
from qio_rllib.quantum.solvers import (
    Problem,
    Solution,
    brute_force,
    ising_problem,
    joint_action_problem,
    maxcut_problem,
    qaoa,
    qaoa_circuit,
    qubo_problem,
    vqe,
)
from qio_rllib.quantum.trajectory import trajectories

__all__ = [
    "GATES",
    "AmplitudeDamping",
    "Angle",
    "Channel",
    "Circuit",
    "Dephasing",
    "Depolarizing",
    "Measurement",
    "NoiseModel",
    "Observable",
    "Operation",
    "PauliSum",
    "Problem",
    "Projector",
    "ReadoutError",
    "Solution",
    "amplitude_encoding",
    "angle_encoding",
    "brute_force",
    "density_matrix",
    "draw",
    "draw_text",
    "entangling_layer",
    "estimate",
    "expectation",
    "expectation_of_density",
    "feature",
    "fidelity",
    "fold",
    "grover_amplify",
    "grover_circuit",
    "ising_problem",
    "joint_action_problem",
    "layered_circuit",
    "maxcut_problem",
    "optimal_iterations",
    "parameter_shift",
    "pennylane_expectation",
    "pennylane_state",
    "probabilities",
    "probabilities_of_density",
    "qaoa",
    "qaoa_circuit",
    "qubo_problem",
    "reuploading_circuit",
    "sample",
    "trajectories",
    "variational_circuit",
    "variational_layer",
    "vqe",
    "weight",
    "zero_noise_extrapolation",
]
