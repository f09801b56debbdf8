"""`Federated`: clients that train, hosts that train them, and a run that goes on exactly."""

import pickle
import random
import threading

import numpy as np
import pytest
import ray
import torch
from toy_broken import Broken
from toy_federations import FOREST, LOCAL, ON_POLICY, POLE, federation

import qio_envs
from qio_envs.api import ConfigError, normalized_score, reference_scores
from qio_rllib.algorithms import LOCAL_ALGORITHMS, Federated, FederatedConfig
from qio_rllib.algorithms.federated_hosts import ClientHost, Layouts, Order, Task
from qio_rllib.algorithms.federated_scores import MAX_ENVIRONMENTS, ScoreScales
from qio_rllib.artifacts.metrics import progress_row
from qio_rllib.experiments.experiment import Experiment
from qio_rllib.federated.clients import clients_of
from qio_rllib.learners.common import as_module
from qio_rllib.sampling.environments import make_vector_env, register_env
from qio_rllib.sampling.evaluation import (
    FIRST_EVALUATION_SEED,
    evaluate,
    evaluation_seeds,
    load_policy_from_checkpoint,
    mean_scores,
)
from qio_rllib.sampling.lying_env import lying

pytestmark = pytest.mark.usefixtures("ray_runtime")

NOTHING = np.zeros(0, np.float32)
UNEQUAL = [{"label": "small"}, {"label": "wide", "env_config": {"width": 9, "num_uavs": 2}}]


def trained(config, rounds=1):
    algorithm = config.build_algo()
    results = [progress_row(algorithm.train()) for _ in range(rounds)]
    return algorithm, results


# -- a round is the mean of what clients learn alone ------------------------------------------------------------------


def test_one_client_learns_as_it_would_alone():
    config = federation("PPO", clients=1, local_iterations=3)
    algorithm, _ = trained(config, 2)
    alone = config.client_config(config.all_clients()[0]).build_algo()
    first = config.build_algo()  # whose weights a federation begins with
    modules = as_module(alone.learner_group._learner.module)
    algorithm.layouts.shared.write(modules, first.federated_server.weights)
    alone.env_runner.set_state(
        {"rl_module": alone.learner_group._learner.module.get_state(inference_only=True)}
    )
    for _ in range(6):
        alone.training_step()
    # The server adds differences, which rounds otherwise than the optimizer does.
    np.testing.assert_allclose(
        algorithm.federated_server.weights, algorithm.layouts.shared.read(modules), atol=2e-5
    )
    assert np.abs(algorithm.federated_server.weights - first.federated_server.weights).max() > 1e-3


def test_weights_are_the_mean_of_the_clients():
    config = federation("A2C", clients=4)
    algorithm = config.build_algo()
    first = algorithm.federated_server.weights
    host = ClientHost(algorithm.federation)
    tasks = [Task(client, None) for client in algorithm.clients]
    found = host.train(tasks, Order(0, first, NOTHING))
    algorithm.train()
    mean = np.mean([one.update.vector for one in found], axis=0)
    np.testing.assert_allclose(algorithm.federated_server.weights, first + mean, atol=1e-6)
    vectors = [one.update.vector for one in found]
    assert all(
        not np.array_equal(vectors[0], other) for other in vectors[1:]
    )  # each has its own random numbers


def test_clients_live_in_their_own_environments():
    algorithm, (result,) = trained(federation("PPO", clients=UNEQUAL))
    assert result["num_env_steps_sampled_lifetime"] == 2 * 48
    states = [pickle.loads(algorithm.records[index].state)["env_runner"]["sampling"] for index in (0, 1)]
    # three and two UAVs, in four environments
    assert [state["stepper"]["fresh"].shape for state in states] == [(4, 3), (4, 2)]


def test_the_common_policy_is_what_the_server_has():
    algorithm, _ = trained(federation("A2C"), 2)
    modules = algorithm.common_modules()
    np.testing.assert_array_equal(algorithm.layouts.shared.read(modules), algorithm.federated_server.weights)
    acting = dict(algorithm.env_runner.module.items())["shared"].state_dict()
    for name, value in acting.items():
        assert torch.equal(value, modules["shared"].state_dict()[name])


