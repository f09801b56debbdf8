"""DQN with circuits, their twins and MLPs as Q-networks."""

from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from qio_rllib.models.q_network import QNetwork
from ray import tune
from ray.rllib.core.columns import Columns

from qio_envs.api import ConfigError
from qio_rllib.algorithms import ALGORITHMS, DQNConfig
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.experiments.experiment import Experiment, load_experiment
from qio_rllib.models.circuits import CircuitNetwork, EqualCountMLP, count_parameters
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, load_policy_from_checkpoint, mean_scores

ROOT = Path(__file__).parents[2]
TINY = {"num_qubits": 2, "num_layers": 1, "inputs": "arctan"}
SETTINGS = {
    "num_env_runners": 0,
    "rollout_fragment_length": 4,
    "min_sample_timesteps_per_iteration": 40,
    "num_steps_sampled_before_learning_starts": 16,
    "train_batch_size_per_learner": 8,
    "training_intensity": 4,
    "target_network_update_freq": 1000,
    "epsilon": [[0, 1.0], [100, 0.2]],
    "replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 500},
    "evaluation_interval": 1,
    "evaluation_duration": 2,
    "model_config": {"fcnet_hiddens": [8]},
    "lr": 1e-2,
    "seed": 0,
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def experiment(**config):
    return Experiment.from_mapping(
        {
            "run": "DQN",
            "env": "CartPole-v1",
            "stop": {"training_iteration": 1},
            "config": {**SETTINGS, **config},
        }
    )


def module_of(circuit=None, epsilon=0.2, actions=3, **model_config):
    settings = DQNConfig().model_config | {"double_q": True, "epsilon": epsilon, "num_atoms": 1}
    return QNetwork(
        observation_space=gymnasium.spaces.Box(-1, 1, (4,), np.float32),
        action_space=gymnasium.spaces.Discrete(actions),
        model_config=settings
        | {"dueling": False, "circuit": circuit, "fcnet_hiddens": [8], "std_init": 0.1}
        | model_config,
        catalog_class=DQNConfig().get_default_rl_module_spec().catalog_class,
    )


# -- the module ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "circuit", [TINY, {**TINY, "kind": "classical"}, None], ids=["circuit", "twin", "mlp"]
)
@pytest.mark.parametrize("epsilon", [0.2, [[0, 1.0], [50, 0.2]], 0, [[0, 1.0], [50, 0.0]]])
def test_sampled_play_is_epsilon_greedy_with_the_last_epsilon(circuit, epsilon):
    module = module_of(circuit, epsilon)
    seen = torch.randn(20, 4)
    with torch.no_grad():
        values = module.compute_q_values({Columns.OBS: seen})["qf_preds"]
        log_probs = module.policy_logits(seen)
    last = 0.2 if epsilon in (0.2, [[0, 1.0], [50, 0.2]]) else 0.0
    expected = torch.full((20, 3), last / 3)
    expected[torch.arange(20), values.argmax(-1)] += 1 - last
    torch.testing.assert_close(log_probs.exp(), expected, atol=1e-6, rtol=0)
    assert log_probs.isfinite().all()
    assert torch.equal(log_probs.argmax(-1), values.argmax(-1))


@pytest.mark.parametrize("kind", ["circuit", "classical"])
def test_the_q_network_is_the_circuit_or_its_twin_and_the_target_a_copy(kind):
    module = module_of({**TINY, "kind": kind})
    assert isinstance(module.af, CircuitNetwork if kind == "circuit" else EqualCountMLP)
    assert sum(p.numel() for p in module.parameters()) == count_parameters(module.af)
    assert count_parameters(module.af) == count_parameters(module_of(TINY).af)
    module.make_target_networks()
    seen = {Columns.OBS: torch.randn(6, 4), Columns.NEXT_OBS: torch.randn(6, 4)}
    output = module._forward_train(seen)
    torch.testing.assert_close(output["qf_preds"], module.af(seen[Columns.OBS]))
    torch.testing.assert_close(output["qf_target_next_preds"], module.af(seen[Columns.NEXT_OBS]))
    output["qf_preds"].sum().backward()
    target = module._target_af
    assert target is not module.af
    assert isinstance(target, type(module.af))
    for name, parameter in target.named_parameters():
        assert not parameter.requires_grad or parameter.grad is None, name
    with torch.no_grad():
        for parameter in module.af.parameters():
            parameter.add_(0.3)
    again = module._forward_train(seen)
    torch.testing.assert_close(again["qf_target_next_preds"], output["qf_target_next_preds"])
    assert not torch.allclose(again["qf_preds"], output["qf_preds"])


# -- settings -----------------------------------------------------------------------------------------------------


