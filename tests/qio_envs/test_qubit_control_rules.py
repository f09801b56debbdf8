"""Gates, observations, targets, rewards, noise and ends of qubit control, by hand."""

import numpy as np
import pytest
from qubit_oracle import PAULI, gates_of, on, strings
from qubit_settings import actions_of, close

from qio_envs import qubit_control_v0
from qio_envs.api import ResetNeededError
from qio_envs.qubit_control import QubitControl, QubitControlConfig
from qio_envs.qubit_control.gates import GateSet, rotation

# -- gates


@pytest.mark.parametrize("gates", ["clifford", "clifford_t", "rotations", "published"])
@pytest.mark.parametrize("qubits", [1, 2, 3])
def test_gates_are_unitary_and_named_in_order(gates, qubits):
    config = QubitControlConfig(num_qubits=qubits, target="ghz", gates=gates)
    assert list(config.gate_names) == [name for name, *_ in gates_of(gates, qubits)]
    matrices = GateSet.of(config).matrix
    close(matrices @ matrices.conj().transpose(0, 2, 1), np.broadcast_to(np.eye(2), matrices.shape), 1e-15)


def test_the_names_of_the_gates():
    assert QubitControlConfig().gate_names == (
        "H(0)", "S(0)", "X(0)", "Z(0)", "H(1)", "S(1)", "X(1)", "Z(1)", "CNOT(0,1)", "CNOT(1,0)",
    )  # fmt: skip
    rotations = QubitControlConfig(gates="rotations").gate_names
    assert rotations[:3] == ("RX(+pi/8,0)", "RX(-pi/8,0)", "RY(+pi/8,0)")
    assert [
        len(QubitControlConfig(num_qubits=n, target="ghz", gates="clifford_t").gate_names) for n in (1, 2, 3)
    ] == [3, 8, 15]
    assert len(QubitControlConfig(num_qubits=6, target="ghz").gate_names) == 54


def test_opposite_rotations_undo_each_other_and_eight_make_a_pauli():
    for axis in "XYZ":
        forward, back = rotation(axis, np.pi / 8), rotation(axis, -np.pi / 8)
        close(forward @ back, np.eye(2), 1e-15)
        close(np.linalg.matrix_power(forward, 8), -1j * PAULI[axis], 1e-14)


def test_the_first_qubit_is_the_most_significant_bit():
    env = qubit_control_v0.batched_env()
    names = env.config.gate_names
    env.reset(0)
    env.step([[names.index("X(0)")]])
    assert np.abs(env.arrays.amplitude[0]).tolist() == [0, 0, 1, 0]
    env.step([[names.index("CNOT(0,1)")]])
    assert np.abs(env.arrays.amplitude[0]).tolist() == [0, 0, 0, 1]
    env.step([[names.index("CNOT(1,0)")]])
    assert np.abs(env.arrays.amplitude[0]).tolist() == [0, 1, 0, 0]


# -- observations


def test_sizes_and_layouts():
    env = qubit_control_v0.batched_env()
    assert env.observation_space.shape == (9,)
    assert env.state_space.shape == (17,)
    assert env.possible_agents == ("agent_0",)
    assert env.config.observation_layout == {
        "state_real": slice(0, 4),
        "state_imag": slice(4, 8),
        "time_left": slice(8, 9),
    }
    drawn = qubit_control_v0.config("circuit").observation_layout
    assert list(drawn) == ["state_real", "state_imag", "target_real", "target_imag", "time_left"]
    assert drawn["time_left"] == slice(16, 17)
    tomography = qubit_control_v0.config("tomography")
    assert tomography.observation_layout == {
        "state_paulis": slice(0, 15),
        "target_paulis": slice(15, 30),
        "time_left": slice(30, 31),
    }
    assert tomography.observation_size == 31
    assert list(tomography.pauli_names) == strings(2)
    assert tomography.state_layout["target_imag"] == slice(12, 16)