def test_targets_are_no_part_of_what_is_sent_and_begin_as_the_present_networks():
    config = federation("DQN", clients=1, local={"num_steps_sampled_before_learning_starts": 1000})
    algorithm = config.build_algo()
    assert not any("target" in name for name, _ in algorithm.layouts.shared.shapes)
    weights = algorithm.federated_server.weights + 1
    host = ClientHost(algorithm.federation)
    host.train(
        [Task(algorithm.clients[0], None)], Order(0, weights, NOTHING)
    )  # 48 random steps: nothing is learned yet
    for _, module in host._algorithm.learner_group._learner.module.items():
        for target, present in module.unwrapped().targets():
            for name, value in target.state_dict().items():
                assert torch.equal(value, present.state_dict()[name])


def test_a_round_counts_the_local_iterations_of_the_algorithm():
    local = {"min_sample_timesteps_per_iteration": 100}
    config = federation("DQN", clients=2, local=local, local_iterations=3)
    _, (result,) = trained(config)
    assert result["num_env_steps_sampled_lifetime"] == 2 * 3 * 128  # four rounds of 32 steps reach 100
    assert config.max_env_steps() == 3 * 128


# -- what stays with a client -----------------------------------------------------------------------------------------


def test_personal_parameters_stay_with_their_client():
    config = federation("PPO", clients=UNEQUAL, personal=["value"])
    algorithm, _ = trained(config, 2)
    shared = [name for name, _ in algorithm.layouts.shared.shapes]
    own = [name for name, _ in algorithm.layouts.personal.shapes]
    assert all(".policy." in f".{name}" for name in shared)
    assert all(name.startswith("shared.value.") for name in own)
    personal = [algorithm.records[index].personal for index in (0, 1)]
    assert not np.array_equal(*personal)
    modules = algorithm.client_modules(algorithm.clients[1])
    np.testing.assert_array_equal(algorithm.layouts.personal.read(modules), personal[1])
    np.testing.assert_array_equal(algorithm.layouts.shared.read(modules), algorithm.federated_server.weights)


@pytest.mark.parametrize("optimizer_state", ["keep", "reset"])
def test_the_state_of_optimizers_is_kept_or_not(optimizer_state):
    algorithm, _ = trained(federation("A2C", clients=1, optimizer_state=optimizer_state), 2)
    learner = pickle.loads(algorithm.records[0].state)["learner_group"]["learner"]
    (state,) = learner["optimizer"].values()
    steps = [float(one["step"]) for one in state["state"]["state"].values()]
    assert steps == ([] if optimizer_state == "reset" else [2.0] * len(steps))
    assert bool(steps) == (optimizer_state == "keep")


# -- hosts ------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_any_number_of_hosts_gives_the_same():
    settings = {"clients": 5, "participation": {"clients": 3}, "personal": ["value"]}
    here, results = trained(federation("PPO", **settings), 4)
    there, others = trained(federation("PPO", **settings, num_hosts=2), 4)
    np.testing.assert_array_equal(here.federated_server.weights, there.federated_server.weights)
    assert results[-1]["env_runners/team_return"] == others[-1]["env_runners/team_return"]
    there.stop()


@pytest.mark.long
def test_a_lost_host_costs_time_alone():
    undisturbed, _ = trained(federation("A2C", clients=4), 3)
    disturbed, _ = trained(federation("A2C", clients=4, num_hosts=2), 1)
    generator = random.Random(5)
    for _ in range(2):
        actor = disturbed.hosts._actors.actors()[generator.randrange(2)]
        killing = threading.Timer(generator.random() * 0.2, ray.kill, (actor,), {"no_restart": False})
        killing.start()
        result = progress_row(disturbed.train())
        killing.join()
    assert result["federation/num_lost_hosts_lifetime"] >= 1
    np.testing.assert_array_equal(undisturbed.federated_server.weights, disturbed.federated_server.weights)
    disturbed.stop()


