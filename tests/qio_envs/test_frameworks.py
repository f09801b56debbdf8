"""Our environments within wrappers, loops and environments of other frameworks."""

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
import supersuit
import torch
from gymnasium.wrappers import RecordVideo, RenderCollection
from gymnasium.wrappers.vector import NormalizeObservation, RecordEpisodeStatistics
from torchrl.envs import GymEnv
from torchrl.envs.utils import check_env_specs

from qio_envs import forest_uav_v0, skirmish_v0, swarm_cooperative_v0
from qio_envs.adapters.tuple_env import TupleEnv
from qio_envs.api import ResetNeededError

SMALL = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 5}
SOLO = {"scenario": "solo", "max_steps": 5}


def test_torchrl_makes_it_by_its_name():
    env = GymEnv("qio_envs/ForestUAV-v0", **SOLO)
    check_env_specs(env)
    env.set_seed(3)
    rollout = env.rollout(20)
    assert rollout.batch_size == torch.Size([5])
    assert rollout["next", "truncated"].flatten().tolist() == [False] * 4 + [True]
    assert not rollout["next", "terminated"].any()
    plain = gymnasium.make("qio_envs/ForestUAV-v0", **SOLO)
    assert rollout["observation"].shape[1:] == plain.observation_space.shape
    env.close()


def test_black_death_keeps_dead_agents_in_place():
    settings = {"max_steps": 12, "out_radius": 2.02}
    env = supersuit.black_death_v3(swarm_cooperative_v0.parallel_env(**settings))
    alone = swarm_cooperative_v0.parallel_env(**settings)
    missing = 0
    for seed in range(3):
        seen, expected = env.reset(seed=seed)[0], alone.reset(seed=seed)[0]
        while alone.agents:
            for agent, row in seen.items():
                np.testing.assert_array_equal(row, expected.get(agent, np.zeros_like(row)))
            actions = {agent: np.ones(env.action_space(agent).shape, np.float32) for agent in env.agents}
            seen, rewards, *_ = env.step(actions)
            expected, own, *_ = alone.step({agent: actions[agent] for agent in alone.agents})
            missing += len(alone.possible_agents) - len(own)
            for agent, reward in rewards.items():
                assert reward == own.get(agent, 0)
    assert missing  # somebody has left before the others


@pytest.mark.parametrize("family", [forest_uav_v0, skirmish_v0])
def test_an_empty_step_after_the_end_does_nothing(family):
    env = family.parallel_env(max_steps=2)
    with pytest.raises(ResetNeededError):
        env.step({})
    env.reset(seed=0)
    while env.agents:
        actions = {agent: int(np.flatnonzero(mask_of(env, agent))[0]) for agent in env.agents}
        env.step(actions)
    before = env.get_state()
    assert env.step({}) == ({}, {}, {}, {}, {})
    np.testing.assert_equal(env.get_state(), before)
    with pytest.raises(ResetNeededError):
        env.step(dict.fromkeys(env.possible_agents, 0))


def mask_of(env, agent):
    legal = env.batch.action_mask() if env.batch.has_action_mask else None
    index = env.possible_agents.index(agent)
    return np.ones(env.action_space(agent).n) if legal is None else legal[0, index]


def test_gymnasiums_vector_wrappers_take_our_batches():
    # These wrappers take environments that begin anew in the next step, Gymnasium's default, not in the same one.
    plain = gymnasium.make_vec("qio_envs/ForestUAV-v0", num_envs=4, vectorization_mode="sync", **SOLO)
    env = NormalizeObservation(RecordEpisodeStatistics(plain))
    rows, _ = env.reset(seed=0)
    ends = 0
    for _ in range(42):  # an episode takes five steps and one for the reset
        rows, _, _, truncated, infos = env.step(env.action_space.sample())
        ends += int(truncated.sum())
        if truncated.any():
            assert (infos["episode"]["l"][truncated] == 5).all()
    assert ends == 28
    assert rows.shape == plain.observation_space.shape
    assert np.abs(rows).max() < 20
    assert env.obs_rms.count > 160


def test_rendering_wrappers_get_frames():
    env = RenderCollection(gymnasium.make("qio_envs/ForestUAV-v0", render_mode="rgb_array", **SOLO))
    env.reset(seed=0)
    for _ in range(3):
        env.step(0)
    frames = env.render()
    assert len(frames) == 4
    assert {frame.shape for frame in frames} == {frames[0].shape}
    assert frames[0].dtype == np.uint8
    assert frames[0].ndim == 3
    env.close()


def test_gymnasiums_recorder_writes_a_film_of_each_episode(tmp_path):
    plain = gymnasium.make("qio_envs/ForestUAV-v0", render_mode="rgb_array", **SOLO)
    env = RecordVideo(plain, str(tmp_path), episode_trigger=lambda episode: True)
    for seed in range(2):
        env.reset(seed=seed)
        while not env.step(0)[3]:
            pass
    height, width = plain.render().shape[:2]
    env.close()
    films = sorted(tmp_path.glob("*.mp4"))
    assert len(films) == 2
    for film in films:
        about, *frames = imageio_ffmpeg.read_frames(str(film))
        assert about["size"] == (width, height)
        assert about["fps"] == plain.metadata["render_fps"]
        assert len(frames) == 6  # of the reset, and of five steps
        assert np.ptp(np.frombuffer(frames[0], np.uint8)) > 100


def test_a_loop_over_tuples_plays_what_the_parallel_environment_plays():
    gymnasium.register("tuple_forest-v0", entry_point=lambda **kw: TupleEnv(forest_uav_v0.parallel_env(**kw)))
    env = gymnasium.make("tuple_forest-v0", disable_env_checker=True, **SMALL)
    alone = forest_uav_v0.parallel_env(**SMALL)
    assert len(env.action_space) == env.unwrapped.n_agents == 3
    seen, _ = env.reset(seed=4)
    expected, _ = alone.reset(seed=4)
    done, steps = False, 0
    while not done:
        assert env.observation_space.contains(seen)
        np.testing.assert_equal(seen, tuple(expected.values()))
        actions = [int(space.sample()) for space in env.action_space]
        seen, rewards, terminated, truncated, info = env.step(actions)
        expected, own, *_, infos = alone.step(dict(zip(alone.agents, actions, strict=True)))
        assert rewards == list(own.values())
        assert info == infos["uav_0"]
        done, steps = terminated or truncated, steps + 1
    assert (steps, terminated, truncated) == (5, False, True)
    with pytest.raises(ValueError, match="expected one for each of 3 agents, got 2"):
        env.unwrapped.step([0, 0])


def test_an_agent_that_has_ended_stands_in_a_tuple_as_zeros():
    env = TupleEnv(swarm_cooperative_v0.parallel_env(max_steps=12, out_radius=2.02))
    gone = 0
    for seed in range(3):
        env.reset(seed=seed)
        done = False
        while not done:
            before = list(env.env.agents)
            seen, rewards, terminated, truncated, _ = env.step(
                [np.ones(s.shape, np.float32) for s in env.action_space]
            )
            done = terminated or truncated
            for agent, row, reward in zip(env.agents, seen, rewards, strict=True):
                if agent not in before:
                    gone += 1
                    assert not row.any()
                    assert reward == 0.0
    assert gone
