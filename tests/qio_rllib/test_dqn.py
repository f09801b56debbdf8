"""Q-learning: targets against NumPy, epsilon, masks, independent learners, circuits as Q-networks, runs."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm
from toy_off_policy import DQNConfig, config_of, moved_apart, setup_of

from qio_envs.api import ConfigError
from qio_rllib.algorithms import ALGORITHMS
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.experiments.experiment import Experiment, load_experiment
from qio_rllib.models.circuits import CircuitNetwork, ParameterMatchedMLP, count_parameters
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, load_policy_from_checkpoint, mean_scores
from qio_rllib.sampling.runner import BatchedEnvRunner

ROOT = Path(__file__).parents[2]
TINY = {"num_qubits": 2, "num_layers": 1, "inputs": "arctan"}
CIRCUITS = {"circuit": TINY, "matched": {**TINY, "kind": "classical"}, "mlp": None}
circuits = pytest.mark.parametrize("circuit", CIRCUITS.values(), ids=CIRCUITS)


def dqn(task, **settings):
    return setup_of(config_of(task, algorithm=DQNConfig, **settings))


def q_values_of(policy, obs):
    """Return Q-values of an MLP by NumPy alone."""
    x = np.asarray(obs, np.float64)
    layers = [layer for layer in policy.encoder.layers if isinstance(layer, torch.nn.Linear)]
    for layer in layers:
        x = np.maximum(x @ layer.weight.detach().numpy().T.astype(float) + layer.bias.detach().numpy(), 0)
    (head,) = policy.head.layers
    out = x @ head.weight.detach().numpy().T.astype(float) + head.bias.detach().numpy()
    if not policy.spec.dueling:
        return out
    value, advantage = out[..., :1], out[..., 1:]
    return value + advantage - advantage.mean(-1, keepdims=True)


# -- one gradient step


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize("dueling", [True, False])
@pytest.mark.parametrize("task", ["forest", "masked", "pole"])
def test_the_loss_is_huber_of_the_error_to_double_q_targets(task, double_q, dueling):
    """van Hasselt et al. (2016), Wang et al. (2016): who chooses, who values, and what is never chosen."""
    setup = dqn(task, double_q=double_q, dueling=dueling, gamma=0.9, reward_scale=0.5)
    (module,), steps = setup.modules, setup.steps
    moved_apart(module.policy, by=0.5)
    moved_apart(module.target_policy, by=1.0)
    columns = next(iter(steps.modules.values()))
    own = q_values_of(module.policy, columns["observations"])
    chosen = np.take_along_axis(own, columns["actions"][..., None], -1)[..., 0]
    by_target = q_values_of(module.target_policy, columns["next_observations"])
    chooser = q_values_of(module.policy, columns["next_observations"]) if double_q else by_target
    if task != "pole":
        legal = columns["next_action_mask"]
        assert (chooser.argmax(-1) != np.where(legal, chooser, -np.inf).argmax(-1)).any()
        chooser = np.where(legal, chooser, -np.inf)
    best = np.take_along_axis(by_target, chooser.argmax(-1)[..., None], -1)[..., 0]
    error = np.abs(chosen - 0.5 * columns["rewards"] - 0.9 * columns["present_next"] * best)
    huber = np.where(error < 1, 0.5 * error**2, error - 0.5)
    stats = setup.learner.gradient_step(setup.rows)
    name = setup.rows.modules[0]
    assert float(stats[name, "q_loss"]) == pytest.approx(huber[columns["acted"]].mean(), rel=1e-4)
    assert float(stats[name, "q_mean"]) == pytest.approx(chosen[columns["acted"]].mean(), rel=1e-3, abs=1e-4)


def test_targets_over_several_steps_take_sums_and_their_own_discounts():
    config = config_of("lives", algorithm=DQNConfig, n_step=3, gamma=0.8)
    setup = setup_of(config, sequences=True, count=200)
    (module,), columns = setup.modules, setup.steps.modules["shared"]
    moved_apart(module.target_policy, by=1.0)
    powers = np.unique(columns["discounts"][columns["acted"]])
    assert {round(float(value), 3) for value in powers} == {0.8, 0.64, 0.512}
    by_target = q_values_of(module.target_policy, columns["next_observations"])
    chooser = q_values_of(module.policy, columns["next_observations"])
    best = np.take_along_axis(by_target, chooser.argmax(-1)[..., None], -1)[..., 0]
    own = q_values_of(module.policy, columns["observations"])
    chosen = np.take_along_axis(own, columns["actions"][..., None], -1)[..., 0]
    error = np.abs(chosen - columns["rewards"] - columns["discounts"] * columns["present_next"] * best)
    huber = np.where(error < 1, 0.5 * error**2, error - 0.5)
    stats = setup.learner.gradient_step(setup.rows)
    assert float(stats["shared", "q_loss"]) == pytest.approx(huber[columns["acted"]].mean(), rel=1e-4)


def test_the_target_moves_every_so_many_gradient_steps():
    setup = dqn("pole", target_network_update_freq=3, tau=1.0)
    (module,) = setup.modules
    for step in range(1, 8):
        start = copy.deepcopy(module.target_policy.state_dict())
        setup.learner.gradient_step(setup.rows)
        weights = [*module.target_policy.parameters()]
        if step % 3:
            assert all(torch.equal(start[name], p) for name, p in module.target_policy.named_parameters())
        else:
            assert all(
                torch.equal(one, two) for one, two in zip(weights, module.policy.parameters(), strict=True)
            )
    state = setup.learner.get_state()
    other = dqn("pole", target_network_update_freq=3, tau=1.0)
    other.learner.set_state(state)  # the count goes on: the ninth step moves it
    for _ in range(2):
        other.learner.gradient_step(other.rows)
    assert torch.equal(
        *(
            policy.head.layers[0].weight
            for policy in (other.modules[0].policy, other.modules[0].target_policy)
        )
    )


def test_several_agents_are_independent_learners():
    """What another agent sees, does and gets changes nothing in an agent's loss."""
    setup = dqn("tag")
    learner, rows = setup.learner, setup.rows
    before = {name: float(value) for name, value in learner.gradient_step(rows).items()}
    again = dqn("tag")
    for g in (0,):
        again.rows.obs[g] += 1.0
        again.rows.rewards[g] += 5.0
        again.rows.actions[g] = again.rows.actions[g].roll(1, -1)
    after = {name: float(value) for name, value in again.learner.gradient_step(again.rows).items()}
    assert after["prey", "q_loss"] == before["prey", "q_loss"]
    assert after["chasers", "q_loss"] != before["chasers", "q_loss"]
    assert [module.policy.spec.input_size for module in setup.modules] == [
        rows.obs[0].shape[-1], rows.obs[1].shape[-1],
    ]  # fmt: skip


