"""Settings of qubit control that are refused, and its standard interfaces."""

import copy
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from qubit_settings import actions_of

from qio_envs import qubit_control_v0
from qio_envs.api import ConfigError, InvalidActionError
from qio_envs.qubit_control import QubitControlConfig

# -- bad input


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"num_qubits": 3},
            "target: bell is a state of 2 qubits, but num_qubits is 3; "
            "allowed with it: uniform, ghz, circuit, haar",
        ),
        (
            {"num_qubits": 6, "target": "ghz", "observation": "tomography"},
            "observation: tomography of 6 qubits would be 4095 expectations; "
            "allowed with it: num_qubits from 1 to 4",
        ),
        (
            {"target": "unifrom"},
            "target: expected one of uniform, bell, ghz, circuit, haar, got 'unifrom' (did you mean 'uniform'?)",
        ),
        ({"num_qubits": 7}, "num_qubits: expected an integer from 1 to 6, got 7"),
        ({"num_qubits": 0}, "num_qubits: expected an integer from 1 to 6, got 0"),
        ({"num_qubits": 2.0}, "num_qubits: expected an integer from 1 to 6, got 2.0"),
        ({"max_steps": 0}, "max_steps: expected an integer from 1 to 1000000, got 0"),
        ({"gate_noise": 1.5}, "gate_noise: expected a number from 0.0 to 1.0, got 1.5"),
        ({"gate_noise": float("nan")}, "gate_noise: expected a number from 0.0 to 1.0, got nan"),
        ({"success_fidelity": 0.0}, "success_fidelity: expected a number from 0.01 to 1.0, got 0.0"),
        ({"reward": "gains"}, "reward: expected one of gain, fidelity, got 'gains' (did you mean 'gain'?)"),
        (
            {"gates": "cliford"},
            "gates: expected one of clifford, clifford_t, rotations, published, got 'cliford' "
            "(did you mean 'clifford'?)",
        ),
    ],
)
def test_bad_settings_are_refused(values, message):
    with pytest.raises(ConfigError) as caught:
        QubitControlConfig(**values)
    assert str(caught.value) == message


def test_unknown_settings_scenarios_and_actions_are_refused():
    with pytest.raises(ConfigError, match="unknown environment setting 'qubits'"):
        qubit_control_v0.batched_env(qubits=2)
    with pytest.raises(ConfigError, match=r"unknown scenario 'tomografy' \(did you mean 'tomography'\?\)"):
        qubit_control_v0.batched_env(1, "tomografy")
    env = qubit_control_v0.batched_env()
    env.reset(0)
    with pytest.raises(
        InvalidActionError, match="action of agent_0 in env 0: expected an integer from 0 to 9"
    ):
        env.step([[10]])


# -- standard interfaces


def test_gymnasium_makes_it_and_its_checker_passes():
    env = gymnasium.make("qio_envs/QubitControl-v0")
    check_env(env.unwrapped, skip_render_check=True)
    _, info = env.reset(seed=0)
    assert info["steps_to_success_optimal"] == 2
    vector = gymnasium.make_vec("qio_envs/QubitControl-v0", num_envs=3, scenario="noisy")
    seen, _ = vector.reset(seed=0)
    assert seen.shape == (3, 17)
    for _ in range(25):  # over ends
        seen, *_ = vector.step(vector.action_space.sample())
    assert vector.observation_space.contains(seen)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_is_exact_and_apart(copier):
    env = qubit_control_v0.batched_env(3, "noisy")
    env.reset(1)
    env.info()
    env.step(actions_of(env, 0))
    duplicate = copier(env)
    for t in range(1, 6):
        if not env.running.all():
            break
        for one, other in zip(env.step(actions_of(env, t)), duplicate.step(actions_of(env, t)), strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(env.observe(), duplicate.observe())
