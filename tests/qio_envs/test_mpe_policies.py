import numpy as np
import pytest
from mpe_settings import IDS
from scipy.optimize import linear_sum_assignment

from qio_envs import environment, mpe_crypto_v0, mpe_spread_v0, mpe_tag_v0
from qio_envs.api import episode_scores, normalized_score, reference_scores
from qio_envs.mpe.planning import steer, steer_smoothly
from qio_envs.mpe.policies import assignment, flight, pursuit

# Mean scores of the scripted policies over the 200 seeds from 1000 on.
SCORES = {
    "mpe_spread_v0": {"random": -76.6, "nearest": -49.2, "oracle": -21.9},
    "mpe_speaker_listener_v0": {"random": -76.2, "mute": -30.2, "oracle": -13.9},
    "mpe_reference_v0": {"random": -56.6, "mute": -35.0, "oracle": -15.2},
    "mpe_tag_v0": {"random": 9.8, "contest": 64.3, "oracle": 190.3},
    "mpe_world_comm_v0": {"random": 15.4, "contest": 75.8, "oracle": 254.6},
    "mpe_adversary_v0": {"random": 16.7, "contest": 21.8, "oracle": 48.1},
    "mpe_push_v0": {"random": -27.6, "contest": -7.6, "oracle": -7.1},
    "mpe_crypto_v0": {"random": -0.4, "plain": 0.0, "cipher": 48.9, "oracle": 75.7},
}


@pytest.mark.parametrize("env_id", IDS)
def test_mean_scores(env_id):
    scores = reference_scores(environment(env_id).batched_env(200), seed=1000)
    assert scores == pytest.approx(SCORES[env_id], rel=0.01, abs=0.5)
    random, *others, oracle = scores.values()
    assert all(random - 1 < score < oracle for score in others)
    assert normalized_score(oracle, random, oracle) == 1


@pytest.mark.parametrize("scenario", ["default", "continuous"])
@pytest.mark.parametrize("env_id", IDS)
def test_the_oracle_beats_random_play_clearly(env_id, scenario):
    env = environment(env_id).batched_env(60, scenario)
    policies = env.scripted_policies
    gain = episode_scores(env, policies["oracle"]) - episode_scores(env, policies["random"])
    assert gain.mean() > 8 * gain.std() / np.sqrt(60)


@pytest.mark.parametrize("env_id", IDS)
def test_policies_act_in_the_space_and_alike_in_a_batch_and_alone(env_id):
    for scenario in ("default", "continuous"):
        make = environment(env_id).batched_env
        batch, single = make(3, scenario), make(1, scenario)
        for policy in batch.scripted_policies.values():
            batch.reset(40)
            single.reset(42)
            for _ in range(4):
                actions, own = policy(batch).act(), policy(single).act()
                np.testing.assert_array_equal(actions[2], own[0])
                assert all(batch.action_space.contains(action) for action in actions[0])
                if scenario == "default":
                    assert (actions < batch.action_sizes).all()
                batch.step(actions)
                single.step(own)


def test_assignments_are_the_cheapest():
    generator = np.random.default_rng(0)
    for size in (1, 2, 3, 5, 10, 17):
        points, places = generator.uniform(-1, 1, (2, 20, size, 2))
        points[:5] = np.round(points[:5], 1)  # equal costs too
        costs = np.linalg.norm(points[:, :, None] - places[:, None], axis=3)
        chosen = assignment(points, places)
        assert (np.sort(chosen, axis=1) == np.arange(size)).all()
        ours = np.take_along_axis(costs, chosen[:, :, None], axis=2).sum(axis=(1, 2))
        best = [matrix[linear_sum_assignment(matrix)].sum() for matrix in costs]
        np.testing.assert_allclose(ours, best, rtol=1e-12)


def test_agents_that_are_steered_arrive_and_stay():
    for scenario, near in (("default", 0.12), ("continuous", 0.03)):
        env = mpe_spread_v0.batched_env(30, scenario, num_agents=1)
        env.reset(0)
        player = env.scripted_policies["oracle"](env)
        for t in range(25):
            env.step(player.act())
            if t > 17:
                agent, landmark = env.arrays.position.swapaxes(0, 1)
                assert np.linalg.norm(agent - landmark, axis=1).max() < near


def test_steering_brakes_before_the_goal():
    position, goal = np.zeros((1, 1, 2)), np.array([[[0.3, 0.0]]])
    limits = np.array([5.0]), np.array([np.inf])
    moves, push = np.zeros((1, 1), np.int64), np.zeros((1, 1, 2), np.float32)
    for speed, expected in ((0.0, 2), (2.0, 1)):  # to the right from rest, to the left when too fast
        velocity = np.array([[[speed, 0.0]]])
        steer(position, velocity, goal, *limits, moves)
        steer_smoothly(position, velocity, goal, limits[0], push)
        assert moves[0, 0] == expected
        assert np.sign(push[0, 0, 0]) == (1 if expected == 2 else -1)
        assert abs(push[0, 0, 1]) < 1e-6


def test_hunters_lead_and_prey_flees_within_the_square():
    hunters = np.array([[[0.0, 0.0], [1.0, 1.0]]])
    prey, velocity = np.array([[[0.2, 0.0], [0.9, 0.8]]]), np.array([[[1.0, 0.0], [0.0, 0.0]]])
    goals = pursuit(hunters, prey, velocity)
    assert goals[0, 0, 0] > 0.2
    np.testing.assert_array_equal(goals[0, 1], prey[0, 1])
    places = flight(prey, hunters)
    assert np.abs(places).max() <= 0.85
    away = np.linalg.norm(places[:, :, None] - hunters[:, None], axis=3).min(axis=2)
    assert (away > np.linalg.norm(prey[:, :, None] - hunters[:, None], axis=3).min(axis=2)).all()


def test_flight_helps_the_hunted():
    env = mpe_tag_v0.batched_env(100)
    policies = env.scripted_policies
    caught = {name: episode_scores(env, policies[name]).mean() for name in ("oracle", "contest")}
    assert caught["contest"] < 0.5 * caught["oracle"]


def test_who_has_the_key_reads_the_cipher_and_who_has_not_guesses():
    env = mpe_crypto_v0.batched_env(400)
    errors = {}
    for name in ("plain", "cipher"):
        episode_scores(env, env.scripted_policies[name])
        info = env.info()
        errors[name] = info["error"].mean(), info["adversary_error"].mean()
    assert errors["plain"][0] == errors["plain"][1] < 0.1  # wrong in the first step alone
    assert errors["cipher"][0] < 0.1
    assert errors["cipher"][1] == pytest.approx(1.0, abs=0.15)  # half of the time wrong, by 2
