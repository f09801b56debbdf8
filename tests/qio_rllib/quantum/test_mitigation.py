import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_circuits import random_circuit

from qio_rllib.quantum import (
    AmplitudeDamping,
    Dephasing,
    Depolarizing,
    NoiseModel,
    density_matrix,
    expectation,
    expectation_of_density,
    fold,
    layered_circuit,
    zero_noise_extrapolation,
)


@settings(max_examples=30, deadline=None)
@given(
    coefficients=st.lists(st.floats(-2, 2), min_size=1, max_size=4),
    more=st.integers(0, 2),
    shape=st.sampled_from([(), (3,)]),
)
def test_extrapolation_is_exact_for_polynomials(coefficients, more, shape):
    order = len(coefficients) - 1
    scales = list(range(1, 2 * (len(coefficients) + more), 2))

    def evaluate(scale):
        value = sum(c * (0.1 * scale) ** power for power, c in enumerate(coefficients))
        return torch.full(shape, value, dtype=torch.float64)

    for chosen in (order, None):
        result = zero_noise_extrapolation(evaluate, scales, order=chosen)
        torch.testing.assert_close(
            result, torch.full(shape, coefficients[0], dtype=torch.float64), atol=1e-9, rtol=0
        )
    plain = zero_noise_extrapolation(lambda scale: float(evaluate(scale).sum()), scales)
    assert plain.item() == pytest.approx(coefficients[0] * max(math.prod(shape), 1), abs=1e-9)


def test_fits_of_low_order_are_least_squares():
    values = {1: 0.7, 3: 0.2, 5: 0.1, 7: -0.3}
    found = zero_noise_extrapolation(values.__getitem__, (1, 3, 5, 7), order=1)
    line = np.polynomial.Polynomial.fit(list(values), list(values.values()), 1)
    assert found.item() == pytest.approx(line(0.0))
    mean = zero_noise_extrapolation(values.__getitem__, (1, 3, 5, 7), order=0)
    assert mean.item() == pytest.approx(0.175)


@pytest.mark.parametrize("channel", [Depolarizing(0.01), AmplitudeDamping(0.01), Dephasing(0.01)])
def test_extrapolation_comes_closer_to_the_true_value(channel):
    circuit = layered_circuit(3, 2)
    weights = torch.linspace(-1.5, 2.0, circuit.num_weights, dtype=torch.float64, requires_grad=True)
    given, noise = ["Z0", "X1 Z2"], NoiseModel(channel)
    true = expectation(circuit.state(weights), given)

    def noisy(scale):
        return expectation_of_density(density_matrix(fold(circuit, scale), weights, noise=noise), given)

    mitigated = zero_noise_extrapolation(noisy)
    assert ((mitigated - true).abs() < 0.2 * (noisy(1) - true).abs()).all()
    (gradient,) = torch.autograd.grad(mitigated.sum(), weights)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0.01


@pytest.mark.parametrize("scale", [1, 3, 5])
def test_folded_circuits_do_the_same(scale):
    circuit, weights, features = random_circuit(3, 25, 4)
    folded = fold(circuit, scale)
    assert len(folded) == scale * len(circuit)
    assert (folded.num_weights, folded.num_features) == (circuit.num_weights, circuit.num_features)
    same = folded.matrix(weights, features[0])
    torch.testing.assert_close(same, circuit.matrix(weights, features[0]), atol=1e-12, rtol=0)
    assert len(circuit) == 25
