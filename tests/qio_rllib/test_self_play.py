"""Self-play in training: who acts with which weights, who learns, and what is reported."""

import dataclasses

import numpy as np
import pytest
import ray
import torch

from qio_envs.api import ConfigError
from qio_rllib.acting.pooled_actor import LEARNING
from qio_rllib.algorithms import A2CConfig, MADDPGConfig, PPOConfig
from qio_rllib.games.self_play import Opponents
from qio_rllib.sampling.rollout import without_snapshots
from qio_rllib.sampling.runner import BatchedEnvRunner

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]

DUEL = {"scenario": "duel", "max_steps": 10}
ENVS = 6


def config_of(config_class=PPOConfig, settings=None, **training):
    return (
        config_class()
        .environment("swarm_competitive_v0", env_config=DUEL)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=ENVS, rollout_fragment_length=10)
        .training(self_play={"current_share": 0.0, **(settings or {})}, **training)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=0)
    )


def weights_of(runner, factor):
    """Return the policy's weights times a factor."""
    module = runner.module["shared"].unwrapped()
    return {"shared": {name: factor * array.numpy() for name, array in module.policy.state_dict().items()}}


def runner_of(factors, **settings):
    """Return a runner against snapshots whose weights are the present ones times some factors."""
    runner = BatchedEnvRunner(config=config_of(settings=settings))
    snapshots = {number: weights_of(runner, factor) for number, factor in enumerate(factors)}
    share = 1.0 / len(factors)
    runner.take_opponents(Opponents(snapshots, dict.fromkeys(snapshots, share), 0.0))
    return runner


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("factors", [[0.0], [3.0, -2.0, 0.0]])
def test_each_agent_acts_with_the_weights_that_it_was_given(factors, memory):
    config = config_of()
    if memory:
        config.rl_module(
            model_config={"fcnet_hiddens": [8], "use_gru": True, "gru_cell_size": 4, "max_seq_len": 5}
        )
    runner = BatchedEnvRunner(config=config)
    snapshots = {number: weights_of(runner, factor) for number, factor in enumerate(factors)}
    runner.take_opponents(Opponents(snapshots, dict.fromkeys(snapshots, 1 / len(factors)), 0.0))
    (rollout,) = runner.sample()
    part = rollout.modules["shared"]
    played = runner._self_play._matchmaker.of_agents()  # of the episodes that begin after the rollout
    assert (played == -1).sum() == ENVS
    learning = part.columns[LEARNING]
    assert (learning.sum(axis=2) == 1).all()
    assert (learning == learning[:1]).all()  # within an episode of ten steps
    policy = runner.module["shared"].unwrapped().policy
    own = {name: array.clone() for name, array in policy.state_dict().items()}
    found = set()
    for factor in [1.0, *factors]:
        policy.load_state_dict({name: factor * array for name, array in own.items()})
        # Without memory what an agent sees is all; with it the first step of an episode.
        steps = 1 if memory else 10
        seen = part.observations[:steps]
        rows = torch.from_numpy(seen.reshape(-1, seen.shape[-1]))
        state = torch.zeros(len(rows), policy.state_size) if memory else None
        with torch.no_grad():
            features, _ = policy.features(rows, state)
            expected = policy.distribution(policy.outputs(features), None, True).numpy()
        expected = expected.reshape(*seen.shape[:3], -1)
        same = np.isclose(part.columns["dist_inputs"][:steps], expected, atol=1e-5).all(axis=(0, 3))
        if factor == 1.0:
            np.testing.assert_array_equal(same, learning[0])
        else:
            assert not (same & learning[0]).any()
            found |= {tuple(place) for place in np.argwhere(same)}
    assert len(found) == ENVS  # every opponent is one of the snapshots


def test_snapshots_do_not_follow_the_present_weights():
    runner = runner_of([1.0])
    before = runner._self_play._actors["shared"].snapshots[0].network.state_dict()
    kept = {name: array.clone() for name, array in before.items()}
    module = runner.module["shared"].unwrapped()
    with torch.no_grad():
        for parameter in module.policy.parameters():
            parameter.add_(1.0)
    for name, array in kept.items():
        if name != "exploration":
            assert torch.equal(before[name], array)
    module.policy.exploration.fill_(0.37)
    assert float(runner._self_play._actors["shared"].snapshots[0].network.exploration) == pytest.approx(0.37)


def test_a_dropped_snapshot_stays_as_long_as_an_episode_against_it_runs():
    runner = runner_of([0.0])
    runner.sample(num_timesteps=5 * ENVS)  # half an episode
    new = {7: weights_of(runner, 2.0)}
    runner.take_opponents(Opponents(new, {7: 1.0}, 0.0))
    actor = runner._self_play._actors["shared"]
    assert set(actor.snapshots) == {0, 7}
    assert set(actor.played.reshape(-1).tolist()) == {-1, 0}
    runner.sample(num_timesteps=5 * ENVS)
    assert set(actor.played.reshape(-1).tolist()) == {-1, 7}
    assert [game.snapshot for game in runner.games()] == [0]
    runner.take_opponents(Opponents(new, {7: 1.0}, 0.0))
    assert set(actor.snapshots) == {7}


