"""Hypothesis strategies of small quantum registers, and actions to play them with."""

import numpy as np
from hypothesis import strategies as st

from qio_envs.qubit_control import QubitControlConfig

seeds = st.integers(0, 2**64 - 1)


@st.composite
def qubit_configs(draw, **fixed):
    """Up to three qubits, of any kind of target, gates, observation and reward."""
    qubits = draw(st.integers(1, 3))
    targets = ["uniform", "ghz", "circuit", "haar"] + ["bell"] * (qubits == 2)
    values = {
        "num_qubits": qubits,
        "max_steps": draw(st.integers(1, 15)),
        "target": draw(st.sampled_from(targets)),
        "target_depth": draw(st.integers(1, 5)),
        "gates": draw(st.sampled_from(["clifford", "clifford_t", "rotations", "published"])),
        "observation": draw(st.sampled_from(["state", "tomography"])),
        "reward": draw(st.sampled_from(["gain", "fidelity"])),
        "gate_cost": draw(st.sampled_from([0.0, 0.01, 0.25])),
        "success_fidelity": draw(st.sampled_from([0.4, 0.95, 1.0])),
        "gate_noise": draw(st.sampled_from([0.0, 0.2, 1.0])),
    }
    return QubitControlConfig(**(values | fixed))


def actions_of(env, step, key=0):
    """Return an action for every environment, the same ones for the same key and step."""
    generator = np.random.default_rng([key, step])
    return generator.integers(0, int(env.action_space.n), (env.num_envs, 1))


def close(given, expected, tolerance=2e-6):
    """Assert equality up to a tolerance."""
    np.testing.assert_allclose(given, expected, rtol=0, atol=tolerance)
