"""Networks that are circuits: their numbers, their classical twins, training with them, and what is refused."""

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qio_rllib.models.amplified import AmplifiedActorCritic
from qio_rllib.models.central import CentralCritic
from ray.rllib.core.columns import Columns

from qio_envs.api import ConfigError
from qio_rllib.algorithms import A2CConfig, PPOConfig
from qio_rllib.algorithms.ppo import PPOLearner
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.cli import main
from qio_rllib.experiments.experiment import Experiment
from qio_rllib.exploration import operate
from qio_rllib.models.circuits import (
    CircuitNetwork,
    CircuitSettings,
    EqualCountMLP,
    count_parameters,
    suffix_parities,
)
from qio_rllib.quantum import pennylane_expectation, pennylane_state
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, load_policy_from_checkpoint, mean_scores

ROOT = Path(__file__).parents[2]
TINY = {"num_qubits": 2, "num_layers": 1, "inputs": "arctan"}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- the numbers --------------------------------------------------------------------------------------------------


def rotation(axis, angle):
    pauli = {"X": [[0, 1], [1, 0]], "Y": [[0, -1j], [1j, 0]], "Z": [[1, 0], [0, -1]]}[axis]
    return math.cos(angle / 2) * np.eye(2) - 1j * math.sin(angle / 2) * np.array(pauli)


def on(qubits, places, matrix):
    """Return a gate on some of the qubits as a dense matrix; the first place is the most significant."""
    size = 2**qubits
    dense = np.zeros((size, size), complex)
    for column in range(size):
        bits = [column >> (qubits - 1 - q) & 1 for q in range(qubits)]
        index = functools.reduce(lambda total, place: 2 * total + bits[place], places, 0)
        for row in range(len(matrix)):
            out = list(bits)
            for n, place in enumerate(places):
                out[place] = row >> (len(places) - 1 - n) & 1
            dense[functools.reduce(lambda total, bit: 2 * total + bit, out, 0), column] += matrix[row, index]
    return dense