def test_it_is_a_named_algorithm_and_a_circuit_turns_dueling_off():
    assert ALGORITHMS["DQN"] is DQNConfig
    assert DQNConfig().training(lr=1e-3).dueling == DQNConfig().dueling
    assert not DQNConfig().training(circuit=TINY).dueling
    assert DQNConfig().training(circuit=TINY, dueling=True).dueling  # and is then refused
    assert DQNConfig().training(circuit=None).dueling == DQNConfig().dueling
    experiment(circuit=TINY).validate()
    experiment().validate()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"amplification": {}},
            "amplification: DQN learns values and has no policy of its own; set it to null",
        ),
        ({"entropy_annealing": {"law": "quantum"}}, "entropy_annealing: DQN learns values"),
        ({"normalize_values": True}, "normalize_values: DQN learns values"),
        ({"coordination": {}}, "coordination: DQN learns values"),
        ({"env": "qubit_control_v0", "central_value": "state"}, "central_value: DQN learns values"),
        (
            {"circuit": TINY, "dueling": True},
            "dueling, num_atoms: a circuit has one head; set dueling to false",
        ),
        ({"circuit": TINY, "num_atoms": 5}, "dueling, num_atoms: a circuit has one head"),
        ({"circuit": {**TINY, "policy": "born"}}, "circuit.policy: .*allowed: observables, got 'born'"),
        ({"circuit": {"num_qubit": 3}}, "circuit: unknown key 'num_qubit' .did you mean 'num_qubits'"),
        ({"circuit": {"num_qubits": 13}}, "circuit.num_qubits: expected an integer from 1 to 12, got 13"),
        ({"env": "Pendulum-v1", "circuit": TINY}, "Discrete"),
        ({"circuit": TINY, "model_config": {"use_lstm": True}}, "use_lstm: a circuit has no memory"),
        ({"env": "chsh_v0"}, "MultiAgentEpisodeReplayBuffer"),
    ],
)
def test_what_has_no_place_in_it_is_refused(config, message):
    config = dict(config)
    values = experiment().as_dict()
    values["env"] = config.pop("env", "CartPole-v1")
    values["config"] = {**values["config"], **config}
    with pytest.raises(ConfigError, match=message) as caught:
        Experiment.from_mapping(values).validate()
    assert "\n" not in str(caught.value)


# -- training -----------------------------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize(
    "circuit", [TINY, {**TINY, "kind": "classical"}, None], ids=["circuit", "twin", "mlp"]
)
def test_it_trains_and_evaluates_reproducibly_from_a_checkpoint(circuit, tmp_path):
    config = experiment(circuit=circuit).validate()
    algorithm = config.build_algo()
    module = algorithm.learner_group._learner.module["default_policy"].unwrapped()
    start = {key: value.clone() for key, value in module.af.state_dict().items()}
    for key, value in module._target_af.state_dict().items():
        assert torch.equal(value, start[key])
    for _ in range(2):
        result = algorithm.train()
    assert result["learners"]["default_policy"]["num_module_steps_trained_lifetime"] >= 8
    assert np.isfinite(result["learners"]["default_policy"]["qf_loss"])
    for name, parameter in module.af.named_parameters():
        assert not torch.equal(parameter, start[name]), name
    for name, value in module._target_af.state_dict().items():  # its turn has not come
        assert torch.equal(value, start[name])
    acting = algorithm.env_runner.module.unwrapped()
    for name, value in acting.af.state_dict().items():
        assert torch.equal(value, module.af.state_dict()[name])
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    policy = load_policy_from_checkpoint(tmp_path / "checkpoint")
    loaded = load_policy(save_policy(policy, tmp_path / "policy.pt"))
    for mode, explore in (("greedy", False), ("sampled", True)):
        rows = evaluate(policy, "CartPole-v1", {}, evaluation_seeds(2), explore)
        scores = mean_scores(rows)
        assert scores == {key: result["evaluation"][mode][key] for key in scores}
        assert evaluate(loaded, "CartPole-v1", {}, evaluation_seeds(2), explore) == rows


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_the_target_follows_at_its_interval():
    algorithm = experiment(circuit=TINY, target_network_update_freq=8).validate().build_algo()
    module = algorithm.learner_group._learner.module["default_policy"].unwrapped()
    start = module._target_af.weights.clone()
    algorithm.train()
    assert not torch.equal(module._target_af.weights, start)
    algorithm.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_tune_run_takes_name_and_config(tmp_path):
    config = experiment(circuit=TINY, evaluation_interval=None).validate()
    assert config.to_dict()["_model_config"]["circuit"] == TINY
    analysis = tune.run(
        "DQN", config=config, stop={"training_iteration": 1}, storage_path=str(tmp_path), verbose=0
    )
    (trial,) = analysis.trials
    assert trial.last_result["num_env_steps_sampled_lifetime"] >= 40
    assert trial.config["_model_config"]["circuit"] == TINY


def test_the_ready_experiment_has_a_circuit_of_four_qubits():
    found = load_experiment(ROOT / "tune_configs" / "qubit_circuit_dqn.yaml")
    config = found.validate()
    assert config.model_config["circuit"]["num_qubits"] == 4
    assert not config.dueling