def test_a_round_goes_on_without_those_that_are_late():
    algorithm, (result,) = trained(federation("A2C", num_hosts=1, round_timeout_s=1e-6))
    assert result["federation/num_stragglers"] == 3
    assert result["federation/num_contributors"] == 0
    assert result["federation/num_failed_rounds_lifetime"] == 1
    algorithm.stop()
    _, (result,) = trained(federation("A2C", round_timeout_s=1e-6))  # the first may have begun in time
    assert result["federation/num_stragglers"] >= 2


def test_an_error_of_an_environment_is_not_taken_for_a_lost_host():
    algorithm = federation("A2C", num_hosts=1).build_algo()
    order = Order(0, np.full_like(algorithm.federated_server.weights, np.nan), NOTHING)
    with pytest.raises(Exception, match="finite"):
        algorithm.hosts.train([Task(algorithm.clients[0], None)], order)
    algorithm.stop()


@pytest.mark.parametrize("fault", ["observation", "reward"])
def test_a_client_with_numbers_that_are_not_finite_is_left_out_and_the_round_goes_on(fault):
    register_env("federated_broken", lambda env_config: Broken(env_config.get("fault")))
    local = {**ON_POLICY, "num_envs_per_env_runner": 1, "rollout_fragment_length": 48, "run": "A2C"}
    clients = [{"label": "good", "count": 2}, {"label": "bad", "env_config": {"fault": fault}}]
    config = FederatedConfig().environment("federated_broken", env_config={}).debugging(seed=0)
    algorithm, results = trained(config.training(local=local, clients=clients), 3)
    # Its 55th step is in the second round; behind it stands what it had after the first, so that it fails again.
    assert [result["federation/num_refused"] for result in results] == [0, 1, 1]
    assert [result["federation/num_contributors"] for result in results] == [3, 2, 2]
    assert [result["federation/num_stragglers"] for result in results] == [0, 0, 0]
    assert results[-1]["num_env_steps_sampled_lifetime"] == 7 * 48
    assert len(algorithm.records) == 3


# -- going on ---------------------------------------------------------------------------------------------------------

EXTRAS = {
    "PPO": {"server": {"type": "adam", "lr": 0.01}, "compression": {"type": "top_k", "keep": 0.2}},
    "A2C": {"correction": {"type": "scaffold"}, "dropouts": {"probability": 0.3}, "optimizer_state": "reset"},
    "COMA": {"correction": {"type": "scaffold"}},
    "DQN": {"server": {"momentum": 0.9}},
    "MAAC": {"correction": {"type": "fedprox", "coefficient": 0.1}},
    "MADDPG": {"correction": {"type": "fedprox", "coefficient": 0.1}},
    "MASAC": {"secure": {}, "participation": {"clients": 3}},
    "QMIX": {"compression": {"type": "int8"}},
    "VDN": {},
    "WorldModel": {"aggregation": {"weights": "env_steps"}},
}


LIKE_OTHERS = ("MAAC", "MASAC", "QMIX", "VDN")
"""Local algorithms whose state is kept as that of others here."""


@pytest.mark.parametrize(
    "run",
    [pytest.param(run, marks=[pytest.mark.long] if run in LIKE_OTHERS else []) for run in LOCAL_ALGORITHMS],
)
def test_a_restored_federation_goes_on_exactly(run, tmp_path):
    settings = {"clients": 4, "participation": {"clients": 3 if run == "MASAC" else 2}, **EXTRAS[run]}
    config = federation(run, **settings)
    algorithm, _ = trained(config, 3)
    algorithm.save_to_path(tmp_path / "checkpoint")
    restored = Federated.from_checkpoint(str(tmp_path / "checkpoint"))
    for one in (algorithm, restored):
        for _ in range(3):
            result = progress_row(one.train())
    np.testing.assert_array_equal(algorithm.federated_server.weights, restored.federated_server.weights)
    assert {*algorithm.records} == {*restored.records}
    assert result["federation/round"] == 6
    assert np.abs(algorithm.federated_server.weights - config.build_algo().federated_server.weights).max() > 0


