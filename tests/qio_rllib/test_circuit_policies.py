"""Policies that are circuits: acting, learning, checkpoints and policy files, and what is refused."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from toy_first_ratio import FirstRatio
from toy_off_policy import MADDPGConfig, MASACConfig, setup_of
from toy_off_policy import config_of as off_policy_config_of

from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import ActorInputs, NetworkActor
from qio_rllib.algorithms import A2CConfig, PPOConfig, QMIXConfig, VDNConfig
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.cli import main
from qio_rllib.experiments.experiment import Experiment
from qio_rllib.exploration import operate
from qio_rllib.learners.transitions import outputs_of
from qio_rllib.models.actor_critic import INPUTS, ActorCritic, ModuleInputs
from qio_rllib.models.circuits import CircuitNetwork, CircuitSettings, ParameterMatchedMLP, count_parameters
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, load_policy_from_checkpoint, mean_scores

ROOT = Path(__file__).parents[2]
TINY = {"num_qubits": 2, "num_layers": 1, "inputs": "arctan"}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    return ActorCritic(
        observation_space=observations,
        action_space=actions,
        model_config={"fcnet_hiddens": [8], **model_config},
    )


@pytest.mark.parametrize("name", CIRCUITS)
def test_acting_gives_the_numbers_of_the_network(name):
    """It acts through a trace."""
    module = module_of(**CIRCUITS[name])
    actor = NetworkActor(module.policy, ActionSpec.of(DISCRETE, False), ("dist_inputs",))

    def inputs_of(obs, mask=None):
        found = actor.act(ActorInputs(obs, mask), {}, None, explore=False)
        return torch.from_numpy(found.extras["dist_inputs"]), found.actions

    for shape in ((1, 1), (2, 1), (13, 2)):
        obs = np.random.default_rng(0).normal(size=(*shape, 3)).astype(np.float32)
        with torch.no_grad():
            expected = module._forward_inference({Columns.OBS: torch.from_numpy(obs).flatten(0, 1)})
        expected = expected[Columns.ACTION_DIST_INPUTS].reshape(*shape, 3)
        torch.testing.assert_close(inputs_of(obs)[0], expected, atol=0, rtol=0)
        mask = np.ones((*shape, 3), bool)
        mask[..., 1] = False
        masked, actions = inputs_of(obs, mask)
        assert (masked.exp()[..., 1] == 0).all()
        assert (actions != 1).all()
    assert isinstance(actor._forward, torch.jit.ScriptModule)
    before, _ = inputs_of(obs)
    with torch.no_grad():
        next(module.policy.head.parameters()).add_(0.5)
    assert not torch.allclose(inputs_of(obs)[0], before)  # it shares its parameters


def test_policy_and_value_are_separate_networks_of_the_kind():
    for kind, network in (("circuit", CircuitNetwork), ("classical", ParameterMatchedMLP)):
        module = module_of(circuit={**TINY, "kind": kind, "policy": "born"})
        assert isinstance(module.policy.head, network)
        assert isinstance(module.value.head, network)
        seen = {Columns.OBS: torch.randn(5, 3)}
        assert module.compute_values(seen).shape == (5,)
        module.compute_values(seen).sum().backward()
        assert all(p.grad is None for p in module.policy.parameters())
        assert set(module.get_non_inference_attributes()) == {"value"}
        names = [name for name, _ in module.named_parameters()]
        assert all(name.startswith(("policy.head.", "value.head.")) for name in names)
    same = [count_parameters(module_of(circuit={**TINY, "kind": kind})) for kind in ("circuit", "classical")]
    assert same[0] == same[1]


@pytest.mark.parametrize("name", CIRCUITS)
def test_the_operator_is_applied_once_in_acting_and_in_learning(name):
    module = module_of(**CIRCUITS[name])
    seen = torch.randn(6, 3)
    policy = module.policy
    outputs = policy.head(seen)
    expected = operate(policy.amplification, outputs, policy.eta, policy.h_min, policy.tau)
    if not policy.is_amplified:
        expected = outputs
    for found in (
        module._forward_exploration({Columns.OBS: seen}),
        module._forward_inference({Columns.OBS: seen}),
        module._forward_train({Columns.OBS: seen}),
        module._forward_train({INPUTS: ModuleInputs(seen)}),
    ):
        torch.testing.assert_close(found[Columns.ACTION_DIST_INPUTS], expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("algorithm", [MADDPGConfig, MASACConfig, QMIXConfig, VDNConfig])
@pytest.mark.parametrize("kind", ["circuit", "classical"])
def test_networks_with_joint_critics_or_mixers_can_be_circuits(algorithm, kind):
    """An agent's logits or values are those of its own row, whatever stands around it."""
    setup = setup_of(off_policy_config_of("discrete", algorithm=algorithm, circuit={**TINY, "kind": kind}))
    (module,), rows = setup.modules, setup.rows
    found, _ = outputs_of(module.policy, rows, 0, 0)
    for agent in range(rows.obs[0].shape[1]):
        torch.testing.assert_close(found[:, agent], module.policy.head(rows.obs[0][:, agent]))
    before = [parameter.clone() for parameter in module.policy.parameters()]
    stats = setup.learner.gradient_step(rows)
    assert all(math.isfinite(float(value)) for value in stats.values())
    assert all((old != new).any() for old, new in zip(before, module.policy.parameters(), strict=True))


# -- training -----------------------------------------------------------------------------------------------------


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
    ids=["ppo", "ppo-born", "ppo-matched-amplified", "ppo-central", "a2c-born-amplified", "a2c-central"],
)
def test_it_trains_and_acts_equally_from_checkpoint_and_policy_file(config_class, env, training, tmp_path):
    algorithm = config_of(config_class, env, **training).build_algo()
    (name,) = algorithm.env_runner.module.keys()
    learner = algorithm.learner_group._learner.module[name].unwrapped()
    before = {key: value.detach().clone() for key, value in learner.named_parameters()}
    for _ in range(2):  # the second update has weights that were synced
        FirstRatio.ratio.clear()
        result = algorithm.train()
        if config_class is PPOConfig:
            first = FirstRatio.ratio[0]
            torch.testing.assert_close(first, torch.ones_like(first), atol=1e-5, rtol=0)
    for key, value in learner.named_parameters():
        assert value.isfinite().all()
        assert not torch.equal(value, before[key]), key
    assert learner.value.is_central == ("central_value" in training)
    acting = algorithm.env_runner.module[name].unwrapped()
    for key, value in acting.state_dict().items():
        assert torch.equal(value, learner.state_dict()[key]), key
    assert acting.state_dict()
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
        ("PPO", "Pendulum-v1", {}, "circuit: needs a Discrete action space"),
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
        ("MADDPG", "swarm_cooperative_v0", {}, "circuit: needs a Discrete action space"),
        (
            "MADDPG",
            "swarm_cooperative_v0",
            {"env_config": {"actions": "discrete"}, "communication": {"bandwidth": 2}},
            "communication: a circuit takes no messages",
        ),
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
    assert not isinstance(module_of(circuit=None).policy.head, CircuitNetwork)
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
