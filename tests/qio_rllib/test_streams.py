"""Random numbers: one stream for each purpose and runner, one for each evaluated episode."""

import itertools

import numpy as np
import pytest
from toy_lives import Masked
from toy_runners import MASKED, config_of, forest, learner_of, runner_of

from qio_envs import environment
from qio_rllib.acting.policy import EpisodeStreams
from qio_rllib.algorithms import MADDPGConfig
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.environments import make_vector_env, register_env
from qio_rllib.sampling.evaluation import play_episodes, policy_from_modules
from qio_rllib.sampling.object_vector_env import ObjectVectorEnv
from qio_rllib.sampling.replay import JointReplay
from qio_rllib.sampling.streams import generator, torch_generator

FOREST = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 7, **MASKED}


def first_draws(rng):
    return tuple(rng.integers(2**63, size=4).tolist())


def test_every_purpose_of_one_seed_has_a_stream_of_its_own():
    maddpg = MADDPGConfig().environment("swarm_cooperative_v0").debugging(seed=3)
    runner, other = runner_of(forest()), runner_of(maddpg)
    streams = {
        "runner 0": runner._rng,
        "runner 1": runner_of(forest(), worker_index=1)._rng,
        "runner 2": runner_of(forest(), worker_index=2)._rng,
        "minibatches": learner_of(forest(), runner)._generator,
        "replay": JointReplay(100, 3)._rng,
        "padded": np.random.Generator(np.random.Philox(np.random.SeedSequence(3))),
    }
    evaluation = forest()
    evaluation.in_evaluation = True
    streams["evaluation runner 0"] = runner_of(evaluation)._rng
    draws = {name: first_draws(rng) for name, rng in streams.items()}
    for one, two in itertools.combinations(draws, 2):
        assert draws[one] != draws[two], (one, two)
    noise = learner_of(maddpg, other).noise
    assert noise.initial_seed() == torch_generator(3, "learner noise").initial_seed()
    purposes = ("learner noise", "runner", "replay", "minibatches", "evaluation runner")
    assert len({torch_generator(3, purpose).initial_seed() for purpose in purposes}) == 5


def test_runner_1_of_seed_0_is_not_runner_0_of_seed_1():
    found = {
        (seed, index): first_draws(runner_of(forest().debugging(seed=seed), worker_index=index)._rng)
        for seed in range(3)
        for index in range(3)
    }
    assert len(set(found.values())) == 9


def test_a_stream_repeats_and_without_a_seed_does_not():
    assert first_draws(generator(5, "replay")) == first_draws(generator(5, "replay"))
    assert first_draws(generator(5, "runner", 1, 0)) != first_draws(generator(5, "runner", 1, 40))
    assert first_draws(generator(None, "replay")) != first_draws(generator(None, "replay"))


# -- evaluation ---------------------------------------------------------------------------------------------------


def test_each_episodes_draws_are_those_of_its_seed_alone():
    together = EpisodeStreams([4, 9, 4])
    alone = EpisodeStreams([9])
    for _ in range(3):
        for name, size in (("random", (2,)), ("standard_normal", (2, 5))):
            found = getattr(together, name)((3, *size), np.float32)
            assert (found.dtype, found.shape) == (np.float32, (3, *size))
            np.testing.assert_array_equal(found[0], found[2])
            assert (found[0] != found[1]).any()
            np.testing.assert_array_equal(found[1:2], getattr(alone, name)((1, *size), np.float32))


def team_for(config, env):
    runner = runner_of(config)
    modules = dict(runner.module.items())
    return policy_from_modules(modules, config).team_for(env.agents)


def masked_lives():
    register_env("streams_masked", lambda env_config: Masked())
    return config_of("streams_masked"), lambda count: ObjectVectorEnv(Masked, count)


def batched_forest():
    config = config_of("forest_uav_v0", FOREST)
    make = environment("forest_uav_v0").batched_env
    return config, lambda count: BatchedVectorEnv(make(count, **FOREST))