def reference(network, config, row):
    """Return a circuit network's output for one observation, from the equations of its docstring alone."""
    qubits, layers = config.num_qubits, config.num_layers
    weights, scales = (x.detach().double().numpy() for x in (network.weights, network.scales))
    two = np.eye(4)[[0, 1, 3, 2]] if config.entangler == "CNOT" else np.diag([1, 1, 1, -1])
    state = np.zeros(2**qubits, complex)
    state[0] = 1
    given = iter(weights)
    for layer in range(layers + 1):
        for qubit in range(qubits):
            for axis in "XYZ" if layer < layers else "ZY":
                state = on(qubits, [qubit], rotation(axis, next(given))) @ state
        if layer == layers:
            break
        for qubit in range(qubits if qubits > 2 else qubits - 1):
            state = on(qubits, [qubit, (qubit + 1) % qubits], two) @ state
        for index, value in enumerate(row):
            angle = scales[layer, index] * value
            angle = math.atan(angle) if config.inputs == "arctan" else angle
            axis = "YZX"[index // qubits % 3]
            state = on(qubits, [index % qubits], rotation(axis, angle)) @ state
    probs = np.abs(state) ** 2
    if network.measurement is None:
        actions = network.groups.shape[1]
        shares = np.zeros(actions)
        for k, p in enumerate(probs):
            bits = [k >> (qubits - 1 - q) & 1 for q in range(qubits)]
            place = sum((sum(bits[q:]) % 2) << (qubits - 1 - q) for q in range(qubits))
            shares[place * actions // 2**qubits] += p
        return np.log(shares)
    signs = np.array([[1 - 2 * (k >> (qubits - 1 - q) & 1) for k in range(2**qubits)] for q in range(qubits)])
    pairs = [signs[a] * signs[b] for a, b in itertools.combinations(range(qubits), 2)]
    expectations = np.array([*signs, *pairs]) @ probs
    matrix, bias = (x.detach().double().numpy() for x in (network.readout.weight, network.readout.bias))
    return matrix @ expectations + bias


@pytest.mark.parametrize(
    ("readout", "size", "entangler", "angles", "inputs"),
    [
        ("observables", (3, 2), "CNOT", "linear", 5),
        ("observables", (2, 1), "CZ", "arctan", 7),
        ("observables", (1, 1), "CNOT", "linear", 1),
        ("born", (3, 1), "CZ", "linear", 2),
        ("born", (2, 2), "CNOT", "arctan", 3),
    ],
)
def test_a_circuit_computes_what_its_equations_say(readout, size, entangler, angles, inputs):
    torch.manual_seed(0)
    config = CircuitSettings(
        num_qubits=size[0], num_layers=size[1], entangler=entangler, inputs=angles, policy=readout
    )
    network = config.network(inputs, 3, readout)
    with torch.no_grad():
        network.scales.uniform_(-2, 2)
        seen = 3 * torch.randn(4, inputs)
        expected = np.array([reference(network, config, row) for row in seen.double().numpy()])
        np.testing.assert_allclose(network(seen).numpy(), expected, atol=2e-5)


def test_pennylane_agrees():
    pytest.importorskip("pennylane")
    torch.manual_seed(1)
    config = CircuitSettings(num_qubits=4, num_layers=2)
    observing, born = config.network(6, 3), config.network(6, 3, "born")
    seen = torch.randn(5, 6)
    strings = [f"Z{q}" for q in range(4)] + [f"Z{a} Z{b}" for a, b in itertools.combinations(range(4), 2)]
    with torch.no_grad():
        angles = (seen[:, None] * observing.scales).flatten(1).double()
        values = pennylane_expectation(observing.circuit, strings, observing.weights.double(), angles)
        torch.testing.assert_close(observing(seen), observing.readout(values.float()), atol=1e-5, rtol=1e-5)
        state = pennylane_state(born.circuit, born.weights.double(), angles)
        shares = state.abs().square() @ born.groups.double()
        torch.testing.assert_close(born(seen).double(), shares.log(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("readout", ["observables", "born"])
@pytest.mark.parametrize("entangler", ["CNOT", "CZ"])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 2)])
def test_every_parameter_has_a_gradient(readout, entangler, size):
    """Nothing is counted that cannot be learned: twins have as many parameters, and those are all used."""
    torch.manual_seed(0)
    qubits, layers = size
    config = CircuitSettings(num_qubits=qubits, num_layers=layers, entangler=entangler, inputs="arctan")
    network = config.network(5, 2, readout)
    (network(torch.randn(16, 5)) * torch.randn(16, 2)).sum().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad.abs() > 1e-6).all(), name


@pytest.mark.parametrize("inputs", ["linear", "arctan"])
def test_large_observations_stay_finite(inputs):
    for readout in ("observables", "born"):
        network = CircuitSettings(num_qubits=2, num_layers=1, inputs=inputs).network(3, 2, readout)
        seen = torch.tensor([[1e6, -1e6, 0.0], [0.0, 0.0, 0.0]])
        values = network(seen)
        values.sum().backward()
        assert values.isfinite().all()
        assert all(p.grad.isfinite().all() for p in network.parameters())


def test_born_probabilities_sum_to_one_over_nearly_equal_runs_of_states():
    for qubits, actions in [(1, 2), (2, 3), (3, 5), (4, 16), (3, 1)]:
        network = CircuitSettings(num_qubits=qubits, num_layers=1).network(2, actions, "born")
        torch.testing.assert_close(network(torch.randn(9, 2)).exp().sum(-1), torch.ones(9))
        sizes = network.groups.sum(0)
        assert sizes.sum() == 2**qubits
        assert sizes.min() >= 1
        assert sizes.max() - sizes.min() <= 1
        owner = network.groups.argmax(1)[suffix_parities(qubits).argsort()]
        assert (owner.diff() >= 0).all()


