"""What rounds of a federation report: scores of clients, traffic, who was lost, what privacy forbids."""

import pickle

import numpy as np
import pytest
from toy_broken import Broken
from toy_federations import POLE, UNEQUAL, federation, trained

import qio_envs
from qio_envs.api import normalized_score, reference_scores
from qio_rllib.algorithms import Federated
from qio_rllib.algorithms.federated_scores import MAX_ENVIRONMENTS, ScoreScales
from qio_rllib.artifacts.metrics import progress_row
from qio_rllib.federated.clients import clients_of
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.evaluation import (
    FIRST_EVALUATION_SEED,
)

pytestmark = pytest.mark.usefixtures("ray_runtime")


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
