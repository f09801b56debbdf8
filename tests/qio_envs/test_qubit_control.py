"""The kernels of qubit control against the oracle, and batches against single environments."""

import numpy as np
import pytest
from batch_and_singles import check_batch_against_singles
from hypothesis import given, settings
from hypothesis import strategies as st
from one_agent_play import check_against_oracle, check_spaces
from qubit_oracle import QubitOracle
from qubit_settings import actions_of, close, qubit_configs, seeds

from qio_envs import qubit_control_v0
from qio_envs.qubit_control import QubitControl, QubitControlConfig
from qio_envs.testing import CHECKS, check_parallel_env, table

SCENARIOS = qubit_control_v0.scenarios()


def assert_close_to_oracle(env, oracle):
    close(env.observe()[0, 0], oracle.observe())
    close(env.state()[0], oracle.central())
    info, expected = env.info(), oracle.info()
    assert info.keys() - expected.keys() == {"steps_to_success_optimal"}
    for key, value in expected.items():
        np.testing.assert_allclose(info[key][0], value, rtol=0, atol=2e-6, err_msg=key)


def play_against_oracle(config, seed, steps, episode=0):
    env, oracle = QubitControl(config), QubitOracle(config, seed, episode)
    env.reset([seed])
    for _ in range(episode):
        env.reset()
    check_against_oracle(
        env, oracle, lambda t: actions_of(env, t, seed % 1000), steps, assert_close_to_oracle, close
    )


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_conforms(scenario):
    results = check_parallel_env(lambda **kwargs: qubit_control_v0.parallel_env(scenario, **kwargs), steps=30)
    assert [result.name for result in results] == list(CHECKS)
    assert all(result.passed for result in results), table(results)
    assert [result.name for result in results if result.label == "skip"] == ["action masks"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_kernels_equal_the_oracle_on_the_scenarios(scenario):
    for seed in (0, 2**64 - 7):
        play_against_oracle(qubit_control_v0.config(scenario), seed, 20)


@settings(deadline=None, max_examples=100)
@given(qubit_configs(), seeds, st.integers(0, 2))
def test_kernels_equal_the_oracle_on_small_registers(config, seed, episode):
    play_against_oracle(config, seed, 15, episode)


def test_kernels_equal_the_oracle_on_four_qubits():
    play_against_oracle(
        QubitControlConfig(num_qubits=4, target="circuit", observation="tomography", gate_noise=0.3), 5, 10
    )


def test_the_state_keeps_its_length_over_long_circuits():
    env = qubit_control_v0.batched_env(
        4, num_qubits=3, target="haar", gates="rotations", max_steps=3000, success_fidelity=1.0
    )
    env.reset(0)
    for t in range(3000):
        env.step(actions_of(env, t))
    close(np.linalg.norm(env.arrays.amplitude, axis=1), 1, 1e-12)


@settings(deadline=None, max_examples=40)
@given(config=qubit_configs(), seed=st.integers(0, 2**63), num_envs=st.integers(1, 4), data=st.data())
def test_an_environment_of_a_batch_is_the_environment_of_its_seed_alone(config, seed, num_envs, data):
    check_batch_against_singles(lambda count: QubitControl(config, count), actions_of, seed, num_envs, data)


@settings(deadline=None)
@given(qubit_configs(), seeds)
def test_everything_lies_in_its_space(config, seed):
    env = QubitControl(config, 2)
    env.reset([seed, seed // 2])
    check_spaces(env, lambda t: actions_of(env, t), 15)
