import math

import pytest
import torch
from noise_circuits import CHANNELS, Own, random_circuit

from qio_rllib.quantum import (
    AmplitudeDamping,
    Circuit,
    Dephasing,
    Depolarizing,
    NoiseModel,
    density_matrix,
    expectation,
    expectation_of_density,
    feature,
    reuploading_circuit,
    trajectories,
    weight,
)
from qio_rllib.quantum.gates import ROTATIONS

# Damping after a turn: probabilities that depend on the state's coherences, with their phase.
TURNED = Own(AmplitudeDamping(0.5).kraus @ (ROTATIONS["RX"].matrix(0.9) @ ROTATIONS["RY"].matrix(1.1)))


@pytest.mark.parametrize("channel", [*CHANNELS, TURNED, CHANNELS])
def test_trajectories_average_to_the_density_matrix(channel):
    circuit, weights, features = random_circuit(2, 12, 5)
    noise = NoiseModel(channel)
    count = 4000
    states = trajectories(circuit, noise, weights, features, count, torch.Generator().manual_seed(1))
    norms = states.abs().square().sum(-1)
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-12, rtol=0)
    given = [f"{a}0 {b}1" for a in "IXYZ" for b in "IXYZ" if a + b != "II"]  # all that there is to know
    values = expectation(states, given)
    exact = expectation_of_density(density_matrix(circuit, weights, features, noise), given)
    error = values.std(0) / math.sqrt(count)
    assert ((values.mean(0) - exact).abs() <= 4 * error + 1e-12).all()
    assert error.max() > 1e-3  # the draws do differ


@pytest.mark.parametrize("channel", CHANNELS)
def test_gradients_of_trajectories_are_unbiased(channel):
    circuit = Circuit(2).add("RY", 0, angle=weight(0)).add("CNOT", 0, 1).add("RX", 1, angle=weight(1))
    circuit.add("RY", 0, angle=0.7 * weight(0))
    noise, given = NoiseModel(channel), ["Z0", "X0 Y1", "Z1"]
    weights = torch.tensor([0.8, -1.3], dtype=torch.float64, requires_grad=True)

    def exact(w):
        return expectation_of_density(density_matrix(circuit, w, noise=noise), given).sum()

    (wanted,) = torch.autograd.grad(exact(weights), weights)
    count = 3000
    rows = weights.detach().expand(count, 2).clone().requires_grad_()
    states = trajectories(circuit, noise, rows, None, 1, torch.Generator().manual_seed(2))[0]
    (found,) = torch.autograd.grad(expectation(states, given).sum(), rows)
    error = found.std(0) / math.sqrt(count)
    assert ((found.mean(0) - wanted).abs() <= 4 * error).all()


def test_trajectories_repeat_with_their_generator():
    circuit, weights, features = random_circuit(3, 10, 1)
    noise = NoiseModel(Depolarizing(0.5))
    first, second, other = (
        trajectories(circuit, noise, weights, features, 20, torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    # rows of a batch that are equal have draws of their own
    pairs = trajectories(circuit, noise, weights, features[:1].expand(2, -1), 20)
    assert not torch.allclose(pairs[:, 0], pairs[:, 1])
    # also where the noise comes before the first gate that tells them apart
    late, early = (
        Circuit(1).add("H", 0).add("RX", 0, angle=feature(0)),
        NoiseModel(Dephasing(0.5), gates=("H",)),
    )
    pairs = trajectories(late, early, None, torch.zeros(2, 1), 50, torch.Generator().manual_seed(0))
    assert not torch.allclose(pairs[:, 0], pairs[:, 1])


def test_impossible_operators_are_never_drawn():
    # |0> cannot decay and |1> always does: probabilities of 0 and 1
    down = Circuit(1).add("X", 0)
    for dtype in (torch.complex64, torch.complex128):
        stay = trajectories(Circuit(1).add("I", 0), NoiseModel(AmplitudeDamping(1.0)), dtype=dtype)
        torch.testing.assert_close(stay, torch.tensor([1.0, 0.0], dtype=dtype).expand(100, 2))
        fall = trajectories(down, NoiseModel(AmplitudeDamping(1.0)), dtype=dtype)
        torch.testing.assert_close(fall, torch.tensor([1.0, 0.0], dtype=dtype).expand(100, 2))


def test_trajectories_of_more_qubits_than_density_matrices():
    circuit = reuploading_circuit(8, 1, 4)
    states = trajectories(
        circuit,
        NoiseModel(Depolarizing(1.0)),
        torch.randn(circuit.num_weights, generator=torch.Generator().manual_seed(0)),
        torch.zeros(2, circuit.num_features),
        200,
        torch.Generator().manual_seed(0),
    )
    assert states.shape == (200, 2, 256)
    assert expectation(states, ["Z0", "X7"]).mean(0).abs().max() < 0.3  # all is mixed
