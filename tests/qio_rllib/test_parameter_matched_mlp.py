"""MLPs with exactly as many parameters as a circuit."""

import contextlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qio_envs.api import ConfigError
from qio_rllib.models.circuits import (
    CircuitNetwork,
    CircuitSettings,
    ParameterMatchedMLP,
    count_parameters,
)


@settings(max_examples=60, deadline=None)
@given(
    qubits=st.integers(1, 5),
    layers=st.integers(1, 4),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 12),
    readout=st.sampled_from(["observables", "born"]),
    encoding=st.sampled_from(["angles", "amplitude"]),
)
def test_the_parameter_matched_mlp_has_exactly_as_many_parameters(
    qubits, layers, inputs, outputs, readout, encoding
):
    if readout == "born" and outputs > 2**qubits:
        return
    sizes = {"num_qubits": qubits, "num_layers": layers, "encoding": encoding}
    inputs = inputs if encoding == "angles" else min(inputs, 2**qubits)
    circuit = CircuitSettings(**sizes).network(inputs, outputs, readout)
    assert isinstance(circuit, CircuitNetwork)
    matching = CircuitSettings(**sizes, kind="classical")
    hidden = math.ceil((count_parameters(circuit) - outputs) / (inputs + 1 + outputs))
    if hidden * inputs >= inputs + outputs + 1:  # what is too much can be left out of the first layer
        mlp = matching.network(inputs, outputs, readout)
    else:  # so few connections that there may be none
        with contextlib.suppress(ConfigError):
            mlp = matching.network(inputs, outputs, readout)
            check_matched(mlp, inputs, outputs, count_parameters(circuit))
        return
    check_matched(mlp, inputs, outputs, count_parameters(circuit))


@settings(max_examples=200, deadline=None)
@given(inputs=st.integers(1, 200), outputs=st.integers(1, 20), parameters=st.integers(1, 3000))
def test_a_network_of_a_given_count_has_it(inputs, outputs, parameters):
    try:
        mlp = ParameterMatchedMLP(inputs, outputs, parameters)
    except ConfigError:
        for hidden in range(1, parameters + 1):  # from no connection of the first layer to all of them
            least = outputs + hidden * (1 + outputs)
            assert not least <= parameters <= least + hidden * inputs
        return
    check_matched(mlp, inputs, outputs, parameters)


def check_matched(mlp, inputs, outputs, parameters):
    assert sum(p.numel() for p in mlp.parameters() if p.requires_grad) == parameters
    assert len(mlp.places.unique()) == len(mlp.first)
    torch.nn.init.uniform_(mlp.bias, -0.5, 0.5)  # from 0 they leave a hidden unit without inputs at 0
    seen = 0.1 * torch.randn(8, inputs) / math.sqrt(inputs)
    values = mlp(seen)
    assert values.shape == (8, outputs)
    (values * torch.randn(8, outputs)).sum().backward()
    for name, parameter in mlp.named_parameters():
        assert (parameter.grad != 0).all(), name
    hidden, _ = mlp.shape
    widest = outputs + (hidden - 1) * (inputs + 1 + outputs)
    assert widest < parameters <= outputs + hidden * (inputs + 1 + outputs)


def test_every_hidden_unit_of_a_parameter_matched_mlp_keeps_inputs():
    mlp = CircuitSettings(kind="classical").network(8, 5)
    hidden, inputs = mlp.shape
    kept = torch.zeros(hidden * inputs).index_fill(0, mlp.places, 1).reshape(hidden, inputs).sum(1)
    assert kept.min() >= 1


def test_too_few_parameters_for_a_parameter_matched_mlp_are_refused():
    with pytest.raises(ConfigError, match="circuit: no network of 1 inputs and 12 outputs has just 30 param"):
        CircuitSettings(kind="classical", num_qubits=1, num_layers=1).network(1, 12)
    with pytest.raises(ConfigError, match="take other numbers of qubits"):
        ParameterMatchedMLP(3, 2, 2)