@settings(deadline=None)
@given(st.integers(1, 8))
def test_suffix_parities_are_a_permutation_whose_first_bit_is_the_parity_of_all(qubits):
    found = suffix_parities(qubits).tolist()
    assert sorted(found) == list(range(2**qubits))
    assert [value >> (qubits - 1) for value in found] == [k.bit_count() % 2 for k in range(2**qubits)]


def test_the_born_rule_needs_a_state_for_each_action():
    config = CircuitSettings(num_qubits=2, num_layers=1)
    config.network(3, 4, "born")
    with pytest.raises(
        ConfigError, match=r"circuit.num_qubits: .* 2 qubits tells 4 actions apart, there are 5"
    ):
        config.network(3, 5, "born")


# -- the twin -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    qubits=st.integers(1, 5),
    layers=st.integers(1, 4),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 12),
    readout=st.sampled_from(["observables", "born"]),
)
def test_the_twin_has_exactly_as_many_parameters(qubits, layers, inputs, outputs, readout):
    if readout == "born" and outputs > 2**qubits:
        return
    sizes = {"num_qubits": qubits, "num_layers": layers}
    circuit = CircuitSettings(**sizes).network(inputs, outputs, readout)
    assert isinstance(circuit, CircuitNetwork)
    settings_of_twin = CircuitSettings(**sizes, kind="classical")
    hidden = math.ceil((count_parameters(circuit) - outputs) / (inputs + 1 + outputs))
    if hidden * inputs >= inputs + outputs + 1:  # what is too much can be left out of the first layer
        twin = settings_of_twin.network(inputs, outputs, readout)
    else:  # so few connections that there may be none
        with contextlib.suppress(ConfigError):
            twin = settings_of_twin.network(inputs, outputs, readout)
            check_twin(twin, inputs, outputs, count_parameters(circuit))
        return
    check_twin(twin, inputs, outputs, count_parameters(circuit))


@settings(max_examples=200, deadline=None)
@given(inputs=st.integers(1, 200), outputs=st.integers(1, 20), parameters=st.integers(1, 3000))
def test_a_network_of_a_given_count_has_it(inputs, outputs, parameters):
    try:
        twin = EqualCountMLP(inputs, outputs, parameters)
    except ConfigError:
        assert parameters < outputs + (outputs + 1) * 3 + max(inputs, outputs) * 10
        return
    check_twin(twin, inputs, outputs, parameters)


def check_twin(twin, inputs, outputs, parameters):
    assert sum(p.numel() for p in twin.parameters() if p.requires_grad) == parameters
    assert len(twin.places.unique()) == len(twin.first)
    torch.nn.init.uniform_(twin.bias, -0.5, 0.5)  # from 0 they leave a hidden unit without inputs at 0
    seen = 0.1 * torch.randn(8, inputs) / math.sqrt(inputs)
    values = twin(seen)
    assert values.shape == (8, outputs)
    (values * torch.randn(8, outputs)).sum().backward()
    for name, parameter in twin.named_parameters():
        assert (parameter.grad != 0).all(), name
    hidden, _ = twin.shape
    widest = outputs + (hidden - 1) * (inputs + 1 + outputs)
    assert widest < parameters <= outputs + hidden * (inputs + 1 + outputs)


def test_every_hidden_unit_of_a_twin_keeps_inputs():
    twin = CircuitSettings(kind="classical").network(8, 5)
    hidden, inputs = twin.shape
    kept = torch.zeros(hidden * inputs).index_fill(0, twin.places, 1).reshape(hidden, inputs).sum(1)
    assert kept.min() >= 1


def test_too_few_parameters_for_a_twin_are_refused():
    with pytest.raises(ConfigError, match="circuit: no network of 1 inputs and 12 outputs has just 30 param"):
        CircuitSettings(kind="classical", num_qubits=1, num_layers=1).network(1, 12)
    with pytest.raises(ConfigError, match="take other numbers of qubits"):
        EqualCountMLP(3, 2, 2)


# -- in a module --------------------------------------------------------------------------------------------------