def test_the_first_observation_and_the_time_left():
    env = qubit_control_v0.batched_env()
    env.reset(0)
    assert env.observe()[0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 1]
    env.step([[3]])
    assert env.observe()[0, 0, -1] == np.float32(0.9)


def test_tomography_does_not_see_the_global_phase():
    env = qubit_control_v0.batched_env(1, "haar", gates="clifford", observation="tomography")
    env.reset(3)
    for action in (0, 8, 1, 4):
        env.step([[action]])
    seen = env.observe()
    env.arrays.amplitude[:] *= np.exp(0.7j)
    close(env.observe(), seen, 1e-7)


def test_observing_into_an_array():
    env = qubit_control_v0.batched_env(3, "circuit")
    env.reset(0)
    out = np.empty((3, 1, 17), np.float32)
    assert env.observe(out) is out
    np.testing.assert_array_equal(out, env.observe())
    with pytest.raises(ValueError, match="out: expected writable C-contiguous float32 of shape"):
        env.observe(np.empty((3, 1, 16), np.float32))


# -- targets


def test_fixed_targets():
    for target, qubits, expected in [
        ("uniform", 1, [1, 1]),
        ("uniform", 2, [1, 1, 1, 1]),
        ("bell", 2, [1, 0, 0, 1]),
        ("ghz", 1, [1, 1]),
        ("ghz", 3, [1, 0, 0, 0, 0, 0, 0, 1]),
    ]:
        env = qubit_control_v0.batched_env(2, target=target, num_qubits=qubits)
        env.reset(0)
        close(env.arrays.target, [np.array(expected) / np.linalg.norm(expected)] * 2, 1e-15)


@pytest.mark.parametrize("gates", ["clifford", "clifford_t", "rotations"])
def test_circuit_targets_differ_and_are_not_reached_at_reset(gates):
    env = qubit_control_v0.batched_env(500, target="circuit", gates=gates, target_depth=6)
    env.reset(0)
    first = env.arrays.target.copy()
    assert (env.arrays.fidelity < 0.95).all()
    assert len(np.unique(first.round(6), axis=0)) > 15
    close(np.linalg.norm(first, axis=1), 1, 1e-12)
    env.reset()
    assert (np.abs(env.arrays.target - first).max(axis=1) > 1e-6).mean() > 0.7


def test_where_every_circuit_leads_back_the_last_one_is_kept():
    config = QubitControlConfig(target="circuit", gates="rotations", target_depth=1, success_fidelity=0.9)
    env = QubitControl(config, 20)
    env.reset(0)
    assert (env.arrays.fidelity >= 0.9).all()
    assert env.running.all()  # it does not end by itself
    transition = env.step(np.full((20, 1), config.gate_names.index("RZ(+pi/8,0)")))
    assert transition.terminated.all()


def test_haar_targets_are_uniform_over_states():
    env = qubit_control_v0.batched_env(8000, target="haar")
    env.reset(0)
    share = np.abs(env.arrays.target) ** 2  # each Beta(1, 3): mean 1/4, variance 3/80
    assert np.abs(share.mean(axis=0) - 0.25).max() < 4 * np.sqrt(3 / 80 / 8000)
    moment = (share**2).mean(axis=0)  # mean 1/10, fourth moment 1/35
    assert np.abs(moment - 0.1).max() < 4 * np.sqrt((1 / 35 - 0.01) / 8000)
    coherence = (env.arrays.target[:, 0] * env.arrays.target[:, 1].conj()).mean()
    assert abs(coherence) < 4 * np.sqrt(1 / 20 / 8000)
    close(env.arrays.fidelity, share[:, 0], 1e-12)


# -- rewards, noise, ends


def test_gains_sum_to_the_fidelity_won_less_the_cost_of_the_gates():
    env = qubit_control_v0.batched_env(50, "haar", gate_cost=0.02)
    env.reset(0)
    start, total = env.info()["fidelity"], np.zeros(50)
    for t in range(12):
        total += env.step(actions_of(env, t)).rewards[:, 0]
    info = env.info()
    close(total, info["fidelity"] - start - 12 * 0.02)
    close(info["team_return"], total)


