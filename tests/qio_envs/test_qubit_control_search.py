import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qubit_oracle import gates_of
from qubit_settings import qubit_configs

from qio_envs import qubit_control_v0
from qio_envs.api import episode_scores, reference_scores
from qio_envs.qubit_control import QubitControl, QubitControlConfig, RandomPolicy, SearchPolicy, optimal_gates
from qio_envs.qubit_control.gates import fixed_target, zero_state
from qio_envs.qubit_control.search import search

SCENARIOS = qubit_control_v0.scenarios()
# Mean scores over the 20 seeds from 1000 on: random, search.
SCORES = {
    "default": (-0.167, 0.480),
    "uniform": (0.017, 0.730),
    "ghz": (-0.416, 0.470),
    "circuit": (0.083, 0.730),
    "circuit_3": (-0.180, 0.738),
    "circuit_t": (0.036, 0.529),
    "haar": (-0.386, 0.626),
    "noisy": (-0.554, 0.466),
    "published": (0.044, 0.730),
    "tomography": (0.083, 0.730),
}


def fidelity(config, gates, target):
    """What a sequence of actions reaches, with matrices of the whole state."""
    state = zero_state(config.num_qubits)
    for gate in gates:
        state = gates_of(config.gates, config.num_qubits)[gate][1] @ state
    return abs(np.vdot(target, state)) ** 2


def names(config, gates):
    return [config.gate_names[gate] for gate in gates]


@pytest.mark.parametrize(
    ("target", "qubits", "gates", "count"),
    [
        ("bell", 2, "clifford", 2),
        ("uniform", 2, "clifford", 2),
        ("uniform", 1, "clifford_t", 1),
        ("uniform", 4, "clifford", 4),
        ("ghz", 3, "clifford", 3),
        ("ghz", 4, "clifford_t", 4),
        ("bell", 2, "clifford_t", 2),
        ("uniform", 2, "rotations", 7),  # three turns of pi/8 for one qubit, four for the other
        ("bell", 2, "rotations", 4),
    ],
)
def test_the_fewest_gates_of_known_targets(target, qubits, gates, count):
    config = QubitControlConfig(target=target, num_qubits=qubits, gates=gates)
    aim = fixed_target(config)
    found = optimal_gates(config, aim)
    assert len(found) == count
    assert fidelity(config, found, aim) >= 0.95
    env = QubitControl(config)
    assert env.info()["steps_to_success_optimal"].tolist() == [count]


def test_the_bell_pair_is_made_by_hadamard_and_cnot():
    config = QubitControlConfig()
    found = names(config, optimal_gates(config, fixed_target(config)))
    assert found in (["H(0)", "CNOT(0,1)"], ["H(1)", "CNOT(1,0)"])


def fewest_by_exhaustion(config, target, deepest):
    """All sequences of up to ``deepest`` gates, nothing left out."""
    states = zero_state(config.num_qubits)[None]
    matrices = np.array([matrix for _, matrix, _ in gates_of(config.gates, config.num_qubits)])
    for depth in range(1, deepest + 1):
        states = np.einsum("gij,sj->sgi", matrices, states).reshape(-1, states.shape[1])
        if (np.abs(states @ target.conj()) ** 2).max() >= config.success_fidelity - 1e-9:
            return depth
    return None


@settings(deadline=None, max_examples=40)
@given(qubit_configs(gate_noise=0.0, max_steps=3), st.integers(0, 10**6))
def test_the_search_finds_what_exhaustion_finds(config, seed):
    env = QubitControl(config)
    env.reset(seed)
    target = env.arrays.target[0]
    found, expected = optimal_gates(config, target), fewest_by_exhaustion(config, target, 3)
    if expected is None:
        assert found is None
    else:
        assert len(found) == expected
        assert fidelity(config, found, target) >= config.success_fidelity - 1e-6


def test_a_search_that_fails_says_so():
    config = QubitControlConfig(
        target="uniform", num_qubits=6, gates="rotations", max_steps=30
    )  # too many states
    assert optimal_gates(config, fixed_target(config)) is None
    assert QubitControl(config).info()["steps_to_success_optimal"].tolist() == [-1]
    config = QubitControlConfig(max_steps=1)
    assert optimal_gates(config, fixed_target(config)) is None
    tee = np.array([1, np.exp(0.5j)]) / np.sqrt(2)  # no stabilizer state; the search runs dry
    assert optimal_gates(QubitControlConfig(num_qubits=1, target="ghz", success_fidelity=0.99), tee) is None


def test_a_target_that_is_reached_already_takes_one_gate():
    config = QubitControlConfig()
    found = optimal_gates(config, zero_state(2))
    assert len(found) == 1
    assert fidelity(config, found, zero_state(2)) == pytest.approx(1)


def test_the_global_phase_of_a_target_is_of_no_account():
    config = QubitControlConfig(target="circuit", gates="clifford_t", target_depth=5)
    env = QubitControl(config, 10)
    env.reset(0)
    for target in env.arrays.target:
        assert len(optimal_gates(config, target)) == len(optimal_gates(config, target * np.exp(1.1j)))


