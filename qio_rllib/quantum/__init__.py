"""Quantum circuits for learning: batched, differentiable state vectors in plain torch.

```python
from qio_rllib.quantum import Circuit, expectation, feature, weight

circuit = Circuit(2).add("RY", 0, angle=feature(0)).add("CNOT", 0, 1).add("RX", 1, angle=weight(0))
state = circuit.state(weights, features)                    # complex [..., 4]
values = expectation(state, ["Z0", "X0 X1"])                # float [..., 2]
```
"""

from qio_rllib.quantum.circuit import Angle, Circuit, Operation, feature, weight
from qio_rllib.quantum.encodings import (
    amplitude_encoding,
    angle_encoding,
    entangling_layer,
    layered_circuit,
    reuploading_circuit,
    variational_layer,
)
from qio_rllib.quantum.gates import GATES
from qio_rllib.quantum.gradients import parameter_shift
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

__all__ = [
    "GATES",
    "Angle",
    "Circuit",
    "Measurement",
    "Observable",
    "Operation",
    "PauliSum",
    "Projector",
    "amplitude_encoding",
    "angle_encoding",
    "entangling_layer",
    "estimate",
    "expectation",
    "feature",
    "fidelity",
    "layered_circuit",
    "parameter_shift",
    "probabilities",
    "reuploading_circuit",
    "sample",
    "variational_layer",
    "weight",
]