def test_with_fidelity_as_reward_lingering_pays_more_than_finishing():
    env = qubit_control_v0.batched_env(2, reward="fidelity")
    z, h, cnot = (env.config.gate_names.index(name) for name in ("Z(0)", "H(0)", "CNOT(0,1)"))
    env.reset(0)
    env.step([[h], [z]])
    assert env.step([[cnot], [z]]).terminated.tolist() == [[True], [False]]
    finished = env.info()["team_return"][0]
    env.reset(0)
    for _ in range(10):
        env.step([[z], [z]])
    assert finished == pytest.approx(1.25 - 0.02)
    assert env.info()["team_return"][1] == pytest.approx(5 - 0.1)


def test_a_bell_pair_in_two_gates():
    env = qubit_control_v0.batched_env()
    env.reset(0)
    names = env.config.gate_names
    first = env.step([[names.index("H(0)")]])
    assert not first.terminated.any()
    assert env.info()["steps_to_success"].tolist() == [-1]
    last = env.step([[names.index("CNOT(0,1)")]])
    assert last.terminated.all()
    assert not last.truncated.any()
    info = {key: values[0] for key, values in env.info().items()}
    assert info["fidelity"] == pytest.approx(1)
    assert info["team_return"] == pytest.approx(0.5 - 0.02)
    assert (info["success"], info["gates"], info["steps_to_success"]) == (1, 2, 2)
    assert info["steps_to_success_optimal"] == 2
    with pytest.raises(ResetNeededError):
        env.step([[0]])


def test_the_time_limit_is_truncation():
    env = qubit_control_v0.batched_env(1, max_steps=3)
    env.reset(0)
    given = [env.step([[3]]) for _ in range(3)]
    assert [transition.truncated[0, 0] for transition in given] == [False, False, True]
    assert not any(transition.terminated.any() for transition in given)
    assert not env.running.any()
    assert env.info()["success"].tolist() == [0]


@pytest.mark.parametrize("p", [0.1, 0.75])
def test_noise_is_the_depolarising_channel_on_average(p):
    num_envs, names = 20_000, [("H", (0,)), ("CNOT", (0, 1)), ("S", (1,)), ("H", (1,))]
    env = qubit_control_v0.batched_env(
        num_envs, gate_noise=p, target="haar", success_fidelity=1.0, observation="tomography"
    )
    env.reset(0)
    rho = np.diag([1, 0, 0, 0]).astype(complex)
    gates = {name: matrix for name, matrix, _ in gates_of("clifford", 2)}
    events = 0
    for kind, touched in names:
        name = f"{kind}({','.join(map(str, touched))})"
        env.step(np.full((num_envs, 1), env.config.gate_names.index(name)))
        rho = gates[name] @ rho @ gates[name].conj().T
        for qubit in touched:
            events += 1
            hit = [on(2, {qubit: PAULI[a]}) for a in "XYZ"]
            rho = (1 - p) * rho + p / 3 * sum(pauli @ rho @ pauli for pauli in hit)
    seen = env.observe()[:, 0, :15].astype(float)
    for index, name in enumerate(strings(2)):
        expected = np.trace(rho @ on(2, dict(enumerate(PAULI[a] for a in name)))).real
        spread = np.sqrt(max(1 - expected**2, 1e-12) / num_envs)
        assert abs(seen[:, index].mean() - expected) < 4 * spread + 1e-6, name
    count = env.info()["noise_events"]
    assert abs(count.mean() - events * p) < 4 * np.sqrt(events * p * (1 - p) / num_envs)


def test_without_noise_nothing_is_drawn_and_with_certainty_every_qubit_is_hit():
    for noise, expected in ((0.0, 0), (1.0, 3)):
        env = qubit_control_v0.batched_env(5, gate_noise=noise, success_fidelity=1.0, target="haar")
        env.reset(0)
        env.step(np.full((5, 1), 0))
        env.step(np.full((5, 1), 8))
        assert (env.info()["noise_events"] == expected).all()