def test_bad_targets_are_refused():
    config = QubitControlConfig()
    with pytest.raises(ValueError, match=r"target: expected shape \(4,\), got \(2,\)"):
        optimal_gates(config, np.ones(2))
    with pytest.raises(ValueError, match="target: expected a state of length 1, got length 2"):
        optimal_gates(config, np.ones(4))
    with pytest.raises(ValueError, match="target: expected a state of length 1, got length nan"):
        optimal_gates(config, np.full(4, np.nan))


def test_where_the_target_is_out_of_reach_the_plan_leads_nearer():
    config = QubitControlConfig(target="haar", gates="clifford")
    env = QubitControl(config, 20)
    env.reset(0)
    for state, target in zip(env.arrays.amplitude, env.arrays.target, strict=True):
        plan = search(config, state, target, 10, 20_000, beam=True)
        assert not plan.shortest
        assert len(plan.gates) >= 1
        reached = fidelity(config, plan.gates, target)
        assert reached >= fidelity(config, (), target) - 1e-9 or len(plan.gates) == 1


# -- the policy


@pytest.mark.parametrize(("target", "qubits", "count"), [("bell", 2, 2), ("uniform", 2, 2), ("ghz", 3, 3)])
def test_the_scripted_search_takes_exactly_the_fewest_gates(target, qubits, count):
    env = qubit_control_v0.batched_env(5, target=target, num_qubits=qubits)
    env.reset(0)
    player = SearchPolicy(env)
    for t in range(count):
        terminated = env.step(player.act()).terminated
        assert (terminated == (t == count - 1)).all()
    assert (env.info()["success"] == 1).all()


@pytest.mark.parametrize("scenario", ["circuit", "circuit_3", "circuit_t", "tomography"])
def test_targets_made_by_circuits_are_reached_in_as_many_gates_or_fewer(scenario):
    env = qubit_control_v0.batched_env(30, scenario)
    env.reset(0)
    ended, player = np.zeros(30, bool), SearchPolicy(env)
    optimum = [len(optimal_gates(env.config, target)) for target in env.arrays.target]
    assert max(optimum) <= env.config.target_depth
    while not ended.all():
        env.step(player.act())
        now = ~env.running & ~ended
        assert (env.info()["steps_to_success"][now] == np.array(optimum)[now]).all()
        ended |= now
        env.reset(mask=~env.running)


def test_any_state_is_approached_by_rotations():
    env = qubit_control_v0.batched_env(10, "haar")
    scores = episode_scores(env, SearchPolicy, 0)
    assert scores.min() > 0.25
    assert (episode_scores(env, RandomPolicy, 0) < scores).all()


def test_under_noise_the_search_plans_again():
    env = qubit_control_v0.batched_env(100, "noisy", gate_noise=0.2)
    env.reset(0)
    player, ended, successes = SearchPolicy(env), np.zeros(100, bool), 0
    while not ended.all():
        env.step(player.act())
        now = ~env.running & ~ended
        successes += env.info()["success"][now].sum()
        ended |= now
        env.reset(mask=~env.running)
    assert successes >= 95


def test_the_search_notices_at_once_that_it_is_off_its_plan():
    env = qubit_control_v0.batched_env(2, "ghz")
    env.reset(0)
    player = SearchPolicy(env)
    first = player.act()
    env.step(first)
    env.arrays.amplitude[1] = zero_state(3)  # as if an error had undone the gate
    second = player.act()
    assert names(env.config, second[:, 0])[0].startswith("CNOT")
    assert second[1] == first[1]


def test_the_search_plans_for_the_target_of_the_episode():
    env, other = (qubit_control_v0.batched_env(1, "circuit") for _ in range(2))
    player = SearchPolicy(env)
    for episode in range(10):  # all but the last of them broken off after a gate
        env.reset(0 if episode == 0 else None)
        other.set_state(env.get_state())
        actions = player.act()
        np.testing.assert_array_equal(actions, SearchPolicy(other).act())
        env.step(actions)


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("policy", QubitControl.scripted_policies.values())
def test_policies_act_alike_in_a_batch_and_alone(scenario, policy):
    batch = qubit_control_v0.batched_env(3, scenario)
    singles = [qubit_control_v0.batched_env(1, scenario) for _ in range(3)]
    batch.reset(40)
    for index, single in enumerate(singles):
        single.reset(40 + index)
    together, alone = policy(batch), [policy(single) for single in singles]
    for _ in range(12):
        actions = together.act()
        assert (actions.dtype, actions.shape) == (np.int64, (3, 1))
        for index, player in enumerate(alone):
            own = player.act()
            np.testing.assert_array_equal(own[0], actions[index])
            singles[index].step(own)
        batch.step(actions)
        for env in (batch, *singles):
            env.reset(mask=~env.running)


def test_a_policy_changes_nothing_of_the_environment():
    env = qubit_control_v0.batched_env(2, "circuit_t")
    env.reset(0)
    before = env.get_state()
    for policy in env.scripted_policies.values():
        policy(env).act()
    for name, array in env.get_state().items():
        np.testing.assert_array_equal(array, before[name])


def test_every_scenario_has_its_scores():
    assert list(SCORES) == list(SCENARIOS)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_mean_scores(scenario):
    scores = reference_scores(qubit_control_v0.batched_env(20, scenario), seed=1000)
    assert list(scores) == ["random", "search"]
    assert list(scores.values()) == pytest.approx(SCORES[scenario], abs=2e-3)