BOX, DISCRETE = gymnasium.spaces.Box(-1, 1, (3,), np.float32), gymnasium.spaces.Discrete(3)
CIRCUITS: dict[str, dict[str, Any]] = {
    "observables": {"circuit": TINY},
    "born": {"circuit": {**TINY, "policy": "born"}},
    "classical": {"circuit": {**TINY, "kind": "classical"}},
    "amplified": {"circuit": TINY, "amplification": {"eta": 0.3, "h_min": 0.2}},
    "random": {
        "circuit": {**TINY, "policy": "born"},
        "amplification": {"eta": 0.3, "h_min": 0.2, "operator": "random"},
    },
}


def module_of(observations=BOX, actions=DISCRETE, **model_config):
    return AmplifiedActorCritic(
        observation_space=observations,
        action_space=actions,
        model_config={"fcnet_hiddens": [8], **model_config},
    )


@pytest.mark.parametrize("name", CIRCUITS)
def test_the_traced_way_to_act_gives_the_same_numbers(name):
    module = module_of(**CIRCUITS[name])
    acting = module.acting()
    assert acting is not None
    with torch.no_grad():
        for rows in (1, 2, 13):
            seen = torch.randn(rows, 3)
            expected = module._forward({Columns.OBS: seen})[Columns.ACTION_DIST_INPUTS]
            assert torch.equal(acting(seen, None), expected)
            mask = torch.ones(rows, 3, dtype=torch.bool)
            mask[:, 1] = False
            masked = acting(seen, mask).exp()
            assert (masked[:, 1] == 0).all()
        before = acting(seen, None).clone()
        next(module.pi.parameters()).add_(0.5)
        assert not torch.allclose(acting(seen, None), before)  # it shares its parameters


def test_policy_and_value_are_separate_networks_of_the_kind():
    for kind, network in (("circuit", CircuitNetwork), ("classical", EqualCountMLP)):
        module = module_of(circuit={**TINY, "kind": kind, "policy": "born"})
        assert isinstance(module.pi, network)
        assert isinstance(module.vf, network)
        seen = {Columns.OBS: torch.randn(5, 3)}
        assert module.compute_values(seen).shape == (5,)
        module.compute_values(seen).sum().backward()
        assert all(p.grad is None for p in module.pi.parameters())
        assert set(module.get_non_inference_attributes()) == {"vf"}
        others = [name for name, _ in module.named_parameters() if not name.startswith(("pi.", "vf."))]
        assert not others
    same = [count_parameters(module_of(circuit={**TINY, "kind": kind})) for kind in ("circuit", "classical")]
    assert same[0] == same[1]


@pytest.mark.parametrize("name", CIRCUITS)
def test_the_operator_is_applied_once_in_acting_and_in_learning(name):
    module = module_of(**CIRCUITS[name])
    seen = torch.randn(6, 3)
    amplified, values = module.amplification, module.pi(seen)
    expected = operate(amplified, values, amplified.eta, amplified.h_min, amplified.tau)
    if not module.is_amplified:
        expected = values
    for forward in (module._forward, module._forward_train):
        given_inputs = forward({Columns.OBS: seen})[Columns.ACTION_DIST_INPUTS]
        torch.testing.assert_close(given_inputs, expected, atol=1e-6, rtol=1e-6)


# -- training -----------------------------------------------------------------------------------------------------


class FirstRatio(PPOLearner):
    """Keeps the ratios of the first minibatch of the last update."""

    ratio: ClassVar[torch.Tensor]

    def rollout_loss(self, module_id, config, batch, policy, values) -> Any:
        if not self._entropy_sums:
            log_ratio = policy.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP]
            FirstRatio.ratio = log_ratio.exp().detach()
        return super().rollout_loss(module_id, config, batch, policy, values)


ENVIRONMENTS = {
    "CartPole-v1": {},
    "chsh_v0": {},
    "swarm_cooperative_v0": {"scenario": "discrete", "max_steps": 20},
}
AMPLIFIED = {"eta": 0.3, "h_min": 0.3, "tau": 0.9}