def test_games_are_counted_once_with_the_score_of_their_returns():
    runner = runner_of([0.0])
    (rollout,) = runner.sample(num_timesteps=10 * ENVS)
    part = rollout.modules["shared"]
    returns = part.rewards.sum(axis=0)
    mine = np.where(part.columns[LEARNING][0], returns, 0).sum(axis=1)
    scores = 0.5 * (1 + np.sign(mine - (returns.sum(axis=1) - mine)))
    (games,) = runner.games()
    assert (games.played, games.score) == (ENVS, pytest.approx(scores.sum()))
    assert runner.games() == []


def test_rows_of_snapshots_are_not_learned_from():
    runner = runner_of([0.0])
    (rollout,) = runner.sample()
    learned = without_snapshots(rollout).modules["shared"]
    np.testing.assert_array_equal(learned.acted, rollout.modules["shared"].columns[LEARNING])
    assert rollout.modules["shared"].acted.all()  # they acted all the same


@pytest.mark.parametrize("config_class", [PPOConfig, A2CConfig])
def test_an_update_is_that_of_the_rows_of_the_learning_agents(config_class):
    """Whatever opponents saw, did and got changes nothing."""
    batch = {"train_batch_size_per_learner": 60}
    if config_class is PPOConfig:
        batch |= {"minibatch_size": 60, "num_epochs": 1}
    found = []
    for disturbed in (False, True):
        algorithm = config_of(config_class, **batch).build_algo()
        algorithm.opponents.pool.add(algorithm.opponents.present())
        algorithm.opponents.share()
        (rollout,) = algorithm.env_runner.sample()
        if disturbed:
            part = rollout.modules["shared"]
            other = ~part.columns[LEARNING]
            part.rewards[other] += 100.0
            part.actions[other] = 0
            part.columns["logp"][other] -= 3.0
            rollout.modules["shared"] = dataclasses.replace(part)
        algorithm.learner_group.update(episodes=[rollout], minibatch_size=60, num_epochs=1)
        found.append(algorithm.opponents.present()["shared"])
        algorithm.stop()
    for name, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][name])


def test_maddpg_learns_from_the_agents_that_played_with_present_policies():
    config = config_of(
        MADDPGConfig,
        train_batch_size_per_learner=16,
        num_steps_sampled_before_learning_starts=60,
        env_steps_per_update=60,
    )
    found = []
    for disturbed in (False, True):
        algorithm = config.copy().build_algo()
        algorithm.sample(60)
        (rollout,) = algorithm.sample(60)
        algorithm.replay.add(rollout)
        batch = algorithm.replay.sample(16)
        columns = batch.modules["shared"]
        assert 0 < columns[LEARNING].sum() < columns[LEARNING].size
        if disturbed:
            columns["rewards"][~columns[LEARNING]] += 100.0
        algorithm.learn([batch], num_epochs=1)
        found.append(algorithm.opponents.present()["shared"])
        algorithm.stop()
    for name, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][name])


def test_a_run_takes_snapshots_and_reports_its_games():
    config = config_of(
        settings={"snapshot_interval": 2, "pool_size": 2}, train_batch_size_per_learner=60, minibatch_size=60,
        num_epochs=1,
    )  # fmt: skip
    algorithm = config.build_algo()
    first = algorithm.opponents.pool.snapshots[0]["shared"]
    results = [algorithm.train()["self_play"] for _ in range(4)]
    assert [result["pool"] for result in results] == [1, 2, 2, 2]
    assert [result["games"] for result in results] == [0, *[ENVS] * 3] or results[0]["games"] == ENVS
    assert list(algorithm.opponents.pool.snapshots) == [1, 2]
    assert all(0 <= result["score"] <= 1 for result in results if result["games"])
    newest = algorithm.opponents.pool.snapshots[2]["shared"]
    assert any(not np.array_equal(first[name], newest[name]) for name in first)
    present = algorithm.opponents.present()["shared"]
    for name, array in newest.items():
        np.testing.assert_array_equal(array, present[name])
    algorithm.stop()


def test_remote_runners_have_the_pool_and_a_restarted_one_gets_it_again():
    config = config_of(
        settings={"snapshot_interval": None}, train_batch_size_per_learner=120, minibatch_size=60, num_epochs=1
    )  # fmt: skip
    config.env_runners(num_env_runners=1)
    config.fault_tolerance(restart_failed_env_runners=True)
    algorithm = config.build_algo()
    algorithm.train()

    def snapshots(runner):
        return sorted(runner._self_play._actors["shared"].snapshots)

    group = algorithm.env_runner_group
    assert group.foreach_env_runner(snapshots, local_env_runner=False) == [[0]]
    ray.kill(group._worker_manager.actors()[1], no_restart=False)
    for _ in range(20):
        algorithm.train()
        if group.num_healthy_remote_env_runners():
            break
    assert group.foreach_env_runner(snapshots, local_env_runner=False) == [[0]]
    algorithm.stop()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: PPOConfig().environment("CartPole-v1").training(self_play={}),
            "self_play: CartPole-v1 has a single agent; set it to null",
        ),
        (
            lambda c: c.training(team_reward="sum", central_value="state"),
            "self_play: does not go with team_reward; set one of the two to null",
        ),
        (
            lambda c: c.training(counterfactual_baseline={}),
            "self_play: does not go with counterfactual_baseline",
        ),
        (
            lambda c: c.training(self_play={"teams": [["agent_0"], ["agent_9"]]}),
            "self_play.teams: there is no agent 'agent_9'; allowed: agent_0, agent_1",
        ),
        (lambda c: c.training(self_play={"teams": [["agent_0", "agent_1"]]}), "expected at least two teams"),
    ],
)
def test_what_has_no_opponents_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        change(config_of()).validate()