def forest_of_objects():
    config = config_of("forest_uav_v0", FOREST)
    return config, lambda count: ObjectVectorEnv(
        lambda: environment("forest_uav_v0").parallel_env(**FOREST), count
    )


def spread():
    config = config_of("mpe2.simple_spread_v3", {"max_cycles": 7})
    return config, lambda count: make_vector_env("mpe2.simple_spread_v3", {"max_cycles": 7}, count)


def poles():
    """Episodes of different lengths, each in an object of its own."""
    return config_of("CartPole-v1"), lambda count: make_vector_env("CartPole-v1", {}, count)


def dying_swarm():
    """Episodes of different lengths, all in one batch."""
    settings = {"actions": "discrete", "out_radius": 2.001, "max_steps": 60, "process_noise": 0.3}
    make = environment("swarm_cooperative_v0").batched_env
    return config_of("swarm_cooperative_v0", settings), lambda count: BatchedVectorEnv(
        make(count, **settings)
    )


class Watched:
    """Keeps what the agents of an environment did, by episode."""

    def __init__(self, env):
        self.env, self.moves = env, []
        step = env.step
        env.step = lambda actions: (self.moves.append([a.copy() for _, a in actions]), step(actions))[1]

    def of(self, episode, steps):
        return [[group[episode].tolist() for group in moves] for moves in self.moves[:steps]]


@pytest.mark.parametrize("make", [masked_lives, batched_forest, forest_of_objects, spread])
@pytest.mark.parametrize("explore", [True, False])
def test_an_episode_is_the_same_alone_and_among_others(make, explore):
    config, vector = make()
    seeds = [11, 5, 23, 5]
    env = vector(4)
    watched = Watched(env)
    rows = play_episodes(team_for(config, env), env, seeds, explore)
    assert rows[1] == rows[3]
    for place, seed in enumerate(seeds):
        alone = vector(1)
        watched_alone = Watched(alone)
        assert play_episodes(team_for(config, alone), alone, [seed], explore) == [rows[place]]
        steps = rows[place]["episode_length"]
        assert watched.of(place, steps) == watched_alone.of(0, steps)
    if explore:
        assert watched.of(0, 5) != watched.of(1, 5)


@pytest.mark.parametrize("make", [poles, dying_swarm])
def test_what_follows_an_episode_that_ended_before_others_does_not_count(make):
    config, vector = make()
    seeds = [11, 5, 23, 8]
    env = vector(4)
    rewards, step = [], env.step

    def watched(actions):
        found = step(actions)
        rewards.append(found[0].sum(axis=1, dtype=np.float64))
        return found

    env.step = watched
    rows = play_episodes(team_for(config, env), env, seeds, True)
    lengths = [row["episode_length"] for row in rows]
    assert len(set(lengths)) > 2
    assert len(rewards) == max(lengths)
    for e, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
        expected = sum(gains[e] for gains in rewards[: row["episode_length"]])
        assert row["episode_return"] == pytest.approx(expected)
        alone = vector(1)
        assert play_episodes(team_for(config, alone), alone, [seed], True) == [row]


def test_a_batch_and_single_environments_give_the_same_rows():
    (config, batch), (_, objects) = batched_forest(), forest_of_objects()
    rows = []
    for vector in (batch, objects):
        env = vector(3)
        rows.append(play_episodes(team_for(config, env), env, [4, 5, 6], True))
    assert rows[0] == rows[1]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_training_goes_on_bit_for_bit_the_same_with_and_without_evaluation():
    found = []
    for interval in (None, 1):
        config = forest().evaluation(evaluation_interval=interval, evaluation_duration=3)
        algorithm = config.training(minibatch_size=20).build_algo()
        losses = [algorithm.train()["learners"]["shared"]["total_loss"] for _ in range(3)]
        weights = algorithm.learner_group.get_weights()["shared"]
        found.append((losses, weights, first_draws(algorithm.env_runner._rng)))
        algorithm.stop()
    (losses, weights, draws), (others, other_weights, other_draws) = found
    assert losses == others
    assert draws == other_draws
    for name, value in weights.items():
        np.testing.assert_array_equal(value, other_weights[name])