# -- acting


@circuits
@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_sampled_play_is_epsilon_greedy_and_greedy_play_is_not(circuit, epsilon):
    runner = BatchedEnvRunner(config=config_of("pole", algorithm=DQNConfig, fragment=500, circuit=circuit))
    policy = runner.module["default_policy"].unwrapped().policy
    policy.exploration.fill_(epsilon)
    for explore in (True, False):
        part = runner.sample(explore=explore)[0].modules["default_policy"]
        with torch.no_grad():
            rows = torch.from_numpy(part.observations[:-1]).flatten(0, 2)
            q_values = policy.outputs(policy.features(rows, None)[0])
        other = (part.actions.ravel() != q_values.argmax(-1).numpy()).mean()
        assert other == (pytest.approx(epsilon / 2, abs=0.025) if explore else 0)
        expected = torch.full_like(q_values, epsilon / 2)
        expected[torch.arange(len(rows)), q_values.argmax(-1)] += 1 - epsilon
        found = policy.distribution(q_values, None, explore=True)
        assert found.isfinite().all()
        torch.testing.assert_close(found.exp(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_neither_chance_nor_greed_takes_illegal_actions(epsilon):
    runner = BatchedEnvRunner(config=config_of("masked", algorithm=DQNConfig, fragment=200))
    policy = runner.module["shared"].unwrapped().policy
    policy.exploration.fill_(epsilon)
    for explore in (True, False):  # the environment asserts that actions are legal, too
        part = runner.sample(explore=explore)[0].modules["shared"]
        legal = np.take_along_axis(part.action_mask[:-1], part.actions[..., None], -1)[..., 0]
        assert legal[part.acted].all()
        if explore and epsilon:  # uniform over the two that are legal
            first = part.action_mask[:-1].argmax(-1)[part.acted]
            some = part.action_mask[:-1].sum(-1)[part.acted] == 2
            assert (part.actions[part.acted] == first)[some].mean() == pytest.approx(0.5, abs=0.06)


# -- circuits


@pytest.mark.parametrize("kind", ["circuit", "classical"])
def test_the_q_network_is_the_circuit_or_an_mlp_of_as_many_parameters_and_the_target_a_copy(kind):
    setup = dqn("pole", circuit={**TINY, "kind": kind})
    (module,) = setup.modules
    assert isinstance(module.policy.head, CircuitNetwork if kind == "circuit" else ParameterMatchedMLP)
    assert count_parameters(module.policy) == count_parameters(module.policy.head)
    assert count_parameters(module.policy) == count_parameters(dqn("pole", circuit=TINY).modules[0].policy)
    assert isinstance(module.target_policy.head, type(module.policy.head))
    start = copy.deepcopy(module.state_dict())
    setup.learner.gradient_step(setup.rows)
    for name, parameter in module.policy.named_parameters():
        assert not torch.equal(parameter, start[f"policy.{name}"]), name
    for name, parameter in module.target_policy.named_parameters():
        assert torch.equal(parameter, start[f"target_policy.{name}"]), name  # its turn has not come
        assert not parameter.requires_grad


@pytest.mark.parametrize(
    ("task", "circuit"), [("pole", TINY), ("discrete", TINY), ("discrete", {**TINY, "kind": "classical"})]
)
def test_a_circuit_learns_from_each_row_by_itself(task, circuit):
    setup = dqn(task, circuit=circuit)
    (module,), rows = setup.modules, setup.rows
    moved_apart(module.target_policy, by=0.5)
    errors = []
    with torch.no_grad():
        for agent in range(rows.obs[0].shape[1]):
            own, later = (module.policy.head(obs[0][:, agent]) for obs in (rows.obs, rows.next_obs))
            values = module.target_policy.head(rows.next_obs[0][:, agent])
            best = values.gather(-1, later.argmax(-1, keepdim=True))[:, 0]
            ahead = rows.discounts[0][:, agent] * rows.present_next[0][:, agent] * best
            chosen = (own * rows.actions[0][:, agent]).sum(-1)
            errors.append(
                torch.nn.functional.smooth_l1_loss(
                    chosen, rows.rewards[0][:, agent] + ahead, reduction="none"
                )
            )
        expected = torch.stack(errors, 1)[rows.acted[0] > 0].mean()
    stats = setup.learner.gradient_step(rows)
    assert float(stats[rows.modules[0], "q_loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_it_is_a_named_algorithm_and_a_circuit_turns_dueling_off():
    assert ALGORITHMS["DQN"] is DQNConfig
    assert DQNConfig().dueling
    assert not DQNConfig().training(circuit=TINY).dueling
    assert DQNConfig().training(circuit=TINY, dueling=True).dueling  # and is then refused
    assert DQNConfig().training(circuit=None).dueling
    experiment(circuit=TINY).validate()
    experiment().validate()


SETTINGS = {
    "num_env_runners": 0,
    "num_envs_per_env_runner": 2,
    "rollout_fragment_length": 4,
    "env_steps_per_update": 2,
    "min_sample_timesteps_per_iteration": 40,
    "num_steps_sampled_before_learning_starts": 16,
    "train_batch_size_per_learner": 8,
    "replay_capacity": 500,
    "exploration": [[0, 1.0], [100, 0.2]],
    "evaluation_interval": 1,
    "evaluation_duration": 2,
    "model_config": {"fcnet_hiddens": [8]},
    "lr": 1e-2,
    "seed": 0,
}


def experiment(env="CartPole-v1", **config):
    return Experiment.from_mapping(
        {"run": "DQN", "env": env, "stop": {"training_iteration": 1}, "config": {**SETTINGS, **config}}
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"amplification": {}}, "amplification: DQN learns values and has no policy of its own"),
        ({"coordination": {}}, "coordination: DQN learns values"),
        ({"entropy_annealing": {"law": "quantum"}}, "entropy_annealing: DQN learns values"),
        ({"normalize_values": True}, "normalize_values: DQN learns values"),
        ({"env": "qubit_control_v0", "central_value": "state"}, "central_value: DQN learns values"),
        ({"circuit": TINY, "dueling": True}, "dueling: a circuit has one head; set dueling to false"),
        ({"circuit": {**TINY, "policy": "born"}}, "circuit.policy: .*allowed: observables, got 'born'"),
        ({"circuit": {"num_qubit": 3}}, "circuit: unknown key 'num_qubit' .did you mean 'num_qubits'"),
        ({"circuit": {"num_qubits": 13}}, "circuit.num_qubits: expected an integer from 1 to 12, got 13"),
        ({"env": "Pendulum-v1"}, "Discrete"),
        ({"circuit": TINY, "model_config": {"use_lstm": True}}, "use_lstm: a circuit has no memory"),
        ({"exploration": None}, "exploration: expected a number"),
        ({"n_step": 0}, "n_step: expected an integer of at least 1, got 0"),
        ({"target_network_update_freq": 0}, "target_network_update_freq: expected an integer of at least 1"),
        ({"epsilon": 0.1}, "epsilon"),
        ({"replay_buffer_config": {}}, "replay_buffer_config"),
        ({"doubel_q": True}, "did you mean 'double_q'"),
    ],
)
def test_what_has_no_place_in_it_is_refused(config, message):
    with pytest.raises(ConfigError, match=message) as caught:
        experiment(**config).validate()
    assert "\n" not in str(caught.value)


# -- runs


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@circuits
def test_it_trains_and_evaluates_reproducibly_from_a_checkpoint(circuit, tmp_path):
    algorithm = experiment(circuit=circuit).validate().build_algo()
    for _ in range(2):
        result = algorithm.train()
    assert math.isfinite(result["learners"]["default_policy"]["q_loss"])
    module = algorithm.learner_group._learner.module["default_policy"].unwrapped()
    for name, value in algorithm.env_runner.module["default_policy"].policy.state_dict().items():
        assert torch.equal(value, module.policy.state_dict()[name])
    assert float(module.policy.exploration) == pytest.approx(1.0 - 0.8 * 80 / 100)
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    more = algorithm.train()["learners"]["default_policy"]
    algorithm.stop()
    policy = load_policy_from_checkpoint(tmp_path / "checkpoint")
    loaded = load_policy(save_policy(policy, tmp_path / "policy.pt"))
    for mode, explore in (("greedy", False), ("sampled", True)):
        rows = evaluate(policy, "CartPole-v1", {}, evaluation_seeds(2), explore)
        scores = mean_scores(rows)
        assert scores == {key: result["evaluation"][mode][key] for key in scores}
        assert evaluate(loaded, "CartPole-v1", {}, evaluation_seeds(2), explore) == rows
    resumed = Algorithm.from_checkpoint(str(tmp_path / "checkpoint"))
    again = resumed.train()["learners"]["default_policy"]
    resumed.stop()
    assert (again["q_loss"], again["q_mean"]) == (more["q_loss"], more["q_mean"])


@pytest.mark.long
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