def test_a_checkpoint_is_one_of_the_common_policy(tmp_path):
    algorithm, _ = trained(federation("PPO"))
    algorithm.save_to_path(tmp_path / "checkpoint")
    policy = load_policy_from_checkpoint(tmp_path / "checkpoint")
    seeds = evaluation_seeds(2)
    expected = algorithm.evaluate()
    means = mean_scores(evaluate(policy, "forest_uav_v0", FOREST, seeds, explore=False))
    assert expected["greedy"]["team_return"] == means["team_return"]


# -- what is reported -------------------------------------------------------------------------------------------------


def batched(client, episodes=10):
    return qio_envs.environment(client.env).batched_env(episodes, **client.env_config)


def test_scripted_policies_score_0_and_1_in_environments_that_differ():
    clients = clients_of(
        {"family": "six_forests"}, "forest_uav_v0", {}
    )  # whose best returns differ by a factor of two
    scales = ScoreScales(clients, episodes=12)
    scores = [reference_scores(batched(client, 12), FIRST_EVALUATION_SEED) for client in clients]
    best = {index: max(one.values()) for index, one in enumerate(scores)}
    assert scales.normalized({index: one["random"] for index, one in enumerate(scores)}) == dict.fromkeys(
        range(6), 0.0
    )
    assert scales.normalized(best) == dict.fromkeys(range(6), 1.0)
    halfway = {4: (scores[4]["random"] + best[4]) / 2}
    assert scales.normalized(halfway) == {4: pytest.approx(0.5)}


def test_the_worst_of_some_is_not_given_for_the_worst_of_all():
    register_env("federated_unscripted", lambda env_config: Broken(None))
    mixed = [{"label": "known"}, {"env": "federated_unscripted", "env_config": {}}]
    scales = ScoreScales(clients_of(mixed, "cart_pole_v0", POLE), episodes=2)
    assert {*scales.normalized({0: 20.0})} == {0}
    assert scales.normalized({0: 20.0, 1: 20.0}) == {}
    lengths = [{"env_config": {"max_steps": steps}} for steps in range(10, 10 + MAX_ENVIRONMENTS + 1)]
    many = ScoreScales(clients_of(lengths, "cart_pole_v0", {}), episodes=2)
    assert many.normalized({0: 20.0}) == {}
    equal = ScoreScales(clients_of([{"count": 100}], "cart_pole_v0", POLE), episodes=2)
    assert len(equal.normalized(dict.fromkeys(range(100), 20.0))) == 100


