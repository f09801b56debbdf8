"""`Federated`: clients that train, hosts that train them, and a run that goes on exactly."""

import pickle
import random
import threading

import numpy as np
import pytest
import ray
import torch
from toy_broken import Broken
from toy_federations import FOREST, ON_POLICY, UNEQUAL, federation, trained

from qio_rllib.algorithms import LOCAL_ALGORITHMS, Federated, FederatedConfig
from qio_rllib.algorithms.federated_hosts import ClientHost, Order, Task
from qio_rllib.artifacts.metrics import progress_row
from qio_rllib.learners.common import as_module
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.evaluation import (
    evaluate,
    evaluation_seeds,
    load_policy_from_checkpoint,
    mean_scores,
)

pytestmark = pytest.mark.usefixtures("ray_runtime")

NOTHING = np.zeros(0, np.float32)


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