def config_of(config_class, env, **training):
    sizes = {"train_batch_size_per_learner": 32, "lr": 1e-2}
    if config_class is PPOConfig:
        sizes |= {"minibatch_size": 32, "num_epochs": 2, "use_kl_loss": False}
    config = (
        config_class()
        .environment(env, env_config=ENVIRONMENTS[env])
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=16)
        .evaluation(evaluation_interval=1, evaluation_duration=2)
        .training(**sizes, **training)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=0)
    )
    return config.learners(learner_class=FirstRatio) if config_class is PPOConfig else config


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize(
    ("config_class", "env", "training"),
    [
        (PPOConfig, "CartPole-v1", {"circuit": TINY}),
        (PPOConfig, "chsh_v0", {"circuit": {**TINY, "policy": "born"}}),
        (PPOConfig, "CartPole-v1", {"circuit": {**TINY, "kind": "classical"}, "amplification": AMPLIFIED}),
        (
            PPOConfig,
            "swarm_cooperative_v0",
            {"circuit": TINY, "central_value": "state", "amplification": AMPLIFIED},
        ),
        (A2CConfig, "CartPole-v1", {"circuit": {**TINY, "policy": "born"}, "amplification": AMPLIFIED}),
        (A2CConfig, "swarm_cooperative_v0", {"circuit": TINY, "central_value": "observations"}),
    ],
    ids=["ppo", "ppo-born", "ppo-twin-amplified", "ppo-central", "a2c-born-amplified", "a2c-central"],
)
def test_it_trains_and_acts_equally_from_checkpoint_and_policy_file(config_class, env, training, tmp_path):
    algorithm = config_of(config_class, env, **training).build_algo()
    (name,) = algorithm.env_runner.module.keys()
    learner = algorithm.learner_group._learner.module[name].unwrapped()
    before = {key: value.detach().clone() for key, value in learner.named_parameters()}
    for _ in range(2):  # the second update has weights that were synced
        result = algorithm.train()
        if config_class is PPOConfig:
            torch.testing.assert_close(FirstRatio.ratio, torch.ones_like(FirstRatio.ratio), atol=1e-5, rtol=0)
    for key, value in learner.named_parameters():
        assert value.isfinite().all()
        assert not torch.equal(value, before[key]), key
    assert isinstance(learner.vf, CentralCritic) == ("central_value" in training)
    acting = algorithm.env_runner.module[name].unwrapped()
    for key, value in acting.state_dict().items():
        assert torch.equal(value, learner.state_dict()[key]), key
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    policy = load_policy_from_checkpoint(tmp_path / "checkpoint")
    loaded = load_policy(save_policy(policy, tmp_path / "policy.pt"))
    for mode, explore in (("greedy", False), ("sampled", True)):
        rows = evaluate(policy, env, ENVIRONMENTS[env], evaluation_seeds(2), explore)
        scores = mean_scores(rows)
        assert scores == {key: result["evaluation"][mode][key] for key in scores}
        assert evaluate(loaded, env, ENVIRONMENTS[env], evaluation_seeds(2), explore) == rows


# -- what is refused ----------------------------------------------------------------------------------------------

CHOICES = "expected one of"