def test_a_round_reports_clients_the_worst_and_the_traffic():
    config = federation("PPO", clients=UNEQUAL, compression={"type": "int8"}, evaluation=10).evaluation(
        evaluation_interval=1
    )
    algorithm, (result,) = trained(config)
    size = algorithm.layouts.shared.size
    scores = [result[f"federation/clients/{label}/team_return"] for label in ("small", "wide")]
    scales = [reference_scores(batched(client), FIRST_EVALUATION_SEED) for client in algorithm.clients]
    ends = [(one["random"], max(one.values())) for one in scales]
    training = [normalized_score(score, *end) for score, end in zip(scores, ends, strict=True)]
    assert result["federation/worst_client_normalized"] == pytest.approx(min(training))
    assert result["env_runners/team_return"] == pytest.approx(np.mean(scores))
    assert result["federation/bytes_down"] == 2 * 4 * size
    assert result["federation/bytes_up"] == 2 * (size + 4 * -(-size // 1024))
    for mode in ("greedy", "sampled"):
        evaluated = [result[f"evaluation/clients/{mode}_team_return/{label}"] for label in ("small", "wide")]
        assert result[f"evaluation/clients/{mode}_team_return/mean"] == pytest.approx(np.mean(evaluated))
        normalized = [normalized_score(score, *end) for score, end in zip(evaluated, ends, strict=True)]
        for label, value in zip(("small", "wide"), normalized, strict=True):
            assert result[f"evaluation/clients/{mode}_normalized/{label}"] == pytest.approx(value)
        assert result[f"evaluation/clients/{mode}_normalized/worst"] == pytest.approx(min(normalized))
        assert result[f"evaluation/clients/{mode}_normalized/mean"] == pytest.approx(np.mean(normalized))
        # the first client lives in the experiment's own forest
        assert evaluated[0] == result[f"evaluation/{mode}/team_return"]


def test_numbers_of_earlier_rounds_are_neither_kept_nor_reported_again():
    config = federation("A2C", clients=2, local={"metrics_num_episodes_for_smoothing": 1})
    algorithm, results = trained(config, 4)
    states = [pickle.loads(algorithm.records[index].state) for index in (0, 1)]
    numbers = states[0]["metrics_logger"]["stats"].values()
    assert max(len(one["values"]) for one in numbers if "values" in one) <= 1
    last = [state["env_runner"]["sampling"]["finished"]["team_return"][-1] for state in states]
    assert results[-1]["env_runners/team_return"] == pytest.approx(np.mean(last))
    assert results[-1]["num_env_steps_sampled_lifetime"] == 4 * 2 * 128


def test_with_privacy_no_number_of_a_client_is_reported():
    privacy = {"clip": 0.5, "noise_multiplier": 1.0, "randomness": "seeded"}
    _, results = trained(federation("PPO", privacy=privacy), 2)
    for result in results:
        assert not [key for key in result if "clients/" in key or "client_" in key or "return" in key]
    assert 0 < results[0]["federation/epsilon_simulated"] < results[1]["federation/epsilon_simulated"]
    assert "federation/epsilon" not in results[1]


def test_lost_clients_are_counted_by_phase():
    _, results = trained(federation("A2C", clients=9, secure={}, dropouts={"probability": 0.4}), 3)
    phases = ("advertise", "share", "upload", "confirm", "unmask")
    lost = np.array([[result[f"federation/num_lost_{phase}"] for phase in phases] for result in results])
    assert lost.sum() > 3
    assert (lost.sum(0) > 0).sum() >= 2


def test_secure_sums_of_groups_are_counted_and_go_on_exactly(tmp_path):
    secure = {"group_size": 4, "threshold": 2}
    config = federation(
        "A2C", clients=12, secure=secure, aggregation={"rule": "median"}, dropouts={"probability": 0.1}
    )
    algorithm, results = trained(config, 3)
    algorithm.save_to_path(tmp_path / "checkpoint")
    restored = Federated.from_checkpoint(str(tmp_path / "checkpoint"))
    others = []
    for _ in range(4):
        results.append(progress_row(algorithm.train()))
        others.append(progress_row(restored.train()))
    np.testing.assert_array_equal(algorithm.federated_server.weights, restored.federated_server.weights)
    assert [result["federation/num_groups"] for result in results] == [3] * 7
    lost, failed = (
        np.array([result[f"federation/{name}"] for result in results])
        for name in ("num_lost_groups", "num_failed_rounds_lifetime")
    )
    # Of three groups a median needs all.
    np.testing.assert_array_equal(np.diff(failed, prepend=0), lost > 0)
    assert 0 < failed[-1] < 7
    assert [result["federation/num_lost_groups"] for result in others] == list(lost[3:])


# -- attacks ----------------------------------------------------------------------------------------------------------


def test_flipped_rewards_are_minus_what_was_paid():
    for attack in (None, "flipped_rewards"):
        env = make_vector_env("cart_pole_v0", POLE, 3)
        env.reset(np.arange(3, dtype=np.uint64))
        index = np.arange(1)
        with lying(env, attack, np.random.default_rng(0)):
            rewards, _, _ = env.step([(index, np.ones((3, 1), np.int64))])
        assert (rewards == (1 if attack is None else -1)).all()
        rewards, _, _ = env.step([(index, np.ones((3, 1), np.int64))])
        assert (rewards == 1).all()  # honest again


def test_random_actions_replace_the_policys_and_are_legal():
    settings = {**FOREST, "obstacle_density": 0.2, "mask_blocked_moves": True}
    env = make_vector_env("forest_uav_v0", settings, 50)
    env.reset(np.arange(50, dtype=np.uint64))
    index, taken = np.arange(3), []
    honest = type(env).step

    def watched(self, actions):
        legal = self.action_mask(index)
        taken.append(actions[0][1].copy())
        assert np.take_along_axis(legal, actions[0][1][..., None], -1).all()
        return honest(self, actions)

    type(env).step, before = watched, type(env).step
    try:
        with lying(env, "random_actions", np.random.default_rng(0)):
            for _ in range(5):
                env.step([(index, np.zeros((50, 3), np.int64))])
    finally:
        type(env).step = before
    assert len(np.unique(np.concatenate(taken))) == 5


@pytest.mark.parametrize("attack", ["flipped_rewards", "random_actions"])
def test_environments_lie_to_malicious_clients_alone(attack):
    honest = federation("A2C", clients=3).build_algo()
    attacked = federation("A2C", clients=3, attack={"type": attack, "clients": [1]}).build_algo()
    for algorithm in (honest, attacked):
        algorithm.train()
    for index in range(3):
        learners = [pickle.loads(one.records[index].state)["learner_group"] for one in (honest, attacked)]
        modules = [learner["learner"]["rl_module"]["shared"] for learner in learners]
        same = all(np.array_equal(value, modules[1][name]) for name, value in modules[0].items())
        assert same == (index != 1)


# -- settings that cannot be used -------------------------------------------------------------------------------------


def experiment(**config):
    settings = {
        "env_config": FOREST,
        "local": {"run": "PPO", **LOCAL["PPO"][2]},
        "clients": [{"count": 4}],
        **config,
    }
    return Experiment.from_mapping(
        {"run": "Federated", "env": "forest_uav_v0", "stop": {"training_iteration": 1}, "config": settings}
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"clients": "six_forrests"},
            "clients.family: unknown family 'six_forrests' (did you mean 'six_forests'?)",
        ),
        ({"clients": None}, "config.clients: expected a text, a mapping or a list, got None"),
        ({"clients": []}, "clients: expected the name of a family or a list of clients, got []"),
        ({"clients": [{"count": 0}]}, "clients[0].count: expected an integer of at least 1, got 0"),
        ({"clients": [{"number": 2}]}, "clients[0]: unknown key 'number'"),
        ({"clients": [{"label": "a"}, {"label": "a"}]}, "clients.label: 'a' stands for 2 clients"),
        (
            {"clients": {"family": "six_forests", "count": 0}},
            "clients.count: expected an integer of at least 1",
        ),
        (
            {"clients": [{"env": "swarm_cooperative_v0"}]},
            "clients: 'client_0' (swarm_cooperative_v0) has shared: observations",
        ),
        ({"clients": [{"env_config": {"hight": 3}}]}, "did you mean 'height'"),
        ({"lr": 1e-3}, "config.lr: a setting of the local algorithm (config.local.lr)"),
        ({"num_env_runners": 2}, "config.num_env_runners: a setting of the local algorithm"),
        ({"local": {"run": "PPO", "lrr": 1e-3}}, "config.local: unknown key 'lrr'"),
        ({"local": {"run": "PPO", "lr": "fast"}}, "config.local.lr"),
        ({"local": {"run": "Federated"}}, "config.local.run: expected one of A2C, COMA, DQN"),
        ({"local": {"run": "PPO", "seed": 3}}, "config.seed: stands beside local, not in it"),
        ({"local": {"run": "PPO", "num_learners": 2}}, "config.local.num_learners: a client is one process"),
        (
            {"local": {"run": "PPO", "normalize_values": True}},
            "config.local.normalize_values: the scale of its values is a client's own",
        ),
        ({"local": {"run": "MADDPG", "amplification": {"eta": -1}}}, "config.local"),
        ({"secure": {}, "clients": [{"count": 2}]}, "secure.min_clients: 2 clients take part"),
        ({"secure": {"threshold": 9}}, "secure.threshold: expected 2 to 3"),
        ({"secure": {}, "aggregation": {"rule": "median"}}, "aggregation.rule: secure gives the sum"),
        ({"secure": {"group_size": 2}}, "secure.group_size: expected an integer of at least 3, got 2"),
        ({"secure": {"group_size": 5}}, "secure.group_size: 4 clients take part in a round"),
        (
            {"secure": {"group_size": 3}, "aggregation": {"rule": "median"}},
            "secure.group_size: median needs at least 3 groups of 3; 4 clients make 1",
        ),
        ({"secure": {}, "compression": {"type": "top_k"}}, "compression.type: with secure"),
        ({"privacy": {"noise_multiplier": 0}}, "privacy.noise_multiplier: expected a number above 0"),
        (
            {"participation": {"probability": 1.2}},
            "participation.probability: expected a probability in (0, 1]",
        ),
        ({"participation": {"clients": 5}}, "participation.clients: there are 4 clients"),
        ({"num_hosts": 100_000}, "config.num_hosts: expected at most the"),
        ({"personal": ["valeu"]}, "personal: no parameter begins with 'valeu'"),
        ({"personal": ["policy", "value"]}, "personal: no parameter is left to be shared"),
        ({"correction": {"type": "fedprox"}}, "correction.coefficient"),
        (
            {"correction": {"type": "fedkl", "coefficient": 1.0}, "local": {"run": "MADDPG"}},
            "correction.type",
        ),
        ({"local_iterations": 0}, "config.local_iterations"),
        ({"round_timeout_s": 0}, "config.round_timeout_s"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_anything_starts(settings, message):
    with pytest.raises(ConfigError) as error:
        experiment(**settings).validate()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["lr", "amplification", "agent_id", "num_epochs"])
def test_settings_of_the_local_algorithm_are_refused_by_the_builder_too(key):
    with pytest.raises(
        ConfigError, match=rf"config.{key}: a setting of the local algorithm \(config.local.{key}\)"
    ):
        FederatedConfig().environment("cart_pole_v0").training(**{key: 1})


def as_file(**config):
    return experiment(**config).algorithm_config()


def as_dictionary(**config):
    given = {
        "env": "forest_uav_v0",
        "env_config": FOREST,
        "local": {"run": "PPO", **LOCAL["PPO"][2]},
        **config,
    }
    return FederatedConfig().update_from_dict(given)


def as_builder(**config):
    built = FederatedConfig().environment("forest_uav_v0", env_config=FOREST)
    return built.training(local={"run": "PPO", **LOCAL["PPO"][2]}, **config)


def as_output(**config):
    return FederatedConfig().update_from_dict(as_builder(**config).to_dict())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("participation", {"clients": 2}),
        ("local_iterations", 3),
        ("num_hosts", 1),
        ("round_timeout_s", 10.0),
        ("aggregation", {"rule": "median"}),
        ("server", {"momentum": 0.5}),
        ("correction", {"type": "fedprox", "coefficient": 0.1}),
        ("compression", {"type": "int8"}),
        ("quantization", {"bound": 1.0}),
        ("secure", {"group_size": 3}),
        ("privacy", {"clip": 0.5}),
        ("attack", {"clients": [1]}),
        ("dropouts", {"probability": 0.2}),
        ("personal", ["value"]),
        ("optimizer_state", "reset"),
        ("evaluation_clients", 2),
    ],
)
def test_a_setting_is_the_same_by_whatever_way_it_comes(key, value):
    default = repr(as_builder(clients=[{"count": 4}]).to_dict()[key])
    for way in (as_file, as_dictionary, as_builder, as_output):
        config = way(clients=[{"count": 4}], **{key: value})
        config.copy(copy_frozen=False).validate()
        assert repr(config.to_dict()[key]) == repr(value) != default


def test_a_file_that_is_right_is_taken():
    config = experiment(
        clients="six_forests",
        correction={"type": "scaffold"},
        server={"type": "adam", "betas": [0.9, 0.99]},
        personal=["value"],
    ).validate()
    assert len(config.all_clients()) == 6
    layouts = Layouts.of(as_module(config.build_algo().learner_group._learner.module), config.personal)
    assert layouts.personal is not None
