import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from noise_circuits import PROBABILITY, Own

from qio_rllib.quantum import (
    AmplitudeDamping,
    Circuit,
    Dephasing,
    Depolarizing,
    NoiseModel,
    ReadoutError,
    density_matrix,
)


@pytest.mark.parametrize("make", [Depolarizing, AmplitudeDamping, Dephasing])
@settings(max_examples=30, deadline=None)
@given(p=PROBABILITY)
def test_kraus_operators_are_complete(make, p):
    kraus = make(p).kraus
    assert kraus.dtype == np.complex128
    assert kraus.shape[1:] == (2, 2)
    total = sum(each.conj().T @ each for each in kraus)
    np.testing.assert_allclose(total, np.eye(2), atol=1e-14)


def test_channels_do_what_their_definitions_say():
    rho = np.array([[0.3, 0.2 - 0.1j], [0.2 + 0.1j, 0.7]])

    def through(channel):
        return sum(each @ rho @ each.conj().T for each in channel.kraus)

    np.testing.assert_allclose(through(Depolarizing(0.2)), 0.8 * rho + 0.1 * np.eye(2))
    z = np.diag([1, -1])
    np.testing.assert_allclose(through(Dephasing(0.2)), 0.8 * rho + 0.2 * z @ rho @ z)
    shrunk = math.sqrt(0.75)
    damped = [[0.3 + 0.25 * 0.7, shrunk * rho[0, 1]], [shrunk * rho[1, 0], 0.75 * 0.7]]
    np.testing.assert_allclose(through(AmplitudeDamping(0.25)), damped)


@pytest.mark.parametrize("value", [-1e-9, 1.0 + 1e-9, math.nan, math.inf, "often", None, True])
def test_numbers_that_are_no_probabilities_are_refused(value):
    cases = {
        "Depolarizing: p": lambda: Depolarizing(value),
        "AmplitudeDamping: gamma": lambda: AmplitudeDamping(value),
        "Dephasing: p": lambda: Dephasing(value),
        "ReadoutError: p01": lambda: ReadoutError(value, 0.1),
        "ReadoutError: p10": lambda: ReadoutError(0.1, value),
    }
    for name, make in cases.items():
        message = f"{name} must be a probability in [0, 1], got {value!r}"
        with pytest.raises(ValueError, match=re.escape(message)):
            make()


def test_channels_of_ones_own():
    flip = Own(np.stack([math.sqrt(0.75) * np.eye(2), math.sqrt(0.25) * np.array([[0, 1], [1, 0]])]))
    rho = density_matrix(Circuit(1).add("I", 0), noise=NoiseModel(flip))
    torch.testing.assert_close(rho.diagonal().real, torch.tensor([0.75, 0.25]))