@pytest.mark.parametrize(
    ("circuit", "message"),
    [
        ({"num_qubit": 4}, r"circuit: unknown key 'num_qubit' .did you mean 'num_qubits'"),
        (
            {"kind": "classic"},
            r"circuit.kind: expected one of circuit, classical, got 'classic' .did you mean",
        ),
        ({"kind": None}, f"circuit.kind: {CHOICES} .*got None"),
        ({"kind": ["circuit"]}, f"circuit.kind: {CHOICES}"),
        ({"policy": "bron"}, f"circuit.policy: {CHOICES} observables, born, got 'bron' .did you mean 'born'"),
        ({"entangler": "cnot"}, f"circuit.entangler: {CHOICES} CNOT, CZ, got 'cnot'"),
        ({"inputs": "tanh"}, f"circuit.inputs: {CHOICES} linear, arctan"),
        ({"num_qubits": 0}, "circuit.num_qubits: expected an integer from 1 to 12, got 0"),
        ({"num_qubits": 13}, "circuit.num_qubits: expected an integer from 1 to 12, got 13"),
        ({"num_qubits": True}, "circuit.num_qubits: expected an integer from 1 to 12, got True"),
        ({"num_qubits": 2.0}, r"circuit.num_qubits: expected an integer from 1 to 12, got 2.0"),
        ({"num_qubits": "4"}, "circuit.num_qubits: expected an integer from 1 to 12, got '4'"),
        ({"num_qubits": None}, "circuit.num_qubits: expected an integer"),
        ({"num_layers": 0}, "circuit.num_layers: expected an integer from 1 to 50, got 0"),
        ({"num_layers": 51}, "circuit.num_layers: expected an integer from 1 to 50, got 51"),
        (3, "circuit: .*got 3"),
        ([], r"circuit: .*got \[\]"),
    ],
)
def test_bad_settings_are_refused_in_one_line(circuit, message):
    with pytest.raises(ConfigError, match=message) as caught:
        PPOConfig().training(circuit=circuit)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=message):
        CircuitSettings.of(circuit)


def experiment(algorithm, env, **config):
    return Experiment.from_mapping(
        {"run": algorithm, "env": env, "stop": {"training_iteration": 1}, "config": config}
    )


@pytest.mark.parametrize(
    ("algorithm", "env", "config", "message"),
    [
        ("PPO", "Pendulum-v1", {}, "circuit: needs a Discrete action space, got Box"),
        ("PPO", "CartPole-v1", {"model_config": {"use_lstm": True}}, "use_lstm: a circuit has no memory"),
        (
            "PPO",
            "qubit_control_v0",
            {"circuit": {**TINY, "policy": "born"}},
            "circuit.num_qubits: the Born rule over 2 qubits tells 4 actions apart",
        ),
        (
            "PPO",
            "chsh_v0",
            {"env_config": {"as_team": True}, "coordination": {}, "amplification": None},
            "coordination: takes the place of a circuit",
        ),
        ("MADDPG", "swarm_cooperative_v0", {}, "circuit: MADDPG's actors are MLPs; PPO and A2C take it"),
        ("PPO", "CartPole-v1", {"circuit": {"num_qubit": 3}}, "circuit: unknown key 'num_qubit'"),
        ("PPO", "CartPole-v1", {"circuit": 3}, "config.circuit: expected a mapping or null, got 3"),
    ],
)
def test_what_a_circuit_cannot_do_is_refused_before_a_run(algorithm, env, config, message):
    with pytest.raises(ConfigError, match=message) as caught:
        experiment(algorithm, env, **{"circuit": TINY, **config}).validate()
    assert "\n" not in str(caught.value)


def test_null_takes_a_circuit_back():
    config = PPOConfig().training(circuit=TINY).training(circuit=None)
    assert config.model_config["circuit"] is None
    assert not module_of(circuit=None).has_own_network
    kept = PPOConfig().training(circuit=TINY).rl_module(model_config={"fcnet_hiddens": [4]})
    assert kept.model_config["circuit"] == TINY


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("circuit.num_qubit=4", "circuit: unknown key 'num_qubit'"),
        ("circuit.num_qubits=99", "circuit.num_qubits: expected an integer from 1 to 12, got 99"),
        ("circuit.kind=clasical", "did you mean 'classical'"),
    ],
)
def test_the_command_line_says_it_in_one_line(override, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = ROOT / "tune_configs" / "qubit_circuit_ppo.yaml"
    assert main(["train", "--config", str(file), "--set", override]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.startswith("rllib: ")
    assert err.count("\n") == 1
    assert out == ""
    assert not list(tmp_path.iterdir())
